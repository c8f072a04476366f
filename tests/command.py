"""The `kogia` command as a user runs it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"


def start(*arguments, **options):
    """Start `kogia ...` with one thread, so that it is the same on a busy machine."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "kogia", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options,
    )  # fmt: skip


def kogia(*arguments, stdin=None):
    """Run `kogia ...` to its end; returns (exit code, stdout, stderr)."""
    process = start(*arguments, stdin=subprocess.PIPE)
    out, err = process.communicate(stdin, timeout=300)
    return process.returncode, out, err


def run_tiny(out, *arguments):
    return ("run", TINY, "--out", out, "--set", "threads=1", "--set", "checkpoint_seconds=0", *arguments)
