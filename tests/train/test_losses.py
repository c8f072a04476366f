"""Training losses by hand and against a naive computation, and what micro-batches may not change."""

import pytest
import torch
import torch.nn.functional as F

from kogia.errors import DivergedError
from kogia.train.loop import expert_loads, train_on_batch
from kogia.train.losses import mtp_loss, next_token_losses

DEPTH, LENGTH = 2, 7


@pytest.fixture
def model(make_model):
    return make_model(31, num_nextn_predict_layers=DEPTH).train()


@pytest.fixture
def batch():
    """Five rows; in the labels some places are left out, unevenly."""
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(0, 512, (5, LENGTH + 1 + DEPTH), generator=generator)
    labels = tokens.clone()
    labels[0, :6] = -100
    labels[1, 8:] = -100
    labels[4] = -100
    return tokens, labels


@pytest.mark.parametrize(
    ("losses", "weight", "expected"), [([2.0, 4.0], 0.3, 0.9), ([5.0], 0.1, 0.5), ([1.0, 2.0, 6.0], 0.3, 0.9)]
)
def test_mtp_loss_by_hand(losses, weight, expected):
    """weight / D * sum."""
    assert mtp_loss([torch.tensor(x) for x in losses], weight).item() == pytest.approx(expected)


def naive_losses(model, tokens, labels) -> list[torch.Tensor]:
    """Summed cross entropies position by position: depth k at position i is asked for label i + 1 + k."""
    h = model.hidden_states(tokens[:, :LENGTH])
    logits = [model.logits(s) for s in (h, *model.further_hidden_states(h, tokens[:, :-1]))]
    totals = []
    for k, depth in enumerate(logits):
        total = torch.zeros(())
        for row in range(len(tokens)):
            for i in range(LENGTH):
                if labels[row, i + 1 + k] >= 0:
                    total = total + F.cross_entropy(depth[row, i], labels[row, i + 1 + k])
        totals.append(total)
    return totals


def test_next_token_losses_against_a_naive_loop(model, batch):
    found = next_token_losses(model, *batch, LENGTH)
    expected = naive_losses(model, *batch)
    assert len(found) == 1 + DEPTH
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def naive_step(model, tokens, labels, mtp_weight, balance_weight):
    """Mean losses and gradients of the whole batch, computed in one piece."""
    model.zero_grad(set_to_none=True)
    losses = naive_losses(model, tokens, labels)
    counts = [int((labels[:, 1 + k : 1 + k + LENGTH] >= 0).sum()) for k in range(1 + DEPTH)]
    means = [loss / n for loss, n in zip(losses, counts, strict=True)]
    (means[0] + mtp_weight / DEPTH * sum(means[1:]) + balance_weight * model.balance_loss()).backward()
    return [float(m.detach()) for m in means], {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("micro_rows", [1, 2, 3, 5, 9])
def test_micro_batches_change_neither_losses_nor_gradients(model, batch, micro_rows):
    losses, expected = naive_step(model, *batch, 0.3, 0.01)
    model.zero_grad(set_to_none=True)
    found = train_on_batch(model, *batch, micro_rows, 0.3, 0.01)
    assert found == pytest.approx(losses, rel=1e-5)
    for name, p in model.named_parameters():
        assert (p.grad - expected[name]).norm() <= 1e-5 * expected[name].norm() + 1e-8, name


def test_weights_of_the_parts(model, batch):
    """Without MTP and balance weights, MTP layers learn nothing; with them, they do."""
    train_on_batch(model, *batch, 5, 0.0, 0.0)
    assert all(not p.grad.any() for p in model.mtp.parameters() if p.grad is not None)
    train_on_batch(model, *batch, 5, 0.3, 0.0)
    assert all(p.grad.any() for n, p in model.mtp.named_parameters() if "experts" not in n)


def test_the_loss_of_a_uniform_model_is_the_log_of_the_vocabulary(model, batch):
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert train_on_batch(model, *batch, 2, 0.3, 0.0) == pytest.approx([torch.tensor(512.0).log().item()] * 3, rel=1e-6)


def test_a_model_without_mtp(make_model):
    model = make_model(num_nextn_predict_layers=0).train()
    tokens = torch.randint(0, 512, (2, 9))
    losses = train_on_batch(model, tokens, tokens, 1, 0.3, 1e-4)
    expected = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert losses == pytest.approx([expected.item()], rel=1e-5)


def test_nothing_to_learn_is_no_loss(model, batch):
    assert train_on_batch(model, batch[0], torch.full_like(batch[1], -100), 2, 0.3, 0.0) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_an_error(model, batch, bad):
    with torch.no_grad():
        model.embed_tokens.weight[batch[0][0, 3]] = bad
    with pytest.raises(DivergedError, match="lower the learning rate"):
        train_on_batch(model, *batch, 2, 0.3, 0.0)


def test_expert_loads_by_hand(model):
    for moe in model.experts():
        moe.load.copy_(torch.tensor([8.0, 0, 0, 0, 0, 0, 0, 8]))
    assert expert_loads(model) == [4.0] * 3
    model.experts()[0].load.fill_(3.0)
    model.experts()[1].load.zero_()
    assert expert_loads(model) == [1.0, 0.0, 4.0]
