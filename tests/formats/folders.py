"""A sound folder of tensors of several dtypes, to be read back or spoiled."""

import json
from pathlib import Path

import torch

from kogia.formats.safetensors import INDEX, Shards, write_shards

TENSORS = {
    "layers.0.weight": torch.arange(12.0).view(3, 4),
    "layers.0.codes": torch.arange(5.0).to(torch.float8_e4m3fn),
    "layers.0.scale": torch.tensor([[0.5, 4.0]]).to(torch.float8_e8m0fnu),
    "half": torch.randn(2, 3, 2).bfloat16(),
    "alone": torch.tensor(7),
    "nothing": torch.zeros(0, 3),
    "bytes": torch.arange(3, dtype=torch.uint8),
}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    equal = a.reshape(-1).view(torch.uint8).equal(b.reshape(-1).view(torch.uint8))
    return a.dtype == b.dtype and a.shape == b.shape and equal


def write(folder: Path, tensors=TENSORS, max_bytes: int = 1 << 30) -> Path:
    sizes = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    write_shards(folder, tensors.items(), sizes, max_bytes)
    return folder


def read(folder: Path) -> dict[str, torch.Tensor]:
    shards = Shards(folder)
    return {name: shards.read(name) for name in shards.entries}


def edit_index(folder: Path, change) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))
