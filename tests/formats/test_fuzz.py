"""Thousands of damaged model folders: each is read or refused in a second and 100 MB, in a process that survives it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from formats import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured with Linux's /proc")
BATCHES = [(family, first, 500) for family in fuzz.FAMILIES for first in (0, 500)]


def run(family: str, first: int, count: int, scratch: Path) -> list[dict]:
    """The harness's lines; the last is its summary."""
    command = [sys.executable, fuzz.__file__, family, str(first), str(count), str(scratch)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    seed = (scratch / "current").read_text() if (scratch / "current").exists() else "?"
    assert done.returncode == 0, f"the process died of {family} {seed}: {done.stderr[-2000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "first", "count"), BATCHES)
def test_damaged_models_are_read_or_refused(tmp_path, family, first, count):
    *failures, summary = run(family, first, count, tmp_path)
    assert not failures, json.dumps(failures[:3], indent=1) + f"\n{len(failures)} of {count}"
    assert summary["refused"] > count / 3 and summary["loaded"] > 0  # damage that is felt, and not only damage
    assert summary["slowest"] < 1.0 and summary["grown"] < 100


def test_a_few_of_them_quickly(tmp_path):
    *failures, summary = run("indexed", 10_000, 60, tmp_path)
    assert not failures and summary["refused"] + summary["loaded"] == 60


def test_a_seed_is_always_the_same_damage(tmp_path):
    files = fuzz.sound(fuzz.write_indexed, tmp_path)
    again = [fuzz.damaged(files, random.Random(f"indexed {seed}")) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2] and again[0] != files


def test_other_errors_are_noticed(tmp_path):
    assert fuzz.attempt(lambda folder: None, tmp_path) == ("loaded", "")
    assert fuzz.attempt(lambda folder: [][1], tmp_path)[0] == "crashed"
    assert fuzz.attempt(fuzz.open_shards, tmp_path)[0] == "refused"
