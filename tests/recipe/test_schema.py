"""Recipes: what is refused, and whether the words name the thing at fault."""

from pathlib import Path

import pytest

from kogia.errors import RecipeError
from kogia.recipe.schema import parse_override, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = RECIPES / "tiny.toml"


@pytest.mark.parametrize("name", ["nano", "tiny"])
def test_shipped_recipes_are_valid(name):
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert [stage.kind for stage in recipe.stages] == ["pretrain", "rl", "sft", "rl", "sft"]
    assert recipe.model.num_nextn_predict_layers == 2
    assert recipe.model.vocab_size == recipe.tokenizer.vocab_size


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rl.stpes", 2, ["rl.stpes", "did you mean 'steps'"]),
        ("txet.solutions", 2, ["txet", "did you mean 'text'"]),
        ("price.per_chip_hours", 2, ["price.per_chip_hours", "'per_chip_hour'"]),
        ("stages.zero.group_sise", 8, ["stages.zero.group_sise", "'group_size'"]),
        ("stages.zero.kind", "rll", ["stages.zero.kind", "'rl'"]),
        ("stages.zero.start", "bsae", ["stages.zero.start", "base"]),
        ("rl.steps", "many", ["rl.steps", "'many'"]),
        ("rl.steps", 0, ["rl.steps", "greater than or equal to 1"]),
        ("rl.mini_batches", 5, ["mini_batches", "does not divide"]),
        ("rl.reward", {"speed": 1.0}, ["rl.reward", "speed"]),
        ("seed", "one", ["seed", "'one'"]),
        ("dtype", "float8", ["dtype", "bfloat16"]),
        ("text.tasks", {"chain_sums": 1.0}, ["tasks.chain_sums", "'chain_sum'"]),
        ("text.languages", {"ko": 0.0}, ["languages", "over 0"]),
        ("text.quality", {"god": 1.0}, ["quality.god", "'good'"]),
        ("model.preset", "nanno", ["nanno", "nano"]),
        ("model.hiden_size", 64, ["model.hiden_size", "'hidden_size'"]),
        ("model.hidden_size", "wide", ["hidden_size", "'wide'"]),
        ("model.n_group", 3, ["n_routed_experts", "n_group = 3"]),
        ("model.num_experts_per_tok", 99, ["num_experts_per_tok is 99", "hold only"]),
        ("model.qk_rope_head_dim", 7, ["qk_rope_head_dim is 7", "even"]),
        ("model.first_k_dense_replace", 9, ["first_k_dense_replace is 9", "num_hidden_layers"]),
        ("model.hidden_size", 10**12, ["hidden_size"]),
        ("pretrain.row_length", 4096, ["row_length 4096", "max_position_embeddings"]),
        ("stages", {}, ["stages is empty"]),
    ],
)  # fmt: skip
def test_mistakes_are_named(key, value, words):
    with pytest.raises(RecipeError) as error:
        read_recipe(TINY, {key: value})
    assert str(error.value).startswith(str(TINY))
    for word in words:
        assert word in str(error.value)


def test_a_missing_file_and_a_broken_one(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = [")
    with pytest.raises(RecipeError, match="not a TOML file"):
        read_recipe(tmp_path / "broken.toml")
    (tmp_path / "short.toml").write_text('name = "x"')
    with pytest.raises(RecipeError, match="is missing"):
        read_recipe(tmp_path / "short.toml")


def test_settings_of_a_kind_reach_its_stages_and_a_stage_may_differ():
    recipe = read_recipe(TINY, {"rl.steps": 2, "stages.r1.steps": 5})
    steps = {stage.name: getattr(stage.settings, "steps", None) for stage in recipe.stages}
    assert (steps["zero"], steps["r1"]) == (2, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rl.steps=2", ("rl.steps", 2)),
        ("price.per_chip_hour=0.5", ("price.per_chip_hour", 0.5)),
        ("out=runs/x", ("out", "runs/x")),
        ('text.files=["a.txt"]', ("text.files", ["a.txt"])),
        ("rl.divide_by_std=false", ("rl.divide_by_std", False)),
    ],
)
def test_overrides_are_read_as_toml_or_text(text, expected):
    assert parse_override(text) == expected


def test_an_override_without_a_value_is_refused():
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        parse_override("rl.steps")
