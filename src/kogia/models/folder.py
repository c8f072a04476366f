"""Model folders: read and write what Hugging Face's tools read and write."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kogia.errors import FolderError, ShapeError
from kogia.files import read_json, save_tensors, write_json
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.names import select, stored_tensors

WEIGHTS = "model.safetensors"


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
