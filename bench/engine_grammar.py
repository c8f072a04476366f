"""Constrained output: what following a JSON schema costs a token, on SmolLM2 in int4.

Each round: a request with a schema, at temperature 1, until its answer is complete (1 and 16 of them at once), and then
as many tokens of the same prompts without it, end tokens ignored. One thread, CPU time of `generate`; the grammar is
compiled before (its time is given, too). Two measures: the difference of the two, and the time inside the control that
follows the grammar, read from the clock around each of its calls. The last lines: microseconds a token, and the share
of a step.
"""

import json
import time
from typing import Any

from engines import announce, find_smollm2, interleaved, load, make_engine, options, spread, timed

from kogia.engine.control import Control
from kogia.engine.engine import Engine
from kogia.engine.grammar import Constraint, compile_constraint
from kogia.engine.request import Output, SamplingParams
from kogia.text.prompts import encode_chat

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "kind": {"enum": ["fish", "whale", "bird"]},
        "length": {"type": "number"},
        "seen": {"type": "boolean"},
        "places": {
            "type": "array",
            "minItems": 3,
            "maxItems": 4,
            "items": {
                "type": "object",
                "properties": {
                    "sea": {"type": "string", "maxLength": 20},
                    "depth": {"type": "integer", "minimum": 0, "maximum": 5000},
                },
                "required": ["sea", "depth"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["name", "kind", "length", "seen", "places"],
    "additionalProperties": False,
}
QUESTION = "Describe an animal of the sea as JSON: its name, kind, length, whether you saw it, and where it lives."
MOST = 400


class Clock:
    """Time inside `Control.adjust` and `Control.accept`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in ("adjust", "accept"):
            setattr(Control, name, self._timed(getattr(Control, name)))

    def _timed(self, method: Any) -> Any:
        def call(*arguments: Any) -> None:
            start = time.perf_counter()
            method(*arguments)
            self.seconds += time.perf_counter() - start

        return call


def lap(engine: Engine, clock: Clock, prompts: list[list[int]], number: int, most: int) -> dict[str, float]:
    """Constrained, then as many tokens free."""
    schema = Constraint("json_schema", SCHEMA)
    batch = len(prompts)
    seeds = [1000 * number + place for place in range(batch)]
    with_schema = [SamplingParams(most, seed=seed, constraint=schema) for seed in seeds]
    clock.seconds = 0.0
    held, outputs = timed(lambda: engine.generate(prompts, with_schema))
    inside = clock.seconds
    check(outputs)
    sizes = [len(output.token_ids) for output in outputs]
    without = [SamplingParams(size, seed=seed, ignore_eos=True) for size, seed in zip(sizes, seeds, strict=True)]
    free, outputs = timed(lambda: engine.generate(prompts, without))
    assert [len(output.token_ids) for output in outputs] == sizes
    return dict(tokens=sum(sizes), held=held, free=free, inside=inside)


def check(outputs: list[Output]) -> None:
    """Every finished answer is JSON with the keys that the schema asks for."""
    for output in outputs:
        if output.finish_reason == "stop":
            assert set(SCHEMA["required"]) == set(json.loads(output.text)), output.text
        else:
            assert output.finish_reason == "length", output.error


def race(engine: Engine, clock: Clock, prompt: list[int], batch: int, rounds: int, most: int) -> list[str]:
    """Time one size of batch, print its table, return the ratios."""
    laps = interleaved({"lap": lambda number: lap(engine, clock, [prompt] * batch, number, most)}, rounds)["lap"]
    tokens = sum(found["tokens"] for found in laps)
    rows = {
        "with the schema": [1e6 * x["held"] / x["tokens"] for x in laps],
        "without": [1e6 * x["free"] / x["tokens"] for x in laps],
        "difference": [1e6 * (x["held"] - x["free"]) / x["tokens"] for x in laps],
        "inside the control": [1e6 * x["inside"] / x["tokens"] for x in laps],
    }
    shares = {
        "difference": [(x["held"] - x["free"]) / x["held"] for x in laps],
        "inside": [x["inside"] / x["held"] for x in laps],
    }
    print(f"\nbatch {batch}: {tokens:,} tokens in {rounds} rounds\n  {'':20}{'microseconds a token':>28}")
    for name, values in rows.items():
        print(f"  {name:20}{spread(values):>28}")
    for name, values in shares.items():
        print(f"  share of the step, by the {name}: {spread([100 * value for value in values], 1)} %", flush=True)
    middle = {name: sorted(values)[len(values) // 2] for name, values in (rows | shares).items()}
    return [
        f"ratio engine_grammar_{batch}_microseconds_a_token {middle['inside the control']:.1f}",
        f"ratio engine_grammar_{batch}_share_of_step {middle['inside']:.4f}",
        f"ratio engine_grammar_{batch}_held_to_free {middle['with the schema'] / middle['without']:.3f}",
    ]


def main() -> None:
    """Race."""
    parser = options(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="sequences at once")
    asked = parser.parse_args()
    path = find_smollm2()
    if path is None:
        return
    rounds, most = (1, 48) if asked.quick else (asked.rounds, MOST)
    announce(rounds)
    model, tokenizer = load(path)
    first, _ = timed(lambda: compile_constraint(Constraint("regex", "[a-z]+"), tokenizer))
    compiling, _ = timed(lambda: compile_constraint(Constraint("json_schema", SCHEMA), tokenizer))
    print(f"the tokenizer's table, once: {first * 1e3:.1f} ms; compiling the schema: {compiling * 1e3:.2f} ms")
    prompt = encode_chat(tokenizer, [{"role": "user", "content": QUESTION}])
    clock = Clock()
    engine = make_engine(model, tokenizer, "int4", max_batch=max(asked.batches), prefix_cache=False)
    lines = [line for batch in asked.batches for line in race(engine, clock, prompt, batch, rounds, most)]
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
