"""Advantages: how much better an answer was than the others to the same question. Pure functions."""

import torch
from torch import Tensor


def group_advantages(rewards_QG: Tensor, divide_by_std: bool = True, epsilon: float = 1e-4) -> Tensor:
    """GRPO's advantage A_i = (R_i - mean(R)) / std(R) within each group (arXiv 2402.03300, section 4.1.2).

    rewards_QG: (questions, answers a question), FP32 -> the same shape. The std is the sample's (divided by G - 1),
    as in TRL and verl; `divide_by_std=False` leaves it out (Dr. GRPO, arXiv 2503.20783). A group in which all
    rewards are equal has nothing to teach and gets zeros.
    """
    centred = (rewards_QG - rewards_QG.mean(dim=1, keepdim=True)) * informative(rewards_QG).unsqueeze(1)
    if not divide_by_std:
        return centred
    return centred / (rewards_QG.std(dim=1, keepdim=True) + epsilon)


def informative(rewards_QG: Tensor) -> Tensor:
    """Which groups have answers of different reward: (questions,) bool."""
    return rewards_QG.max(dim=1).values > rewards_QG.min(dim=1).values + torch.finfo(rewards_QG.dtype).eps
