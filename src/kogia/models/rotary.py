"""Rotary position embedding on interleaved pairs, as DeepSeek's checkpoints have it."""

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles p * theta^(-2i/dim), i < dim/2 (arXiv 2104.09864, equation 15).

    positions: integers of any shape (...) -> two FP32 tensors (..., dim/2).
    """
    frequencies = theta ** -(torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim)
    angles = positions.float().unsqueeze(-1) * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i+1]) by its angle.

    x: (..., dim); cos, sin: broadcastable to (..., dim/2) -> (..., dim) in x's dtype. The pairs lie side by side
    (interleaved); a half-split rotation of the same checkpoint gives wrong attention, which is a classic trap.
    """
    cos, sin = cos.to(x.dtype).repeat_interleave(2, -1), sin.to(x.dtype)
    sin = torch.stack((-sin, sin), dim=-1).flatten(-2)
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cos + swapped * sin
