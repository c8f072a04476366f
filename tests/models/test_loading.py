"""Models in and out: shards, number formats, FP8 blocks, what may be missing, and how much memory it takes."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file

from kogia.errors import FolderError
from kogia.formats.safetensors import INDEX, SINGLE
from kogia.kernels.fp8 import dequantise_blocks, quantise_blocks
from kogia.models.checkpoint import LiveCheckpoint, open_checkpoint
from kogia.models.folder import load_model, save_model, write_folder

FAMILIES = ["deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3"]
FP8 = torch.float8_e4m3fn


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_keeps_every_byte(make_family, tmp_path, family, tied):
    model = make_family(family, 51, tie_word_embeddings=tied)
    save_model(tmp_path / "a", model)
    write_folder(tmp_path / "b", open_checkpoint(tmp_path / "a"), torch.float32)
    assert (tmp_path / "a" / SINGLE).read_bytes() == (tmp_path / "b" / SINGLE).read_bytes()
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()
    again = load_model(tmp_path / "b")
    assert same(again, model) and again.config == model.config
    assert ("lm_head.weight" in load_file(tmp_path / "a" / SINGLE)) is not tied
    assert (again.lm_head.weight is again.embed_tokens.weight) is tied


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen2"])
def test_shards(make_family, tmp_path, family):
    model = make_family(family, 52)
    write_folder(tmp_path, LiveCheckpoint(model), torch.float32, shard_bytes=30_000)
    index = json.loads((tmp_path / INDEX).read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3 and not (tmp_path / SINGLE).exists()
    stored = {name: tensor for file in files for name, tensor in load_file(tmp_path / file).items()}
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in stored.values())
    assert same(load_model(tmp_path), model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(make_family, tmp_path, dtype):
    """Weights in half precision come back as they were rounded; the balancing bias is never rounded."""
    model = make_family("deepseek_v3", 53)
    write_folder(tmp_path, LiveCheckpoint(model), dtype)
    stored = load_file(tmp_path / SINGLE)
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    assert {t.dtype for name, t in stored.items() if "correction_bias" not in name} == {dtype}
    assert stored[bias].dtype == torch.float32
    assert torch.equal(stored[bias], model.layers[1].mlp.gate.e_score_correction_bias)
    half = load_model(tmp_path, dtype)
    assert half.dtype == half.layers[0].mlp.up_proj.weight.dtype == half.embed_tokens.weight.dtype == dtype
    assert half.norm.weight.dtype == half.layers[1].mlp.gate.weight.dtype == torch.float32
    whole = load_model(tmp_path)
    for a, b, c in zip(half.state_dict().values(), whole.state_dict().values(), model.state_dict().values()):
        assert torch.equal(a.float(), b) and (torch.equal(b, c.to(dtype).float()) or torch.equal(b, c))
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == str(dtype).removeprefix("torch.")
    tokens = torch.arange(10).unsqueeze(0)
    assert (half(tokens) - whole(tokens)).abs().max() < 0.1


@pytest.mark.parametrize("ue8m0", [False, True])
def test_fp8_blocks(make_family, tmp_path, ue8m0):
    """Written as DeepSeek publishes them, read back as code * scale in FP32, bit for bit; sizes are odd on purpose."""
    model = make_family("deepseek_v3", 54, hidden_size=136, intermediate_size=200, kv_lora_rank=72)
    write_folder(tmp_path, LiveCheckpoint(model), FP8, ue8m0=ue8m0)
    stored = load_file(tmp_path / SINGLE)
    eight = {name for name, t in stored.items() if t.dtype == FP8}
    assert {f"{name}_scale_inv" for name in eight} == {n for n in stored if n.endswith("_scale_inv")}
    assert not any(word in name for name in eight for word in ("embed", "head", "norm", "gate.weight", "eh_proj"))
    kinds = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "mlp.up_proj", "shared_experts",
             "experts.7.down_proj", "layers.3.self_attn.o_proj")  # fmt: skip
    assert all(any(kind in name for name in eight) for kind in kinds)
    checkpoint = open_checkpoint(tmp_path)
    for name in eight:
        codes, scales = stored[name].float(), stored[f"{name}_scale_inv"]
        rows = torch.arange(codes.shape[0]) // 128
        columns = torch.arange(codes.shape[1]) // 128
        assert torch.equal(checkpoint.read(name), codes * scales[rows][:, columns]), name
        if ue8m0:
            assert torch.equal(torch.frexp(scales).mantissa, torch.full_like(scales, 0.5)), name
    values = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert values["quant_method"] == "fp8" and values["weight_block_size"] == [128, 128]
    assert values.get("scale_fmt") == ("ue8m0" if ue8m0 else None)
    again, tokens = load_model(tmp_path), torch.arange(40).unsqueeze(0)
    share = (again(tokens) - model(tokens)).norm() / model(tokens).norm()
    assert 0.001 < share < 0.2
    back = tmp_path / "back"
    write_folder(back, checkpoint, torch.float32)
    assert same(load_model(back), again)


def test_scales_as_powers_of_two_in_a_byte(make_family, tmp_path):
    """V3.1's ue8m0 scales may be stored as E8M0 numbers too."""
    model = make_family("deepseek_v3", 55)
    write_folder(tmp_path, LiveCheckpoint(model), FP8, ue8m0=True)
    expected = load_model(tmp_path)
    stored = load_file(tmp_path / SINGLE)
    small = {n: t.to(torch.float8_e8m0fnu) if n.endswith("_scale_inv") else t for n, t in stored.items()}
    save_file(small, tmp_path / SINGLE)
    assert same(load_model(tmp_path), expected)


def test_blocks_of_another_size(make_family, tmp_path):
    """config.json says how large the blocks are; DeepSeek's 128 is not taken for granted."""
    write_folder(tmp_path, LiveCheckpoint(make_family("llama", 68, hidden_size=96)), torch.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    weight = load_file(tmp_path / SINGLE)[name]
    codes, scales = quantise_blocks(weight, 64)
    edit(tmp_path, lambda t: t.update({name: codes, name + "_scale_inv": scales}))
    values = json.loads((tmp_path / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [64, 64]}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert torch.equal(load_model(tmp_path).layers[0].mlp.up_proj.weight, dequantise_blocks(codes, scales, 64))


def test_double_precision_is_read_as_single(make_family, tmp_path):
    model = make_family("qwen2", 69)
    save_model(tmp_path, model)
    save_file({n: t.double() for n, t in load_file(tmp_path / SINGLE).items()}, tmp_path / SINGLE)
    assert open_checkpoint(tmp_path).read("model.norm.weight").dtype == torch.float32
    assert same(load_model(tmp_path), model)


def edit(folder, change) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)


SCALE = "model.layers.0.self_attn.o_proj.weight_scale_inv"
BROKEN_FP8 = {
    "no scales": (lambda t: t.pop(SCALE), "FP8 without its scales model.layers.0.self_attn.o_proj.weight_scale_inv"),
    "a NaN scale": (lambda t: t[SCALE].fill_(float("nan")), "o_proj.weight hold NaN"),
    "a negative scale": (lambda t: t[SCALE].neg_(), "o_proj.weight hold NaN, infinite or negative"),
    "an infinite scale": (lambda t: t[SCALE].fill_(float("inf")), "o_proj.weight hold"),
    "scales of another shape": (lambda t: t.update({SCALE: torch.ones(2, 3)}), "o_proj.weight are"),
    "whole numbers": (lambda t: t.update({SCALE: torch.ones(1, 1, dtype=torch.int32)}), "o_proj.weight are"),
    "scales beside a whole weight": (
        lambda t: t.update({"model.norm.weight_scale_inv": torch.ones(1)}),
        "model.norm.weight has scales",
    ),
    "scales of nothing": (lambda t: t.update({"x_scale_inv": torch.ones(1)}), "holds x_scale_inv"),
}


@pytest.mark.parametrize("name", BROKEN_FP8)
def test_broken_fp8_is_refused_by_name(make_family, tmp_path, name):
    write_folder(tmp_path, LiveCheckpoint(make_family("deepseek_v3", 56)), FP8)
    change, named = BROKEN_FP8[name]
    edit(tmp_path, change)
    with pytest.raises(FolderError, match=named):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"quant_method": "awq", "bits": 4}, "quant_method 'awq'"),
        ("fp8", "quantization_config is 'fp8'"),
        ({"quant_method": "fp8"}, "weight_block_size is None"),
        ({"quant_method": "fp8", "weight_block_size": [128, 64]}, "weight_block_size is"),
        ({"quant_method": "fp8", "weight_block_size": [0, 0]}, "weight_block_size is"),
    ],
    ids=str,
)
def test_other_quantisations_are_refused_by_name(make_family, tmp_path, found, named):
    from kogia.errors import KogiaError

    save_model(tmp_path, make_family("deepseek_v3", 57))
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"quantization_config": found}))
    with pytest.raises(KogiaError, match=named):
        load_model(tmp_path)


# what other programs leave out or put in ------------------------------------------------------------------------------


def test_a_dropped_mtp_layer_is_said_and_not_passed_over(make_family, tmp_path):
    save_model(tmp_path, make_family("deepseek_v3", 58))
    edit(tmp_path, lambda t: [t.pop(name) for name in list(t) if ".layers.2." in name or ".layers.3." in name])
    with pytest.raises(FolderError, match=r"model\.layers\.3\..*MTP.*num_nextn_predict_layers to 0"):
        load_model(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"num_nextn_predict_layers": 0}))
    assert len(load_model(tmp_path).mtp) == 0


def test_an_mtp_layer_with_a_head_of_its_own_is_refused(make_family, tmp_path):
    save_model(tmp_path, make_family("deepseek_v3", 59))
    edit(tmp_path, lambda t: t["model.layers.2.shared_head.head.weight"].add_(1.0))
    with pytest.raises(FolderError, match=r"layers\.2\.shared_head\.head\.weight differs from lm_head"):
        load_model(tmp_path)


def test_old_llama_folders_carry_rope_frequencies(make_family, tmp_path):
    model = make_family("llama", 60)
    save_model(tmp_path, model)
    edit(tmp_path, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    assert same(load_model(tmp_path), model)


def test_a_tied_model_may_store_its_head_as_well(make_family, tmp_path):
    model = make_family("qwen2", 61, tie_word_embeddings=True)
    save_model(tmp_path, model)
    edit(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert same(load_model(tmp_path), model)
    edit(tmp_path, lambda t: t["lm_head.weight"].add_(1.0))
    with pytest.raises(FolderError, match=r"lm_head\.weight differs"):
        load_model(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(make_family, tmp_path, bad):
    save_model(tmp_path, make_family("llama", 62))
    edit(tmp_path, lambda t: t["model.layers.1.mlp.up_proj.weight"].view(-1)[17:18].fill_(bad))
    with pytest.raises(FolderError, match=r"layers\.1\.mlp\.up_proj\.weight holds values that are not finite"):
        load_model(tmp_path)


# memory --------------------------------------------------------------------------------------------------------------

MEASURE = textwrap.dedent("""
    import re, sys, torch
    from pathlib import Path
    from kogia.models.folder import load_model
    from kogia.convert import convert
    torch.set_num_threads(1)
    def peak():  # not ru_maxrss, which begins with that of the process that started this one
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    load_model(sys.argv[1])  # a small one first: libraries are loaded and set up by now
    before = peak()
    if sys.argv[3] == "load":
        model = load_model(sys.argv[2])
    else:
        how = {"quantize": sys.argv[3]} if sys.argv[3].startswith("int") else {"dtype": sys.argv[3]}
        convert(sys.argv[2], Path(sys.argv[2] + ".out"), **how)
    print(peak() - before)
""")


@pytest.mark.parametrize(
    ("what", "model_share", "source"),
    [("load", 1.0, None), ("fp8", 0.0, None), ("int8", 0.0, None), ("int4", 0.0, None), ("load", 1.0, "int4"),
     ("float32", 0.0, "int8")],
)  # fmt: skip
def test_memory_is_the_model_and_one_tensor(make_family, tmp_path, what, model_share, source):
    """100 MB in shards of 30 (less if the source is quantised); the largest tensor, the embedding, has 8 MB in FP32."""
    save_model(tmp_path / "small", make_family("qwen2", 63))
    model = make_family("qwen2", 64, hidden_size=512, intermediate_size=2000, num_hidden_layers=6, vocab_size=4000)
    size = sum(t.numel() * 4 for t in model.state_dict().values())
    largest = max(t.numel() * 4 for t in model.state_dict().values())
    write_folder(tmp_path / "large", LiveCheckpoint(model), torch.float32, shard_bytes=30 << 20, quantise=source)
    script = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "large", what],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    allowed = model_share * size + largest + (0 if what == "load" else 12e6)  # and codes, on their way out
    assert size > 90e6 and int(script.stdout) < allowed * 1.05 + 8e6, (int(script.stdout), size, largest)
