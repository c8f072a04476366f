"""AdamW as V3 uses it, and the step that every stage shares."""

import torch
from torch import nn

from kogia.errors import DivergedError
from kogia.models.decoder import Decoder


def adamw(model: nn.Module, weight_decay: float = 0.1) -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.95; matrices decay, norms do not (arXiv 2412.19437, section 4.2)."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, fused=True)


def apply_step(
    model: Decoder, optimizer: torch.optim.Optimizer, rate: float, clip: float = 1.0, bias_speed: float = 0.0
) -> float:
    """Clip the gradients, step the optimiser, move the balancing biases, clear the gradients.

    Returns the gradient norm before clipping.

    Raises:
        DivergedError: the norm is not finite; the weights are left as they were.
    """
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), clip))
    if not norm < float("inf"):
        raise DivergedError(f"the gradient norm is {norm}: lower the learning rate; the weights were not touched")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for moe in model.experts():
        moe.update_bias(bias_speed)
    return norm
