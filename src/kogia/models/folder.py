"""Model folders: read and write what Hugging Face's tools read and write, and never leave half a folder behind."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kogia.errors import DiskFullError, FolderError, ShapeError
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.names import select, stored_tensors

WEIGHTS = "model.safetensors"


@contextlib.contextmanager
def disk_full_is_an_error(path: Path) -> Iterator[None]:
    """Turn "no space left on device" into one clear line that names the file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and not any(word in str(error) for word in ("No space left", "StorageFull", "os error 28")):
            raise
        raise DiskFullError(
            f"no space left on the disk while writing {path}; what was there before is intact. "
            "Free some space and run the same command again: it goes on from there"
        ) from error


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file under another name beside it and move it into place when it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with disk_full_is_an_error(path):
            yield Path(name)
            with open(name, "rb") as file:
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FolderError: missing, or not JSON (says where it breaks).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FolderError(f"{path} is missing") from None
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FolderError(f"{path} is not valid JSON: {error}") from None


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def save_model(folder: Path, model: Decoder, generation: dict[str, Any] | None = None) -> None:
    """Write config.json, generation_config.json and model.safetensors (FP32) to `folder`."""
    config = model.config
    parameters = model.state_dict()
    tensors: dict[str, Tensor] = {}
    for stored in stored_tensors(config, parameters):
        tensors[stored.name] = select(parameters[stored.parameter], stored).float().clone()
    write_json(folder / "config.json", config.to_json())
    defaults = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id, "do_sample": True}
    write_json(folder / "generation_config.json", defaults | (generation or {}))
    save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})


def load_config(folder: Path) -> ModelConfig:
    """Read and check `config.json`.

    Raises:
        FolderError: no such folder or no readable config. ShapeError: numbers that do not fit.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder; a model folder holds config.json and {WEIGHTS}")
    values = read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise FolderError(f"{folder / 'config.json'} holds a {type(values).__name__}, not an object")
    try:
        return ModelConfig.from_json(values)
    except ShapeError as error:
        raise ShapeError(f"{folder / 'config.json'}: {error}") from None


def load_model(folder: str | Path) -> Decoder:
    """Read a model folder into a `Decoder` with FP32 weights.

    Every tensor's name and shape is checked against the configuration before anything is copied.

    Raises:
        FolderError: truncated or foreign file, missing or surplus tensor, wrong shape; the tensor is named.
    """
    folder = Path(folder)
    config = load_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise FolderError(f"{path} is missing")
    with torch.device("meta"):
        model = Decoder(config)
    expected = model.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            weights = _read_checked(path, file, config, expected)
    except SafetensorError as error:
        raise FolderError(f"{path} is not a readable safetensors file ({error}): copy it again") from None
    model = model.to_empty(device="cpu")
    model.load_state_dict(weights, strict=True)
    for moe in model.experts():
        moe.load.zero_()
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight  # type: ignore[assignment]
    return model


def _read_checked(path: Path, file: Any, config: ModelConfig, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    stored = list(stored_tensors(config, expected))
    present = set(file.keys())
    missing = [s.name for s in stored if s.name not in present and not s.copy]
    if missing:
        raise FolderError(f"{path} lacks {missing[0]} (and {len(missing) - 1} more tensors that config.json asks for)")
    surplus = sorted(present - {s.name for s in stored})
    if surplus:
        raise FolderError(f"{path} holds {surplus[0]}, which config.json has no place for ({len(surplus)} such)")
    for s in stored:
        if s.name in present:
            found, wanted = tuple(file.get_slice(s.name).get_shape()), tuple(select(expected[s.parameter], s).shape)
            if found != wanted:
                raise FolderError(f"{path}: {s.name} has shape {found}, config.json asks for {wanted}")
    weights = {name: torch.empty(tensor.shape) for name, tensor in expected.items()}
    for s in stored:
        if not s.copy:
            select(weights[s.parameter], s).copy_(file.get_tensor(s.name))
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["embed_tokens.weight"]
    return weights


def free_bytes(path: Path) -> int:
    """Space left on the disk that holds `path` (or its nearest existing parent), in bytes."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
