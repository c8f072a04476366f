"""`kogia info`: published numbers of published models from their config.json alone."""

import json

import pytest
import torch
from command import kogia

from kogia.about import describe
from kogia.errors import KogiaError
from kogia.formats.safetensors import SINGLE
from kogia.models.folder import save_model
from kogia.places import locate

# The dimensions of deepseek-ai/DeepSeek-V3 and DeepSeek-V2-Lite as their config.json have them.
V3 = dict(
    model_type="deepseek_v3", vocab_size=129280, hidden_size=7168, intermediate_size=18432,
    moe_intermediate_size=2048, num_hidden_layers=61, num_nextn_predict_layers=1, num_attention_heads=128,
    num_key_value_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
    v_head_dim=128, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, n_group=8, topk_group=4,
    topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5,
    first_k_dense_replace=3, moe_layer_freq=1, ep_size=1, aux_loss_alpha=0.001, seq_aux=True,
    max_position_embeddings=163840, rope_theta=10000, rms_norm_eps=1e-6, hidden_act="silu", attention_bias=False,
    tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, torch_dtype="bfloat16",
    rope_scaling=dict(type="yarn", factor=40, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1,
                      mscale=1.0, mscale_all_dim=1.0),
    quantization_config=dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                             weight_block_size=[128, 128]),
)  # fmt: skip
V2_LITE = dict(
    model_type="deepseek_v2", vocab_size=102400, hidden_size=2048, intermediate_size=10944,
    moe_intermediate_size=1408, num_hidden_layers=27, num_attention_heads=16, num_key_value_heads=16,
    q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
    n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, n_group=1, topk_group=1, topk_method="greedy",
    scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=1.0, first_k_dense_replace=1,
    moe_layer_freq=1, aux_loss_alpha=0.001, seq_aux=True, max_position_embeddings=163840, rope_theta=10000,
    rms_norm_eps=1e-6, hidden_act="silu", attention_bias=False, tie_word_embeddings=False, bos_token_id=100000,
    eos_token_id=100001, torch_dtype="bfloat16",
    rope_scaling=dict(type="yarn", factor=40, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1,
                      mscale=0.707, mscale_all_dim=0.707),
)  # fmt: skip
R1_DISTILL_QWEN_7B = dict(
    model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
    num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=131072, rope_theta=10000,
    rms_norm_eps=1e-6, hidden_act="silu", sliding_window=4096, use_sliding_window=False, max_window_layers=28,
    tie_word_embeddings=False, bos_token_id=151643, eos_token_id=151643, initializer_range=0.02,
)  # fmt: skip


def written(folder, config) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_v3_from_its_config_alone(tmp_path):
    facts = describe(written(tmp_path, V3))
    assert facts["parameters"]["total"] == 671_026_419_200
    assert facts["parameters"]["mtp"] == pytest.approx(11.61e9, rel=1e-3)
    assert facts["parameters"]["active"] == pytest.approx(37.55e9, rel=1e-4)
    assert facts["cache_bytes_per_token"] == 70_272
    assert facts["bytes"]["float8"] == pytest.approx(685e9, rel=2e-3)  # its 163 files
    assert facts["bill"] is None and facts["bytes_on_disk"] is None
    assert describe(tmp_path / "config.json") == facts


def test_v2_lite_from_its_config_alone(tmp_path):
    facts = describe(written(tmp_path, V2_LITE))
    assert facts["parameters"] == {"total": 15_706_484_224, "mtp": 0, "active": 2_661_150_208}
    assert facts["cache_bytes_per_token"] == 27 * 576 * 2


@pytest.mark.parametrize("config", [V3, V2_LITE, R1_DISTILL_QWEN_7B], ids=lambda c: c["model_type"])
def test_transformers_counts_the_same(tmp_path, config):
    from oracles import transformers

    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    foreign = transformers.AutoConfig.from_pretrained(written(tmp_path, plain))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(foreign)
    theirs = sum(p.numel() for p in model.parameters())
    theirs += sum(b.numel() for name, b in model.named_buffers() if name.endswith("e_score_correction_bias"))
    assert describe(tmp_path)["parameters"]["total"] == theirs


def test_bytes_by_hand(make_family, tmp_path):
    """FP8: a byte for each number of a layer's matrices and 4 for each of their 128 x 128 blocks, 2 for all others.
    Integers: 34 bytes for 32 numbers in int8 and 20 in int4; embedding and head in int8, norms in FP32."""
    model = make_family("llama", hidden_size=128, intermediate_size=256, head_dim=32, num_hidden_layers=1)
    save_model(tmp_path, model)
    matrices = 128 * (128 + 2 * 64 + 128) + 3 * 128 * 256
    ends, norms = 2 * 400 * 128, 3 * 128
    rest = ends + norms
    whole = matrices + rest
    assert describe(tmp_path)["bytes"] == {
        "float32": 4 * whole, "bfloat16": 2 * whole, "float8": matrices + 4 * (matrices // 128**2) + 2 * rest,
        "int8": (matrices + ends) // 32 * 34 + 4 * norms, "int4": matrices // 32 * 20 + ends // 32 * 34 + 4 * norms,
    }  # fmt: skip


@pytest.mark.parametrize("life", ["[]", "{}", '"x"', '{"total": 5}', "{oops"])
def test_a_life_that_is_none_is_refused(make_family, tmp_path, life):
    save_model(tmp_path, make_family("llama"))
    (tmp_path / "kogia.json").write_text(life)
    with pytest.raises(KogiaError, match=r"kogia\.json"):
        describe(tmp_path)


def test_brackets_are_no_markup_and_links_may_dangle(make_family, tmp_path):
    save_model(tmp_path, make_family("llama"))
    (tmp_path / "kogia.json").write_text('{"total": {"a": "[/b]"}}')
    (tmp_path / "x.safetensors").symlink_to(tmp_path / "nowhere")
    code, out, _ = kogia("info", tmp_path)
    assert code == 0 and "[/b]" in out


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", " " * (1 << 21)], ids=["deep", "long", "big"]
)
def test_hostile_configs_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(KogiaError, match=r"config\.json"):
        describe(tmp_path)


def test_the_hub_is_asked_for_weights_and_facts_only(tmp_path, monkeypatch):
    """Never for code or pickles; and mistyped paths never go there."""
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: asked.append((name, how)) or tmp_path)
    assert locate("some-org/some-model") == locate("some-org/some-model", weights=False) == tmp_path
    (name, how), (_, small) = asked
    assert name == "some-org/some-model"
    assert set(small["allow_patterns"]) == {"*.json", "*.jinja", "LICENSE*", "README.md"}
    assert set(how["allow_patterns"]) - set(small["allow_patterns"]) == {"*.safetensors", "*.safetensors.index.json"}
    for path in (
        "v3/config.json",
        "modls/x.gguf",
        "out/model.safetensors",
        "a/b/c",
        "x" * 5000,
        f"{tmp_path.name}\0/x",
    ):
        with pytest.raises(KogiaError, match="is not a folder"):
            locate(path)
    assert len(asked) == 2


def test_tied_heads_are_counted_once(make_family, tmp_path):
    model = make_family("llama", tie_word_embeddings=True)
    save_model(tmp_path, model)
    facts = describe(tmp_path)
    assert facts["parameters"]["total"] == facts["parameters"]["active"] == sum(p.numel() for p in model.parameters())
    assert facts["bytes"]["float32"] == 4 * facts["parameters"]["total"]
    assert facts["bytes_on_disk"] == (tmp_path / SINGLE).stat().st_size
    assert facts["cache_bytes_per_token"] == 2 * (2 * 2 * 16) * 2  # layers x (keys and values) x 2 bytes


def test_the_command(tmp_path):
    code, out, _ = kogia("info", written(tmp_path, V3), "--json")
    assert code == 0 and json.loads(out)["parameters"]["total"] == 671_026_419_200
    code, out, _ = kogia("info", tmp_path / "config.json")
    assert code == 0 and "671026419200" in out and "70272" in out


def test_what_is_no_model_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "deepseek_v4").mkdir()
    cases = {
        tmp_path / "none": "is not a folder",
        "no-such-model": "smollm2",
        "no-such-org/no-such-model": "Hugging Face id.*cannot be had",
        f"{tmp_path.name}/x": "is not a folder|cannot be had",
        written(tmp_path / "deepseek_v4", V3 | {"model_type": "deepseek_v4"}): "deepseek_v4.*deepseek_v3",
    }
    for model, named in cases.items():
        with pytest.raises(KogiaError, match=named):
            describe(model)
