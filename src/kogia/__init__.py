"""Kogia: make, teach, measure, price, serve and talk to a reasoning model of your own.

The heavy parts are imported when they are first used, so that `import kogia` and `kogia --help` stay quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kogia.engine.engine import Engine
    from kogia.engine.request import SamplingParams
    from kogia.models.decoder import Decoder
    from kogia.recipe.walk import Finished
    from kogia.text.tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = ["Engine", "SamplingParams", "load_model", "load_tokenizer", "run"]

_HOMES = {
    "Engine": "kogia.engine.engine",
    "SamplingParams": "kogia.engine.request",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kogia' has no attribute {name!r}")


def load_model(model: str | Path, dtype: str = "float32", device: str = "cpu") -> "Decoder":
    """A model folder, a .gguf file, a Hugging Face id or a built-in name (smollm2) as an `nn.Module`:
    model(tokens_BT) -> logits_BTV. dtype: float32, bfloat16 or float16.

    Raises:
        KogiaError: it cannot be read; the message says why and what would be right.
    """
    import torch

    from kogia.errors import UserError
    from kogia.models.folder import load_model as load
    from kogia.places import locate

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"dtype is {dtype!r}: it must be float32, bfloat16 or float16")
    return load(locate(model), getattr(torch, dtype), device)


def load_tokenizer(model: str | Path) -> "Tokenizer":
    """The tokenizer of anything that `load_model` reads.

    Raises:
        KogiaError: it cannot be read; the message says why and what would be right.
    """
    from kogia.places import locate
    from kogia.text.tokenizer import load_tokenizer as load

    return load(locate(model))


def run(recipe: str | Path, overrides: dict[str, Any] | None = None) -> "Finished":
    """Walk a recipe, as `kogia run` does: kogia.run("recipes/tiny.toml", {"rl.steps": 2})."""
    from kogia.recipe.schema import read_recipe
    from kogia.recipe.walk import run_recipe
    from kogia.train.meter import Silent

    return run_recipe(read_recipe(recipe, overrides), Silent())
