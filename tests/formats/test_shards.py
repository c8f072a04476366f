"""Safetensors folders: read back exactly, as the safetensors library reads and writes them, whole or not at all."""

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from formats.folders import TENSORS, edit_index, read, same, write
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kogia.errors import DiskFullError, FolderError
from kogia.formats import header, safetensors
from kogia.formats.header import DTYPES
from kogia.formats.safetensors import INDEX, SINGLE, Shards, write_shards


def assert_equal(found, expected) -> None:
    assert found.keys() == expected.keys()
    assert all(same(found[name], expected[name]) for name in expected)


# what is written and read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [1, 20, 60, 1 << 30])
def test_round_trip(tmp_path, max_bytes):
    assert_equal(read(write(tmp_path, max_bytes=max_bytes)), TENSORS)


def test_one_file_has_the_bytes_of_the_safetensors_library(tmp_path):
    write(tmp_path)
    save_file(TENSORS, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / SINGLE).read_bytes() == (tmp_path / "theirs").read_bytes()


@given(st.dictionaries(st.from_regex(r"[a-z.0-9]{1,9}", fullmatch=True), st.sampled_from(list(DTYPES.values()))))
def test_every_dtype_is_laid_out_as_the_library_does(tmp_path_factory, dtypes):
    folder = tmp_path_factory.mktemp("model")
    tensors = {name: torch.ones(3).to(dtype) for name, dtype in dtypes.items()}
    assert_equal(read(write(folder, tensors)), tensors)
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})
    assert (folder / SINGLE).read_bytes() == (folder / "theirs").read_bytes()


def test_shards_are_readable_by_the_safetensors_library(tmp_path):
    write(tmp_path, max_bytes=60)
    index = json.loads((tmp_path / INDEX).read_text())
    names = sorted(set(index["weight_map"].values()))
    assert len(names) > 1 and names == [
        f"model-{k:05d}-of-{len(names):05d}.safetensors" for k in range(1, len(names) + 1)
    ]
    theirs = {}
    for name in names:
        with safe_open(tmp_path / name, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
            assert {key for key, shard in index["weight_map"].items() if shard == name} == set(file.keys())
        theirs |= load_file(tmp_path / name)
    assert_equal(theirs, TENSORS)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in TENSORS.values())


def test_no_shard_is_larger_than_asked_unless_a_single_tensor_is(tmp_path):
    tensors = {f"t{i}": torch.zeros(size) for i, size in enumerate([10, 10, 10, 100, 1, 1, 30])}
    shards = Shards(write(tmp_path, tensors, max_bytes=120))
    by_file: dict[str, list[str]] = {}
    for name, entry in shards.entries.items():
        by_file.setdefault(entry.path.name, []).append(name)
    assert sorted(map(sorted, by_file.values())) == [["t0", "t1", "t2"], ["t3"], ["t4", "t5"], ["t6"]]


def test_a_file_never_has_more_tensors_than_its_header_may_hold(tmp_path, monkeypatch):
    assert safetensors.PER_SHARD * (256 + 120) < header.MAX_HEADER
    monkeypatch.setattr(safetensors, "PER_SHARD", 3)
    assert len({entry.path for entry in Shards(write(tmp_path)).entries.values()}) == 3


def test_no_tensors_at_all(tmp_path):
    assert read(write(tmp_path, {})) == {}


@pytest.mark.parametrize("before", [1, 40, 1 << 30])
@pytest.mark.parametrize("after", [1, 40, 1 << 30])
def test_another_model_replaces_the_one_before_and_nothing_else(tmp_path, before, after):
    write(tmp_path, {name + "x": tensor for name, tensor in TENSORS.items()}, before)
    (tmp_path / "mine.safetensors").write_bytes(b"")
    (tmp_path / "model-of-mine.safetensors").write_bytes(b"")
    write(tmp_path, max_bytes=after)
    assert_equal(read(tmp_path), TENSORS)
    used = {entry.path.name for entry in Shards(tmp_path).entries.values()}
    index = set() if used == {SINGLE} else {INDEX}
    assert {p.name for p in tmp_path.iterdir()} == used | index | {"mine.safetensors", "model-of-mine.safetensors"}


def test_tensors_are_taken_one_at_a_time(tmp_path):
    before: list[weakref.ref] = []

    def stream():
        for k in range(5):
            tensor = torch.ones(4)
            assert not any(ref() is not None for ref in before), "the writer still holds the tensor before this one"
            before.append(weakref.ref(tensor))
            yield f"t{k}", tensor
            del tensor

    write_shards(tmp_path, stream(), [(f"t{k}", torch.float32, (4,)) for k in range(5)], 40)
    assert len(before) == 5


SIZES = [("a", torch.float32, (2,)), ("b", torch.float32, (2,))]
BROKEN_PROMISES = {
    "too few": [("a", torch.ones(2))],
    "too many": [("a", torch.ones(2)), ("b", torch.ones(2)), ("c", torch.ones(2))],
    "another order": [("b", torch.ones(2)), ("a", torch.ones(2))],
    "another shape": [("a", torch.ones(2)), ("b", torch.ones(3))],
    "another dtype": [("a", torch.ones(2)), ("b", torch.ones(2, dtype=torch.int32))],
}


@pytest.mark.parametrize("max_bytes", [1, 100])
@pytest.mark.parametrize("promise", BROKEN_PROMISES)
def test_tensors_other_than_promised_leave_no_file(tmp_path, promise, max_bytes):
    with pytest.raises(ValueError):
        write_shards(tmp_path, BROKEN_PROMISES[promise], SIZES, max_bytes)
    assert not list(tmp_path.iterdir())


def test_a_name_cannot_be_written_twice(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        write_shards(tmp_path, [], [SIZES[0], SIZES[0]], 100)


@pytest.mark.parametrize("before", [1, 1 << 30])
@pytest.mark.parametrize("after", [1, 1 << 30])
def test_a_stream_that_breaks_leaves_the_model_that_was_there(tmp_path, before, after):
    write(tmp_path, max_bytes=before)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken():
        yield "a", torch.ones(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, broken(), SIZES, after)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


LIMITED = """
import resource, sys, torch
from pathlib import Path
from kogia.formats.safetensors import write_shards
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sizes = [("a", torch.uint8, (50_000,)), ("b", torch.uint8, (200_000,))]
try:
    write_shards(Path(sys.argv[1]), ((n, torch.ones(s, dtype=d)) for n, d, s in sizes), sizes, int(sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
def test_no_room_for_the_second_tensor_leaves_the_model_that_was_there(tmp_path, max_bytes):
    write(tmp_path)
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path, str(max_bytes)], capture_output=True, text=True)
    assert done.stdout.startswith(DiskFullError.__name__) and "no space left" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE]
    assert_equal(read(tmp_path), TENSORS)


def test_a_kill_between_two_shards_does_not_look_like_a_model(tmp_path, monkeypatch):
    """After each file that moves into place the folder is what it was, or lacks its index, or is complete."""
    write(tmp_path, {name: tensor.clone() for name, tensor in TENSORS.items()}, 40)
    other = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    replace, moved = os.replace, 0

    def watched(source, target):
        nonlocal moved
        moved += 1
        with pytest.raises(FolderError, match="is missing"):
            Shards(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write(tmp_path, other, 40)
    assert moved > 2
    assert_equal(read(tmp_path), other)


# folders as other programs make them ---------------------------------------------------------------------------------


def test_hugging_faces_cache_is_made_of_links(tmp_path):
    write(tmp_path / "blobs", max_bytes=60)
    (tmp_path / "snapshot").mkdir()
    for k, path in enumerate(sorted((tmp_path / "blobs").iterdir())):
        path.rename(tmp_path / "blobs" / str(k))
        (tmp_path / "snapshot" / path.name).symlink_to(Path("..") / "blobs" / str(k))
    assert_equal(read(tmp_path / "snapshot"), TENSORS)


def test_one_file_goes_before_an_index(tmp_path):
    write(tmp_path, max_bytes=1)
    save_file({"other": torch.ones(1)}, tmp_path / SINGLE)
    assert list(Shards(tmp_path).entries) == ["other"]


def test_a_tensor_that_the_index_does_not_list_is_taken_in(tmp_path):
    write(tmp_path, max_bytes=60)
    edit_index(tmp_path, lambda index: index["weight_map"].pop("alone"))
    assert_equal(read(tmp_path), TENSORS)


def test_names_and_remarks_in_other_scripts_and_extra_keys_of_the_index(tmp_path):
    save_file(TENSORS, tmp_path / "model-00001-of-00001.safetensors", metadata={"noté": '향고래 {}[]"\\'})
    names = dict.fromkeys(TENSORS, "model-00001-of-00001.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names, "metadata": {"a": [1.5, None, {}]}, "more": []}))
    assert_equal(read(tmp_path), TENSORS)


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_reading_into_memory_that_is_there(tmp_path, monkeypatch, stored, wanted):
    """The same numbers as read and converted at once, whatever pieces they come in; only the place given changes."""
    monkeypatch.setattr("kogia.formats.safetensors.PIECE", 7)
    tensor = torch.randn(5, 13).to(stored)
    write_shards(
        tmp_path, [("a", tensor), ("empty", tensor[:0])], [("a", stored, (5, 13)), ("empty", stored, (0, 13))], 1
    )
    shards, around = Shards(tmp_path), torch.zeros(3, 5, 13, dtype=wanted)
    shards.read_into("a", around[1])
    shards.read_into("empty", around[1, :0])
    assert torch.equal(around[1], shards.read("a").to(wanted)) and torch.equal(shards.read("a"), tensor)
    assert not around[0].any() and not around[2].any()
    file = shards.entries["a"].path
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FolderError, match="cannot be read to the end of a"):
        shards.read_into("a", around[1])
