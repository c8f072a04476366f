"""GGUF files byte by byte, sound or not."""

import struct
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values


def info(name: str | bytes, dims: tuple[int, ...], kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    """dims in GGUF's order: the row length first."""
    rank = len(dims) if rank is None else rank
    return text(name) + struct.pack("<I", rank) + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


def build(
    pairs: list[bytes], infos: list[bytes], data: bytes = b"", *, magic: bytes = b"GGUF", version: bytes | None = None,
    keys: int | None = None, tensors: int | None = None, alignment: int = 32,
) -> bytes:  # fmt: skip
    counts = struct.pack("<QQ", len(infos) if tensors is None else tensors, len(pairs) if keys is None else keys)
    head = magic + (version or struct.pack("<I", 3)) + counts + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def write(folder: Path, *parts, **options) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(build(*parts, **options))
    return path
