"""Models through GGUF and back, in every layout that is in use, and what does not fit is named."""

import dataclasses
import math
import time
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from kogia.errors import FolderError, KogiaError, ShapeError
from kogia.formats.gguf import GGUF, STOP_IDS
from kogia.models.checkpoint import LiveCheckpoint
from kogia.models.config import ModelConfig
from kogia.models.folder import load_model, save_model
from kogia.models.gguf import GGUFCheckpoint
from kogia.models.gguf_layout import deinterleave, interleave, join_kv, split_kv
from kogia.models.gguf_names import gguf_name
from kogia.models.gguf_rope import LLAMA3 as NOTE
from kogia.models.gguf_warnings import differences
from kogia.models.gguf_write import FILE_TYPES, write_gguf
from kogia.models.rotary import RopeScaling
from kogia.text.gguf import tokenizer_from_gguf, vocabulary
from kogia.text.tokenizer import Tokenizer

FAMILIES = ("deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3")
LLAMA3 = RopeScaling("llama3", 32.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)


def exported(model, folder: Path, dtype: str = "f32", **options) -> Path:
    write_gguf(folder / "model.gguf", LiveCheckpoint(model), {}, dtype, **options)
    return folder / "model.gguf"


def as_dict(path: Path) -> tuple[dict, dict]:
    """A GGUF's metadata and tensors, as the gguf package reads them."""
    reader = GGUFReader(path)
    names = [name for name in reader.fields if not name.startswith("GGUF.")]
    return {name: reader.fields[name] for name in names}, {t.name: t for t in reader.tensors}


def edited(path: Path, *, keys=(), drop=(), tensors=(), architecture=None) -> Path:
    """The same file with keys set (None: left out), tensors left out and others put in."""
    fields, found = as_dict(path)
    writer = GGUFWriter(path.with_name("edited.gguf"), architecture or fields["general.architecture"].contents())
    keys, tensors = dict(keys), dict(tensors)
    for name, field in fields.items():
        if name not in ("general.architecture", *keys):
            sub_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    for name, value in keys.items():
        if value is not None:
            add = {bool: writer.add_bool, int: writer.add_int32, float: writer.add_float32, str: writer.add_string}
            add.get(type(value), writer.add_array)(name, value)
    for name, tensor in found.items():
        if name not in (*drop, *tensors):
            writer.add_tensor(name, dequantize(tensor.data, tensor.tensor_type).copy())
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.detach().numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("edited.gguf")


def assert_same_weights(one, other) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# there and back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back(tmp_path, make_family, family, tied):
    model = make_family(family, tie_word_embeddings=tied, eos_token_id=(1, 7, 9), bos_token_id=3)
    back = load_model(exported(model, tmp_path, name="a model"))
    assert_same_weights(model, back)
    changes = dict(initializer_range=back.config.initializer_range)  # a GGUF does not hold it
    assert back.config == dataclasses.replace(model.config, **changes)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("deepseek_v3", dict(q_lora_rank=None)),
        ("deepseek_v3", dict(n_shared_experts=0)),
        ("deepseek_v3", dict(first_k_dense_replace=0, n_group=1, topk_group=1)),
        ("deepseek_v3", dict(num_nextn_predict_layers=0, norm_topk_prob=False, routed_scaling_factor=1.5)),
        ("deepseek_v3", dict(rope_scaling=RopeScaling("yarn", 40.0, 4096, mscale=0.707, mscale_all_dim=0.707))),
        ("deepseek_v2", dict(topk_method="greedy", n_group=1, topk_group=1, q_lora_rank=None)),
        ("llama", dict(attention_bias=True, bos_token_id=None)),
        ("llama", dict(head_dim=32)),
        ("llama", dict(rope_scaling=LLAMA3, rope_theta=500000.0)),
        ("llama", dict(rope_scaling=dataclasses.replace(LLAMA3, factor=8.0), rope_theta=500000.0, head_dim=64)),
        ("llama", dict(rope_scaling=dataclasses.replace(LLAMA3, factor=16.0), rope_theta=500000.0, head_dim=64)),
        (
            "llama",
            dict(rope_scaling=RopeScaling("llama3", 3.7, 4096, low_freq_factor=1.5, high_freq_factor=6.0), head_dim=64),
        ),
        ("llama", dict(rope_scaling=RopeScaling("linear", 2.5))),
        ("qwen2", dict(rope_scaling=RopeScaling("yarn", 4.0, 32768, beta_fast=24.0, beta_slow=2.0))),
        ("qwen3", dict(num_key_value_heads=4, rms_norm_eps=1e-5)),
    ],
)
def test_every_setting_comes_back(tmp_path, make_family, family, changes):
    model = make_family(family, **changes)
    back = load_model(exported(model, tmp_path))
    assert_same_weights(model, back)
    assert back.config == dataclasses.replace(model.config, initializer_range=back.config.initializer_range)


def test_from_a_folder_without_a_model_in_memory(tmp_path, make_family):
    """With what old folders carry besides (RoPE's frequencies), and without the MTP layers' copies of the head."""
    from kogia.models.checkpoint import open_checkpoint

    model = make_family("deepseek_v3")
    save_model(tmp_path / "folder", model)
    checkpoint = open_checkpoint(tmp_path / "folder")
    checkpoint.shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = (4,)
    write_gguf(tmp_path / "model.gguf", checkpoint, {})
    assert_same_weights(model, load_model(tmp_path / "model.gguf"))
    assert not [name for name in GGUF(tmp_path / "model.gguf").tensors if "shared_head_head" in name]


@pytest.mark.parametrize("tied", [False, True])
def test_embedding_and_head_are_finer_than_four_bits(tmp_path, make_family, tied):
    """As in llama.cpp's own files: a tied embedding in Q4_0 raises SmolLM2's perplexity by 7 percent."""
    path = exported(make_family("llama", tie_word_embeddings=tied), tmp_path, "q4_0")
    kinds = {name: tensor.quantisation for name, tensor in GGUF(path).tensors.items()}
    assert kinds["token_embd.weight"] == "Q8_0" and kinds.get("output.weight") == (None if tied else "Q8_0")
    assert kinds["blk.0.attn_q.weight"] == kinds["blk.1.ffn_down.weight"] == "Q4_0"


@pytest.mark.parametrize("dtype", FILE_TYPES)
def test_every_format(tmp_path, make_family, dtype):
    """What is read is what the gguf package makes of the weights; norms, biases and routers stay as they are."""
    model = make_family("deepseek_v3", hidden_size=64, moe_intermediate_size=32, qk_nope_head_dim=24)
    path = exported(model, tmp_path, dtype)
    live, back, kind = LiveCheckpoint(model), GGUFCheckpoint(path), FILE_TYPES[dtype][0]
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.experts.3.down_proj.weight", "lm_head.weight"):
        kept = FILE_TYPES["q8_0"][0] if dtype.startswith("q4") and "experts" not in name else kind
        expected = dequantize(quantize(live.read(name).numpy(), kept), kept)
        assert torch.equal(back.read(name).float(), torch.from_numpy(expected)), name
    for name in (
        "model.norm.weight",
        "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.gate.e_score_correction_bias",
    ):
        assert torch.equal(back.read(name), live.read(name)) and back.read(name).dtype == torch.float32
    load_model(path)


def test_a_matrix_that_does_not_divide_is_kept_in_half_precision(tmp_path, make_family):
    model = make_family("llama", intermediate_size=80)
    said = write_gguf(tmp_path / "model.gguf", LiveCheckpoint(model), {}, "q8_0")
    tensors = GGUF(tmp_path / "model.gguf").tensors
    assert (
        tensors["blk.1.ffn_down.weight"].quantisation == "F16" and tensors["blk.1.ffn_up.weight"].quantisation == "Q8_0"
    )
    assert said == ["2 matrices do not divide into blocks of q8_0 and are in FP16, first ['blk.0.ffn_down.weight']"]


@pytest.mark.parametrize("dtype", FILE_TYPES)
def test_what_llama_cpp_asks_of_the_metadata(tmp_path, make_family, dtype):
    metadata = GGUF(exported(make_family("llama"), tmp_path, dtype)).metadata
    assert metadata["general.quantization_version"] == 2 and metadata["general.file_type"] == int(FILE_TYPES[dtype][1])


def test_more_ends_than_llama_cpp_has_names_for(tmp_path, make_family):
    model = make_family("llama", eos_token_id=(1, 7, 9, 11, 4))
    (said,) = write_gguf(tmp_path / "model.gguf", LiveCheckpoint(model), {})
    assert said == "llama.cpp knows 3 ends of a reply only (eos, eot, eom): it may go on after token 4, 11"
    path = tmp_path / "model.gguf"
    assert GGUFCheckpoint(path).config.eos_token_id == (1, 7, 9, 11, 4)
    assert GGUFCheckpoint(edited(path, keys={STOP_IDS: None})).config.eos_token_id == (1, 7, 9)


def test_ends_of_the_tokenizer_and_of_the_configuration(tmp_path, make_family, tiny_tokenizer):
    """What generation_config.json names beside config.json: the tokenizer knows it, the configuration does not."""
    tokenizer = Tokenizer(tiny_tokenizer._trusted, stops=[1, 7, 8])
    model, path = make_family("llama", eos_token_id=1), tmp_path / "model.gguf"
    assert write_gguf(path, LiveCheckpoint(model), vocabulary(tokenizer, 400)[0]) == []
    assert tokenizer_from_gguf(path).stops == {1, 7, 8} and tokenizer_from_gguf(path).eos == 1
    assert GGUFCheckpoint(path).config.eos_token_id == (1, 7, 8)
    write_gguf(path, LiveCheckpoint(make_family("llama", eos_token_id=7)), vocabulary(tokenizer, 400)[0])
    assert GGUF(path).metadata["tokenizer.ggml.eos_token_id"] == 1  # what the tokenizer calls its end
    assert tokenizer_from_gguf(path).stops == {1, 7, 8}


def test_end_of_turn_keeps_its_name(tmp_path, make_family, tiny_tokenizer):
    metadata = vocabulary(tiny_tokenizer, 400)[0] | {"tokenizer.ggml.eot_token_id": 5}
    path = tmp_path / "model.gguf"
    write_gguf(path, LiveCheckpoint(make_family("llama", eos_token_id=(1, 7))), metadata)
    found = {end: GGUF(path).metadata[f"tokenizer.ggml.{end}_token_id"] for end in ("eos", "eot", "eom")}
    assert found == {"eos": 1, "eot": 5, "eom": 7}


@pytest.mark.parametrize("layers", [26, 27])
def test_layers_that_llama_cpp_takes_for_v2_lite(make_family, layers):
    def said(layers: int, **changes) -> bool:
        config = dataclasses.replace(make_family("deepseek_v3").config, num_hidden_layers=layers, **changes)
        return any("layers for DeepSeek-V2-Lite" in line for line in differences(config, 0))

    assert said(layers) and not said(layers, q_lora_rank=None) and not said(25) and not said(28)


def test_fewer_mtp_layers(tmp_path, make_family):
    model = make_family("deepseek_v3")
    for kept in (2, 1, 0):
        back = load_model(exported(model, tmp_path, mtp_layers=kept))
        assert back.config.num_nextn_predict_layers == kept
        tokens = torch.arange(12).view(1, 12)
        h = model.hidden_states(tokens[:, :10])
        assert torch.equal(back.hidden_states(tokens[:, :10]), h)
        for ours, theirs in zip(back.further_hidden_states(h, tokens), model.further_hidden_states(h, tokens)):
            assert torch.equal(ours, theirs)


# layouts by hand -----------------------------------------------------------------------------------------------------


def test_order_of_rows_by_hand():
    """Two heads of four rows: HF turns row i with i + 2, GGUF 2i with 2i + 1."""
    rows = torch.tensor([0, 1, 2, 3, 10, 11, 12, 13])
    assert interleave(rows, 2).tolist() == [0, 2, 1, 3, 10, 12, 11, 13]
    assert torch.equal(deinterleave(interleave(rows, 2), 2), rows)


def test_halves_of_kv_b_by_hand():
    config = ModelConfig(
        10, 8, 8, 1, 2, "deepseek_v2", kv_lora_rank=3, qk_nope_head_dim=2, qk_rope_head_dim=2, v_head_dim=1,
        moe_intermediate_size=4, n_routed_experts=2, num_experts_per_tok=1, scoring_func="softmax",
        topk_method="greedy", norm_topk_prob=False,
    )  # fmt: skip
    kv_b = torch.arange(18).view(6, 3)  # rows: head 0: key, key, value; head 1: the same
    key, value = split_kv(kv_b, config)
    assert key.tolist() == [[[0, 3], [1, 4], [2, 5]], [[9, 12], [10, 13], [11, 14]]]
    assert value.tolist() == [[[6, 7, 8]], [[15, 16, 17]]]
    assert torch.equal(join_kv(key, value), kv_b)


def test_old_files_with_kv_b_in_one_piece(tmp_path, make_family):
    """Before 2025: kv_b whole, as many key heads as heads, widths of the expanded heads; no groups, no gating."""
    model = make_family("deepseek_v2", topk_method="greedy", n_group=1, topk_group=1, routed_scaling_factor=1.0)
    c, a = model.config, "deepseek2.attention."
    whole = {f"blk.{k}.attn_kv_b.weight": layer.self_attn.kv_b_proj.weight for k, layer in enumerate(model.layers)}
    halves = [f"blk.{k}.attn_{half}_b.weight" for k in range(c.num_hidden_layers) for half in "kv"]
    keys = {
        f"{a}head_count_kv": c.num_attention_heads, f"{a}key_length": c.qk_head_dim, f"{a}value_length": c.v_head_dim,
        f"{a}key_length_mla": None, f"{a}value_length_mla": None, "deepseek2.expert_gating_func": None,
        "deepseek2.expert_weights_norm": None, "deepseek2.expert_weights_scale": None,
    }  # fmt: skip
    path = exported(model, tmp_path)
    back = load_model(edited(path, keys=keys, drop=halves, tensors=whole))
    assert_same_weights(model, back)
    assert back.config == dataclasses.replace(c, initializer_range=back.config.initializer_range)
    assert_same_weights(model, load_model(edited(path, keys=keys, tensors=whole)))  # both forms in one file


def test_gate_and_up_of_all_experts_in_one(tmp_path, make_family):
    model = make_family("deepseek_v3", num_nextn_predict_layers=0)
    stacks = {f"blk.{k}.ffn_gate_up_exps.weight": layer.mlp.experts.gate_up_proj
              for k, layer in enumerate(model.layers) if k >= model.config.first_k_dense_replace}  # fmt: skip
    names = [name.replace("gate_up", half) for name in stacks for half in ("gate", "up")]
    assert_same_weights(model, load_model(edited(exported(model, tmp_path), drop=names, tensors=stacks)))


def test_copies_of_embedding_and_head_in_mtp_layers(tmp_path, make_family):
    model = make_family("deepseek_v3", num_nextn_predict_layers=1)
    stem = f"blk.{model.config.num_hidden_layers}.nextn"
    copies = {
        f"{stem}.embed_tokens.weight": model.embed_tokens.weight,
        f"{stem}.shared_head_head.weight": model.lm_head.weight,
    }
    path = exported(model, tmp_path)
    assert_same_weights(model, load_model(edited(path, tensors=copies)))
    copies[f"{stem}.embed_tokens.weight"] = model.embed_tokens.weight + 1
    with pytest.raises(FolderError, match="embed_tokens"):
        load_model(edited(path, tensors=copies))


def test_mtp_layers_that_were_left_out(tmp_path, make_family):
    """llama.cpp allows a file to announce MTP layers and not to hold them."""
    model = make_family("deepseek_v3", num_nextn_predict_layers=1)
    path = exported(model, tmp_path)
    gone = [name for name in GGUF(path).tensors if name.startswith(f"blk.{model.config.num_hidden_layers}.")]
    assert load_model(edited(path, drop=gone)).config.num_nextn_predict_layers == 0


def test_groups_of_v3_in_files_that_do_not_tell():
    from kogia.models.gguf_config import GROUPS

    assert GROUPS[61, 256] == (8, 4) and GROUPS[60, 160] == (8, 3)  # DeepSeek-V3's and V2's config.json


def test_the_gguf_package_knows_our_names(make_family):
    """Every name that we write is the one that its own table gives for Hugging Face's."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    for family, arch in (("deepseek_v3", "DEEPSEEK2"), ("llama", "LLAMA"), ("qwen2", "QWEN2"), ("qwen3", "QWEN3")):
        table = get_tensor_name_map(MODEL_ARCH[arch], 4)
        for hf in LiveCheckpoint(make_family(family)).shapes:
            if ".experts." in hf or hf.startswith("model.layers.2") or hf.startswith("model.layers.3"):
                continue  # stacked, or of MTP layers, which this version of the package knows for other families
            name, suffix = gguf_name(hf)[0].rsplit(".", 1)
            if hf.endswith("e_score_correction_bias"):
                assert (name, suffix) == ("blk.1.exp_probs_b", "bias")
            else:
                assert table.get_name(hf, try_suffixes=(".weight", ".bias")) == f"{name}.{suffix}", hf


def test_llama3_factors_by_hand(tmp_path, make_family):
    """Short waves are kept, long ones divided by the factor; one in between: 1 / ((1 - s) / factor + s)."""
    path = exported(make_family("llama", rope_scaling=LLAMA3, rope_theta=500000.0, head_dim=64), tmp_path)
    factors = GGUF(path).read("rope_freqs.weight").tolist()
    wave = 2 * math.pi * 500000 ** (2 * 15 / 64)  # pair 15 turns once in 2,948 tokens: between 8192/4 and 8192/1
    smooth = (8192 / wave - 1) / 3
    assert factors[0] == 1.0 and factors[31] == pytest.approx(32.0) and 2048 < wave < 8192
    assert factors[15] == pytest.approx(1 / ((1 - smooth) / 32 + smooth), rel=1e-5)


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.fixture
def llama(tmp_path, make_family) -> Path:
    return exported(make_family("llama", rope_scaling=LLAMA3), tmp_path)


@pytest.fixture
def deepseek(tmp_path, make_family) -> Path:
    return exported(make_family("deepseek_v3", num_nextn_predict_layers=1), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(architecture="mamba"), "architecture mamba is not supported: deepseek2, llama"),
        (dict(drop=["token_embd.weight"]), "token_embd.weight is missing"),
        (dict(drop=["blk.1.attn_q.weight"]), "lacks model.layers.1.self_attn.q_proj.weight"),
        (dict(tensors={"blk.0.attn_sinks.weight": torch.ones(4)}), "blk.0.attn_sinks.weight has no place"),
        (dict(tensors={"blk.00.attn_norm.weight": torch.ones(64)}), "blk.00.attn_norm.weight has no place"),
        (dict(tensors={"blk.7.attn_norm.weight": torch.ones(64)}), "model.layers.7.input_layernorm.weight"),
        (dict(tensors={"blk.0.attn_q.weight": torch.ones(60, 64)}), "4 heads of 16 rows"),
        (dict(tensors={"blk.0.ffn_up.weight": torch.ones(64, 64)}), "model.layers.0.mlp.up_proj.weight has shape"),
        (dict(tensors={"rope_freqs.weight": torch.ones(8)}), "none of Llama 3's settings"),
        (dict(tensors={"rope_freqs.weight": torch.ones(9)}), "none of Llama 3's settings"),
        (dict(keys={"llama.block_count": None}), "llama.block_count is missing"),
        (dict(keys={"llama.block_count": "2"}), "llama.block_count is a str: it must be one int"),
        (dict(keys={"llama.attention.head_count": [4, 4]}), "llama.attention.head_count is a ndarray"),
        (dict(keys={"llama.block_count": 10**9}), "num_hidden_layers is 1000000000"),
        (dict(keys={"llama.block_count": -1}), "num_hidden_layers is -1"),
        (dict(keys={"llama.attention.head_count": 0}), "num_attention_heads is 0"),
        (dict(keys={"llama.attention.layer_norm_rms_epsilon": float("nan")}), "rms_norm_eps is nan"),
        (dict(keys={"llama.expert_count": 8}), "with experts is not supported"),
        (dict(keys={"llama.attention.value_length": 8}), "value_length differs from the head width 16"),
        (dict(keys={"llama.rope.dimension_count": 8}), "dimension_count differs from the head width 16"),
        (dict(keys={"tokenizer.ggml.eos_token_id": None}), "eos_token_id is missing"),
        (dict(drop=["rope_freqs.weight"], keys={"llama.rope.scaling.type": "longrope"}), "is longrope: none, linear"),
        (dict(drop=["rope_freqs.weight"], keys={"llama.rope.scaling.type": "linear"}), "scaling.factor is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_llama(llama, change, said):
    with pytest.raises(KogiaError, match=said):
        load_model(edited(llama, **change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(drop=["blk.1.attn_k_b.weight"]), "attn_k_b.weight is missing, and its other half is there"),
        (dict(drop=["blk.1.attn_v_b.weight"]), "attn_v_b.weight is missing, and its other half is there"),
        (dict(tensors={"blk.0.attn_v_b.weight": torch.ones(2, 16, 31)}), r"the metadata ask for \(2, 16, 32\)"),
        (dict(tensors={"blk.1.ffn_up_exps.weight": torch.ones(7, 32, 64)}), "with 8 experts"),
        (dict(tensors={"blk.1.ffn_up_exps.weight": torch.ones(8, 32)}), "three-dimensional"),
        (dict(tensors={"blk.1.ffn_gate_up_exps.weight": torch.ones(8, 64, 64)}), "are both model.layers.1.mlp.ex"),
        (dict(drop=["blk.1.exp_probs_b.bias"]), "lacks model.layers.1.mlp.gate.e_score_correction_bias"),
        (dict(keys={"deepseek2.expert_count": 5000}), "n_routed_experts is 5000"),
        (dict(keys={"deepseek2.expert_gating_func": 3}), "expert_gating_func is 3"),
        (dict(keys={"deepseek2.expert_gating_func": 1}), "softmax gating and MTP"),
        (dict(keys={"deepseek2.expert_weights_norm": 1}), "expert_weights_norm is a int: it must be one bool"),
        (dict(keys={"deepseek2.nextn_predict_layers": 3}), "num_hidden_layers is 0"),
        (dict(keys={"deepseek2.rope.scaling.type": "yarn", "deepseek2.rope.scaling.factor": 4.0}),
         "original_context_length is missing"),
        (dict(keys={"deepseek2.rope.scaling.type": "yarn", "deepseek2.rope.scaling.factor": 4.0,
                    "deepseek2.rope.scaling.original_context_length": 99, "deepseek2.rope.scaling.attn_factor": 2.0}),
         "attn_factor is 2.0: only 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_deepseek(deepseek, change, said):
    with pytest.raises(KogiaError, match=said):
        load_model(edited(deepseek, **change))


def test_noted_settings_of_llama3_are_held_against_the_factors(tmp_path, make_family):
    """The published settings are still found when the note is gone; a note that is wrong is not believed."""
    path = exported(make_family("llama", rope_scaling=LLAMA3, rope_theta=500000.0, head_dim=64), tmp_path)
    gone = {
        f"{NOTE}{key}": None for key in ("factor", "low_freq_factor", "high_freq_factor", "original_context_length")
    }
    assert GGUFCheckpoint(edited(path, keys=gone)).config.rope_scaling == LLAMA3
    assert GGUFCheckpoint(edited(path, keys={f"{NOTE}factor": 16.0})).config.rope_scaling == LLAMA3
    with pytest.raises(FolderError, match=r"edited.gguf: metadata keys kogia.rope.llama3.\*: .*low_freq_factor"):
        GGUFCheckpoint(edited(path, keys={f"{NOTE}low_freq_factor": 5.0}))
    with pytest.raises(FolderError, match=r"kogia\.rope\.llama3\.low_freq_factor is missing"):
        GGUFCheckpoint(edited(path, keys={f"{NOTE}low_freq_factor": None}))
    with pytest.raises(FolderError, match="none of Llama 3's settings"):
        GGUFCheckpoint(edited(path, tensors={"rope_freqs.weight": torch.ones(32)}))


@pytest.mark.parametrize("noted", ["x", 5, [0.5], [1] * 1025])
def test_noted_ends_that_are_none(llama, noted):
    with pytest.raises(FolderError, match="kogia_stop_ids must be a list of at most 1024 token ids"):
        GGUFCheckpoint(edited(llama, keys={STOP_IDS: noted}))


@pytest.mark.parametrize(("family", "architecture"), [("llama", "llama"), ("deepseek_v3", "deepseek2")])
def test_layers_that_are_claimed_and_not_there(tmp_path, make_family, family, architecture):
    """`kogia info` builds the model that the metadata describe; so a number alone must not make it large."""
    path = edited(exported(make_family(family), tmp_path), keys={f"{architecture}.block_count": 500})
    start = time.process_time()
    with pytest.raises(
        FolderError, match=r"blk\.\d\.attn_norm.weight is missing, though the metadata claim \d+ layers"
    ):
        GGUFCheckpoint(path)
    assert time.process_time() - start < 0.25


def test_experts_are_listed_when_they_are_asked_for(deepseek):
    """A thousand bytes of file must not cost a second: each stack is one entry until somebody asks for names."""
    own = [name for name in GGUF(deepseek).tensors if "_exps." in name]
    stacks = {f"blk.{k}.ffn_{part}_exps.weight": torch.zeros(4096, 1, 1)
              for k in range(1, 22) for part in ("up", "down", "gate")}  # fmt: skip
    path = edited(deepseek, keys={"deepseek2.expert_count": 4096}, drop=own, tensors=stacks)
    start = time.process_time()
    checkpoint = GGUFCheckpoint(path)
    assert time.process_time() - start < 0.25 and len(checkpoint._held) < 200
    assert len(checkpoint.shapes) > 21 * 3 * 4096
    assert checkpoint.read("model.layers.21.mlp.experts.4095.up_proj.weight").shape == (1, 1)


@pytest.mark.parametrize("expert", ["8", "*", "00", "-1", "x"])
def test_no_such_expert(deepseek, expert):
    with pytest.raises(FolderError, match=r"has no tensor for model\.layers\.1"):
        GGUFCheckpoint(deepseek).read(f"model.layers.1.mlp.experts.{expert}.up_proj.weight")


@pytest.mark.parametrize("dtype", FILE_TYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_not_written(tmp_path, make_family, dtype, value):
    model = make_family("deepseek_v3")
    for name, parameter in (
        ("model.norm.weight", model.norm.weight),
        ("model.layers.1.mlp.experts.3.down_proj.weight", model.layers[1].mlp.experts.down_proj[3]),
    ):
        sound = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[5] = value
        with pytest.raises(FolderError, match=f"{name} holds NaN or infinity"):
            exported(model, tmp_path, dtype)
        with torch.no_grad():
            parameter.copy_(sound)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
@pytest.mark.filterwarnings("error")
def test_scales_that_half_precision_cannot_hold(tmp_path, make_family, dtype):
    model = make_family("llama")
    with torch.no_grad():
        model.layers[1].mlp.up_proj.weight[3, 3] = -1e8
    with pytest.raises(FolderError, match=r"model.layers.1.mlp.up_proj.weight: a weight of 1e\+08 does not fit"):
        exported(model, tmp_path, dtype)


def test_ids_beyond_the_vocabulary_are_not_written(tmp_path, make_family, tiny_tokenizer):
    path, words = tmp_path / "model.gguf", vocabulary(tiny_tokenizer, 400)[0]
    for changes, said in (
        (dict(bos_token_id=400), "bos_token_id is 400: it must be one of the model's 400 tokens"),
        (dict(eos_token_id=400), "eos_token_id is 400: it must be one of the model's 400 tokens"),
        (dict(eos_token_id=(1, 2, 3, 4, 512)), "eos_token_id is 512: it must be"),
        (dict(eos_token_id=tuple(range(1100))), "eos_token_id is 400: it must be"),
    ):
        for metadata in (words, {}):
            with pytest.raises(FolderError, match=said):
                write_gguf(path, LiveCheckpoint(make_family("llama", **changes)), metadata)
    model = make_family("llama", vocab_size=2000, bos_token_id=1999)
    with pytest.raises(FolderError, match="bos_token_id is 1999, which is no token of the tokenizer"):
        write_gguf(path, LiveCheckpoint(model), vocabulary(tiny_tokenizer, 2000)[0])
    model = make_family("llama", vocab_size=2000, eos_token_id=tuple(range(1025)))
    with pytest.raises(FolderError, match=r"1025 tokens end a reply \(eos_token_id\): at most 1024"):
        write_gguf(path, LiveCheckpoint(model), {})
    assert list(tmp_path.iterdir()) == []


def test_layers_of_many_experts_beyond_all_models(tmp_path, deepseek):
    """Sixteen bytes of file per expert must not become a kilobyte of Python each."""
    stacks = {f"blk.{k}.ffn_{half}_exps.weight": torch.zeros(4096, 1, 1) for k in range(40) for half in ("up", "down")}
    own = [name for name in GGUF(deepseek).tensors if "_exps." in name]
    start = time.process_time()
    with pytest.raises(FolderError, match="holds over 262144 tensors"):
        GGUFCheckpoint(edited(deepseek, keys={"deepseek2.expert_count": 4096}, drop=own, tensors=stacks))
    assert time.process_time() - start < 2.0  # the writing of the file included


def test_what_cannot_be_written(tmp_path, make_family):
    model = make_family("llama")
    checkpoint = LiveCheckpoint(model)
    path = tmp_path / "model.gguf"
    with pytest.raises(FolderError, match="'q3_k' is not known: there are f32, f16"):
        write_gguf(path, checkpoint, {}, "q3_k")
    with pytest.raises(FolderError, match="the tokenizer has 2 tokens, the model 400"):
        write_gguf(path, checkpoint, {"tokenizer.ggml.tokens": ["a", "b"]})
    checkpoint.shapes["model.layers.0.self_attn.sinks"] = (4,)
    with pytest.raises(FolderError, match=r"layers.0.self_attn.sinks has no name in GGUF"):
        write_gguf(path, checkpoint, {})
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight[3, 3] = 1e5
    with pytest.raises(FolderError, match=r"a weight of 1e\+05 does not fit FP16"):
        write_gguf(path, LiveCheckpoint(model), {}, "f16")
    for scaling in (
        RopeScaling("yarn", 4.0, 99, mscale=1.0, mscale_all_dim=0.5),
        RopeScaling("yarn", 4.0, 99, attention_factor=2.0),
    ):
        with pytest.raises(FolderError, match="rope_scaling has"):
            write_gguf(path, LiveCheckpoint(make_family("deepseek_v3", rope_scaling=scaling)), {})
    with pytest.raises(FolderError, match="of type llama3 in family qwen2"):
        write_gguf(path, LiveCheckpoint(make_family("qwen2", rope_scaling=LLAMA3)), {})
    assert list(tmp_path.iterdir()) == []  # whole or not at all


def test_missing_experts_are_not_written(tmp_path, make_family):
    checkpoint = LiveCheckpoint(make_family("deepseek_v3"))
    del checkpoint.shapes["model.layers.1.mlp.experts.5.up_proj.weight"]
    with pytest.raises(FolderError, match=r"blk.1.ffn_up_exps.weight: 7 of 8 experts are there"):
        write_gguf(tmp_path / "model.gguf", checkpoint, {})


def test_broken_numbers_are_shape_errors(deepseek):
    with pytest.raises(ShapeError, match=r"edited\.gguf: .*n_group"):
        GGUFCheckpoint(edited(deepseek, keys={"deepseek2.expert_group_count": 3}))
