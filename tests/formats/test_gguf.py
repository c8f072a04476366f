"""GGUF: every number format as the gguf package reads it, and one test for each trick of a hostile file."""

import json
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from formats import fuzz_gguf
from formats.raw_gguf import ARRAY, BOOL, STRING, U32, array, build, info, pair, text, write
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize

from kogia.errors import FolderError
from kogia.formats import gguf
from kogia.formats.gguf import GGUF, SUPPORTED

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def random_blocks(kind: GGMLQuantizationType, *shape: int) -> np.ndarray:
    """Random bytes of a format: every bit pattern that a file may hold, but for scales that are not finite."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(0).integers(0, 256, (*shape[:-1], shape[-1] // block * block_bytes), dtype=np.uint8)
    if kind == GGMLQuantizationType.F32:
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32).view(np.uint8).reshape(data.shape)
    values = data.view(np.uint16)
    values &= 0xBFFF  # clears a bit of the exponent in every 16-bit scale, wherever it lies
    return data


def write_tensors(path: Path, tensors: dict[str, tuple[GGMLQuantizationType, np.ndarray]]) -> Path:
    writer = GGUFWriter(path, "llama")
    for name, (kind, data) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_number_format(tmp_path, name):
    kind = GGMLQuantizationType[name]
    data = random_blocks(kind, 3, 5, 512)
    path = write_tensors(tmp_path / "x.gguf", {"before": (kind, data[0]), "stack": (kind, data)})
    expected = torch.from_numpy(dequantize(data, kind).copy())
    file = GGUF(path)
    tensor = file.read("stack")
    assert tensor.dtype == PLAIN.get(name, torch.float32) and tensor.shape == (3, 5, 512)
    assert torch.equal(tensor.float().nan_to_num(7), expected.nan_to_num(7)) and expected.std() > 0
    for index in range(3):
        assert torch.equal(file.read("stack", index).nan_to_num(7), tensor[index].nan_to_num(7))
    theirs = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, found in file.tensors.items():
        assert (found.offset, found.nbytes) == (theirs[name].data_offset, theirs[name].n_bytes)
        assert found.shape == tuple(theirs[name].shape.tolist()[::-1])


def test_one_slice_reads_only_its_bytes(tmp_path):
    data = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    path = write_tensors(tmp_path / "x.gguf", {"stack": (GGMLQuantizationType.F32, data)})
    file = GGUF(path)
    os.truncate(path, file.tensors["stack"].offset + 2 * 32)  # the last slice is gone, and a whole read would fail
    assert torch.equal(file.read("stack", 1), torch.from_numpy(data[1]))
    with pytest.raises(FolderError, match="stack is no longer whole"):
        file.read("stack", 2)
    for index in (3, -1):
        with pytest.raises(FolderError, match=f"no slice {index}"):
            file.read("stack", index)
    with pytest.raises(FolderError, match="no tensor other"):
        file.read("other")


def test_metadata_of_every_type(tmp_path):
    path = tmp_path / "x.gguf"
    writer = GGUFWriter(path, "llama")
    wanted = dict(u8=1, i8=-2, u16=3, i16=-4, u32=5, i32=-6, u64=1 << 60, i64=-(1 << 60), f32=0.5, f64=0.1)
    for kind, value in zip(
        ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"),
        wanted.items(),
        strict=True,
    ):
        getattr(writer, f"add_{kind}")(*value)
    writer.add_bool("yes", True)
    writer.add_string("text", "안녕 🐳")
    writer.add_array("texts", ["a", "", "ㄱ"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("truths", [True, False])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    found = GGUF(path).metadata
    assert {key: found[key] for key in wanted} == wanted
    assert found["yes"] is True and found["text"] == "안녕 🐳" and found["texts"] == ["a", "", "ㄱ"]
    assert found["numbers"].tolist() == [1, -2, 3] and found["truths"].tolist() == [True, False]
    assert found["general.architecture"] == "llama"


def test_version_2_and_another_alignment(tmp_path):
    number = struct.pack("<I", 8)
    path = write(
        tmp_path, [pair("general.alignment", U32, number)], [info("a", (1,)), info("b", (1,), offset=8)],
        struct.pack("<ffff", 1, 0, 2, 0), version=struct.pack("<I", 2), alignment=8,
    )  # fmt: skip
    file = GGUF(path)
    assert file.read("a").tolist() == [1] and file.read("b").tolist() == [2]


# hostile files -------------------------------------------------------------------------------------------------------

ONE = struct.pack("<f", 1.0)
HUGE = 10**12
TRICKS = {
    "empty": (b"", "not a GGUF file"),
    "another magic": (build([], [], magic=b"GGML"), "does not begin with GGUF"),
    "big-endian": (build([], [], version=struct.pack(">I", 3)), "big-endian"),
    "version 1": (build([], [], version=struct.pack("<I", 1)), "version 1"),
    "version 4": (build([], [], version=struct.pack("<I", 4)), "version 4"),
    "10^12 keys": (build([], [], keys=HUGE), "metadata keys"),
    "10^12 tensors": (build([], [], tensors=HUGE), "tensors, which"),
    "2^64 - 1 tensors": (build([], [], tensors=2**64 - 1), "tensors, which"),
    "more keys than stand there": (build([pair("a", U32, bytes(4))], [], bytes(100), keys=3), "it must have 1 to 256"),
    "a key of 10^12 bytes": (build([struct.pack("<Q", HUGE) + bytes(20)], []), "it must have 1 to 256"),
    "a key without name": (build([pair("", U32, bytes(4))], []), "0 bytes long"),
    "a key that is not UTF-8": (build([pair(b"\xff", U32, bytes(4))], []), "not UTF-8"),
    "a key that would steer the terminal": (build([pair("a\x1b[2J", U32, bytes(4))], []), r"not printable: 'a\\x1b"),
    "a type that is none": (build([pair("k", 13, bytes(8))], []), "k has type 13"),
    "an array of a type that is none": (build([pair("k", ARRAY, array(99, 1, bytes(8)))], []), "k has type 99"),
    "an array of arrays": (build([pair("k", ARRAY, array(ARRAY, 1, bytes(12)))], []), "array of arrays"),
    "an array of 10^12 numbers": (build([pair("k", ARRAY, array(U32, HUGE, bytes(8)))], []), "k ends at byte"),
    "an array of 2^62 numbers": (build([pair("k", ARRAY, array(U32, 2**62, bytes(8)))], []), "k ends at byte"),
    "an array of 10^12 strings": (build([pair("k", ARRAY, array(STRING, HUGE, bytes(8)))], []), "claims 1000000000000"),
    "a string of 2^63 bytes": (build([pair("k", STRING, struct.pack("<Q", 2**63))], []), "k ends at byte"),
    "an array's string of 2^63 bytes": (
        build([pair("k", ARRAY, array(STRING, 1, struct.pack("<Q", 2**63)))], []), "k ends at byte"),
    "a truth of 2": (build([pair("k", BOOL, b"\x02")], []), "truth value of 2"),
    "a key twice": (build([pair("k", U32, bytes(4))] * 2, []), "'k' stands there twice|k stands there twice"),
    "a tensor twice": (build([], [info("t", (1,))] * 2, ONE), "'t' stands there twice|t stands there twice"),
    "no dimensions": (build([], [info("t", ())], ONE), "0 dimensions"),
    "5 dimensions": (build([], [info("t", (1,) * 5)], ONE), "5 dimensions"),
    "2^32 - 1 dimensions": (build([], [info("t", (1,), rank=2**32 - 1)], ONE), "4294967295 dimensions"),
    "10^12 numbers": (build([], [info("t", (HUGE,))], ONE), "t of shape .1000000000000,. ends at byte"),
    "a product over 2^64": (build([], [info("t", (2**40, 2**40))], ONE), "truncated or damaged"),
    "a product that wraps to 4": (build([], [info("t", (2**62, 2, 2))], ONE), "truncated or damaged"),
    "a dimension of 0": (build([], [info("t", (0,))], ONE), "none empty"),
    "a row that is no whole block": (build([], [info("t", (33,), kind=8)], bytes(68)), "t has shape .33,.: Q8_0"),
    "a format that is not read": (build([], [info("t", (256,), kind=16)], bytes(66)), "as IQ2_XXS: supported"),
    "a format that is none": (build([], [info("t", (1,), kind=999)], ONE), "type 999"),
    "an offset that is not aligned": (build([], [info("t", (1,), offset=4)], ONE * 2), "multiple of general.alignment"),
    "an offset past the end": (build([], [info("t", (1,), offset=64)], ONE), "truncated or damaged"),
    "an offset of 2^64 - 32": (build([], [info("t", (1,), offset=2**64 - 32)], ONE), "truncated or damaged"),
    "tensors over each other": (
        build([], [info("a", (16,)), info("b", (1,), offset=32)], ONE * 32), "b begins at 32, inside the tensor"),
    "tensors in one place": (build([], [info("a", (1,)), info("b", (1,))], ONE), "inside the tensor before"),
    "alignment 0": (build([pair("general.alignment", U32, bytes(4))], []), "power of two"),
    "alignment 48": (build([pair("general.alignment", U32, struct.pack("<I", 48))], []), "power of two"),
    "alignment 2^31": (build([pair("general.alignment", U32, struct.pack("<I", 2**31))], []), "power of two"),
    "alignment in words": (build([pair("general.alignment", STRING, text("x"))], []), "power of two"),
    "one of three parts": (build([pair("split.count", U32, struct.pack("<I", 3))], []), "one of 3 parts"),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks(tmp_path, trick):
    data, said = TRICKS[trick]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(FolderError, match=said) as caught:
        GGUF(path)
    assert time.process_time() - start < 1.0
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


def test_every_truncation_is_noticed(tmp_path):
    pairs = [pair("a.b", STRING, text("xyz")), pair("k", ARRAY, array(STRING, 2, text("p") + text("q")))]
    data = build(pairs, [info("t", (2, 2))], ONE * 4)
    path = tmp_path / "model.gguf"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(FolderError):
            GGUF(path)
    path.write_bytes(data)
    assert GGUF(path).read("t").tolist() == [[1, 1], [1, 1]]


def test_as_many_strings_as_are_read_take_less_than_a_second(tmp_path):
    many = pair("k", ARRAY, array(STRING, gguf.MAX_STRINGS, bytes(8 * gguf.MAX_STRINGS)))
    path = write(tmp_path, [many], [])
    start = time.process_time()
    assert GGUF(path).metadata["k"] == [""] * gguf.MAX_STRINGS
    assert time.process_time() - start < 1.0
    with pytest.raises(FolderError, match="l brings the strings of this file over 1048576"):
        GGUF(write(tmp_path, [many, pair("l", ARRAY, array(STRING, 1, bytes(8)))], []))


def test_metadata_beyond_what_is_read(tmp_path):
    with pytest.raises(FolderError, match=r"k ends at byte .* at most 33554432 bytes of metadata are read"):
        GGUF(write(tmp_path, [pair("k", STRING, text(bytes(gguf.MAX_HEADER)))], []))


def test_a_folder_or_nothing_instead_of_a_file(tmp_path):
    with pytest.raises(FolderError, match="cannot be read"):
        GGUF(tmp_path)
    with pytest.raises(FolderError, match=r"nothing\.gguf cannot be read"):
        GGUF(tmp_path / "nothing.gguf")


# damage at random ----------------------------------------------------------------------------------------------------


def fuzzed(kind: str, first: int, count: int, scratch: Path) -> dict:
    tests = Path(__file__).parents[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tests)}
    command = [sys.executable, "-m", "formats.fuzz_gguf", kind, str(first), str(count), str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tests, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured with Linux's /proc")
@pytest.mark.parametrize("kind", fuzz_gguf.SOUND)
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    summary = fuzzed(kind, 0, 400, tmp_path)
    assert not summary["failures"], json.dumps(summary["failures"][:3], indent=1)
    assert summary["refused"] > 130 and summary["loaded"] > 0  # damage that is felt, and not only damage
    assert summary["slowest"] < 1.0 and summary["grown"] < 100


def test_a_few_of_them_quickly(tmp_path):
    summary = fuzzed("llama", 10_000, 30, tmp_path)
    assert not summary["failures"] and summary["refused"] + summary["loaded"] == 30


def test_a_seed_is_always_the_same_damage(tmp_path):
    sound = fuzz_gguf.sound("llama", tmp_path)
    assert fuzz_gguf.mutations(1, sound) == fuzz_gguf.mutations(1, sound) != fuzz_gguf.mutations(2, sound)
    assert len({fuzz_gguf.mutations(seed, sound) for seed in range(40)}) > 35
    assert random.Random(0).random() == 0.8444218515250481  # what the seeds rest on
