"""Advantages by hand."""

import pytest
import torch

from kogia.reason.advantages import group_advantages, informative


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        # mean 1/2, std of the sample sqrt(1/3): 0.5 / (0.57735 + 1e-4)
        ([1, 0, 0, 1], [0.8659, -0.8659, -0.8659, 0.8659]),
        # mean 1/4, std of the sample 1/2: 0.75 / 0.5001 and -0.25 / 0.5001
        ([0, 0, 0, 1], [-0.4999, -0.4999, -0.4999, 1.4997]),
        ([0, 2], [-0.7071, 0.7071]),
        ([0, 0.5, 1], [-0.9998, 0.0, 0.9998]),
    ],
)
def test_by_hand(rewards, expected):
    assert group_advantages(torch.tensor([rewards]).float())[0].tolist() == pytest.approx(expected, abs=5e-5)


def test_epsilon_is_all_that_keeps_them_from_the_exact_values():
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1]])
    exact = torch.tensor([[0.75**0.5, -(0.75**0.5), -(0.75**0.5), 0.75**0.5], [-0.5, -0.5, -0.5, 1.5]])
    torch.testing.assert_close(group_advantages(rewards, epsilon=0.0), exact)


def test_without_the_standard_deviation():
    assert group_advantages(torch.tensor([[1.0, 0, 0, 1]]), divide_by_std=False)[0].tolist() == [0.5, -0.5, -0.5, 0.5]


def test_groups_do_not_mix():
    rewards = torch.rand(5, 8)
    each = torch.cat([group_advantages(row.unsqueeze(0)) for row in rewards])
    assert torch.equal(group_advantages(rewards), each)
    torch.testing.assert_close(each.sum(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(each.std(1), torch.ones(5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("divide_by_std", [True, False])
def test_a_group_of_equal_rewards_teaches_nothing(divide_by_std):
    """Exactly zero, or such answers are computed in vain and pulled at with noise: 16 times 1.7 has a mean that
    differs from 1.7 in the last bit, and the same standard deviation divides that up to 0.001."""
    wrong = {}
    for value in (0.0, 1.0, 0.5, 0.1, 0.7, 1.7, 2.0, 1 / 3):
        for group in (2, 3, 4, 5, 7, 8, 16, 64):
            found = group_advantages(torch.full((1, group), value), divide_by_std)
            if found.any():
                wrong[value, group] = found[0, 0].item()
    assert not wrong


def test_informative():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.7, 0.7], [1.0, 1.5]])
    assert informative(rewards).tolist() == [False, False, True, False, True]
