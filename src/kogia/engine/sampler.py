"""From logits to tokens, row by row, without a shared random state."""

import numpy as np
import torch
from torch import Tensor

COLDEST = 1e-5  # below this, dividing by a temperature leaves the range of FP32


def uniforms(seeds_B: np.ndarray, positions_B: np.ndarray) -> Tensor:
    """One uniform number in [0, 1) for each (seed, position): SplitMix64 as a counter-based generator.

    A token's random number depends on nothing but its own request, so neither the batch it runs in nor the order of
    requests can change an answer. seeds, positions: (B,) integers -> (B,) float64.
    """
    with np.errstate(over="ignore"):
        x = seeds_B.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03) + positions_B.astype(np.uint64)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return torch.from_numpy((x >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def sample(logits_BV: Tensor, temperature_B: Tensor, top_p_B: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """Choose a token a row by inverting the cumulative distribution.

    logits_BV: FP32; a temperature of 0 (or under COLDEST) takes the most likely token. Returns tokens (B,) int64 and
    the log-probability of each at its temperature (at 1 where greedy), before top-p, FP32 (B,).
    """
    greedy = temperature_B < COLDEST
    logp = torch.log_softmax(logits_BV / torch.where(greedy, 1.0, temperature_B).unsqueeze(-1), dim=-1)
    p = logp.exp()
    if bool((top_p_B < 1).any()):
        p = _nucleus(p, top_p_B)
    cumulative = p.double().cumsum(-1)
    target = uniform_B.unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=p.shape[-1] - 1)
    tokens = torch.where(greedy, logits_BV.argmax(-1), tokens)
    return tokens, logp.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _nucleus(p_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """Zero all but the smallest set of most likely tokens whose probabilities reach top_p."""
    ordered, index = p_BV.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(p_BV).scatter_(
        -1, index, ordered.masked_fill(before >= top_p_B.clamp(min=COLDEST).unsqueeze(-1), 0.0)
    )
