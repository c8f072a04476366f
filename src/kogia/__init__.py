"""Kogia: make, teach, measure, price, serve and talk to a reasoning model of your own.

The heavy parts are imported when they are first used, so that `import kogia` and `kogia --help` stay quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kogia.engine.engine import Engine
    from kogia.engine.request import SamplingParams
    from kogia.models.folder import load_model
    from kogia.recipe.walk import Finished
    from kogia.text.tokenizer import load_tokenizer

__version__ = "0.1.0"
__all__ = ["Engine", "SamplingParams", "load_model", "load_tokenizer", "run"]

_HOMES = {
    "Engine": "kogia.engine.engine",
    "SamplingParams": "kogia.engine.request",
    "load_model": "kogia.models.folder",
    "load_tokenizer": "kogia.text.tokenizer",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kogia' has no attribute {name!r}")


def run(recipe: str | Path, overrides: dict[str, Any] | None = None) -> "Finished":
    """Walk a recipe, as `kogia run` does: kogia.run("recipes/tiny.toml", {"rl.steps": 2})."""
    from kogia.recipe.schema import read_recipe
    from kogia.recipe.walk import run_recipe
    from kogia.train.meter import Silent

    return run_recipe(read_recipe(recipe, overrides), Silent())
