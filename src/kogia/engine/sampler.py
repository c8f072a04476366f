"""From logits to tokens, row by row, without a shared random state.

A row's token and log-probability are functions of that row alone, bit for bit: only operations are used whose order
of summation within a row depends neither on the other rows nor on the number of threads (`torch.sum` over a whole row
and `torch.logsumexp` are not among them: alone in the batch, a long row is split between the threads).
"""

import numpy as np
import torch
from torch import Tensor

COLDEST = 1e-5  # below this, dividing by a temperature leaves the range of FP32
_BLOCK = 64  # probabilities that are summed at once before one block is looked at closely
_SLACK = 0.5  # how much of the mass beyond the nucleus may hide under the cutoff, so that rounding cannot matter


def uniforms(seeds_B: np.ndarray, positions_B: np.ndarray) -> Tensor:
    """One uniform number in [0, 1) for each (seed, position): SplitMix64 as a counter-based generator.

    A token's random number depends on nothing but its own request, so neither the batch it runs in nor the order of
    requests can change an answer. seeds, positions: (B,) integers -> (B,) float64.
    """
    with np.errstate(over="ignore"):
        x = seeds_B.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03) + positions_B.astype(np.uint64)
        x = _mixed(x)
    return torch.from_numpy((x >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def sibling_seed(seed: int, j: int) -> int:
    """The seed of the j-th of n samples of one request: `seed` itself for the first, then a mix of both, 63 bits."""
    if j == 0:
        return seed
    with np.errstate(over="ignore"):
        x = _mixed(_mixed(np.array([seed % 2**64], dtype=np.uint64)) + np.array([j], dtype=np.uint64))
    return int(x[0] >> np.uint64(1))


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample(
    logits_BV: Tensor,
    temperature_B: Tensor,
    top_p_B: Tensor,
    uniform_B: Tensor,
    top_k_B: Tensor | None = None,
    min_p_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose a token a row by inverting the cumulative distribution.

    logits_BV: FP32; a temperature of 0 (or under COLDEST) takes the most likely token, the first of equals. Unlikely
    tokens are cut off at that temperature, in this order: those under min_p times the most likely one's probability
    (0: none), all but the top_k most likely (0: none; of equals the first ones stay), all but the smallest set of most
    likely ones that reaches top_p of what is left. Returns tokens (B,) int64 and the log-probability of each at its
    temperature (at 1 where greedy), before anything was cut off, FP32 (B,).

    A row with NaN or +inf yields some token and NaN; it is the caller's to find out.
    """
    greedy = temperature_B < COLDEST
    if bool(greedy.all()):
        return _argmax(logits_BV), torch.softmax(logits_BV, dim=-1).amax(-1).log()
    p = torch.softmax(logits_BV / torch.where(greedy, 1.0, temperature_B).unsqueeze(-1), dim=-1)
    cut = (top_p_B < 1) | (torch.zeros_like(greedy) if top_k_B is None else top_k_B > 0)
    cut = (cut if min_p_B is None else cut | (min_p_B > 0)) & ~greedy
    if bool(cut.any()):
        truncate(p, cut, top_p_B, top_k_B, min_p_B)
    tokens = _draw(p, uniform_B)
    if bool(greedy.any()):
        tokens = torch.where(greedy, _argmax(logits_BV), tokens)
    return tokens, p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()


def top_logprobs(logits_V: Tensor, temperature: float, k: int) -> list[tuple[int, float]]:
    """The k most likely tokens of one row and their log-probabilities, as `sample` reports them, the likeliest first.

    Of equals the first come first. Tokens that are impossible (-inf) are left out, so it may be fewer than k.
    """
    logp = torch.log_softmax(logits_V if temperature < COLDEST else logits_V / temperature, dim=-1).cpu().numpy()
    k = min(k, len(logp))
    if k == 0:
        return []
    least = np.partition(logp, len(logp) - k)[len(logp) - k]
    ids = np.flatnonzero((logp >= least) & np.isfinite(logp))
    return [(int(id), float(logp[id])) for id in ids[np.argsort(-logp[ids], kind="stable")[:k]]]


def _argmax(logits_BV: Tensor) -> Tensor:
    """The first largest of each row. NumPy's is vectorised, PyTorch's on the CPU is not (16 rows of 49,152: 1.1 ms)."""
    if logits_BV.is_cuda:
        return logits_BV.argmax(-1)
    return torch.from_numpy(np.asarray(logits_BV.detach().numpy().argmax(-1), dtype=np.int64))


def _draw(p_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Invert the cumulative distribution of each row of weights: first the block is found, then the token inside it.

    Sums beyond a block are FP64. A weight of zero is never taken, whatever rounding does.
    """
    size = p_BV.shape[-1]
    whole = size - size % _BLOCK
    sums = p_BV[:, :whole].unflatten(-1, (-1, _BLOCK)).sum(-1)
    if whole < size:
        sums = torch.cat((sums, p_BV[:, whole:].sum(-1, keepdim=True)), -1)
    ends = sums.cpu().numpy().cumsum(-1, dtype=np.float64)
    target = uniform_B.cpu().numpy() * ends[:, -1]
    block = _invert(ends, target)
    before = np.where(block > 0, ends[np.arange(len(block)), block - 1], 0.0)
    inside = block[:, None] * _BLOCK + np.arange(_BLOCK)
    index = torch.from_numpy(np.minimum(inside, size - 1)).to(p_BV.device)
    weights = p_BV.gather(-1, index).cpu().numpy() * (inside < size)
    tokens = block * _BLOCK + _invert(weights.cumsum(-1, dtype=np.float64), target - before)
    return torch.from_numpy(np.minimum(tokens, size - 1)).to(p_BV.device)


def _invert(ends_BN: np.ndarray, target_B: np.ndarray) -> np.ndarray:
    """Index of the first end beyond the target; where rounding put the target beyond all, of the last weight that is
    not zero."""
    last = (ends_BN < ends_BN[:, -1:]).sum(-1)
    return np.minimum((ends_BN <= target_B[:, None]).sum(-1), last)


def truncate(p_BV: Tensor, cut_B: Tensor, top_p_B: Tensor, top_k_B: Tensor | None, min_p_B: Tensor | None) -> None:
    """Zero what min-p, top-k and top-p cut off, in place, in the rows where `cut` is set. p: probabilities, FP32."""
    rows = cut_B.nonzero().squeeze(-1).tolist()
    top_p = top_p_B.tolist()
    top_k = [0] * len(top_p) if top_k_B is None else top_k_B.tolist()
    min_p = [0.0] * len(top_p) if min_p_B is None else min_p_B.tolist()
    if p_BV.is_cuda:
        host = p_BV.cpu()
        truncate(host, cut_B.cpu(), top_p_B, top_k_B, min_p_B)
        p_BV.copy_(host)
        return
    p = p_BV.detach().numpy()
    for row in rows:
        _truncate_row(p[row], top_p[row], int(top_k[row]), min_p[row])


def _truncate_row(p_V: np.ndarray, top_p: float, top_k: int, min_p: float) -> None:
    """One row of `truncate`. Only candidates are sorted: what is too small to be in the nucleus never is.

    Were a token under (1 - top_p) / V in the nucleus, it and all smaller ones together would weigh less than
    1 - top_p, so that the others had reached top_p before it came.
    """
    least = max(np.float32(min_p) * p_V.max(), _cutoff(top_p, top_k, min_p, len(p_V)))
    if not top_k and top_p >= 1:
        p_V *= p_V >= least
        return
    kept = p_V.compress(p_V >= least)
    if top_k and top_k < len(kept):
        kept = np.partition(kept, len(kept) - top_k)[len(kept) - top_k :]
    if top_p < 1 and len(kept):
        kept = np.sort(kept)[::-1]
        ends = kept.cumsum(dtype=np.float64)
        total = ends[-1] if top_k or min_p else 1.0  # the mass that top_p is a share of
        kept = kept[: 1 + int(np.searchsorted(ends[:-1], max(top_p, COLDEST) * total))]
    if len(kept):
        _keep(p_V, kept.min(), len(kept))


def _cutoff(top_p: float, top_k: int, min_p: float, size: int) -> np.float32:
    """What is smaller cannot be in the nucleus. 0 where top-k or min-p change the mass that top_p is a share of."""
    alone = not top_k and not min_p and top_p < 1 - 1e-5  # closer to 1, FP32 rounding of the sum would matter
    return np.float32(_SLACK * (1 - top_p) / size) if alone else np.float32(0)


def _keep(p_V: np.ndarray, least: np.float32, count: int) -> None:
    """Zero all under `least`, and the last ones that equal it until `count` are left."""
    inside = p_V >= least
    p_V *= inside
    spare = int(np.count_nonzero(inside)) - count
    if spare > 0:
        p_V[np.flatnonzero(p_V == least)[-spare:]] = 0.0
