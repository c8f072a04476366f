"""A recipe is the whole life of a model: one TOML file, walked stage by stage."""

from kogia.recipe.schema import Recipe, read_recipe
from kogia.recipe.walk import run_recipe

__all__ = ["Recipe", "read_recipe", "run_recipe"]
