"""The header of one safetensors file: where each tensor lies in it, checked against the file's size.

A file is eight bytes (the header's length, little endian), a JSON header {name: {dtype, shape, data_offsets}}, and the
tensors' bytes, without a gap (https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from kogia.errors import FolderError
from kogia.formats.untrusted import JsonText, shown

# In the order of the safetensors library, which lays the last of these first in a file.
DTYPES = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
RANK = {dtype: rank for rank, dtype in enumerate(NAMES)}

# DeepSeek-V3's 163 headers have 560 tensors and 0.1 MB each. These limits keep a hostile header below a second and
# 100 MB of memory, and leave room for a mixture of 18 thousand tensors in a single file (Qwen3-30B-A3B merged).
MAX_HEADER, MAX_IN_FILE = 4 << 20, 32_768
MAX_ENTRY, MAX_METADATA = 2_048, 1 << 18  # characters of one tensor's description, and of remarks nobody reads here
MAX_DIMENSIONS, MAX_NUMBERS = 8, 1 << 48  # of one tensor

TENSOR_NAME = re.compile(r"[!-~]{1,256}")
FOREIGN = {
    b"PK\x03\x04": "a zip archive, most likely a PyTorch pickle. Pickle files are never opened: convert it first",
    b"\x80": "a pickle. Pickle files are never opened: convert it first",
    b"GGUF": "a GGUF file",
    b"version ": "a Git LFS pointer and not the file itself: fetch it with `git lfs pull`",
    b"<!DOCTYP": "a web page and not the file itself: download it again",
    b"\x1f\x8b": "something compressed with gzip: unpack it first",
}

Size = tuple[str, torch.dtype, tuple[int, ...]]  # a tensor's name, dtype and shape


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies: bytes [start, end) of the file `path`, `math.prod(shape)` numbers of `dtype`."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """Read and check the header of one safetensors file: name -> entry, in the header's order.

    Raises:
        FolderError: the file, and the tensor where there is one, and what would be right.
    """
    try:
        with path.open("rb") as file:
            text, start, size = _header_text(path, file)
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from None
    entries: dict[str, Entry] = {}
    for name in text.members():
        if name == "__metadata__":
            _check_metadata(path, text.value(MAX_METADATA))
            continue
        check_name(path, name)
        entries[name] = _entry(path, name, text.value(MAX_ENTRY), start, size)
        if len(entries) > MAX_IN_FILE:
            raise FolderError(f"{path} holds more than {MAX_IN_FILE:,} tensors; split it into several files")
    text.end()
    _check_no_gaps(path, entries, start, size)
    return entries


def _header_text(path: Path, file: BinaryIO) -> tuple[JsonText, int, int]:
    """The header, where the data begins, and the file's size in bytes."""
    first = file.read(9)
    size = file.seek(0, 2)
    length = int.from_bytes(first[:8], "little")
    if size < 9 or length > size - 8 or first[8:] != b"{":
        raise FolderError(
            f"{path} is truncated or no safetensors file: of its {size:,} bytes the first eight should be the length "
            f"of a JSON header ({length:,} cannot be), and then {{.{_looks_like(first)}"
        )
    if length > MAX_HEADER:
        raise FolderError(f"{path} has a header of {length:,} bytes; at most {MAX_HEADER:,} are read")
    file.seek(8)
    raw = file.read(length)
    try:
        return JsonText(raw.decode(), f"the header of {path}"), 8 + length, size
    except UnicodeDecodeError as error:
        raise FolderError(f"the header of {path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _looks_like(first: bytes) -> str:
    what = next((what for magic, what in FOREIGN.items() if first.startswith(magic)), "")
    return f" It looks like {what}" if what else " Copy it again"


def _check_metadata(path: Path, value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise FolderError(f"the header of {path}: __metadata__ should be an object of strings")


def check_name(path: Path, name: str) -> None:
    """Raise a FolderError if this is no name of a tensor: it will stand in messages and must be printable."""
    if not TENSOR_NAME.fullmatch(name):
        raise FolderError(
            f"{path} holds {shown(name)}, which is no tensor name: at most 256 ASCII characters, no space"
        )


def _entry(path: Path, name: str, fields: Any, start: int, size: int) -> Entry:
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise FolderError(f"{path}: {name} should be described by dtype, shape and data_offsets and nothing else")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FolderError(f"{path}: {name} has dtype {shown(dtype)}; known are {', '.join(DTYPES)}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS or math.prod(d or 1 for d in shape) > MAX_NUMBERS:
        raise FolderError(f"{path}: {name} has shape {shown(shape)}; right are at most {MAX_DIMENSIONS} whole numbers")
    if not _are_counts(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - start:
        raise FolderError(
            f"{path}: {name} has data_offsets {shown(offsets)}; right are a begin and an end within the "
            f"{size - start:,} bytes after the header. Is the file truncated?"
        )
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        raise FolderError(
            f"{path}: {name} has {offsets[1] - offsets[0]:,} bytes; "
            f"{dtype} numbers of shape {shown(shape)} need {needed:,}"
        )
    return Entry(path, DTYPES[dtype], tuple(shape), start + offsets[0], start + offsets[1])


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_no_gaps(path: Path, entries: dict[str, Entry], start: int, size: int) -> None:
    at, before = start, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != at:
            what = "overlap" if entry.start < at else f"leave a gap of {entry.start - at:,} bytes between them"
            raise FolderError(f"{path}: {before} and {name} {what}")
        at, before = entry.end, name
    if at != size:
        raise FolderError(f"{path} goes on for {size - at:,} bytes after its last tensor, {before}")


def count_bytes(size: Size) -> int:
    """How many bytes a tensor has in a file."""
    _, dtype, shape = size
    return math.prod(shape) * dtype.itemsize


def make_header(sizes: Iterable[Size]) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file of these tensors, up to the data, and where in the file each tensor begins.

    Laid out as the safetensors library does it: largest dtype first (so each tensor is aligned), then by name, and
    the header padded with spaces to a multiple of eight bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for size in sorted(sizes, key=lambda size: (-RANK[size[1]], size[0])):
        end = at + count_bytes(size)
        header[size[0]] = {"dtype": NAMES[size[1]], "shape": list(size[2]), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    begins = {name: start + fields["data_offsets"][0] for name, fields in header.items() if name != "__metadata__"}
    return len(text).to_bytes(8, "little") + text, begins
