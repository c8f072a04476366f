"""The safetensors of a model folder: read with suspicion, tensor by tensor, and written shard by shard.

A model is one file, or several with an index {"weight_map": {tensor: file}}.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from kogia.errors import FolderError
from kogia.files import write_json, written_whole
from kogia.formats.header import MAX_METADATA, Entry, Size, check_name, count_bytes, make_header, read_header
from kogia.formats.untrusted import JsonText, read_text, shown

__all__ = ["INDEX", "SINGLE", "Entry", "Shards", "Size", "write_shards"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

# DeepSeek-V3 has 92 thousand tensors in 163 files and an index of 9 MB; V4-Pro has half as many again.
MAX_INDEX, MAX_TENSORS, MAX_SHARDS = 24 << 20, 160_000, 4_096
MAX_BYTES = 8 << 40  # of all shards: V4-Pro's 1.6 trillion weights in FP32 are 6.4 TB
PIECE = 1 << 18  # numbers that `read_into` converts at a time: what stays in a core's cache
PER_SHARD = 8_192  # tensors that `write_shards` puts in one file: far below what a header may hold

SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,240}\.safetensors")
OUR_SHARD = re.compile(r"model-\d{5,}-of-\d{5,}\.safetensors")


class Shards:
    """All tensors of a model folder as one set of names. Everything is checked before any tensor is read.

    `entries` holds every tensor of every shard, in the files' order. A tensor that the index does not list is taken
    in like the others, as Hugging Face does: whoever loads a model refuses what its configuration has no place for,
    and nothing is dropped in silence. A folder with `model.safetensors` is read from that, whatever the index says,
    as in Hugging Face's libraries. Links are followed, for Hugging Face's cache is made of them; names are not paths.

    Raises:
        FolderError: files missing, truncated, foreign, contradicting each other or past the limits above.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.entries: dict[str, Entry] = {}
        try:
            listed = _listed(self.folder)
            paths = _shard_paths(self.folder, listed)
        except OSError as error:
            raise FolderError(f"{self.folder} cannot be read: {error.strerror}") from None
        for path in paths:
            self._take_in(path)
        for name, shard in listed.items():
            if name not in self.entries or self.entries[name].path.name != shard:
                raise FolderError(f"{self.folder / shard} lacks {name}, which {INDEX} says it holds")

    def _take_in(self, path: Path) -> None:
        for name, entry in read_header(path).items():
            if name in self.entries:
                raise FolderError(f"{name} is both in {self.entries[name].path} and in {path.name}")
            self.entries[name] = entry
        if len(self.entries) > MAX_TENSORS:
            raise FolderError(f"{self.folder} holds more than {MAX_TENSORS:,} tensors")

    def read(self, name: str) -> Tensor:
        """Read one tensor as it is stored, into memory of its own.

        Plain reads and no memory map: a file that shrinks meanwhile is an error and not a killed process.

        Raises:
            FolderError: no such tensor, a file that changed since it was checked, or no memory for the tensor.
        """
        entry = self._entry(name)
        try:
            raw = torch.empty(entry.end - entry.start, dtype=torch.uint8)
        except RuntimeError:
            raise FolderError(f"{entry.path}: no memory for the {entry.end - entry.start:,} bytes of {name}") from None
        with _opened(entry, name) as file:
            _fill(file, raw.numpy().data)
        return raw.view(entry.dtype).reshape(entry.shape)

    def read_into(self, name: str, out: Tensor) -> None:
        """Read one tensor into contiguous memory of its shape on the CPU, converted to its dtype piece by piece: a
        second tensor of that size, and the page faults of touching it, are what loading spends most time on.

        Raises:
            FolderError: as `read`.
        """
        entry, flat = self._entry(name), out.view(-1)
        with _opened(entry, name) as file:
            if flat.dtype == entry.dtype:
                return _fill(file, flat.view(torch.uint8).numpy().data)
            raw = torch.empty(min(PIECE, len(flat)), dtype=entry.dtype)
            for piece in flat.split(PIECE):
                part = raw[: len(piece)]
                _fill(file, part.view(torch.uint8).numpy().data)
                piece.copy_(part)

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise FolderError(f"{self.folder} holds no tensor {shown(name)}")
        return self.entries[name]


@contextlib.contextmanager
def _opened(entry: Entry, name: str) -> Iterator[Any]:
    """The file at the place where a tensor begins."""
    try:
        with entry.path.open("rb", buffering=0) as file:
            file.seek(entry.start)
            yield file
    except (OSError, EOFError) as error:
        raise FolderError(f"{entry.path} cannot be read to the end of {name}: {error}") from None


def _fill(file: Any, buffer: memoryview) -> None:
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done:])
        if not count:
            raise EOFError("it has become shorter")
        done += count


# the folder ----------------------------------------------------------------------------------------------------------


def _listed(folder: Path) -> dict[str, str]:
    """The index's weight_map, checked: tensor -> file name. Empty if the folder is one file."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder; a model folder holds config.json and {SINGLE}")
    path = folder / INDEX
    if (folder / SINGLE).exists() or not path.exists():
        return {}
    text = JsonText(read_text(path, MAX_INDEX, "ascii"), str(path))
    listed: dict[str, str] = {}
    for key in text.members():
        if key == "weight_map":
            listed = _weight_map(path, text)
        else:
            text.value(MAX_METADATA)
    text.end()
    if not listed:
        raise FolderError(f'{path} lists no tensors: it should hold "weight_map", an object of tensor and file names')
    return listed


def _weight_map(path: Path, text: JsonText) -> dict[str, str]:
    listed: dict[str, str] = {}
    files: dict[str, str] = {}  # each name once in memory
    for name in text.members():
        check_name(path, name)
        shard = text.string()
        if shard not in files and not SHARD_NAME.fullmatch(shard):
            raise FolderError(
                f"{path} says that {name} is in {shown(shard)}, which is not the plain name of a .safetensors file"
            )
        listed[name] = files.setdefault(shard, shard)
        if len(listed) > MAX_TENSORS or len(files) > MAX_SHARDS:
            raise FolderError(f"{path} lists more than {MAX_TENSORS:,} tensors or {MAX_SHARDS:,} files")
    return listed


def _shard_paths(folder: Path, listed: dict[str, str]) -> list[Path]:
    paths = [folder / name for name in dict.fromkeys(listed.values())] or [folder / SINGLE]
    missing = [path.name for path in paths if not path.exists()]
    if missing and not listed:
        raise FolderError(_nothing_here(folder))
    if missing:
        raise FolderError(f"{folder} lacks {missing[0]} ({len(missing)} of the {len(paths)} files that {INDEX} names)")
    odd = [path for path in paths if not path.is_file()]
    if odd:
        raise FolderError(f"{odd[0]} is not a file")
    total = sum(path.stat().st_size for path in paths)
    if total > MAX_BYTES:
        raise FolderError(
            f"{folder}: the weights claim {total:,} bytes, more than the {MAX_BYTES:,} of any known model"
        )
    return paths


def _nothing_here(folder: Path) -> str:
    pickles = (path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    pickle = next(pickles, None)
    hint = f". It holds {shown(pickle)}: pickle files are never opened; convert it to safetensors" if pickle else ""
    return f"{folder / SINGLE} is missing, and so is {INDEX} with its shards{hint}"


# writing -------------------------------------------------------------------------------------------------------------


Lazy = Tensor | Callable[[], Tensor]  # a tensor, or what makes it when it is needed


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, Lazy]], sizes: Sequence[Size], max_bytes: int, resume: bool = False,
    wrote: Callable[[int], None] = lambda size: None,
) -> None:  # fmt: skip
    """Write tensors as `model.safetensors`, or as shards of at most `max_bytes` (or one tensor) each and an index.

    `sizes` says what `tensors` will yield, in the same order; so one tensor is in memory at a time. File names and
    bytes are those of Hugging Face's libraries. All files are complete on the disk before the first takes its place,
    and the index comes last: after a full disk the folder holds what it held before, and one killed at the wrong
    moment lacks its index. Weights that were in the folder before are replaced.
    resume: instead, each file takes its place when it is complete, and one that is there is taken as written before
    from the same tensors. wrote: is told the bytes of each tensor when it is on the disk.

    Raises:
        DiskFullError: no space left. ValueError: `tensors` does not keep what `sizes` promises.
    """
    stream = iter(tensors)
    shards = _plan(sizes, max_bytes)
    names = _file_names(len(shards))
    with contextlib.ExitStack() as all_at_once:
        for file_name, shard in zip(names, shards, strict=True):
            path = folder / file_name
            if resume and _is_complete(path, shard):
                for size, _ in zip(shard, stream):  # noqa: B905  (takes no more of the stream than the shard has)
                    wrote(count_bytes(size))
            elif resume:
                with written_whole(path) as temporary:
                    _write_file(temporary, shard, stream, wrote)
            else:
                _write_file(all_at_once.enter_context(written_whole(path)), shard, stream, wrote)
        if next(stream, None) is not None:
            raise ValueError("more tensors than sizes")
        (folder / INDEX).unlink(missing_ok=True)  # from here on the old shards may be replaced
    if len(shards) > 1:
        weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name, _, _ in shard}
        total = sum(count_bytes(size) for size in sizes)
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    for path in folder.glob("model*.safetensors"):
        if path.name not in names and (path.name == SINGLE or OUR_SHARD.fullmatch(path.name)):
            path.unlink()


def _plan(sizes: Sequence[Size], max_bytes: int) -> list[list[Size]]:
    if len({name for name, _, _ in sizes}) != len(sizes):
        raise ValueError("a tensor is to be written twice")
    shards: list[list[Size]] = [[]]
    filled = 0
    for size in sizes:
        if shards[-1] and (filled + count_bytes(size) > max_bytes or len(shards[-1]) == PER_SHARD):
            shards.append([])
            filled = 0
        shards[-1].append(size)
        filled += count_bytes(size)
    return shards


def _file_names(count: int) -> list[str]:
    return [SINGLE] if count == 1 else [f"model-{k:05d}-of-{count:05d}.safetensors" for k in range(1, count + 1)]


def _is_complete(path: Path, shard: list[Size]) -> bool:
    """Whether a file that takes its place only when it is whole is there, and says it holds just these tensors."""
    header, _ = make_header(shard)
    if not path.is_file() or path.stat().st_size != len(header) + sum(map(count_bytes, shard)):
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _write_file(
    path: Path, shard: list[Size], stream: Iterator[tuple[str, Lazy]], wrote: Callable[[int], None]
) -> None:
    header, begins = make_header(shard)
    with path.open("wb") as file:
        file.write(header)
        for size in shard:
            _write_tensor(file, begins[size[0]], size, stream)
            wrote(count_bytes(size))
        file.flush()
        os.fsync(file.fileno())  # a full disk is to be noticed before any file takes its place


def _write_tensor(file: BinaryIO, at: int, size: Size, stream: Iterator[tuple[str, Lazy]]) -> None:
    name, lazy = next(stream, ("nothing", torch.empty(0)))
    tensor = lazy if isinstance(lazy, Tensor) else lazy()
    if (name, tensor.dtype, tuple(tensor.shape)) != size:
        raise ValueError(f"{name}, {tensor.dtype}, {tuple(tensor.shape)} came where {size} was promised")
    file.seek(at)
    file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
