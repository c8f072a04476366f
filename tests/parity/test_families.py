"""Every family against transformers: logits, loss and gradients, decoding, and folders in both directions."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import foreign, foreign_gradient, largest_difference, text

from kogia.models.folder import load_model, save_model
from kogia.models.names import select, stored_tensors
from kogia.models.rotary import RopeScaling

LINEAR = RopeScaling("linear", 2.0)
LLAMA3 = RopeScaling("llama3", 8.0, 32, low_freq_factor=1.0, high_freq_factor=4.0)
YARN = RopeScaling("yarn", 4.0, 32)
ODD_YARN = [
    RopeScaling("yarn", 4.0, 32, truncate=False),
    RopeScaling("yarn", 4.0, 64, beta_fast=2.0, beta_slow=1.9, truncate=False),
    RopeScaling("yarn", 8.0, 1 << 20),  # the ramp reaches beyond the last pair
    RopeScaling("yarn", 4.0, 32, beta_fast=1.0, beta_slow=1.0),
]
V3_YARN = RopeScaling("yarn", 40.0, 16, mscale=0.707, mscale_all_dim=0.707)  # V2's mscale

SHAPES = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 1}),
    ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("llama", {"head_dim": 24, "attention_bias": True}),
    ("llama", {"rope_scaling": LINEAR}),
    ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500000.0}),
    ("llama", {"rope_scaling": YARN, "rms_norm_eps": 1e-3}),
    *(("llama", {"rope_scaling": scaling, "rope_theta": 30.0}) for scaling in ODD_YARN),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1e6}),
    ("qwen2", {"rope_scaling": RopeScaling("yarn", 4.0, 32, attention_factor=1.5)}),
    ("qwen3", {}),
    ("qwen3", {"attention_bias": True, "rope_scaling": YARN, "head_dim": 32}),
    ("deepseek_v2", {}),
    ("deepseek_v2", {"topk_method": "greedy", "n_group": 1, "topk_group": 1, "q_lora_rank": None}),
    ("deepseek_v2", {"routed_scaling_factor": 16.0, "rope_scaling": V3_YARN, "n_shared_experts": 2}),
    ("deepseek_v2", {"n_group": 8, "topk_group": 3, "num_experts_per_tok": 3}),
]


@pytest.mark.parametrize(("family", "changes"), SHAPES, ids=str)
def test_logits(make_family, tmp_path, family, changes):
    model = make_family(family, 31, **changes)
    save_model(tmp_path, model)
    assert largest_difference(model, tmp_path, length=64) < 1e-5


@st.composite
def dense_shapes(draw):
    family = draw(st.sampled_from(["llama", "qwen2", "qwen3"]))
    groups = draw(st.integers(1, 3))
    shape = {
        "num_key_value_heads": groups,
        "num_attention_heads": groups * draw(st.integers(1, 3)),
        "head_dim": draw(st.sampled_from([2, 8, 20])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_scaling": draw(st.sampled_from([None, LINEAR, LLAMA3, YARN])),
        "rope_theta": draw(st.sampled_from([100.0, 10000.0])),
    }
    return family, shape | ({} if family == "qwen2" else {"attention_bias": draw(st.booleans())})


@settings(max_examples=25)
@given(dense_shapes())
def test_logits_of_any_dense_shape(make_family, tmp_path_factory, drawn):
    family, changes = drawn
    folder = tmp_path_factory.mktemp("model")
    model = make_family(family, 32, hidden_size=72, vocab_size=96, **changes)
    save_model(folder, model)
    assert largest_difference(model, folder) < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "deepseek_v2"])
def test_loss_and_gradients(make_family, tmp_path, family):
    model = make_family(family, 33, rope_scaling=V3_YARN if family == "deepseek_v2" else YARN)
    save_model(tmp_path, model)
    other, tokens = foreign(tmp_path), text(model, rows=3)
    losses = []
    for logits in (model(tokens), other(tokens).logits):
        losses.append(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
        losses[-1].backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    theirs, mine = dict(other.named_parameters()), dict(model.named_parameters())
    compared = 0
    for stored in stored_tensors(model.config, mine):
        a, b = select(mine[stored.parameter].grad, stored), foreign_gradient(theirs, stored)
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-9, stored.name
        compared += a.numel()
    assert compared == sum(p.numel() for p in theirs.values())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "deepseek_v2"])
@torch.no_grad()
def test_decoding_at_every_length(make_family, tmp_path, family):
    """Token by token through our cache: the same as the whole sequence, ours and theirs."""
    model = make_family(family, 34, rope_scaling=V3_YARN if family == "deepseek_v2" else YARN)
    save_model(tmp_path, model)
    tokens, c = text(model, length=16), model.config
    whole, theirs = model(tokens), foreign(tmp_path)(tokens).logits
    cache = torch.full((c.num_hidden_layers, 2, 16, c.cache_width), 1e3)  # stale values must not matter
    for i in range(16):
        mine = model.logits(model.decode(tokens[:, i : i + 1], cache, torch.full((2, 1), i)))[:, 0]
        torch.testing.assert_close(mine, whole[:, i], rtol=0, atol=2e-5)
        torch.testing.assert_close(mine, theirs[:, i], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("family", "changes"), SHAPES, ids=str)
@torch.no_grad()
def test_folders_that_transformers_wrote(make_family, tmp_path, family, changes):
    """Theirs, with transformers 5's way of writing RoPE's numbers, and ours come back as the same model."""
    model = make_family(family, 35, **changes)
    save_model(tmp_path / "ours", model)
    foreign(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    values = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert "rope_scaling" not in values and "rope_parameters" in values
    for folder in ("ours", "theirs"):
        again = load_model(tmp_path / folder).eval()
        assert again.config == model.config
        assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))
        assert torch.equal(again(text(model)), model(text(model)))


def test_every_parameter_gets_a_gradient_and_every_bias_moves(make_family):
    """Training mode: MTP layers' experts are balanced too, and V2, which has no bias, is left alone."""
    for family in ("deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3"):
        model = make_family(family, 36).train()
        depth = model.config.num_nextn_predict_layers
        tokens = text(model, rows=8, length=40 + depth)
        h = model.hidden_states(tokens[:, :40])
        states = [h, *model.further_hidden_states(h, tokens)]
        sum(model.logits(state).logsumexp(-1).mean() for state in states).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, (family, name)
        before = [moe.gate.e_score_correction_bias for moe in model.experts()]
        before = [None if bias is None else bias.clone() for bias in before]
        loads = [moe.load.clone() for moe in model.experts()]
        for moe in model.experts():
            moe.update_bias(0.001)
        for moe, bias, load in zip(model.experts(), before, loads):
            assert load.sum() == 8 * 40 * model.config.num_experts_per_tok
            if bias is not None:
                expected = bias + 0.001 * torch.sign(load.mean() - load)
                torch.testing.assert_close(moe.gate.e_score_correction_bias, expected, rtol=0, atol=0)
        assert len(before) == {"deepseek_v3": 1 + 2, "deepseek_v2": 1}.get(family, 0)
