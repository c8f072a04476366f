"""The `kogia` command as a user runs it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"


def start(*arguments, **options):
    """Start `kogia ...`, with a wide terminal so that nothing is folded."""
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "kogia", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options,
    )  # fmt: skip


def kogia(*arguments, stdin=None, timeout=300):
    """Run `kogia ...` to its end; returns (exit code, stdout, stderr)."""
    process = start(*arguments, stdin=subprocess.PIPE)
    out, err = process.communicate(stdin, timeout=timeout)
    return process.returncode, out, err


def run_tiny(out, *arguments):
    return ("run", TINY, "--out", out, "--set", "threads=1", "--set", "checkpoint_seconds=0", *arguments)
