"""Router, experts and balancing, by hand and against a plain loop."""

import math

import pytest
import torch
import torch.nn.functional as F

from kogia.models.moe import MoE, Router, balance_loss, sort_by_expert
from kogia.models.presets import preset


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def router(**changes) -> Router:
    """A router over 4 experts whose logits are its inputs."""
    defaults = {"hidden_size": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    gate = Router(preset("tiny", **{**defaults, **changes}))
    with torch.no_grad():
        gate.weight.copy_(torch.eye(4))
    return gate


def chosen(gate: Router, logits: list[float]) -> dict[int, float]:
    """Expert -> weight for one token."""
    routing = gate(torch.tensor([logits]))
    return dict(zip(routing.experts_NK[0].tolist(), routing.weights_NK[0].tolist(), strict=True))


def test_weights_are_normalised_sigmoids_times_the_factor():
    weights = chosen(router(), [2.0, -1.0, 0.5, 0.0])
    total = sigmoid(2.0) + sigmoid(0.5)
    assert weights == pytest.approx({0: 2.5 * sigmoid(2.0) / total, 2: 2.5 * sigmoid(0.5) / total})


def test_without_normalisation():
    weights = chosen(router(norm_topk_prob=False, routed_scaling_factor=3.0), [2.0, -1.0, 0.5, 0.0])
    assert weights == pytest.approx({0: 3.0 * sigmoid(2.0), 2: 3.0 * sigmoid(0.5)})


def test_the_bias_changes_the_choice_and_not_the_weights():
    gate = router()
    gate.e_score_correction_bias[1] = 5.0
    weights = chosen(gate, [2.0, -1.0, 0.5, 0.0])
    total = sigmoid(2.0) + sigmoid(-1.0)
    assert weights == pytest.approx({0: 2.5 * sigmoid(2.0) / total, 1: 2.5 * sigmoid(-1.0) / total})
    gate.e_score_correction_bias.fill_(5.0)  # the same for all: nothing changes
    assert chosen(gate, [2.0, -1.0, 0.5, 0.0]).keys() == {0, 2}


def test_a_group_scores_by_its_best_two_and_the_others_are_out_of_reach():
    """Groups {0, 1} and {2, 3}: sigmoid(3) + sigmoid(-3) = 1 loses against 2 sigmoid(1) = 1.46, so expert 0 is out
    although it is the best of all."""
    logits = [3.0, -3.0, 1.0, 1.0]
    assert chosen(router(n_group=2, topk_group=1), logits).keys() == {2, 3}
    assert 0 in chosen(router(n_group=2, topk_group=2), logits)


def test_the_bias_counts_in_the_group_score_too():
    gate = router(n_group=2, topk_group=1)
    gate.e_score_correction_bias[0] = 0.5  # 1.5 now beats 1.46
    assert chosen(gate, [3.0, -3.0, 1.0, 1.0]).keys() == {0, 1}


def test_negative_biases_do_not_let_a_masked_expert_in():
    """With every bias at -2 all scores are below 0: masking with 0 instead of -inf would pick the masked ones."""
    gate = router(n_group=2, topk_group=1)
    gate.e_score_correction_bias.fill_(-2.0)
    assert chosen(gate, [3.0, -3.0, 1.0, 1.0]).keys() == {2, 3}


def test_routing_is_in_float32_whatever_comes_in():
    gate = router()
    routing = gate(torch.tensor([[2.0, -1.0, 0.5, 0.0]]).bfloat16())
    assert routing.weights_NK.dtype == routing.scores_NE.dtype == torch.float32
    assert routing.scores_NE[0, 0].item() == pytest.approx(sigmoid(2.0), abs=1e-6)


@pytest.mark.parametrize("experts", [[[1, 0], [1, 3], [0, 1]], [[2]], [[0, 1]] * 70, [[3, 1], [1, 3]]], ids=len)
def test_sort_by_expert_gives_every_pair_a_place_of_its_own_in_its_experts_run(experts):
    token, place, load, counts = sort_by_expert(torch.tensor(experts), 4)
    flat = [e for row in experts for e in row]
    assert load.tolist() == [flat.count(e) for e in range(4)]
    assert len(counts) == 4 and sum(counts) == len(token)
    ends = torch.tensor(counts).cumsum(0).tolist()
    for n, row in enumerate(experts):
        for k, e in enumerate(row):
            at = place[n, k].item()
            assert token[at] == n and ends[e] - counts[e] <= at < ends[e]
    assert place.unique().numel() == place.numel()
    assert (token == len(experts)).sum().item() == len(token) - len(flat)  # empty places name no token


def naive(moe: MoE, x):
    """The mixture token by token, expert by expert."""
    routing = moe.gate(x)
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for k, e in enumerate(routing.experts_NK[n].tolist()):
            gate, up = (moe.experts.gate_up_proj[e] @ x[n]).chunk(2)
            out[n] = out[n] + routing.weights_NK[n, k] * (moe.experts.down_proj[e] @ (F.silu(gate) * up))
    return out + (moe.shared_experts(x) if moe.shared_experts is not None else 0.0)


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_value_and_gradients_equal_a_plain_loop(make_model, shared):
    moe = make_model(3, n_shared_experts=shared, initializer_range=0.3).layers[1].mlp
    x = torch.randn(2, 5, 64)
    grads = []
    for forward in (moe, lambda x: naive(moe, x.flatten(0, 1)).view_as(x)):
        moe.zero_grad()
        mine = x.clone().requires_grad_()
        y = forward(mine)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        grads.append([y.detach(), mine.grad, *(p.grad.clone() for p in moe.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_no_token_is_dropped_when_all_want_one_expert(make_model):
    moe = make_model(0, num_experts_per_tok=1).layers[1].mlp
    moe.gate.e_score_correction_bias[5] = 100.0
    x = torch.randn(1, 40, 64)
    assert set(moe.gate(x[0]).experts_NK.flatten().tolist()) == {5}
    torch.testing.assert_close(moe(x), naive(moe, x[0])[None], rtol=1e-4, atol=1e-5)


# balance loss -------------------------------------------------------------------------------------------------------


def one_hot_scores(experts, count: int):
    return torch.nn.functional.one_hot(experts, count).sum(-2).float().unsqueeze(0)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_balance_loss_is_one_when_balanced_and_experts_over_k_when_not(k):
    experts = 8
    balanced = torch.arange(experts * k).view(-1, k) % experts
    assert balance_loss(one_hot_scores(balanced, experts), balanced[None]).item() == pytest.approx(1.0)
    collapsed = torch.arange(k).expand(experts, k)
    assert balance_loss(one_hot_scores(collapsed, experts), collapsed[None]).item() == pytest.approx(experts / k)


def test_balance_loss_by_hand():
    """Two tokens, two experts, both choose expert 0: f = (2, 0), P_0 = (0.8 + 0.75) / 2, loss 1.55."""
    scores = torch.tensor([[[0.4, 0.1], [0.6, 0.2]]])
    assert balance_loss(scores, torch.zeros(1, 2, 1, dtype=torch.int64)).item() == pytest.approx(1.55)


def test_balance_loss_is_a_mean_over_sequences():
    scores, experts = torch.rand(3, 6, 4), torch.randint(0, 4, (3, 6, 2))
    each = [balance_loss(scores[i : i + 1], experts[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(balance_loss(scores, experts), torch.stack(each).mean())


def test_balance_loss_pushes_the_busy_expert_down():
    scores = torch.full((1, 4, 2), 0.5, requires_grad=True)
    balance_loss(scores, torch.zeros(1, 4, 1, dtype=torch.int64)).backward()
    assert (scores.grad[..., 0] > 0).all() and (scores.grad[..., 1] < 0).all()


# balance without a loss ----------------------------------------------------------------------------------------------


def test_update_bias_by_hand(make_model):
    moe = make_model(0, n_routed_experts=4, n_group=1, topk_group=1).layers[1].mlp
    moe.gate.e_score_correction_bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    moe.load.copy_(torch.tensor([4.0, 2.0, 0.0, 2.0]))
    moe.update_bias(0.001)
    assert moe.gate.e_score_correction_bias.tolist() == pytest.approx([0.099, 0.2, 0.301, 0.4])
    assert not moe.load.any()


def test_load_counts_every_choice_while_training_and_nothing_otherwise(make_model):
    moe = make_model().layers[1].mlp
    x = torch.randn(2, 7, 64)
    moe(x)
    assert not moe.load.any() and moe.last_balance_loss is None
    moe.train()
    moe(x)
    moe(x)
    experts = moe.gate(x.flatten(0, 1)).experts_NK
    assert moe.load.tolist() == (2 * torch.bincount(experts.flatten(), minlength=8)).tolist()
    assert moe.last_balance_loss is not None


def test_the_mixtures_of_mtp_layers_are_balanced_too(make_model):
    from kogia.train.loop import train_on_batch
    from kogia.train.optim import Optimizer, apply_step

    model = make_model(num_nextn_predict_layers=2).train()
    assert len(model.experts()) == 1 + 2
    before = [moe.gate.e_score_correction_bias.clone() for moe in model.experts()]
    tokens = torch.randint(0, 512, (2, 12))
    train_on_batch(model, tokens, tokens, 1, 0.3, 1e-4)
    loads = [moe.load.clone() for moe in model.experts()]
    assert all(load.sum() == 2 * 9 * 2 for load in loads)  # rows * positions * experts a token
    apply_step(model, Optimizer(model, "adamw", 0.1), 0.0, bias_speed=0.001)
    for old, load, moe in zip(before, loads, model.experts(), strict=True):
        expected = old + 0.001 * torch.sign(load.mean() - load)
        torch.testing.assert_close(moe.gate.e_score_correction_bias, expected, rtol=0, atol=1e-9)


def test_bias_updates_do_balance_a_skewed_router():
    """The whole point of the bias: loads even out while the weights stay as they are."""
    config = preset("tiny", hidden_size=8, n_routed_experts=8, n_group=1, topk_group=1)
    moe = MoE(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(std=0.2, generator=generator)
        moe.gate.weight[0] += 1.0
    x = torch.rand(1, 400, 8, generator=generator)

    def busiest() -> float:
        load = torch.bincount(moe.gate(x[0]).experts_NK.flatten(), minlength=8).float()
        return float(load.max() / load.mean())

    before = busiest()
    moe.train()
    for _ in range(200):
        moe(x)
        moe.update_bias(0.005)
    assert before > 2.5 and busiest() < 1.3
