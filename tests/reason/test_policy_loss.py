"""The GRPO objective by hand."""

import math

import pytest
import torch

from kogia.reason.losses import grpo_loss, token_weights


def one(ratio: float, advantage: float, **settings):
    """Loss, gradient and counts of a single token with weight 1."""
    logp = torch.tensor([[-1.0]], requires_grad=True)
    old = torch.tensor([[-1.0 - math.log(ratio)]])
    part = grpo_loss(logp, old, torch.tensor([advantage]), torch.ones(1, 1), **settings)
    part.loss.backward()
    return part.loss.item(), logp.grad.item(), part.clipped.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # on policy: the gradient is -A
        (1.1, 2.0, -2.2, -2.2, 0),
        (1.5, 2.0, -2.4, 0.0, 1),  # good and already likelier: clipped at 1.2
        (0.5, 2.0, -1.0, -1.0, 0),  # good but less likely: never clipped
        (1.5, -2.0, 3.0, 3.0, 0),  # bad but likelier: never clipped
        (0.5, -2.0, 1.6, 0.0, 1),  # bad and already less likely: clipped at 0.8
        (0.9, -2.0, 1.8, 1.8, 0),
        (1.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_clipping_on_both_sides_and_for_both_signs(ratio, advantage, loss, gradient, clipped):
    assert one(ratio, advantage) == pytest.approx((loss, gradient, clipped), abs=1e-5)


def test_the_two_clips_are_separate():
    """DAPO's clip-higher: 0.2 below, 0.28 above."""
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    assert one(1.25, 1.0, **clips) == pytest.approx((-1.25, -1.25, 0), abs=1e-5)
    assert one(1.30, 1.0, **clips) == pytest.approx((-1.28, 0.0, 1), abs=1e-5)
    assert one(0.75, -1.0, **clips) == pytest.approx((0.8, 0.0, 1), abs=1e-5)


def test_r1s_clip_of_ten_hardly_ever_clips():
    assert one(9.0, 1.0, clip_low=10.0, clip_high=10.0) == pytest.approx((-9.0, -9.0, 0), abs=1e-4)


@pytest.mark.parametrize(
    ("reference", "kl", "gradient"),
    [
        (0.0, 0.0, 0.0),
        (math.log(2.0), 2.0 - math.log(2.0) - 1.0, -1.0),  # d = ln 2: e^d - d - 1, and -(e^d - 1)
        (-math.log(2.0), 0.5 + math.log(2.0) - 1.0, 0.5),
    ],
)
def test_k3_by_hand(reference, kl, gradient):
    logp = torch.tensor([[-1.0]], requires_grad=True)
    part = grpo_loss(
        logp, torch.tensor([[-1.0]]), torch.zeros(1), torch.ones(1, 1),
        reference_logp_BT=torch.tensor([[-1.0 + reference]]), kl_weight=0.1,
    )  # fmt: skip
    part.loss.backward()
    assert part.kl.item() == pytest.approx(kl, abs=1e-6)
    assert part.loss.item() == pytest.approx(0.1 * kl, abs=1e-6)
    assert logp.grad.item() == pytest.approx(0.1 * gradient, abs=1e-6)


def test_a_batch_by_hand():
    """Two answers, the second one token short. Ratios: 1.5 and 1 with A = 1; 0.5 with A = -1; weights 1/4, 1/2."""
    logp = torch.tensor([[math.log(1.5), 0.0], [math.log(0.5), 3.0]])
    weights = torch.tensor([[0.25, 0.25], [0.5, 0.0]])
    part = grpo_loss(logp, torch.zeros(2, 2), torch.tensor([1.0, -1.0]), weights)
    assert part.loss.item() == pytest.approx(-(0.25 * 1.2 + 0.25 * 1.0 + 0.5 * -0.8))
    assert part.clipped.item() == 2


def test_padding_counts_for_nothing():
    """Where the weight is 0 there is no token, whatever stands there."""
    generator = torch.Generator().manual_seed(0)
    logp, old, reference = (torch.randn(3, 5, generator=generator) for _ in range(3))
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    weights, advantage = token_weights(mask, "sequence", 3, 8), torch.tensor([1.0, -0.5, 0.3])
    part = grpo_loss(logp, old, advantage, weights, reference_logp_BT=reference, kl_weight=0.1)
    for tensor in (logp, old, reference):
        tensor[mask == 0] += 100.0 * torch.rand((mask == 0).sum(), generator=generator) - 70.0
    again = grpo_loss(logp, old, advantage, weights, reference_logp_BT=reference, kl_weight=0.1)
    for field in ("loss", "clipped", "kl"):
        assert torch.isfinite(getattr(again, field))
        torch.testing.assert_close(getattr(part, field), getattr(again, field))


MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


def test_weights_by_sequence():
    weights = token_weights(MASK, "sequence", 2, 4)
    torch.testing.assert_close(weights, torch.tensor([[1 / 6, 1 / 6, 1 / 6, 0], [1 / 2, 0, 0, 0]]))
    assert weights.sum().item() == pytest.approx(1.0)


def test_weights_by_token():
    weights = token_weights(MASK, "token", 2, 4)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.25, 0.25, 0], [0.25, 0, 0, 0]]))


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_micro_batches_share_the_weights_of_the_whole(normalise):
    whole = token_weights(MASK, normalise, 2, 4)
    parts = torch.cat([token_weights(row.unsqueeze(0), normalise, 2, 4) for row in MASK])
    assert torch.equal(whole, parts)


def test_an_empty_answer_weighs_nothing():
    assert not token_weights(torch.zeros(1, 3), "sequence", 2, 4).any()


def test_unknown_normalisation_names_the_valid_ones():
    with pytest.raises(ValueError, match=r"normalise is 'mean'.*sequence.*token"):
        token_weights(MASK, "mean", 2, 4)
