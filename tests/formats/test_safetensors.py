"""Hostile safetensors: every trick with a file or an index is refused by name, at once and in little memory."""

import json
import os
import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from formats.folders import TENSORS, edit_index, same, write
from safetensors.torch import load_file, save_file

from kogia.errors import FolderError
from kogia.formats import header, safetensors
from kogia.formats.safetensors import INDEX, SINGLE, Shards
from kogia.formats.untrusted import shown

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def put(
    folder: Path, text: str | bytes | dict, data: bytes = b"", length: int | None = None, name: str = SINGLE
) -> None:
    """Write a file with this header, whatever it is."""
    raw = json.dumps(text).encode() if isinstance(text, dict) else text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def entry(data: bytes = bytes(8), **changes):
    return lambda folder: put(folder, {"a": GOOD | changes}, data)


def raw(text, data: bytes = bytes(8), length: int | None = None):
    return lambda folder: put(folder, text, data, length)


def two(first, second, data: bytes = bytes(16)):
    return raw({"a": GOOD | {"data_offsets": first}, "b": GOOD | {"data_offsets": second}}, data)


def pickled(protocol: int):
    return lambda folder: (folder / SINGLE).write_bytes(pickle.dumps({"a": list(range(99))}, protocol))


def torch_saved(folder: Path) -> None:
    torch.save({"a": torch.ones(3)}, folder / SINGLE)


def only_pickles(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


A_DEEP = '{"a":' + "[" * 100_000
TRICKS = {
    "empty file": (lambda f: (f / SINGLE).write_bytes(b""), "truncated"),
    "seven bytes": (lambda f: (f / SINGLE).write_bytes(bytes(7)), "of its 7 bytes"),
    "only a length": (lambda f: (f / SINGLE).write_bytes(struct.pack("<Q", 2)), "truncated"),
    "header of no length": (raw("{}", b"", 0), "the header of .* not valid JSON"),
    "header longer than the file": (raw({"a": GOOD}, bytes(8), 10_000), "10,000 cannot be"),
    "header as long as the sky": (raw({"a": GOOD}, bytes(8), (1 << 64) - 1), "18,446,744,073,709,551,615 cannot be"),
    "header over the limit": (raw("{" + " " * header.MAX_HEADER + "}"), "at most 4,194,304"),
    "header into the data": (raw({"a": GOOD}, bytes(30), 62 + 8), "the header of .*after its end"),
    "header cut short": (raw({"a": GOOD}, bytes(8), 40), "the header of .* not valid JSON"),
    "random bytes": (lambda f: (f / SINGLE).write_bytes(bytes(range(256)) * 40), "no safetensors file"),
    "not UTF-8": (raw(b'{"\xff\xfe":1}'), "not UTF-8"),
    "not JSON": (raw("{a: 1}"), "no string at character 1"),
    "JSON of another kind": (raw("[1, 2]"), "no safetensors file"),
    "header after a space": (raw(' {"a": 1}'), "no safetensors file"),
    "more after the header": (raw('{}{"a": 1}', b""), "after its end"),
    "trailing comma": (raw('{"__metadata__": {},}', b""), "no string"),
    "no colon": (raw('{"a" 1}'), "expected :"),
    "control character in a string": (raw('{"a\n": 1}'), "not valid JSON"),
    "nested deeply": (raw(A_DEEP), "not valid JSON"),
    "nested deeply in the remarks": (raw('{"__metadata__":' + "[" * 100_000), "not valid JSON"),
    "nested a little in the remarks": (raw({"__metadata__": {"a": {"b": "c"}}}, b""), "__metadata__ should be"),
    "remarks are a number": (raw({"__metadata__": 1}, b""), "__metadata__ should be"),
    "remarks are long": (raw({"__metadata__": {"a": "b" * header.MAX_METADATA}}, b""), "longer than 262144"),
    "number of 5,000 digits in the remarks": (raw('{"__metadata__":{"a":' + "9" * 5000 + "}}"), "not valid JSON"),
    "a tensor twice": (raw('{"a":%s,"a":%s}' % ((json.dumps(GOOD),) * 2)), "names a twice"),
    "a field twice": (raw('{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'), "dtype twice"),
    "remarks twice": (raw('{"__metadata__":{},"__metadata__":{}}', b""), "__metadata__ twice"),
    "a tensor is null": (raw({"a": None}), "a should be described"),
    "a field is missing": (raw({"a": {"dtype": "F32", "shape": [2]}}), "a should be described"),
    "a field too many": (entry(strides=[1]), "a should be described"),
    "dtype is unknown": (entry(dtype="F33"), "a has dtype F33; known are .*BF16"),
    "dtype is a number": (entry(dtype=3), "a has dtype 3"),
    "dtype is a list": (entry(dtype=["F32"]), "a has dtype"),
    "shape is a number": (entry(shape=2), "a has shape 2"),
    "shape is a string": (entry(shape="2"), "a has shape"),
    "shape of fractions": (entry(shape=[2.0]), r"a has shape \[2.0\]"),
    "shape of booleans": (entry(shape=[True, 2]), "a has shape"),
    "shape of NaN": (raw('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'), "a has shape"),
    "shape of 1e999": (raw('{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}'), "a has shape"),
    "shape is negative": (entry(shape=[-2]), r"a has shape \[-2\]"),
    "shape is negative twice": (entry(shape=[-1, -2]), "a has shape"),
    "shape overflows to 2": (entry(shape=[2**63 + 1, 2]), "a has shape"),
    "shape of 10^12 numbers": (entry(shape=[10**12]), r"a has 8 bytes; .*\[1000000000000\] need 4,000,000,000,000"),
    "shape of 10^1000 numbers": (entry(shape=[10**1000]), "a has shape 1000|a has shape .1000"),
    "shape of nothing times very much": (entry(b"", shape=[0, 2**62, 2**62], data_offsets=[0, 0]), "a has shape"),
    "nine dimensions": (entry(shape=[1] * 8 + [2]), "at most 8"),
    "ten thousand dimensions": (entry(shape=[1] * 10_000), "longer than 2048"),
    "offsets are a number": (entry(data_offsets=8), "a has data_offsets 8"),
    "three offsets": (entry(data_offsets=[0, 4, 8]), "a has data_offsets"),
    "offsets are fractions": (entry(data_offsets=[0.0, 8.0]), "a has data_offsets"),
    "offsets are negative": (entry(data_offsets=[-8, 0]), "a has data_offsets"),
    "offsets are reversed": (entry(data_offsets=[8, 0]), "a has data_offsets"),
    "offsets past the end": (entry(data_offsets=[8, 16]), "a has data_offsets .*within the 8 bytes"),
    "offsets past all numbers": (entry(data_offsets=[2**64, 2**64 + 8]), "a has data_offsets"),
    "truncated by a byte": (entry(bytes(7)), "a has data_offsets .*truncated"),
    "too many bytes": (entry(bytes(12), data_offsets=[0, 12]), "a has 12 bytes; F32 .* need 8"),
    "too few bytes": (entry(bytes(4), data_offsets=[0, 4]), "a has 4 bytes; F32 .* need 8"),
    "bytes after the last tensor": (entry(bytes(9)), "1 bytes after its last tensor, a"),
    "bytes without a tensor": (raw({}, bytes(9)), "9 bytes after its last tensor, the header"),
    "bytes before the first tensor": (entry(bytes(16), data_offsets=[8, 16]), "the header and a leave a gap of 8"),
    "two tensors overlap": (two([0, 8], [4, 12], bytes(12)), "a and b overlap"),
    "two tensors in one place": (two([0, 8], [0, 8], bytes(8)), "a and b overlap"),
    "a gap": (two([0, 8], [12, 20], bytes(20)), "a and b leave a gap of 4"),
    "name of nothing": (raw({"": GOOD}), "no tensor name"),
    "name with control characters": (raw({"a\x1b[31m": GOOD}), r"'a\\x1b\[31m', which is no tensor name"),
    "name of half a character": (raw('{"\\ud800":' + json.dumps(GOOD) + "}"), r"'\\ud800', which is no tensor name"),
    "name that is a book": (raw({"a" * 100_000: GOOD}), "no tensor name"),
    "pickle of protocol 2": (pickled(2), "looks like a pickle. Pickle files are never opened"),
    "pickle of protocol 5": (pickled(5), "looks like a pickle. Pickle files are never opened"),
    "torch.save": (torch_saved, "zip archive, most likely a PyTorch pickle"),
    "GGUF": (lambda f: (f / SINGLE).write_bytes(b"GGUF" + bytes(99)), "looks like a GGUF file"),
    "Git LFS pointer": (lambda f: (f / SINGLE).write_text("version https://git-lfs.github.com/spec/v1"), "git lfs"),
    "web page": (lambda f: (f / SINGLE).write_text("<!DOCTYPE html><html></html>"), "web page"),
    "weights are a folder": (lambda f: (f / SINGLE).mkdir(), "is not a file"),
    "weights are a pipe": (lambda f: os.mkfifo(f / SINGLE), "is not a file"),
    "weights are an endless device": (lambda f: (f / SINGLE).symlink_to("/dev/zero"), "is not a file"),
    "a link to itself": (lambda f: (f / SINGLE).symlink_to(SINGLE), "is missing"),
    "no weights": (lambda f: None, f"{SINGLE} is missing, and so is {INDEX}"),
    "only pickles": (only_pickles, "pytorch_model.bin: pickle files are never opened; convert it to safetensors"),
    "no folder": (lambda f: f.rmdir(), "is not a folder"),
}  # fmt: skip


def refused(folder: Path, words: str) -> str:
    """Check that the folder is refused with these words, at once, and by the name of a file in it."""
    start = time.process_time()
    with pytest.raises(FolderError, match=words) as caught:
        Shards(folder)
    assert time.process_time() - start < 1.0
    assert str(folder) in str(caught.value) and len(str(caught.value)) < 600 + 2 * len(str(folder))
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_with_a_file(tmp_path, trick):
    make, words = TRICKS[trick]
    make(tmp_path)
    refused(tmp_path, words)


def placed(shard: object):
    return lambda f: edit_index(f, lambda index: index["weight_map"].update(alone=shard))


def index_of(text: str | bytes):
    return lambda f: (f / INDEX).write_bytes(text if isinstance(text, bytes) else text.encode())


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def copy_first_shard(folder: Path) -> None:
    name = "model-00009-of-00009.safetensors"
    (folder / name).write_bytes(shards(folder)[0].read_bytes())
    edit_index(folder, lambda index: index["weight_map"].update({"layers.0.weight": name}))


def swap_shards(folder: Path) -> None:
    first, second = shards(folder)[:2]
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def drop_from_shard(folder: Path) -> None:
    for path in shards(folder):
        tensors = load_file(path)
        if tensors.pop("alone", None) is not None:
            save_file(tensors, path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


PLAIN = "not the plain name of a .safetensors file"
INDEX_TRICKS = {
    "not JSON": (index_of("{oops"), f"{INDEX} is not as it should be"),
    "empty": (index_of(""), f"{INDEX} is not valid JSON: the end"),
    "a list": (index_of("[]"), f"{INDEX} is not valid JSON: \\[ at character 0, expected {{"),
    "not text": (index_of(b"\xff\xfe{}"), f"{INDEX} is not ASCII text"),
    "nested deeply": (index_of('{"metadata":' + "[" * 100_000), "not valid JSON"),
    "too large": (index_of('{"metadata":"' + "a" * safetensors.MAX_INDEX), "larger than the 25,165,824 bytes"),
    "remarks too large": (index_of('{"metadata":"' + "a" * header.MAX_METADATA + '"}'), "longer than 262144"),
    "cut short": (lambda f: (f / INDEX).write_bytes((f / INDEX).read_bytes()[:150]), INDEX),
    "goes on after its end": (lambda f: (f / INDEX).open("a").write("x"), "goes on after its end"),
    "no weight_map": (lambda f: edit_index(f, lambda i: i.pop("weight_map")), "lists no tensors"),
    "weight_map is empty": (lambda f: edit_index(f, lambda i: i.update(weight_map={})), "lists no tensors"),
    "weight_map is a list": (lambda f: edit_index(f, lambda i: i.update(weight_map=[])), INDEX),
    "weight_map is null": (lambda f: edit_index(f, lambda i: i.update(weight_map=None)), INDEX),
    "weight_map twice": (index_of('{"weight_map":{"a":"b.safetensors"},"weight_map":{}}'), "weight_map twice"),
    "a tensor twice": (index_of('{"weight_map":{"a":"b.safetensors","a":"c.safetensors"}}'), "names a twice"),
    "a shard is a number": (placed(3), "no string"),
    "a shard is null": (placed(None), "no string"),
    "absolute path": (placed("/etc/passwd.safetensors"), PLAIN),
    "path out of the folder": (placed("../model.safetensors"), PLAIN),
    "path through the folder": (placed("x/../model.safetensors"), PLAIN),
    "path on Windows": (placed("..\\model.safetensors"), PLAIN),
    "drive on Windows": (placed("C:model.safetensors"), PLAIN),
    "dots": (placed(".."), PLAIN),
    "hidden": (placed("...safetensors"), PLAIN),
    "nothing": (placed(""), PLAIN),
    "NUL": (placed("a\0.safetensors"), PLAIN),
    "line feed": (placed("a.safetensors\n"), PLAIN),
    "another kind of file": (placed("pytorch_model.bin"), PLAIN),
    "name of 300 characters": (placed("a" * 300 + ".safetensors"), PLAIN),
    "a name with control characters": (index_of('{"weight_map":{"\\u001b":"a.safetensors"}}'), "no tensor name"),
    "a shard is missing": (lambda f: shards(f)[1].unlink(), r"lacks model-00002-of-\d+.* \(1 of the \d+ files"),
    "all shards are missing": (lambda f: [path.unlink() for path in shards(f)], "lacks model-0000"),
    "a shard is a folder": (lambda f: replace_by_folder(shards(f)[1]), "model-00002-of.* is not a file"),
    "a shard is truncated": (lambda f: shards(f)[0].write_bytes(shards(f)[0].read_bytes()[:-1]), "model-00001-of"),
    "a shard is a pickle": (lambda f: shards(f)[0].write_bytes(pickle.dumps([1] * 99)), "model-00001-of.* pickle"),
    "two shards changed places": (swap_shards, "model-00001-of.* lacks layers.0.weight"),
    "a shard lacks a tensor": (drop_from_shard, "lacks alone, which"),
    "a tensor in two shards": (copy_first_shard, "layers.0.weight is both in .*model-00001"),
}  # fmt: skip


@pytest.mark.parametrize("trick", INDEX_TRICKS)
def test_tricks_with_an_index(tmp_path, trick):
    make, words = INDEX_TRICKS[trick]
    write(tmp_path, max_bytes=60)
    make(tmp_path)
    refused(tmp_path, words)


LIMITS = {
    "MAX_TENSORS": (3, "more than 3 tensors"),
    "MAX_SHARDS": (2, "2 files"),
    "MAX_BYTES": (600, "more than the 600 of any"),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_of_a_folder(tmp_path, monkeypatch, limit):
    write(tmp_path, max_bytes=20)
    value, words = LIMITS[limit]
    monkeypatch.setattr(safetensors, limit, value)
    refused(tmp_path, words)


def test_real_models_are_within_the_limits():
    """DeepSeek-V4-Pro: 61 layers of 385 experts with three matrices and their scales; 1.6 trillion weights in FP32."""
    assert safetensors.MAX_TENSORS > 61 * 385 * 6 * 1.1 and safetensors.MAX_BYTES > 1.6e12 * 4
    name = "model.layers.60.mlp.experts.383.gate_proj.weight_scale_inv"
    line = f'    "{name}": "model-00100-of-00100.safetensors",\n'
    assert 61 * 385 * 6 * len(line) < safetensors.MAX_INDEX


def test_a_header_may_be_padded_and_spaced(tmp_path):
    text = ' \n{ "a" :\t{"shape":[2 ], "data_offsets": [0, 2],"dtype": "U8"} } \n  '[2:]
    put(tmp_path, text, b"\1\2")
    assert Shards(tmp_path).read("a").tolist() == [1, 2]


# files that change while they are read -------------------------------------------------------------------------------


def test_a_file_that_shrinks_is_an_error_and_no_bus_error(tmp_path):
    opened = Shards(write(tmp_path))
    os.truncate(tmp_path / SINGLE, (tmp_path / SINGLE).stat().st_size - 9)
    with pytest.raises(FolderError, match=rf"{SINGLE} cannot be read to the end of bytes: it has become shorter"):
        opened.read("bytes")


def test_a_file_that_vanishes_is_an_error(tmp_path):
    opened = Shards(write(tmp_path))
    (tmp_path / SINGLE).unlink()
    with pytest.raises(FolderError, match=f"{SINGLE} cannot be read"):
        opened.read("alone")


def test_a_tensor_that_is_not_there(tmp_path):
    with pytest.raises(FolderError, match="no tensor 'x\\\\n'"):
        Shards(write(tmp_path)).read("x\n")


def test_tensors_are_memory_of_their_own(tmp_path):
    opened = Shards(write(tmp_path))
    opened.read("layers.0.weight").zero_()
    assert same(opened.read("layers.0.weight"), TENSORS["layers.0.weight"])


def sparse(folder: Path, size: int) -> None:
    """A file that claims one tensor of so many bytes and takes no room."""
    put(folder, {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    try:
        os.truncate(folder / SINGLE, (folder / SINGLE).stat().st_size + size)
    except OSError:
        pytest.skip(f"this file system has no files of {size:,} bytes")


def test_a_file_larger_than_any_model(tmp_path):
    sparse(tmp_path, safetensors.MAX_BYTES)
    refused(tmp_path, "more than the 8,796,093,022,208 of any known model")


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from kogia.errors import FolderError
from kogia.formats.safetensors import Shards
shards = Shards(Path(sys.argv[1]))
limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    shards.read("a")
except FolderError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_a_tensor_larger_than_the_memory(tmp_path):
    sparse(tmp_path, 1 << 36)
    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY, tmp_path], capture_output=True, text=True, timeout=60)
    assert f"{SINGLE}: no memory for the 68,719,476,736 bytes of a" in done.stdout, done.stderr


def test_foreign_names_are_shown_short_and_without_control_characters():
    assert shown("model.norm.weight") == "model.norm.weight"
    assert shown("\x1b[31m\ud800") == "'\\x1b[31m\\ud800'"
    assert len(shown("a" * 10_000)) == len(shown([1] * 10_000)) == 80


# the worst of them, measured -----------------------------------------------------------------------------------------

MEASURED = """
import os, re, sys, time, torch
from pathlib import Path
from kogia.errors import KogiaError
from kogia.formats.safetensors import Shards
def megabytes(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
def attempt(folder):
    before, start = megabytes("VmRSS"), time.process_time()
    try:
        shards = Shards(Path(folder))
        outcome = [shards.read(name) for name in shards.entries] and "loaded"
    except KogiaError as error:
        outcome = type(error).__name__
    seconds = time.process_time() - start
    print(outcome, round(megabytes("VmHWM") - before, 1), round(seconds, 3), Path(folder).name, flush=True)
attempt(sys.argv[1])
for folder in sys.argv[2:]:  # a process each, for freed memory of one would hide what the next takes
    if os.fork() == 0:
        attempt(folder)
        os._exit(0)
    assert os.wait()[1] == 0, folder
"""


def many(count: int, last: str, shape: str = "0", wide: bool = False) -> str:
    """A header of very many sound tensors, and something at the end."""
    first = '"__metadata__":{"a":"\U0001f433"},' if wide else ""
    tensors = ",".join(f'"{k:x}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,0]}}' for k in range(count))
    return "{" + first + tensors + last + "}"


def filled(piece: str, size: int, before: str, after: str) -> str:
    return before + piece * ((size - len(before) - len(after)) // len(piece)) + after


WORST = {
    "brackets": filled("[", header.MAX_HEADER, '{"a":', ""),
    "empty lists": filled("[],", header.MAX_HEADER, '{"a":[', "[]]}"),
    "empty lists in the remarks": filled("[],", header.MAX_METADATA, '{"__metadata__":{"a":[', "[]]}}"),
    "objects in the remarks": filled('{"a":{}},', header.MAX_METADATA, '{"__metadata__":{"a":[', "{}]}}"),
    "members of the remarks": '{"__metadata__":{' + ",".join(f'"{k}":""' for k in range(25_000)) + "}, 1",
    "a long string": filled("a", header.MAX_HEADER, '{"', '":1}'),
    "a long string in a wide script": filled("\\ud83d\\udc33", header.MAX_HEADER, '{"', '":1}'),
    "numbers": filled("9", header.MAX_METADATA, '{"__metadata__":', "}"),
    "white space": filled(" ", header.MAX_HEADER, "{", ""),
    "more tensors than a file may have": many(72_000, ""),
    "very many tensors": many(32_768, ',"z":1'),
    "very many tensors and a wide script": many(32_768, ',"z":1', wide=True),
}
WORST_INDEX = {
    "very many tensors": '{"weight_map":{' + ",".join(f'"{k:x}":"a.safetensors"' for k in range(160_001)) + "}}",
    "very many files": '{"weight_map":{' + ",".join(f'"{k:x}":"{k:x}.safetensors"' for k in range(4_097)) + "}}",
    "long names": '{"weight_map":{' + ",".join(f'"{k:0248}":"a.safetensors"' for k in range(90_000)) + "}}",
    "brackets": filled("[", safetensors.MAX_INDEX, '{"weight_map":', ""),
    "a long string": filled("a", safetensors.MAX_INDEX, '{"weight_map":{"a":"', '"}}'),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured with Linux's /proc")
def test_the_worst_cost_less_than_a_second_and_100_megabytes(tmp_path):
    folders = [write(tmp_path / "warm up", max_bytes=60)]
    for name, text in WORST.items():
        folders.append(tmp_path / f"file: {name}")
        folders[-1].mkdir()
        put(folders[-1], text)
    for name, text in WORST_INDEX.items():
        folders.append(tmp_path / f"index: {name}")
        folders[-1].mkdir()
        (folders[-1] / INDEX).write_text(text)
    done = subprocess.run([sys.executable, "-c", MEASURED, *folders], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = [line.split(" ", 3) for line in done.stdout.splitlines()]
    assert len(results) == len(folders) and results[0][0] == "loaded"
    for outcome, megabytes, seconds, name in results[1:]:
        assert outcome == "FolderError", name
        assert float(megabytes) < 100 and float(seconds) < 1, (name, megabytes, seconds)
