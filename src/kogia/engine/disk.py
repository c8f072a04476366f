"""A second home for cached blocks: those that memory has no room for are kept in a folder, under their digests.

A file that is damaged or foreign is a miss and is deleted, never an error: what it held can be computed again. When
the disk is full or may not be written, blocks are dropped, as they would be without this.
"""

import contextlib
import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kogia.errors import KogiaError
from kogia.files import save_tensors
from kogia.models.decoder import Decoder

HEADER = 4096  # bytes that a file may have beyond its block


@runtime_checkable
class BlockStore(Protocol):
    """What a runner must be able to do beside computing, for its blocks to be kept elsewhere."""

    exact: bool

    def read_block(self, block: int) -> Tensor:
        """A copy of a block's content."""

    def write_block(self, block: int, content: Tensor) -> None:
        """Put back what `read_block` gave."""


class DiskTier:
    """Blocks in a folder, at most `limit_bytes` of them; the least recently used go first."""

    def __init__(self, folder: str | Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.hits = self.size = 0  # size: bytes of all files
        self._sizes: OrderedDict[str, int] = OrderedDict()  # least recently used first
        with contextlib.suppress(OSError):
            found = [(path.stat(), path) for path in self.folder.glob("*.safetensors") if len(path.stem) == 64]
            self._sizes.update((path.stem, stat.st_size) for stat, path in sorted(found, key=lambda f: f[0].st_mtime))
        self.size = sum(self._sizes.values())

    def __contains__(self, digest: bytes) -> bool:
        return digest.hex() in self._sizes

    def put(self, digest: bytes, content: Tensor) -> None:
        """Keep a block."""
        name = digest.hex()
        if name not in self._sizes:
            with contextlib.suppress(OSError, SafetensorError, KogiaError):
                save_tensors(self._path(name), {"block": content}, {"sha256": _checksum(content)})
                self._sizes[name] = self._path(name).stat().st_size
                self.size += self._sizes[name]
        if name in self._sizes:
            self._sizes.move_to_end(name)
        while self._sizes and self.size > self.limit_bytes:
            self._drop(next(iter(self._sizes)))

    def get(self, digest: bytes, like: Tensor) -> Tensor | None:
        """The block, if it is there whole and of the shape and dtype of `like`."""
        name = digest.hex()
        if name not in self._sizes:
            return None
        content = _read(self._path(name), like)
        if content is None:
            self._drop(name)
            return None
        self._sizes.move_to_end(name)
        self.hits += 1
        return content

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _drop(self, name: str) -> None:
        self.size -= self._sizes.pop(name)
        with contextlib.suppress(OSError):
            self._path(name).unlink()


def fingerprint(model: Decoder, how: str) -> bytes:
    """Digest of a model's shape and weights and of `how` it is computed: blocks of another one must never be used."""
    found = hashlib.sha256(f"{model.config!r} {model.dtype} {how}".encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(_bytes(tensor))
    return found.digest()


def _read(path: Path, like: Tensor) -> Tensor | None:
    with contextlib.suppress(OSError, SafetensorError, ValueError):
        if path.stat().st_size > like.nbytes + HEADER:
            return None
        with safe_open(path, framework="pt") as file:
            content: Tensor = file.get_tensor("block")
            said = (file.metadata() or {}).get("sha256")
        if content.shape == like.shape and content.dtype == like.dtype and _checksum(content) == said:
            return content
    return None


def _checksum(content: Tensor) -> str:
    return hashlib.sha256(_bytes(content)).hexdigest()


def _bytes(content: Tensor) -> bytes:
    return content.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
