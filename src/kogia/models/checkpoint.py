"""A model on disk or in memory as named tensors: the one shape in which models are read, written and converted."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from kogia.errors import FolderError, ShapeError
from kogia.files import read_json
from kogia.formats.safetensors import Shards
from kogia.kernels.fp8 import dequantise_blocks
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.names import select, stored_tensors
from kogia.models.quantised import METHOD, packed_matrices, packed_shape, quantised_bits, unpack_into

MAX_CONFIG = 1 << 20  # bytes; published ones have a few thousand
SCALES = "_scale_inv"  # what DeepSeek appends to a quantised tensor's name for its scales; they multiply


class Checkpoint(Protocol):
    """A configuration, and tensors under Hugging Face's names, each read when it is asked for and dequantised."""

    config: ModelConfig
    shapes: dict[str, tuple[int, ...]]  # of all tensors, by Hugging Face's names

    def read(self, name: str) -> Tensor:
        """One tensor, in FP32, BF16 or FP16."""
        ...


def open_checkpoint(path: Path) -> Checkpoint:
    """A model folder or a .gguf file, checked as far as its headers go; no weight is read yet.

    Raises:
        FolderError, ShapeError: nothing there, broken, hostile, or not of a family that this version computes.
    """
    if path.suffix.lower() == ".gguf":
        from kogia.models.gguf import GGUFCheckpoint

        return GGUFCheckpoint(path)
    return FolderCheckpoint(path)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as it stands.

    Raises:
        FolderError: no such folder or no readable config.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder; a model folder holds config.json and model.safetensors")
    values = read_json(folder / "config.json", MAX_CONFIG)
    if not isinstance(values, dict):
        raise FolderError(f"{folder / 'config.json'} holds a {type(values).__name__}, not an object")
    return values


def load_config(folder: Path) -> ModelConfig:
    """Read and check `config.json`.

    Raises:
        FolderError: no such folder or no readable config. ShapeError: numbers that do not fit.
    """
    return _checked(folder, read_config(folder))


def _checked(folder: Path, values: dict[str, Any]) -> ModelConfig:
    try:
        quantised_block(values)
        quantised_bits(values)
        return ModelConfig.from_json(values)
    except ShapeError as error:
        raise ShapeError(f"{folder / 'config.json'}: {error}") from None


def quantised_block(config: dict[str, Any]) -> int | None:
    """The side of the blocks that an FP8 checkpoint was quantised in (128 for DeepSeek's); None if it is not in FP8.

    Raises:
        ShapeError: another quantisation.
    """
    found = config.get("quantization_config")
    if not found:
        return None
    if not isinstance(found, dict):
        raise ShapeError(f"quantization_config is {found!r}: it must be an object")
    method = found.get("quant_method")
    if method == METHOD:
        return None
    if method != "fp8":
        raise ShapeError(
            f"quantization_config has quant_method {method!r}: only DeepSeek's fp8 blocks and kogia are supported"
        )
    block = found.get("weight_block_size")
    match block:
        case [int(rows), int(columns)] if rows == columns and 1 <= rows <= 1 << 16 and rows is not True:
            return rows
    raise ShapeError(f"quantization_config.weight_block_size is {block!r}: it must be two equal numbers ([128, 128])")


class FolderCheckpoint:
    """A Hugging Face folder: config.json and safetensors, in full precision, in DeepSeek's FP8 blocks, or with matrices
    of 8 or 4 bits (models/quantised.py)."""

    def __init__(self, folder: Path) -> None:
        self.source = read_config(folder)
        self.config = _checked(folder, self.source)
        self._block = quantised_block(self.source)
        self._folder, self._shards = folder, Shards(folder)
        entries = self._shards.entries
        self._scales = {n for n in entries if n.endswith(SCALES) and n.removesuffix(SCALES) in entries}
        for name in self._scales:
            weight = name.removesuffix(SCALES)
            if entries[weight].dtype.itemsize > 1:
                raise FolderError(f"{folder}: {weight} has scales ({name}) but is of {entries[weight].dtype}, not FP8")
        bits = quantised_bits(self.source)
        self._packed = packed_matrices(folder, entries, bits) if bits else {}
        beside = self._scales.union(*(parts[1:] for parts in self._packed.values()))
        self.shapes = {name: entry.shape for name, entry in entries.items() if name not in beside}
        self.shapes |= {name: packed_shape(entries[name]) for name in self._packed}

    def read(self, name: str) -> Tensor:
        """One tensor; one of FP8 blocks or of integers as FP32.

        Raises:
            FolderError: unreadable, not of floating point, or FP8 or integers without (sound) scales.
        """
        if name in self._packed:
            return self._unpack(name, torch.empty(self.shapes[name]))
        tensor = self._shards.read(name)
        if not tensor.dtype.is_floating_point:
            raise FolderError(f"{self._folder}: {name} is of {tensor.dtype}: a weight must be of floating point")
        if tensor.element_size() > 1:
            return tensor.float() if tensor.dtype == torch.float64 else tensor
        if self._block is None or name + SCALES not in self._scales:
            raise FolderError(
                f"{self._folder}: {name} is in FP8 without "
                + ("quantization_config in config.json" if self._block is None else f"its scales {name}{SCALES}")
            )
        return dequantise_blocks(tensor, self._shards.read(name + SCALES), self._block, f"{self._folder}: {name}")

    def read_into(self, name: str, out: Tensor) -> None:
        """As `read`, into contiguous memory of that shape on the CPU, without a second tensor where it can be."""
        dtype = self._shards.entries[name].dtype
        if name in self._packed:
            self._unpack(name, out)
        elif dtype.is_floating_point and dtype.itemsize > 1:
            self._shards.read_into(name, out)
        else:
            out.copy_(self.read(name))

    def _unpack(self, name: str, out: Tensor) -> Tensor:
        return unpack_into(out, [self._shards.read(part) for part in self._packed[name]], f"{self._folder}: {name}")


def refuse_not_finite(where: Path, name: str, tensor: Tensor) -> Tensor:
    """The tensor itself, if all of it is finite; looked at without a copy of its size.

    Raises:
        FolderError: NaN or infinity, also one that rounding to the tensor's dtype has made.
    """
    if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise FolderError(f"{where}: {name} holds values that are not finite (NaN or infinity) in {tensor.dtype}")
    return tensor


class LiveCheckpoint:
    """A model in memory, seen as a checkpoint."""

    def __init__(self, model: Decoder) -> None:
        self.config = model.config
        self._state = model.state_dict()
        self._stored = {s.name: s for s in stored_tensors(model.config, self._state)}
        self.shapes = {n: tuple(select(self._state[s.parameter], s).shape) for n, s in self._stored.items()}

    def read(self, name: str) -> Tensor:
        """A view of the live weight."""
        stored = self._stored[name]
        return select(self._state[stored.parameter], stored).detach()
