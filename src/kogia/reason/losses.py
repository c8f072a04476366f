"""The GRPO objective. Pure functions on log-probabilities; no model in sight."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """`loss` to minimise; the rest, detached, to watch. All are sums, so micro-batches simply add up."""

    loss: Tensor
    clipped: Tensor
    kl: Tensor


def grpo_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_B: Tensor,
    weight_BT: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    reference_logp_BT: Tensor | None = None,
    kl_weight: float = 0.0,
) -> PolicyLoss:
    """-sum_t w_t ( min(r_t A, clip(r_t, 1 - clip_low, 1 + clip_high) A) - kl_weight * KL_t ) over a (micro-)batch.

    arXiv 2402.03300, equation 3, with r = exp(logp - old_logp) and the k3 estimator of the KL divergence from the
    reference, exp(d) - d - 1 with d = reference_logp - logp (equation 4). logp_BT: (B, T) with a gradient; `weight_BT`
    says what each token counts (see `token_weights`); 0 where there is no token. All FP32.
    """
    ratio = torch.exp(logp_BT - old_logp_BT)
    advantage = advantage_B.unsqueeze(-1)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    kl = torch.zeros_like(logp_BT)
    if reference_logp_BT is not None:
        d = reference_logp_BT - logp_BT
        kl = torch.exp(d) - d - 1.0
        objective = objective - kl_weight * kl
    used = weight_BT > 0
    was_clipped = (clipped * advantage < ratio * advantage) & used
    return PolicyLoss(-(objective * weight_BT).sum(), was_clipped.sum(), (kl.detach() * used).sum())


def token_weights(mask_BT: Tensor, normalise: str, batch_sequences: int, batch_tokens: int) -> Tensor:
    """What each token counts in the mean over a whole batch, of which `mask_BT` may be a micro-batch.

    normalise: "sequence" averages within each answer and then over answers (GRPO); "token" averages over all tokens
    of the batch (DAPO, arXiv 2503.14476). mask_BT: (B, T) of 0 and 1 -> (B, T) FP32.
    """
    mask = mask_BT.float()
    if normalise == "sequence":
        return mask / (mask.sum(dim=1, keepdim=True).clamp(min=1.0) * batch_sequences)
    if normalise == "token":
        return mask / max(batch_tokens, 1)
    raise ValueError(f'normalise is {normalise!r}: it must be "sequence" or "token"')
