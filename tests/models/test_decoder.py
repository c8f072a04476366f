"""The whole model: initialisation, causality, gradients, sizes, and the two forwards that must agree."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.presets import preset
from kogia.train.loop import train_on_batch


def decode_all(model, tokens, cuts, cache_length=None):
    """Hidden states of `decode`, fed piece by piece."""
    B, T = tokens.shape
    c = model.config
    cache = torch.full((c.num_hidden_layers, B, cache_length or T, c.cache_width), 1e3)  # stale values must not matter
    edges = [0, *sorted(cuts), T]
    pieces = []
    for start, end in itertools.pairwise(edges):
        at = torch.arange(start, end).expand(B, -1)
        pieces.append(model.decode(tokens[:, start:end], cache, at))
    return torch.cat(pieces, 1)


SHAPES = [
    {},
    {"q_lora_rank": None},
    {"num_attention_heads": 1, "first_k_dense_replace": 0},
    {"num_attention_heads": 4, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 24, "kv_lora_rank": 20},
    {"tie_word_embeddings": True, "n_shared_experts": 0},
]


@torch.no_grad()
@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_absorbed_decoding_equals_expanded_attention_at_every_prefix(make_model, changes):
    model = make_model(1, initializer_range=0.2, **changes)
    tokens = torch.randint(0, 512, (2, 12), generator=torch.Generator().manual_seed(0))
    expected = model.hidden_states(tokens)
    for length in range(1, 13):
        prefix = model.hidden_states(tokens[:, :length])
        torch.testing.assert_close(prefix, expected[:, :length], rtol=1e-4, atol=1e-5)
        cached = decode_all(model, tokens[:, :length], range(1, length), cache_length=16)
        torch.testing.assert_close(cached, prefix, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@settings(max_examples=25)
@given(st.sets(st.integers(1, 14)))
def test_absorbed_decoding_in_any_pieces(make_model, cuts):
    model = make_model(2, initializer_range=0.2)
    tokens = torch.arange(15).view(1, 15) * 7 % 512
    torch.testing.assert_close(decode_all(model, tokens, cuts), model.hidden_states(tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rows_of_a_batch_may_be_at_different_positions(make_model):
    model = make_model(3, initializer_range=0.2)
    tokens = torch.randint(0, 512, (2, 10), generator=torch.Generator().manual_seed(1))
    expected = model.hidden_states(tokens)
    cache = torch.zeros(model.config.num_hidden_layers, 2, 10, model.config.cache_width)
    model.decode(tokens[:, :4], cache, torch.arange(4).expand(2, -1))
    model.decode(tokens[1:, 4:7], cache[:, 1:], torch.arange(4, 7).unsqueeze(0))
    step = model.decode(torch.stack((tokens[0, 4], tokens[1, 7])).unsqueeze(1), cache, torch.tensor([[4], [7]]))
    torch.testing.assert_close(step[0, 0], expected[0, 4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step[1, 0], expected[1, 7], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_token_sees_itself_and_the_past_only(make_model):
    model = make_model(4)
    tokens = torch.randint(0, 512, (1, 10), generator=torch.Generator().manual_seed(2))
    before = model(tokens)
    for changed in range(10):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 512
        difference = (model(other) - before).abs().amax(-1)[0]
        assert (difference[:changed] < 1e-6).all()
        assert (difference[changed:] > 1e-5).all()


@torch.no_grad()
def test_order_matters_through_the_rotation_alone(make_model):
    """Swapping two earlier tokens changes what a later one sees: without positions attention would not notice."""
    model = make_model(4, num_hidden_layers=1, initializer_range=0.2)
    a, b = model(torch.tensor([[3, 4, 5]])), model(torch.tensor([[4, 3, 5]]))
    assert (a[0, 2] - b[0, 2]).abs().max() > 1e-3


def test_initialisation_is_v3s_and_reproducible():
    assert ModelConfig.__dataclass_fields__["initializer_range"].default == 0.006
    model = Decoder(preset("nano", first_k_dense_replace=2, initializer_range=0.006)).initialise(7)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.006, rel=0.08), name
            assert abs(parameter.mean().item()) < 6 * 0.006 / parameter.numel() ** 0.5, name
    assert not any(moe.gate.e_score_correction_bias.any() for moe in model.experts())
    again, other = Decoder(model.config).initialise(7), Decoder(model.config).initialise(8)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_every_parameter_learns(make_model, changes):
    """No weight is left out of the graph; an expert learns exactly if a token chose it."""
    model = make_model(5, num_nextn_predict_layers=2, **changes).train()
    tokens = torch.randint(0, 512, (2, 12), generator=torch.Generator().manual_seed(3))
    train_on_batch(model, tokens, tokens, 2, 0.3, 1e-4)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    for moe in model.experts():
        for weight in (moe.experts.gate_up_proj, moe.experts.down_proj):
            assert [bool(g.any()) for g in weight.grad] == (moe.load > 0).tolist()


def test_logits_are_float32_whatever_it_computes_in(make_model):
    model = make_model(first_k_dense_replace=2).compute_in(torch.bfloat16)  # dense: rounding cannot flip an expert
    tokens = torch.arange(6).unsqueeze(0)
    assert model.hidden_states(tokens).dtype == torch.bfloat16
    assert model(tokens).dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters())
    exact = model.compute_in(torch.float32)(tokens)
    assert (model.compute_in(torch.bfloat16)(tokens) - exact).abs().max() < 0.05 * exact.abs().max()


V3 = ModelConfig(
    vocab_size=129280, hidden_size=7168, intermediate_size=18432, moe_intermediate_size=2048, num_hidden_layers=61,
    num_attention_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
    v_head_dim=128, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, n_group=8, topk_group=4,
    first_k_dense_replace=3, num_nextn_predict_layers=1,
)  # fmt: skip


def test_deepseek_v3_has_671_billion_parameters():
    """The published total, to the last one (with the routers' biases, without MTP), from the published dimensions."""
    with torch.device("meta"):
        model = Decoder(V3)
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    assert sum(n for name, n in sizes.items() if not name.startswith("mtp.")) == 671_026_419_200
    assert sum(n for name, n in sizes.items() if name.startswith("layers.7.self_attn.")) == 187_107_328
    mtp = sum(n for name, n in sizes.items() if name.startswith("mtp."))
    assert mtp == pytest.approx(11.61e9, rel=1e-3)
    assert model.config.cache_width == 576  # values cached a token and layer
