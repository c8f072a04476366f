"""Rotary embedding, by hand."""

import math

import pytest
import torch

from kogia.models.rotary import rotary_angles, rotate


def test_angles_by_hand():
    """dim 4, theta 100: frequencies 1 and 1/10."""
    cos, sin = rotary_angles(torch.tensor([0, 1, 20]), 4, 100.0)
    expected = torch.tensor([[0.0, 0.0], [1.0, 0.1], [20.0, 2.0]])
    torch.testing.assert_close(cos, expected.cos(), rtol=0, atol=2e-6)
    torch.testing.assert_close(sin, expected.sin(), rtol=0, atol=2e-6)


def test_pairs_lie_side_by_side():
    """(x0, x1) and (x2, x3) are pairs; a half-split rotation would pair (x0, x2) and (x1, x3)."""
    cos, sin = rotary_angles(torch.tensor([1]), 4, 100.0)
    turned = rotate(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), cos, sin)[0].tolist()
    assert turned == pytest.approx([math.cos(1.0), math.sin(1.0), -math.sin(0.1), math.cos(0.1)], abs=1e-6)


def test_position_zero_changes_nothing_and_lengths_stay():
    x = torch.randn(3, 5, 8)
    cos, sin = rotary_angles(torch.arange(5), 8, 10000.0)
    turned = rotate(x, cos, sin)
    assert torch.equal(turned[:, 0], x[:, 0])
    pairs = x.unflatten(-1, (-1, 2)).norm(dim=-1)
    torch.testing.assert_close(turned.unflatten(-1, (-1, 2)).norm(dim=-1), pairs)


@pytest.mark.parametrize("shift", [1, 7, 100])
def test_products_depend_on_the_distance_only(shift):
    q, k = torch.randn(8), torch.randn(8)

    def product(i: int, j: int) -> float:
        cos, sin = rotary_angles(torch.tensor([i, j]), 8, 10000.0)
        a, b = rotate(torch.stack((q, k)), cos, sin)
        return float(a @ b)

    assert product(5 + shift, 2 + shift) == pytest.approx(product(5, 2), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 4), abs=1e-4)


def test_half_precision_keeps_its_dtype():
    cos, sin = rotary_angles(torch.arange(3), 4, 100.0)
    assert rotate(torch.randn(3, 4).bfloat16(), cos, sin).dtype == torch.bfloat16
