"""The optimisers and the step that every stage shares."""

import copy
import math

import pytest
import torch

from kogia.errors import DivergedError
from kogia.train.optim import Muon, Optimizer, apply_step, orthogonalise, orthogonalise_all


def with_gradients(model):
    """The model with random gradients, none of them tiny."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator).sign() * (0.01 + torch.rand(p.shape, generator=generator))
    return model


def of_adam(optimizer: Optimizer) -> torch.optim.AdamW:
    return next(part for part in optimizer.parts if isinstance(part, torch.optim.AdamW))


def parameters_of(part: torch.optim.Optimizer) -> dict[int, float]:
    """id of a parameter -> its weight decay."""
    return {id(p): group["weight_decay"] for group in part.param_groups for p in group["params"]}


# AdamW ---------------------------------------------------------------------------------------------------------------


def test_v3s_settings(make_model):
    model = make_model()
    optimizer = Optimizer(model, "adamw", 0.1)
    adam = of_adam(optimizer)
    assert len(optimizer.parts) == 1
    assert all(g["betas"] == (0.9, 0.95) and g["eps"] == 1e-8 for g in adam.param_groups)
    decay = parameters_of(adam)
    for name, p in model.named_parameters():
        assert decay[id(p)] == (0.0 if "norm" in name else 0.1), name
    assert len(decay) == len(list(model.parameters()))


def test_first_step_by_hand(make_model):
    """Adam's first step moves every weight by the rate against the sign of its gradient, after decay."""
    model = with_gradients(make_model())
    before = copy.deepcopy(model.state_dict())
    signs = {name: p.grad.sign() for name, p in model.named_parameters()}
    apply_step(model, Optimizer(model, "adamw", 0.1), rate=0.01, clip=1e9)
    for name, p in model.named_parameters():
        decay = 1.0 if "norm" in name else 1.0 - 0.01 * 0.1
        torch.testing.assert_close(p.detach(), before[name] * decay - 0.01 * signs[name], rtol=0, atol=2e-5)
        assert p.grad is None


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_gradients_are_clipped_to_a_norm_that_is_reported(make_model, name):
    model = with_gradients(make_model())
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    optimizer = Optimizer(model, name, 0.1)
    assert apply_step(model, optimizer, 0.0, clip=norm / 10) == pytest.approx(norm, rel=1e-5)
    squares = 0.0
    for p in model.parameters():
        state = optimizer.state(p)
        moment = state["exp_avg"] / 0.1 if "exp_avg" in state else state["momentum"] / 0.05  # first steps of the means
        squares += float(moment.square().sum())
    assert math.sqrt(squares) == pytest.approx(norm / 10, rel=1e-4)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(make_model, name, bad):
    model = with_gradients(make_model())
    model.norm.weight.grad[3] = bad
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DivergedError, match="learning rate"):
        apply_step(model, Optimizer(model, name, 0.1), 0.1, bias_speed=0.001)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_biases_stand_still_at_speed_zero(make_model):
    model = with_gradients(make_model())
    model.experts()[0].load[0] = 10.0
    before = [moe.gate.e_score_correction_bias.clone() for moe in model.experts()]
    apply_step(model, Optimizer(model, "adamw", 0.1), 0.1)
    assert all(torch.equal(b, moe.gate.e_score_correction_bias) for b, moe in zip(before, model.experts(), strict=True))
    assert not any(moe.load.any() for moe in model.experts())


# Muon ----------------------------------------------------------------------------------------------------------------


def polar(x: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal rows or columns, exactly."""
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    return u @ v


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8), (3, 16, 8), (2, 3, 8, 16), (1, 9)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonalise_keeps_the_directions_and_evens_out_their_sizes(shape, scale):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalise(scale * x).float()
    assert found.shape == x.shape
    sizes = torch.linalg.svdvals(found)
    assert float(sizes.min()) > 0.5 and float(sizes.max()) < 1.4
    exact = polar(x)
    cosine = (found * exact).sum((-2, -1)) / (found.norm(dim=(-2, -1)) * exact.norm(dim=(-2, -1)))
    assert float(cosine.min()) > 0.95


def test_orthogonalise_takes_each_matrix_for_itself():
    x = torch.randn(3, 8, 16) * torch.tensor([1.0, 100.0, 0.0]).view(3, 1, 1)
    found = orthogonalise(x)
    for one, whole in zip(x, found, strict=True):
        torch.testing.assert_close(orthogonalise(one), whole, rtol=0, atol=0.02)
    assert not found[2].any()  # an expert that nobody chose


def test_orthogonalise_all_is_each_alone():
    """Equal shapes and each other's transposes are done in one go; the results come back in order and shape."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(1, 8, 16), (3, 16, 8), (2, 8, 8), (1, 4, 8), (2, 8, 16), (1, 8, 4)]
    stacks = [torch.randn(shape, generator=generator) for shape in shapes]
    for stack, found in zip(stacks, orthogonalise_all(stacks), strict=True):
        assert found.shape == stack.shape
        torch.testing.assert_close(found, orthogonalise(stack), rtol=0, atol=0.02)


@pytest.mark.parametrize(("shape", "halves"), [((16, 32), 1), ((3, 16, 32), 1), ((3, 24, 8), 2)])
def test_muon_steps_by_hand(shape, halves):
    """Nesterov momentum, decay, and an update of root mean square 0.2 for every matrix: a stacked gate and up
    projection is two."""
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(shape, generator=generator))
    muon = Muon([{"params": [w], "weight_decay": 0.1, "halves": halves}], momentum=0.95)
    muon.param_groups[0]["lr"] = 0.02
    rows = shape[-2] // halves
    buffer, expected = torch.zeros(shape), w.detach().clone()
    for _ in range(3):
        w.grad = torch.randn(shape, generator=generator)
        buffer = 0.95 * buffer + 0.05 * w.grad
        nesterov = 0.05 * w.grad + 0.95 * buffer
        update = torch.cat([orthogonalise(part).float() for part in nesterov.split(rows, -2)], -2)
        update = 0.2 * max(rows, shape[-1]) ** 0.5 * update
        assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)
        expected = expected * (1.0 - 0.02 * 0.1) - 0.02 * update
        muon.step()
        torch.testing.assert_close(w.detach(), expected, rtol=0, atol=3e-4)


def test_muon_treats_gate_and_up_as_two_matrices(make_model):
    """A large gate and a small up projection must move alike."""
    model = with_gradients(make_model())
    experts = model.experts()[0].experts
    experts.gate_up_proj.grad[:, :32] *= 100.0
    before = experts.gate_up_proj.detach().clone()
    apply_step(model, Optimizer(model, "muon", 0.0), 0.01, clip=1e9)
    moved = (experts.gate_up_proj.detach() - before).square().mean((0, 2)).sqrt()
    assert float(moved[:32].mean()) == pytest.approx(float(moved[32:].mean()), rel=0.1)


def test_muon_takes_the_matrices_of_the_layers_and_adam_the_rest(make_model):
    model = make_model()
    optimizer = Optimizer(model, "muon", 0.1)
    muon = next(part for part in optimizer.parts if isinstance(part, Muon))
    with_muon, with_adam = parameters_of(muon), parameters_of(of_adam(optimizer))
    for name, p in model.named_parameters():
        rest = p.dim() == 1 or name.endswith(("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight"))
        assert (id(p) in with_adam, id(p) in with_muon) == (rest, not rest), name
    assert set(with_muon.values()) == {0.1}


def test_every_part_moves_at_the_rate_given(make_model):
    model = with_gradients(make_model())
    optimizer = Optimizer(model, "muon", 0.1)
    before = copy.deepcopy(model.state_dict())
    apply_step(model, optimizer, 0.0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    apply_step(with_gradients(model), optimizer, 0.01)
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {0.01}
