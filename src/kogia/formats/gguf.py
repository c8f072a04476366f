"""GGUF files, read with suspicion: every count is held against the bytes that are left before anything is allocated.

The layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3): magic, version, counts, typed
metadata, tensor descriptions, padding, tensor data. `gguf.GGUFReader` believes the counts; this reader does not.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from kogia.errors import FolderError
from kogia.formats.untrusted import shown

SUPPORTED = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
MAX_HEADER = 32 << 20  # bytes; DeepSeek-V3's own, with 129k tokens and their merges, is 5 MB
MAX_ENTRIES = 1 << 16  # metadata keys, or tensors; DeepSeek-V3 has 1 thousand tensors
MAX_STRINGS = 1 << 20  # strings in all arrays; the largest vocabularies with their merges have 650 thousand
MAX_NAME = 256  # bytes of a key or a tensor's name; llama.cpp has tensor names of at most 63
MAX_ALIGNMENT = 1 << 16
STOP_IDS = "tokenizer.kogia_stop_ids"  # Kogia's own key: every id that ends a reply; llama.cpp has names for three
MAX_STOPS = 1024
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8",
            12: "<f8"}  # fmt: skip
_KINDS = {int(kind): kind.name for kind in GGMLQuantizationType}
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class GGUFTensor:
    """Where a tensor lies: shape in torch's order, the name of its number format, absolute offset and size in bytes."""

    shape: tuple[int, ...]
    quantisation: str
    offset: int
    nbytes: int


class GGUF:
    """A GGUF file of which the header has been read and checked; tensors are read one at a time, by plain reads.

    `metadata`: every key; a string is a str, an array of strings a list, an array of numbers a numpy array.
    `tensors`: every tensor by name, in the file's order.

    Raises:
        FolderError: not a GGUF file, truncated, split, big-endian, a quantisation that is not supported, or a header
            that contradicts itself; the key or tensor is named.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GGUFTensor] = {}
        try:
            with open(self.path, "rb") as file:
                self._read_header(_Header(self.path, file, self.path.stat().st_size))
        except OSError as error:
            raise FolderError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def read(self, name: str, index: int | None = None) -> Tensor:
        """One tensor, or with `index` one slice of its first dimension (one expert of a stack): only its bytes are
        read. FP32, FP16 and BF16 come as they are, everything else dequantised to FP32.

        Raises:
            FolderError: no such tensor or slice, or the file has changed since it was opened.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise FolderError(f"{self.path} has no tensor {name}")
        shape, offset, nbytes = tensor.shape, tensor.offset, tensor.nbytes
        if index is not None:
            if len(shape) < 2 or not 0 <= index < shape[0]:
                raise FolderError(f"{self.path}: {name} has shape {shape}, in which there is no slice {index}")
            nbytes //= shape[0]
            shape, offset = shape[1:], offset + index * nbytes
        return _decode(self._bytes(name, offset, nbytes), shape, tensor.quantisation)

    def stop_ids(self) -> list[int]:
        """The ids that end a reply as Kogia notes them when it writes a file; none in the files of others.

        Raises:
            FolderError: something else than a short list of whole numbers.
        """
        noted = self.metadata.get(STOP_IDS)
        if noted is None:
            return []
        if not isinstance(noted, np.ndarray) or noted.dtype.kind not in "iu" or len(noted) > MAX_STOPS:
            raise FolderError(f"{self.path}: {STOP_IDS} must be a list of at most {MAX_STOPS} token ids")
        return [int(id) for id in noted]

    def _bytes(self, name: str, offset: int, nbytes: int) -> bytearray:
        data = bytearray(nbytes)
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(offset)
                done = 0
                while done < nbytes and (count := file.readinto(memoryview(data)[done:])):
                    done += count
        except OSError as error:
            raise FolderError(f"{self.path} cannot be read: {error.strerror or error}") from None
        if done < nbytes:
            raise FolderError(f"{self.path} has become shorter since it was opened: {name} is no longer whole")
        return data

    def _read_header(self, header: "_Header") -> None:
        keys, tensors = _opening(header)
        for _ in range(keys):
            name = header.name("a metadata key")
            if name in self.metadata:
                header.fail(f"metadata key {name!r} stands there twice")
            self.metadata[name] = _value(header, name)
        self._refuse_split(header)
        found: dict[str, tuple[tuple[int, ...], str, int, int]] = {}
        for _ in range(tensors):
            name = header.name("a tensor's name")
            if name in found:
                header.fail(f"tensor {name!r} stands there twice")
            found[name] = _tensor_info(header, name)
        self.tensors = _placed(header, found, self._alignment(header))

    def _refuse_split(self, header: "_Header") -> None:
        count = self.metadata.get("split.count", 1)
        if not isinstance(count, int) or count > 1:
            header.fail(f"this is one of {shown(count)} parts (split.count); join them first: llama-gguf-split --merge")

    def _alignment(self, header: "_Header") -> int:
        value = self.metadata.get("general.alignment", 32)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= MAX_ALIGNMENT or value & (value - 1):
            header.fail(f"general.alignment is {shown(value)}: it must be a power of two from 1 to {MAX_ALIGNMENT}")
        return int(value)


class _Header:
    """The bytes before the tensor data. Nothing is taken that the file does not have."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.size, self.position, self.strings_left = path, size, 0, MAX_STRINGS
        self._buffer = file.read(min(size, MAX_HEADER))

    def fail(self, reason: str) -> NoReturn:
        raise FolderError(f"{self.path}: {reason}")

    @property
    def left(self) -> int:
        return self.size - self.position

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        start, self.position = self.position, self.position + count
        if self.position > len(self._buffer):
            self._over(what)
        return self._buffer[start : self.position]

    def strings(self, count: int, what: str) -> list[str]:
        """The next `count` strings; the loop that runs a quarter of a million times for a real vocabulary."""
        buffer, at, end, length_at = self._buffer, self.position, len(self._buffer), struct.Struct("<Q").unpack_from
        found = []
        for _ in range(count):
            stop = at + 8 + length_at(buffer, at)[0] if at + 8 <= end else end + 1
            if stop > end:
                self.position = stop
                self._over(what)
            found.append(self._text(buffer[at + 8 : stop], what))
            at = stop
        self.position = at
        return found

    def _over(self, what: str) -> NoReturn:
        if self.position > self.size:
            self.fail(f"{what} ends at byte {self.position}, but the file has {self.size}: it is truncated or damaged")
        self.fail(f"{what} ends at byte {self.position}: at most {MAX_HEADER} bytes of metadata are read")

    def _text(self, data: bytes, what: str) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8 text")

    def u32(self, what: str) -> int:
        return int(struct.unpack("<I", self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(struct.unpack("<Q", self.take(8, what))[0])

    def string(self, what: str) -> str:
        return self._text(self.take(self.u64(what), what), what)

    def name(self, what: str) -> str:
        length = self.u64(what)
        if not 1 <= length <= MAX_NAME:
            self.fail(f"{what} is {length} bytes long: it must have 1 to {MAX_NAME}")
        name = self._text(self.take(length, what), what)
        if not name.isprintable():
            self.fail(f"{what} is not printable: {shown(name)}")
        return name


def _opening(header: _Header) -> tuple[int, int]:
    """Magic, version and the two counts -> (metadata keys, tensors)."""
    if header.size < 24 or header.take(4, "the magic number") != b"GGUF":
        header.fail("this is not a GGUF file: it does not begin with GGUF")
    version = header.u32("the version")
    if version and version & 0xFFFF == 0:
        header.fail("this GGUF file is big-endian: only little-endian files are read")
    if version not in (2, 3):
        header.fail(f"this is GGUF version {version}: only versions 2 and 3 are read")
    tensors, keys = header.u64("the number of tensors"), header.u64("the number of metadata keys")
    for count, what, least in ((keys, "metadata keys", 13), (tensors, "tensors", 33)):
        if count > min(MAX_ENTRIES, header.left // least):
            header.fail(f"it claims {count} {what}, which {header.left} bytes cannot hold (or over {MAX_ENTRIES})")
    return keys, tensors


def _value(header: _Header, key: str) -> Any:
    kind = header.u32(key)
    if kind == _ARRAY:
        return _array(header, key)
    if kind == _STRING:
        return header.string(key)
    return _numbers(header, key, kind, 1)[0].item()


def _array(header: _Header, key: str) -> Any:
    kind, count = header.u32(key), header.u64(key)
    if kind == _ARRAY:
        header.fail(f"{key} is an array of arrays: only arrays of numbers and of strings are read")
    if kind != _STRING:
        return _numbers(header, key, kind, count)
    if count > header.left // 8:
        header.fail(f"{key} claims {count} strings, which {header.left} bytes cannot hold")
    header.strings_left -= count
    if header.strings_left < 0:
        header.fail(f"{key} brings the strings of this file over {MAX_STRINGS}, the most that are read")
    return header.strings(count, key)


def _numbers(header: _Header, key: str, kind: int, count: int) -> np.ndarray[Any, Any]:
    if kind not in _SCALARS:
        header.fail(f"{key} has type {kind}, which GGUF does not know: types are 0 to 12")
    dtype = np.dtype(_SCALARS[kind])
    values = np.frombuffer(header.take(count * dtype.itemsize, key), dtype).copy()
    if kind != _BOOL:
        return values
    if values.size and values.max() > 1:
        header.fail(f"{key} is a truth value of {values.max()}: it must be 0 or 1")
    return values.astype(bool)


def _tensor_info(header: _Header, name: str) -> tuple[tuple[int, ...], str, int, int]:
    """-> shape in torch's order, quantisation, offset within the data, size in bytes."""
    rank = header.u32(name)
    if not 1 <= rank <= 4:
        header.fail(f"{name} has {rank} dimensions: it must have 1 to 4")
    shape = tuple(header.u64(name) for _ in range(rank))[::-1]
    kind, offset = header.u32(name), header.u64(name)
    quantisation = _KINDS.get(kind, f"type {kind}")
    if quantisation not in SUPPORTED:
        header.fail(f"{name} is quantised as {quantisation}: supported are {', '.join(SUPPORTED)}")
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[quantisation]]
    if 0 in shape or shape[-1] % block:
        header.fail(f"{name} has shape {shape}: {quantisation} needs rows of a multiple of {block} numbers, none empty")
    return shape, quantisation, offset, prod(shape) // block * block_bytes


def _placed(
    header: _Header, found: dict[str, tuple[tuple[int, ...], str, int, int]], alignment: int
) -> dict[str, GGUFTensor]:
    """Check that every tensor lies within the file, aligned, and that no two overlap."""
    start = -(-header.position // alignment) * alignment
    end_before = 0
    for name, (shape, _, offset, nbytes) in sorted(found.items(), key=lambda item: item[1][2]):
        if offset % alignment:
            header.fail(f"{name} begins at {offset}, which is not a multiple of general.alignment = {alignment}")
        if start + offset + nbytes > header.size:
            header.fail(
                f"{name} of shape {shape} ends at byte {start + offset + nbytes}, but the file has {header.size}: "
                "it is truncated or damaged; copy it again"
            )
        if offset < end_before:
            header.fail(f"{name} begins at {offset}, inside the tensor before it, which ends at {end_before}")
        end_before = offset + nbytes
    return {name: GGUFTensor(shape, kind, start + offset, size) for name, (shape, kind, offset, size) in found.items()}


def _decode(data: bytearray, shape: tuple[int, ...], quantisation: str) -> Tensor:
    if quantisation in _PLAIN:
        return torch.frombuffer(data, dtype=_PLAIN[quantisation]).reshape(shape)
    kind = GGMLQuantizationType[quantisation]
    block, block_bytes = GGML_QUANT_SIZES[kind]
    rows = np.frombuffer(data, np.uint8).reshape(*shape[:-1], shape[-1] // block * block_bytes)
    with np.errstate(all="ignore"):  # scales that are not finite are for the reader of the tensor to refuse
        return torch.from_numpy(np.ascontiguousarray(dequantize(rows, kind)))
