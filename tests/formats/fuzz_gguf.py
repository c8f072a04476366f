"""Damage to GGUF files: field by field, because random bits mostly hit weights.

    python -m formats.fuzz_gguf KIND FIRST_SEED COUNT SCRATCH_FOLDER     (from tests/) one line of JSON

A seed is one damaged file and always the same one.
"""

import json
import os
import random
import resource
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from formats import fuzz

from kogia.models.checkpoint import LiveCheckpoint
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.folder import load_model
from kogia.models.gguf_write import write_gguf
from kogia.models.presets import preset
from kogia.text.gguf import tokenizer_from_gguf, vocabulary
from kogia.text.tokenizer import train_tokenizer

SECONDS, MEGABYTES = 1.0, 100  # of processor time and of memory for one file
LATENT = dict(vocab_size=300, num_hidden_layers=2, n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2)
DENSE = dict(
    vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
)  # fmt: skip
SOUND: dict[str, Callable[[], ModelConfig]] = {
    "deepseek2": lambda: preset("tiny", **LATENT),
    "llama": lambda: ModelConfig(model_type="llama", **DENSE),
}


def sound(kind: str, folder: Path) -> bytes:
    """A file without a fault, tokenizer and all."""
    path = folder / "sound.gguf"
    words, _ = vocabulary(train_tokenizer(["damage to files, 1 + 1 = 2"] * 9, 290), 300)
    write_gguf(path, LiveCheckpoint(Decoder(SOUND[kind]()).initialise(1)), words, "q8_0" if kind == "llama" else "f16")
    return path.read_bytes()


# the fields of a file ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """Where a number or a text stands; `what` says which: count, length, kind, text, value, rank, dim, offset."""

    at: int
    size: int
    what: str


class Walk:
    """The fields of a sound file, in order, and where each key and each tensor begins and ends."""

    SIZES = (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 8
        self.fields, self.pairs, self.infos = [Field(4, 4, "kind")], [], []
        tensors, keys = self.number(8, "count"), self.number(8, "count")
        for _ in range(keys):
            self.pairs.append(self.span(self.pair))
        for _ in range(tensors):
            self.infos.append(self.span(self.info))

    def span(self, step: Callable[[], None]) -> tuple[int, int]:
        start = self.at
        step()
        return start, self.at

    def number(self, size: int, what: str) -> int:
        self.fields.append(Field(self.at, size, what))
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def text(self) -> None:
        length = self.number(8, "length")
        self.number(length, "text")

    def pair(self) -> None:
        self.text()
        self.value(self.number(4, "kind"))

    def value(self, kind: int) -> None:
        if kind == 8:
            self.text()
        elif kind == 9:
            inner, count = self.number(4, "kind"), self.number(8, "count")
            for _ in range(count):
                self.value(inner)
        else:
            self.number(self.SIZES[kind], "value")

    def info(self) -> None:
        self.text()
        for _ in range(self.number(4, "rank")):
            self.number(8, "dim")
        self.number(4, "kind")
        self.number(8, "offset")


# damage --------------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, 2, 3, 7, 8, 9, 13, 31, 32, 33, 64, 255, 256, 1000, 4096, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1,
           10**12, 1 << 53, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1]  # fmt: skip
REALS = [0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan")]
TEXTS = ["", "x", "\0", "\x1b[31m", "llama", "deepseek2", "qwen2", "qwen3", "gpt2", "none", "default", "smollm", "yarn",
         "linear", "no_vocab", "general.alignment", "split.count", "token_embd.weight", "blk.0.attn_q.weight",
         "blk.007.attn_q.weight", "blk.999999.ffn_up_exps.weight", "blk.0.attn_kv_b.weight", "rope_freqs.weight",
         "blk.0.ffn_gate_up_exps.weight", "deepseek2.expert_count", "llama.block_count", "tokenizer.ggml.merges",
         "a b c", "Ġ", " ", "가" * 90]  # fmt: skip


def put(data: bytes, field: Field, value: bytes) -> bytes:
    return data[: field.at] + value + data[field.at + field.size :]


def another_number(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    field = dice.choice([f for f in walk.fields if f.what != "text"])
    if field.size == 4 and dice.random() < 0.2:
        return put(data, field, struct.pack("<f", dice.choice(REALS)))
    old = int.from_bytes(data[field.at : field.at + field.size], "little")
    near = old + dice.choice([-32, -8, -1, 1, 8, 32])
    new = dice.choice([*NUMBERS, near, near, near, old * 2]) % (1 << 8 * field.size)
    return put(data, field, new.to_bytes(field.size, "little"))


def structural_number(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    """Another number in a count, length, rank, dimension, kind or offset, leaving the thousands of small values out."""
    walk.fields = [f for f in walk.fields if f.what != "value"]
    few = [f for f in walk.fields if f.what in ("rank", "dim", "offset")] + walk.fields[:4]
    walk.fields = dice.choice([walk.fields, few])
    return another_number(data, walk, dice)


def another_value(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    """Another value under one of the keys: a number, a truth or a text."""
    start, end = dice.choice(walk.pairs)
    inside = [f for f in walk.fields if start <= f.at < end and f.what in ("value", "text")]
    field = dice.choice(inside[1:] or inside)
    if field.what == "text":
        return other_text(data, field, dice)
    walk.fields = [field]
    return another_number(data, walk, dice)


def another_text(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    return other_text(data, dice.choice([f for f in walk.fields if f.what == "text"]), dice)


def other_text(data: bytes, field: Field, dice: random.Random) -> bytes:
    new = dice.choice([dice.choice(TEXTS).encode(), dice.randbytes(dice.choice([0, 1, field.size]))])
    length = struct.pack("<Q", len(new))
    return data[: field.at - 8] + length + new + data[field.at + field.size :]


def names_swapped(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    """Two keys or two tensors change their descriptions, but not their places; or one repeats the other."""
    spans = dice.choice([walk.pairs, walk.infos])
    (a, b), (c, d) = sorted(dice.sample(spans, 2))
    if dice.random() < 0.3:
        return data[:a] + data[c:d] + data[b:]
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def one_gone(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    """A key or a tensor is left out, its count told truly; what follows moves."""
    spans, counter = dice.choice([(walk.pairs, 2), (walk.infos, 1)])
    start, end = dice.choice(spans)
    field = walk.fields[counter]
    return put(data[:start] + data[end:], field, struct.pack("<Q", len(spans) - 1))


def cut(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    last = walk.infos[-1][1]
    return data[
        : dice.choice([dice.randrange(24), dice.randrange(last), last, dice.randrange(len(data)), len(data) - 1])
    ]


def flipped(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    out = bytearray(data)
    reach = dice.choice([24, walk.infos[-1][1], len(data)])
    for _ in range(dice.choice([1, 1, 2, 16])):
        out[dice.randrange(reach)] ^= 1 << dice.randrange(8)
    return bytes(out)


def spliced(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    at = dice.randrange(walk.infos[-1][1])
    return data[:at] + dice.randbytes(dice.choice([0, 1, 8, 100])) + data[at + dice.choice([0, 1, 8, 100]) :]


def not_finite(data: bytes, walk: Walk, dice: random.Random) -> bytes:
    at = dice.randrange(walk.infos[-1][1], len(data) - 4)
    return data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]


DAMAGE = [another_number, structural_number, structural_number, structural_number, another_value, another_value,
          another_value, another_text, names_swapped, one_gone, cut, flipped, spliced, not_finite]  # fmt: skip


def mutations(seed: int, valid: bytes) -> bytes:
    """The damaged file number `seed`."""
    dice = random.Random(f"gguf {seed}")
    return dice.choice(DAMAGE)(valid, Walk(valid), dice)


# trying --------------------------------------------------------------------------------------------------------------


def open_it(folder: Path) -> None:
    load_model(folder / "model.gguf")
    tokenizer_from_gguf(folder / "model.gguf").encode("damage 1 + 1 = 2 <think>")


def open_tokenizer(folder: Path) -> None:
    tokenizer_from_gguf(folder / "model.gguf").encode("damage 1 + 1 = 2 <think>")


def run(kind: str, first: int, count: int, scratch: Path) -> dict:
    """Try `count` damaged files, model and tokenizer."""
    valid = sound(kind, scratch)
    (scratch / "model.gguf").write_bytes(valid)
    assert fuzz.attempt(open_it, scratch) == ("loaded", "")
    baseline = fuzz.peak_megabytes()
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (2 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))  # so that a hostile size cannot take the machine along
    summary = {"loaded": 0, "refused": 0, "crashed": 0, "slowest": 0.0, "failures": []}
    for seed in range(first, first + count):
        (scratch / "model.gguf").write_bytes(mutations(seed, valid))
        start = time.process_time()
        outcome, said = fuzz.attempt(open_it, scratch)
        words, more = fuzz.attempt(open_tokenizer, scratch)
        seconds = time.process_time() - start
        summary[outcome] += 1
        if "crashed" in (outcome, words) or seconds > SECONDS or not (said + more).isprintable():
            summary["failures"].append(dict(seed=seed, seconds=seconds, said=[said, more]))
        summary["slowest"] = max(summary["slowest"], seconds)
    return summary | {"grown": fuzz.peak_megabytes() - baseline}


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    kind, first, count, scratch = sys.argv[1:]
    print(json.dumps(run(kind, int(first), int(count), Path(scratch))))
