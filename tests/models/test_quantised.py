"""Folders with matrices in 8 or 4 bits: the layout, the codes that come back, and what is damaged refused by name."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kogia.about import describe
from kogia.errors import FolderError, KogiaError
from kogia.formats.header import read_header
from kogia.formats.safetensors import SINGLE
from kogia.kernels import native
from kogia.kernels.integer import dequantise, quantise
from kogia.models.checkpoint import LiveCheckpoint, open_checkpoint
from kogia.models.folder import load_model, write_folder
from kogia.models.names import select, stored_tensors
from kogia.models.quantised import pack, stored_format, unpack_into

FAMILIES = ["deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3"]
FORMATS = ["int8", "int4"]


def write(folder, model, format):
    write_folder(folder, LiveCheckpoint(model), torch.float32, quantise=format)
    return folder


def value_of(stored, name):
    """By the definition, from what lies on the disk."""
    codes, scale = stored[name], stored[name + "_scale"].float().unsqueeze(-1)
    if codes.dtype == torch.int8:
        return (codes.float() * scale).flatten(1)
    both = torch.zeros(*codes.shape[:2], 32)
    both[..., 0::2], both[..., 1::2] = (codes % 16).float(), (codes // 16).float()
    return (both * scale + stored[name + "_min"].float().unsqueeze(-1)).flatten(1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_stored_and_read(make_family, tmp_path, family, format, tied):
    """Matrices as kernels/integer.py rounds them, everything else as it is, no copies."""
    model = make_family(family, 71, tie_word_embeddings=tied)
    stored = load_file(write(tmp_path, model, format) / SINGLE)
    live, checkpoint = LiveCheckpoint(model), open_checkpoint(tmp_path)
    assert not any("shared_head.head" in name or ".2.embed" in name for name in stored)
    assert ("lm_head.weight" in stored) is not tied
    for name, shape in checkpoint.shapes.items():
        w, wanted = live.read(name), stored_format(name, live.shapes[name], format)
        assert shape == tuple(w.shape)
        if wanted is None:
            assert stored[name].dtype == torch.float32 and torch.equal(checkpoint.read(name), w), name
        else:
            assert stored[name].dtype == (torch.int8 if wanted == "int8" else torch.uint8), name
            assert torch.equal(checkpoint.read(name), value_of(stored, name)), name
            assert torch.equal(checkpoint.read(name), dequantise(quantise(w, wanted))), name
    loaded = load_model(tmp_path)
    assert torch.equal(
        loaded.layers[1].self_attn.o_proj.weight, value_of(stored, "model.layers.1.self_attn.o_proj.weight")
    )
    assert loaded.config == model.config and (loaded.lm_head.weight is loaded.embed_tokens.weight) is tied
    half = load_model(tmp_path, torch.bfloat16)
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(half.parameters(), loaded.parameters(), strict=True))


def test_which_tensors_have_how_many_bits():
    named = {
        "int4": ("model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.kv_a_proj_with_mqa.weight",
                 "model.layers.1.mlp.experts.3.down_proj.weight", "model.layers.9.eh_proj.weight"),
        "int8": ("model.embed_tokens.weight", "lm_head.weight", "model.layers.1.self_attn.kv_b_proj.weight"),
        None: ("model.layers.1.mlp.gate.weight", "model.norm.weight", "model.layers.1.self_attn.q_proj.bias"),
    }  # fmt: skip
    for format, names in named.items():
        assert {stored_format(name, (64, 64), "int4") for name in names} == {format}
        assert {stored_format(name, (64, 64), "int8") for name in names} == {format and "int8"}
    assert stored_format("model.layers.1.mlp.up_proj.weight", (64, 48), "int4") is None


def test_the_layout_by_hand():
    """Two codes a byte, the earlier in the low half; weights on the grid come back as they are."""
    codes = torch.arange(32) % 16
    w = torch.stack([codes * 0.5 - 2.0, codes.flip(0) * 0.5 - 2.0])
    packed, scale, minimum = pack(w, "int4", "w")
    assert packed.shape == (2, 1, 16) and packed[0, 0].tolist() == [16 * (k + 1) + k for k in range(0, 16, 2)] * 2
    assert scale.tolist() == [[0.5], [0.5]] and minimum.tolist() == [[-2.0], [-2.0]]
    assert torch.equal(unpack_into(torch.empty(2, 32), [packed, scale, minimum], "w"), w)
    packed, scale = pack(torch.arange(-127.0, 128.0, 2.0)[:128].view(2, 64) * 0.25, "int8", "w")
    assert packed.shape == (2, 2, 32) and packed[0, 0, :3].tolist() == [-127, -125, -123] and scale[0, 0] == 0.25


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_codes_come_back_through_loading_and_converting(make_family, tmp_path, family, format):
    """Out, in, rounded again: the very codes; whether by way of a loaded model or of a folder in FP32."""
    write(tmp_path / "a", make_family(family, 72), format)
    stored, loaded = load_file(tmp_path / "a" / SINGLE), load_model(tmp_path / "a")
    state, found = loaded.state_dict(), 0
    for s in stored_tensors(loaded.config, state):
        if s.name + "_scale" in stored:
            q = quantise(select(state[s.parameter], s), "int8" if stored[s.name].dtype == torch.int8 else "int4")
            assert torch.equal(q.scale_OG, stored[s.name + "_scale"]), s.name
            if q.minimum_OG is None:
                assert torch.equal(q.codes_OGS, stored[s.name]), s.name
            else:
                assert torch.equal(q.codes_OGS[..., ::2] + 16 * q.codes_OGS[..., 1::2], stored[s.name]), s.name
                assert torch.equal(q.minimum_OG, stored[s.name + "_min"]), s.name
            found += 1
    assert found == sum(name.endswith("_scale") for name in stored) > 10
    write_folder(tmp_path / "b", open_checkpoint(tmp_path / "a"), torch.float32)
    assert "quantization_config" not in json.loads((tmp_path / "b" / "config.json").read_text())
    write_folder(tmp_path / "c", open_checkpoint(tmp_path / "b"), torch.float32, quantise=format)
    for name in (SINGLE, "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


@pytest.mark.skipif(native.why_not() is not None, reason=str(native.why_not()))
@pytest.mark.parametrize("format", FORMATS)
def test_the_kernels_pack_what_is_stored_as_they_pack_the_original(make_family, tmp_path, format):
    """So an engine in int8 or int4 multiplies with the same numbers, whether it rounded them or `kogia convert` did."""
    from kogia.kernels.program import empty_panels
    from kogia.kernels.program import pack as pack_panels

    model = make_family("llama", 73)
    loaded = load_model(write(tmp_path, model, format))
    for name, w in model.state_dict().items():
        if name.endswith("_proj.weight"):
            panels = [empty_panels(format, *w.shape) for _ in range(2)]
            pack_panels(panels[0], 0, w)
            pack_panels(panels[1], 0, loaded.state_dict()[name])
            assert torch.equal(panels[0].data, panels[1].data), name


@pytest.mark.parametrize("format", FORMATS)
@given(seed=st.integers(0, 1 << 30), size=st.sampled_from([1e-9, 1e-7, 3e-6, 1.0, 1e4]), shift=st.floats(-3, 3))
def test_packing_twice_is_packing_once(format, seed, size, shift):
    """Scales below FP16's smallest number included, which the first rounding alone does not survive."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(5, 96, generator=generator) + shift
    w[0], w[1, :32], w[2, 40] = 0.0, shift, 50.0
    w *= size
    once = pack(w, format, "w")
    values = unpack_into(torch.empty_like(w), once, "w")
    assert all(torch.equal(a, b) for a, b in zip(once, pack(values, format, "w"), strict=True))
    step = w.unflatten(1, (-1, 32)).abs().amax(-1) / 100 if format == "int8" else w.abs().max() / 7
    assert ((values - w).unflatten(1, (-1, 32)).abs().amax(-1) <= step + 1e-4 * size + 1e-5).all()


@pytest.mark.parametrize("format", FORMATS)
def test_many_rows_are_one_matrix(format):
    """Rows are rounded and read some at a time; where they are cut changes nothing."""
    w = torch.randn(700, 640, generator=torch.Generator().manual_seed(3))
    expected = dequantise(quantise(w, format))
    assert torch.equal(unpack_into(torch.empty_like(w), pack(w, format, "w"), "w"), expected)


def test_a_matrix_that_does_not_divide_stays_whole(make_family, tmp_path):
    model = make_family("llama", 74, intermediate_size=80)
    stored = load_file(write(tmp_path, model, "int4") / SINGLE)
    down = "model.layers.0.mlp.down_proj.weight"
    assert stored[down].dtype == torch.float32 and stored[down.replace("down", "up")].dtype == torch.uint8
    assert torch.equal(load_model(tmp_path).layers[0].mlp.down_proj.weight, model.layers[0].mlp.down_proj.weight)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", ["deepseek_v3", "llama"])
def test_info_knows_the_bits_and_the_bytes(make_family, tmp_path, family, format):
    write(tmp_path, make_family(family, 75, tie_word_embeddings=family == "llama"), format)
    facts = describe(tmp_path)
    assert facts["quantization"] == {"quant_method": "kogia", "bits": int(format[3:]), "group_size": 32}
    entries = read_header(tmp_path / SINGLE).values()
    assert facts["bytes"][format] == sum(entry.end - entry.start for entry in entries)
    assert facts["bytes"]["int4"] < facts["bytes"]["int8"] < facts["bytes"]["bfloat16"]


@pytest.mark.parametrize("format", FORMATS)
def test_transformers_does_not_take_codes_for_weights(make_family, tmp_path, format):
    from oracles import transformers

    write(tmp_path, make_family("llama", 76), format)
    with pytest.raises((RuntimeError, ValueError)):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


# damage ---------------------------------------------------------------------------------------------------------------

UP = "model.layers.0.mlp.up_proj.weight"
SCALE, MINIMUM, EMBED = UP + "_scale", UP + "_min", "model.embed_tokens.weight"
NAN, INFINITY = float("nan"), float("inf")
BROKEN = {
    "no scales": (lambda t: t.pop(SCALE), f"lacks {SCALE}"),
    "no minima": (lambda t: t.pop(MINIMUM), f"lacks {MINIMUM}"),
    "no codes": (lambda t: t.pop(UP), f"lacks {UP}"),
    "a NaN scale": (lambda t: t[SCALE][2, 1:2].fill_(NAN), f"scales of .*{UP} hold NaN"),
    "an infinite scale": (lambda t: t[SCALE][2, 1:2].fill_(INFINITY), f"scales of .*{UP} hold"),
    "a negative scale": (lambda t: t[SCALE].neg_(), f"scales of .*{UP} hold NaN, infinite or negative"),
    "a NaN minimum": (lambda t: t[MINIMUM][2, 1:2].fill_(NAN), f"minima of .*{UP} hold NaN"),
    "an infinite minimum": (lambda t: t[MINIMUM][2, 1:2].fill_(-INFINITY), f"minima of .*{UP}"),
    "a code of -128": (lambda t: t[EMBED][300, 1, 7:8].fill_(-128), f"{EMBED} holds the code -128"),
    "scales of another shape": (lambda t: t.update({SCALE: t[SCALE][:, :1].clone()}), rf"{SCALE} is \(96, 1\).* makes"),
    "minima of another shape": (lambda t: t.update({MINIMUM: t[MINIMUM].t().contiguous()}), rf"{MINIMUM} is \(2, 96\)"),
    "scales in FP32": (lambda t: t.update({SCALE: t[SCALE].float()}), f"{SCALE} is .*float32"),
    "whole numbers as scales": (lambda t: t.update({SCALE: t[SCALE].char()}), f"{SCALE}"),
    "codes without groups": (lambda t: t.update({UP: t[UP].flatten(1)}), rf"{UP} has shape \(96, 32\): codes of int4"),
    "codes of int8 in half the room": (lambda t: t.update({UP: t[UP].char()}), rf"{UP} has shape .* codes of int8"),
    "no codes at all": (lambda t: t.update({UP: t[UP][:0].clone()}), rf"{UP} has shape \(0, 2, 16\)"),
    "fewer outputs": (
        lambda t: t.update({name: t[name][:90].clone() for name in (UP, SCALE, MINIMUM)}),
        rf"{UP} has shape \(90, 64\), config.json asks for \(96, 64\)",
    ),
    "codes for a norm": (lambda t: t.update({"model.norm.weight": torch.ones(64).char()}), "model.norm.weight has"),
    "scales of nothing": (lambda t: t.update({"x_scale": torch.ones(2, 2).half()}), "holds x_scale"),
    "a scale for a whole weight": (
        lambda t: t.update({"model.norm.weight_scale": torch.ones(2).half()}),
        "holds model.norm.weight_scale",
    ),
    "minima beside int8": (lambda t: t.update({EMBED + "_min": t[EMBED + "_scale"].clone()}), f"holds {EMBED}_min"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_damage_is_refused_by_name(make_family, tmp_path, name):
    write(tmp_path, make_family("llama", 77), "int4")
    tensors = load_file(tmp_path / SINGLE)
    change, named = BROKEN[name]
    change(tensors)
    save_file(tensors, tmp_path / SINGLE)
    with pytest.raises(FolderError, match=named):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"quant_method": "kogia"}, "bits None"),
        ({"quant_method": "kogia", "bits": 3, "group_size": 32}, "bits 3"),
        ({"quant_method": "kogia", "bits": 4.0, "group_size": 32}, "bits 4.0"),
        ({"quant_method": "kogia", "bits": 4, "group_size": 64}, "group_size 64"),
        ({"quant_method": "kogia", "bits": 8, "group_size": 32}, "_proj.weight has 4 bits"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "_scale, which config.json has no place for"),
        (None, "_scale, which config.json has no place for"),
    ],
    ids=str,
)
def test_a_config_that_says_otherwise(make_family, tmp_path, found, named):
    write(tmp_path, make_family("llama", 78), "int4")
    values = json.loads((tmp_path / "config.json").read_text()) | {"quantization_config": found}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(KogiaError, match=named):
        load_model(tmp_path)


@pytest.mark.parametrize(("format", "value"), [("int8", 1e7), ("int4", 1e7), ("int4", -7e4), ("int8", NAN)])
def test_weights_that_scales_cannot_hold_are_not_written(make_family, tmp_path, format, value):
    model = make_family("llama", 79)
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight[3, 3] = value
    with pytest.raises(FolderError, match=f"{UP}.*(does not fit {format}, whose scales|not finite)"):
        write(tmp_path, model, format)
    assert not (tmp_path / SINGLE).exists()
