"""Configurations: what fits together, what does not, and that the message names the field."""

import dataclasses
import json
import re

import pytest

from kogia.errors import ShapeError, UserError
from kogia.models.config import ModelConfig
from kogia.models.presets import PRESETS, preset
from kogia.models.rotary import RopeScaling

YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0}  # fmt: skip
DENSE = dict(
    vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16,
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_sound_and_survive_json(name):
    config = preset(name)
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_routed_experts": 10}, "n_routed_experts is 10"),
        ({"n_group": 3}, "n_group = 3"),
        ({"n_group": 8}, "n_group must be at most 4"),
        ({"topk_group": 5}, "topk_group is 5"),
        ({"num_experts_per_tok": 5, "topk_group": 2}, "num_experts_per_tok is 5"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim is 7"),
        ({"first_k_dense_replace": 3}, "first_k_dense_replace is 3"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": 64.0}, "hidden_size is 64.0"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": 1 << 40}, "hidden_size is 1099511627776"),
        ({"vocab_size": 10**30}, "vocab_size is 1000000000000000000000000000000"),
        ({"q_lora_rank": 0}, "q_lora_rank is 0"),
        ({"q_lora_rank": "none"}, "q_lora_rank is 'none'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"n_shared_experts": -1}, "n_shared_experts is -1"),
        ({"num_nextn_predict_layers": -1}, "num_nextn_predict_layers is -1"),
        ({"eos_token_id": None}, "eos_token_id is None"),
    ],
    ids=str,
)
def test_numbers_that_do_not_fit_are_named(changes, named):
    with pytest.raises(ShapeError, match=named):
        preset("tiny", **changes)


REALS = ["routed_scaling_factor", "rope_theta", "rms_norm_eps", "initializer_range"]


def accepted(field: str, values: list) -> list:
    """Those of the values that a config.json may hold for `field`."""
    good = []
    for value in values:
        try:
            ModelConfig.from_json({**preset("tiny").to_json(), field: value})
            good.append(value)
        except ShapeError as error:
            assert field in str(error)
    return good


@pytest.mark.parametrize("field", REALS)
def test_real_numbers_are_checked_like_whole_ones(field):
    """A config.json with rope_theta "10000" would otherwise load and fail in the middle of the first forward."""
    assert accepted(field, ["10000", None, [1.0], float("nan"), float("inf"), -1.0, True]) == []


@pytest.mark.parametrize("field", REALS)
def test_whole_numbers_are_real_numbers_too(field):
    assert getattr(ModelConfig.from_json({**preset("tiny").to_json(), field: 2}), field) == 2


@pytest.mark.parametrize("field", ["norm_topk_prob", "tie_word_embeddings"])
def test_switches_are_true_or_false(field):
    """The text "no" is true in Python."""
    assert accepted(field, ["no", 0.5, [False], True, False]) == [True, False]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gemma3"}, "model_type 'gemma3'.*deepseek_v3, deepseek_v2, llama, qwen2, qwen3"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, "llama3 lacks original_max_position_embeddings"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, "rope_type"),
        ({"rope_scaling": YARN | {"truncate": []}}, "truncate"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"layer_types": 5}, "layer_types"),
        ({"num_hidden_layers": 1024}, "num_hidden_layers is 1024"),
        ({"rope_scaling": {"type": "dynamic", "factor": 40}}, "rope_type 'dynamic'.*linear, llama3, yarn"),
        ({"rope_scaling": YARN | {"factor": 0.5}}, "factor is 0.5"),
        ({"rope_scaling": YARN | {"factor": "40"}}, "factor is '40'"),
        ({"rope_scaling": YARN | {"factor": float("nan")}}, "factor is nan"),
        ({"rope_scaling": YARN | {"mscale": 1.0}}, "mscale and mscale_all_dim"),
        ({"rope_scaling": YARN | {"beta_slow": 64}}, "beta_slow"),
        ({"rope_scaling": YARN, "rope_theta": 1.0}, "rope_theta is 1.0"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}, "rope_scaling": None}, "yarn lacks factor"),
        ({"rope_parameters": ["yarn"]}, "rope_parameters"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"scoring_func": "softmax"}, "scoring_func is 'softmax'"),
        ({"topk_method": "greedy"}, "topk_method is 'greedy'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_interleave": False}, "rope_interleave is False"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
    ],
    ids=str,
)
def test_what_cannot_be_computed_exactly_is_refused(changes, named):
    with pytest.raises(ShapeError, match=named):
        ModelConfig.from_json({**preset("tiny").to_json(), **changes})


FAMILIES = {
    "llama": DENSE | {"attention_bias": True, "eos_token_id": (1, 5, 7), "bos_token_id": None},
    "qwen2": DENSE | {"rope_scaling": RopeScaling("yarn", 4.0, 32768)},
    "qwen3": DENSE | {"rope_scaling": RopeScaling("llama3", 8.0, 8192)},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_dense_families_survive_json(family):
    config = ModelConfig(model_type=family, **FAMILIES[family])
    values = json.loads(json.dumps(config.to_json()))
    assert ModelConfig.from_json(values) == config
    assert "kv_lora_rank" not in values and "n_routed_experts" not in values
    assert ModelConfig.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"kv_lora_rank": 8}, "kv_lora_rank is set, but model_type llama has no such field"),
        ({"n_routed_experts": 8}, "n_routed_experts is set"),
        ({"num_nextn_predict_layers": 1}, "num_nextn_predict_layers is set"),
        ({"eos_token_id": (1, "2")}, "eos_token_id is '2'"),
        ({"eos_token_id": ()}, "eos_token_id is ()"),
        ({"bos_token_id": -1}, "bos_token_id is -1"),
        ({"model_type": "bert"}, "model_type 'bert'"),
    ],
    ids=str,
)
def test_dense_numbers_that_do_not_fit_are_named(changes, named):
    with pytest.raises(ShapeError, match=re.escape(named)):
        ModelConfig(**({"model_type": "llama"} | DENSE | changes))


def test_what_old_llama_configs_leave_out():
    """Before grouped queries every head had its own key; the head's width was always hidden over heads."""
    values = ModelConfig(model_type="llama", **DENSE).to_json()
    del values["num_key_value_heads"], values["head_dim"]
    config = ModelConfig.from_json(values)
    assert (config.num_key_value_heads, config.head_dim) == (4, 16)


def test_what_may_be_null_or_left_out():
    values = ModelConfig(model_type="llama", **DENSE).to_json()
    assert ModelConfig.from_json(values | {"attention_bias": None, "head_dim": None}).head_dim == 16
    scaled = values | {"rope_scaling": {"type": "yarn", "factor": 4.0}, "max_position_embeddings": 2048}
    assert ModelConfig.from_json(scaled).rope_scaling.original_max_position_embeddings == 2048
    kimi = YARN | {"beta_fast": 1.0, "beta_slow": 1.0}  # Kimi-K2's: a ramp of no width
    assert ModelConfig.from_json(values | {"rope_scaling": kimi}).rope_scaling.beta_fast == 1.0


def test_what_v2_leaves_out():
    values = preset(
        "tiny", model_type="deepseek_v2", scoring_func="softmax", topk_method="greedy", norm_topk_prob=False,
        num_nextn_predict_layers=0, routed_scaling_factor=1.0,
    ).to_json()  # fmt: skip
    for key in ("routed_scaling_factor", "scoring_func", "topk_method", "norm_topk_prob"):
        del values[key]
    config = ModelConfig.from_json(values)
    assert (config.routed_scaling_factor, config.topk_method, config.norm_topk_prob) == (1.0, "greedy", False)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_sliding_windows_are_refused(family):
    values = ModelConfig(model_type=family, **DENSE).to_json() | {"use_sliding_window": True, "sliding_window": 64}
    with pytest.raises(ShapeError, match="use_sliding_window is True"):
        ModelConfig.from_json(values)


def test_published_softmax_scale_and_cache():
    """deepseek-ai/DeepSeek-V3 inference/model.py: 192^-0.5 * 1.368888^2; 70,272 bytes a token in BF16."""
    v3 = preset("v3")
    assert v3.softmax_scale == pytest.approx(0.135234, abs=1e-6)
    assert preset("v3", rope_scaling=None).softmax_scale == pytest.approx(0.072169, abs=1e-6)
    assert v3.cache_width * 2 * v3.num_hidden_layers == 70_272


def test_missing_fields_are_named():
    values = preset("tiny").to_json()
    del values["kv_lora_rank"], values["v_head_dim"]
    with pytest.raises(ShapeError, match="lacks kv_lora_rank, v_head_dim"):
        ModelConfig.from_json(values)


def test_transformers_5_keeps_theta_elsewhere():
    values = preset("tiny").to_json()
    del values["rope_theta"]
    values["rope_parameters"] = {"rope_type": "default", "rope_theta": 50000.0}
    assert ModelConfig.from_json(values).rope_theta == 50000.0


def test_unknown_presets_and_fields_name_the_valid_ones():
    with pytest.raises(ShapeError, match="nano"):
        preset("huge")
    with pytest.raises(ShapeError, match=r"unknown model field 'hiden_size'.*hidden_size"):
        preset("tiny", hiden_size=3)


def test_shape_errors_are_the_users_to_mend():
    assert issubclass(ShapeError, UserError) and ShapeError.exit_code == 2


def test_layers_and_widths():
    config = preset("nano", first_k_dense_replace=2)
    assert [config.is_dense(i) for i in range(5)] == [True, True, False, False, False]
    assert (config.qk_head_dim, config.cache_width) == (48, 80)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 1
