"""Grouped matrix products against a plain loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kogia.kernels.grouped import grouped_linear


def loop(x, w, counts):
    return torch.cat([rows @ matrix.t() for rows, matrix in zip(x.split(counts), w, strict=True)])


def check(counts: list[int]) -> None:
    generator = torch.Generator().manual_seed(sum(counts))
    x = torch.randn(sum(counts), 5, generator=generator)
    w = torch.randn(len(counts), 7, 5, generator=generator)
    mine = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    other = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    y, expected = grouped_linear(*mine, counts), loop(*other, counts)
    torch.testing.assert_close(y, expected)
    direction = torch.randn(y.shape, generator=generator)
    (y * direction).sum().backward()
    (expected * direction).sum().backward()
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_value_and_gradients_equal_a_loop(counts):
    check(counts)


@pytest.mark.parametrize("counts", [[0, 0, 3], [3, 0, 0], [0, 4, 0], [0, 0], [1]])
def test_empty_groups(counts):
    check(counts)


def test_an_empty_group_gets_no_gradient():
    w = torch.randn(3, 4, 2, requires_grad=True)
    grouped_linear(torch.randn(5, 2), w, [2, 0, 3]).sum().backward()
    assert w.grad[0].any() and not w.grad[1].any() and w.grad[2].any()


def test_by_hand():
    w = torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]]])
    y = grouped_linear(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), w, [1, 2])
    assert y.flatten().tolist() == [3.0, 10.0, 20.0]


def test_weights_are_cast_to_the_rows_and_their_gradient_back():
    x = torch.randn(4, 2).bfloat16().requires_grad_()
    w = torch.randn(2, 3, 2, requires_grad=True)
    y = grouped_linear(x, w, [1, 3])
    y.sum().backward()
    assert (y.dtype, x.grad.dtype, w.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


def test_counts_that_do_not_add_up_are_refused():
    with pytest.raises(RuntimeError):
        grouped_linear(torch.randn(4, 2), torch.randn(2, 3, 2), [1, 2])
