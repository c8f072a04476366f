"""Damage to model files, thousands of times over: each is read, or refused with a KogiaError, cheaply.

    python tests/formats/fuzz.py FAMILY FIRST_SEED COUNT SCRATCH_FOLDER     one line of JSON for each file that is not

A family is a pair: what writes a sound model into a folder, and what opens the folder. To add a file format, add a
line to FAMILIES. A seed is one damaged file and always the same one.
"""

import json
import os
import random
import re
import resource
import shutil
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from kogia.errors import KogiaError
from kogia.formats.safetensors import Shards, write_shards
from kogia.kernels.fp8 import dequantise_blocks, quantise_blocks
from kogia.models.decoder import Decoder
from kogia.models.folder import load_model, save_model
from kogia.models.presets import preset

SECONDS, MEGABYTES = 1.0, 100  # of processor time and of memory for one file
Files = dict[str, bytes]

# sound models --------------------------------------------------------------------------------------------------------


def plain_tensors() -> dict[str, torch.Tensor]:
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8]
    tensors = {f"layers.{k}.weight": torch.ones(k + 1, 3).to(dtype) for k, dtype in enumerate(dtypes)}
    return tensors | {"norm": torch.ones(5), "scalar": torch.tensor(1.0), "empty": torch.zeros(0, 4)}


def fp8_tensors() -> dict[str, torch.Tensor]:
    tensors = {"norm": torch.ones(5)}
    for k, (rows, columns) in enumerate([(128, 128), (130, 70), (1, 300)]):
        codes, scales = quantise_blocks(torch.linspace(-1, 1, rows * columns).view(rows, columns), ue8m0=k == 1)
        stored = scales.to(torch.float8_e8m0fnu) if k == 1 else scales
        tensors |= {f"layers.{k}.weight": codes, f"layers.{k}.weight_scale_inv": stored}
    return tensors


def write_plain(folder: Path) -> None:
    write(folder, plain_tensors(), 1 << 30)


def write_indexed(folder: Path) -> None:
    write(folder, plain_tensors(), 60)


def write_fp8(folder: Path) -> None:
    write(folder, fp8_tensors(), 1 << 30)


def write(folder: Path, tensors: dict[str, torch.Tensor], max_bytes: int) -> None:
    sizes = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    write_shards(folder, tensors.items(), sizes, max_bytes)


def write_model(folder: Path) -> None:
    changes = dict(
        vocab_size=16, num_hidden_layers=2, n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2
    )
    save_model(folder, Decoder(preset("tiny", **changes)).initialise(1))


# the real entries ----------------------------------------------------------------------------------------------------


def open_shards(folder: Path) -> None:
    shards = Shards(folder)
    for name in shards.entries:
        shards.read(name)


def open_fp8(folder: Path) -> None:
    shards = Shards(folder)
    for name in shards.entries:
        tensor, scales = shards.read(name), f"{name}_scale_inv"
        if scales in shards.entries:
            assert dequantise_blocks(tensor, shards.read(scales), name=name).isfinite().all()


def open_model(folder: Path) -> None:
    load_model(folder)


FAMILIES: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "plain": (write_plain, open_shards),
    "indexed": (write_indexed, open_shards),
    "fp8": (write_fp8, open_fp8),
    "model": (write_model, open_model),
}

# damage --------------------------------------------------------------------------------------------------------------

NUMBERS = [
    str(sign * (2**bits + more))
    for bits in (0, 7, 8, 12, 16, 31, 32, 53, 63, 64)
    for sign in (1, -1)
    for more in (-1, 0, 1)
]
NUMBERS += [
    "1e3",
    "1.5",
    "-0.0",
    "1e308",
    "1e999",
    "NaN",
    "-Infinity",
    "true",
    "null",
    "1" + "0" * 12,
    "9" * 100,
    "9" * 5000,
]
VALUES = [*NUMBERS, '""', '"x"', "[]", "{}", "[[]]", '{"a":1}', '"../x"', '"/etc/passwd"', '"\\u0000"', '"\\ud800"',
    '"BF16"', '"F8_E4M3"', '"U8"', '"F4"', "[0,0]", "[1,1,1]", "[" * 200, "[" * 100_000, '"' + "a" * 5000 + '"',
    "[" + "1," * 5000 + "1]", "[" + "0," * 5 + "9223372036854775807]", '"model.safetensors"']  # fmt: skip
LENGTHS = [
    0,
    1,
    2,
    7,
    8,
    9,
    255,
    1 << 20,
    1 << 22,
    (1 << 22) + 1,
    100_000_000,
    1 << 31,
    1 << 32,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
]
FOREIGN = [
    b"",
    b"\0" * 64,
    b"PK\x03\x04" + b"\0" * 60,
    b"\x80\x02}q\0.",
    b"GGUF\x03\0\0\0" + b"\xff" * 64,
    b"{}",
    b"[" * 9999,
]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
STRING = re.compile(rb'"[^"]*"')
LEAF = re.compile(rb'"[^"]*"|-?\d+(?:\.\d+)?|true|false|null|\[[^\[\]]*\]|\{[^{}]*\}')
MEMBER = re.compile(rb'"[^"]*"\s*:\s*(?:"[^"]*"|\[[^\[\]]*\]|\{[^{}]*\}|[^,}\]]+)')


def replaced(text: bytes, pattern: re.Pattern[bytes], new: Callable[[bytes], bytes], dice: random.Random) -> bytes:
    found = list(pattern.finditer(text))
    if not found:
        return text
    hit = dice.choice(found)
    return text[: hit.start()] + new(hit.group()) + text[hit.end() :]


def another_number(text: bytes, dice: random.Random) -> bytes:
    return replaced(text, NUMBER, lambda _: dice.choice(NUMBERS).encode(), dice)


def near_number(text: bytes, dice: random.Random) -> bytes:
    return replaced(text, NUMBER, lambda old: b"%d" % (int(float(old)) + dice.choice([-8, -2, -1, 1, 2, 8, 128])), dice)


def another_value(text: bytes, dice: random.Random) -> bytes:
    return replaced(text, LEAF, lambda _: dice.choice(VALUES).encode(), dice)


def member_twice(text: bytes, dice: random.Random) -> bytes:
    return replaced(text, MEMBER, lambda old: old + b"," + old, dice)


def member_gone(text: bytes, dice: random.Random) -> bytes:
    return (
        re.sub(rb",\s*,", b",", replaced(text, MEMBER, lambda _: b"", dice)).replace(b"{,", b"{").replace(b",}", b"}")
    )


def strings_swapped(text: bytes, dice: random.Random) -> bytes:
    """Names, file names or dtypes change places; so do offsets when a whole list is hit (`lists_swapped`)."""
    return swapped(text, STRING, dice)


def lists_swapped(text: bytes, dice: random.Random) -> bytes:
    return swapped(text, re.compile(rb"\[[^\[\]]*\]"), dice)


def swapped(text: bytes, pattern: re.Pattern[bytes], dice: random.Random) -> bytes:
    found = list(pattern.finditer(text))
    if len(found) < 2:
        return text
    a, b = sorted(dice.sample(found, 2), key=lambda hit: hit.start())
    return text[: a.start()] + b.group() + text[a.end() : b.start()] + a.group() + text[b.end() :]


def flipped(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 2, 8, 64]) if out else 0):
        out[dice.randrange(len(out))] ^= 1 << dice.randrange(8)
    return bytes(out)


def cut(data: bytes, dice: random.Random) -> bytes:
    """Truncated at every kind of place: in the length, in the header, at its end, in the data, just before the end."""
    length = int.from_bytes(data[:8], "little")
    places = [
        dice.randrange(17),
        8 + length,
        8 + length // 2,
        len(data) - dice.randrange(9),
        dice.randrange(len(data) + 1),
    ]
    return data[: max(dice.choice(places), 0)]


def longer(data: bytes, dice: random.Random) -> bytes:
    return data + dice.randbytes(dice.choice([1, 8, 1000]))


def spliced(data: bytes, dice: random.Random) -> bytes:
    at, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    return data[:at] + dice.randbytes(dice.choice([0, 1, 8, 100])) + data[min(end, at + 200) :]


def noise(data: bytes, dice: random.Random) -> bytes:
    return dice.choice([*FOREIGN, dice.randbytes(dice.choice([1, 8, 9, 100, 10_000]))])


TEXT_DAMAGE = [
    another_number,
    near_number,
    another_value,
    member_twice,
    member_gone,
    strings_swapped,
    lists_swapped,
    flipped,
]
BYTE_DAMAGE = [flipped, cut, longer, spliced, noise]


def damaged_header(data: bytes, dice: random.Random) -> bytes:
    """Damage to the header's text, its length told truly or not."""
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length]
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        text = dice.choice(TEXT_DAMAGE)(text, dice)
    told = len(text) if dice.random() < 0.9 else dice.choice([length, *LENGTHS])
    return struct.pack("<Q", told) + text + data[8 + length :]


def damaged_file(name: str, data: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.2 or not name.endswith((".json", ".safetensors")):
        return dice.choice(BYTE_DAMAGE)(data, dice)
    if name.endswith(".safetensors"):
        return damaged_header(data, dice) if dice.random() < 0.85 else data[:-40] + flipped(data[-40:], dice)
    return dice.choice(TEXT_DAMAGE)(data, dice)


def damaged(files: Files, dice: random.Random) -> Files:
    """One or two files of a folder damaged, or one gone, or two in each other's place."""
    files, names = dict(files), sorted(files)
    lot = dice.random()
    if lot < 0.02:
        del files[dice.choice(names)]
    elif lot < 0.04 and len(names) > 1:
        a, b = dice.sample(names, 2)
        files[a], files[b] = files[b], files[a]
    else:
        for name in dice.sample(names, min(len(names), dice.choice([1, 1, 1, 2]))):
            files[name] = damaged_file(name, files[name], dice)
    return files


# trying --------------------------------------------------------------------------------------------------------------


def peak_megabytes() -> float:
    """Of this process alone; `ru_maxrss` would count what its parent had."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def sound(write_sound: Callable[[Path], None], folder: Path) -> Files:
    write_sound(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def attempt(open_it: Callable[[Path], None], folder: Path) -> tuple[str, str]:
    """("loaded" | "refused" | "crashed", what was said)."""
    try:
        open_it(folder)
        return "loaded", ""
    except KogiaError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception:
        return "crashed", traceback.format_exc()


def fuzz(family: str, first: int, count: int, scratch: Path) -> dict[str, float]:
    """Try `count` damaged folders; print each that crashes, takes too long or too much; return what happened."""
    write_sound, open_it = FAMILIES[family]
    files = sound(write_sound, scratch / "sound")
    assert attempt(open_it, scratch / "sound") == ("loaded", "")
    baseline = peak_megabytes()
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (2 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))  # so that a hostile size cannot take the machine along
    summary: dict[str, float] = {"loaded": 0, "refused": 0, "crashed": 0, "slowest": 0.0, "grown": 0.0}
    for seed in range(first, first + count):
        folder = scratch / str(seed)
        folder.mkdir()
        for name, data in damaged(files, random.Random(f"{family} {seed}")).items():
            (folder / name).write_bytes(data)
        (scratch / "current").write_text(str(seed))
        start = time.process_time()
        outcome, said = attempt(open_it, folder)
        seconds, grown = time.process_time() - start, peak_megabytes() - baseline
        summary[outcome] += 1
        too_much = grown > max(MEGABYTES, summary["grown"])
        if outcome == "crashed" or seconds > SECONDS or too_much or not said.replace("\n", "").isprintable():
            print(json.dumps(dict(family=family, seed=seed, seconds=seconds, megabytes=grown, said=said)))
        summary |= {"slowest": max(summary["slowest"], seconds), "grown": max(summary["grown"], grown)}
        shutil.rmtree(folder)
    return summary


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    family, first, count, scratch = sys.argv[1:]
    print(json.dumps(fuzz(family, int(first), int(count), Path(scratch))))
