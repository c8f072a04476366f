"""Prefix cache: time to the first token of a prompt of 2,000 tokens: SmolLM2 in int4, the mini preset (random) in BF16.

Each round a new prompt: cold; the same again (cached); the same under another salt, as of another tenant; and the same
after `refresh`, under another weight version. The last two must find nothing, as Output.cached_tokens says, and all
four answers must be equal (the weights are). One thread, CPU time from `add` to the token. The last lines are ratios
of medians to cold.
"""

import inspect
import random
import sys
import tarfile
from collections.abc import Callable
from typing import Any

import torch
from engines import announce, find_smollm2, interleaved, load, make_engine, options, ratio, spread, timed

from kogia.engine.batch import BLOCK
from kogia.engine.engine import Engine
from kogia.engine.request import Output, SamplingParams

PROMPT = 2000
WAYS = {"cold": "", "cached": "", "other salt": "other", "refreshed": ""}
Prompts = Callable[[int], list[int]]


def first_token(engine: Engine, prompt: list[int], salt: str) -> Output:
    """The answer to a request for one token."""
    engine.add(prompt, SamplingParams(1, 0.0), salt=salt)
    while True:
        for event in engine.step():
            if event.output:
                return event.output


def a_round(engine: Engine, prompt: list[int]) -> dict[str, float]:
    """CPU seconds of each way, which must find in the cache what it should."""
    seconds, outputs = {}, {}
    for way, salt in WAYS.items():
        if way == "refreshed":
            seconds["refresh itself"], _ = timed(engine.refresh)
        seconds[way], outputs[way] = timed(lambda salt=salt: first_token(engine, prompt, salt))
    whole = (len(prompt) - 1) // BLOCK * BLOCK  # the last token is always computed
    found = {way: output.cached_tokens for way, output in outputs.items()}
    assert found == {way: whole if way == "cached" else 0 for way in WAYS}, found
    answers = {(output.token_ids[0], output.logprobs[0]) for output in outputs.values()}
    assert len(answers) == 1, f"answers differ: {answers}"
    return seconds


def race(title: str, name: str, engine: Engine, prompts: Prompts, rounds: int) -> list[str]:
    """Time, print the table, return the ratios."""
    found = interleaved({"round": lambda number: a_round(engine, prompts(number))}, rounds)["round"]
    cold = [seconds["cold"] for seconds in found]
    print(f"\n{title}: first token of {PROMPT:,} tokens\n  {'':16}{'CPU seconds':>28}{'against cold':>16}")
    lines = []
    for way in (*WAYS, "refresh itself"):
        times = [seconds[way] for seconds in found]
        words = f"engine_prefix_{name}_{way.replace(' ', '_')}_to_cold"
        line = ratio(words, times, cold, 3)
        print(f"  {way:16}{spread(times, 4):>28}{line.split()[-1]:>16}", flush=True)
        lines += [line] if way in ("cached", "other salt", "refreshed") else []
    print("  found in the cache: cached all but the last block, the others nothing; all answers equal")
    return lines


def race_smollm2(rounds: int) -> list[str]:
    """Prompts are pieces of Python source."""
    path = find_smollm2()
    if path is None:
        return []
    model, tokenizer = load(path)
    text = tokenizer.encode(inspect.getsource(tarfile))

    def prompts(number: int) -> list[int]:
        return list(text[number * 700 :][:PROMPT])

    engine = make_engine(model, tokenizer, "int4", cache_tokens=4 * (PROMPT + BLOCK))
    return race("SmolLM2, int4", "smollm2", engine, prompts, rounds)


def race_mini(rounds: int) -> list[str]:
    """Prompts are random tokens."""
    from kogia.models.decoder import Decoder
    from kogia.models.presets import preset
    from kogia.text.tokenizer import train_tokenizer

    config = preset("mini")
    model = Decoder(config).initialise(0).compute_in(torch.bfloat16).eval().requires_grad_(False)
    tokenizer: Any = train_tokenizer([inspect.getsource(sys.modules[__name__])], 300)  # for its stop tokens alone

    def prompts(number: int) -> list[int]:
        draw = random.Random(number)
        return [draw.randrange(16, config.vocab_size) for _ in range(PROMPT)]

    engine = make_engine(model, tokenizer, "bfloat16", cache_tokens=4 * (PROMPT + BLOCK))
    return race("mini, bfloat16", "mini", engine, prompts, rounds)


def main() -> None:
    """Race."""
    asked = options(__doc__).parse_args()
    rounds = 1 if asked.quick else asked.rounds
    announce(rounds)
    lines = race_smollm2(rounds) + race_mini(rounds)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
