"""Conversations as padded batches with a loss mask: only what the assistant says is learned."""

from collections.abc import Sequence

import torch
from torch import Tensor

IGNORE = -100
BLOCK = 16  # widths are multiples of this, so that training meets few different shapes (see models/moe.ROUND_TO)


def pad_batch(
    prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], pad: int, extra: int = 0
) -> tuple[Tensor, Tensor]:
    """Right-pad prompt + reply.

    Returns tokens (B, T + 1 + extra) and labels of the same shape, int64, where T is a multiple of BLOCK and labels are
    the tokens of the reply at their own positions and -100 elsewhere. `extra` more columns of padding give MTP its
    further targets. A causal model never looks right, so the padding needs no attention mask.
    """
    longest = max(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
    width = -(-(longest - 1) // BLOCK) * BLOCK + 1 + extra
    tokens = torch.full((len(prompts), width), pad)
    labels = torch.full((len(prompts), width), IGNORE)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        end = len(prompt) + len(reply)
        tokens[row, :end] = torch.tensor([*prompt, *reply])
        labels[row, len(prompt) : end] = torch.tensor(reply)
    return tokens, labels
