"""Greedy decoding of the mini preset (102 million parameters, random): Kogia, transformers and llama.cpp.

The same weights, the same prompts of 32 random tokens, 128 new tokens, end tokens ignored, 1, 4 and 16 sequences at
once. llama.cpp reads GGUF files that Kogia's converter wrote. Each side in a process of its own, in turn, one thread,
CPU time of the token loop; with --threads 2, time of the clock. The last lines are ratios of medians (over 1: Kogia is
faster).
"""

import random
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from racers import installed, llama_side, options, run_races

PROMPT, TOKENS = 32, 128
FILES = {"Q8_0": "q8_0", "Q4_0": "q4_0", "BF16": "bfloat16"}
PAIRS = [
    ("kogia bf16", "transformers bf16"), ("kogia int8", "transformers bf16"), ("kogia int4", "transformers bf16"),
    ("kogia bf16", "llama.cpp BF16"), ("kogia int8", "llama.cpp Q8_0"), ("kogia int4", "llama.cpp Q4_0"),
]  # fmt: skip


def write_model(folder: Path) -> None:
    """The model as a folder and as GGUF files. Its tokenizer is there because both formats ask for one."""
    from kogia.convert import convert
    from kogia.models.decoder import Decoder
    from kogia.models.folder import save_model
    from kogia.models.presets import preset
    from kogia.text.tokenizer import train_tokenizer

    config = preset("mini")
    texts = [path.read_text(errors="replace") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]
    (folder / "mini").mkdir()
    save_model(folder / "mini", Decoder(config).initialise(0))
    train_tokenizer(texts, config.vocab_size).save(folder / "mini")
    for name, dtype in FILES.items():
        convert(folder / "mini", folder / f"{name}.gguf", dtype)


def entries(folder: Path) -> dict[str, tuple[str, str | Path, dict[str, Any]]]:
    """Who takes part."""
    model = folder / "mini"
    found: dict[str, tuple[str, str | Path, dict[str, Any]]] = {
        "kogia bf16": ("kogia", model, {}),
        "kogia int8": ("kogia", model, {"quantize": "int8"}),
        "kogia int4": ("kogia", model, {"quantize": "int4"}),
    }
    if installed("transformers"):
        found["transformers bf16"] = ("transformers", model, {})
    if side := llama_side():
        found |= {f"llama.cpp {name}": (side, folder / f"{name}.gguf", {}) for name in FILES}
    return found


def prompts(batch: int, number: int) -> list[list[int]]:
    """Random tokens, others in every round."""
    draw = random.Random(f"{batch} {number}")
    return [[draw.randrange(16, 8192) for _ in range(PROMPT)] for _ in range(batch)]


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        run_races("engine_mini", entries(Path(folder)), prompts, TOKENS, PAIRS, asked)
