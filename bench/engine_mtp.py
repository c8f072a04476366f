"""Drafting: what multi-token prediction and n-gram lookup bring, and that they change no bit of any answer.

MODEL (a trained model with MTP layers; runs/nano/final, which `make demo` makes) answers questions of its own task,
greedy and at temperature 1, with 1, 4 and 16 sequences in flight: without drafts, with 1, 2 and 3 always, and with as
many as pay (auto). SmolLM2, which has no MTP layers, answers two questions alone, without drafts and with n-gram lookup
(auto): one asks for a text again with a few changes (greedy), one for something new (temperature 1).

One thread, CPU time of the whole of `generate`, prompts included. Every answer must be that without drafts, its
log-probabilities included, bit for bit. "tokens a step": of each sequence. "right at 1, 2, 3": share of drafts that
were right up to that place. The last lines are ratios of medians (over 1: drafting is faster).
"""

import argparse
import inspect
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines import announce, find_smollm2, interleaved, load, make_engine, options, ratio, spread, timed

from kogia.engine.engine import Engine
from kogia.engine.request import SamplingParams
from kogia.text.prompts import encode_chat, encode_question

DEFAULT = Path(__file__).parents[1] / "runs/nano/final"
DRAFTS: list[str | int] = ["off", 1, 2, 3, "auto"]
EDIT = "Repeat this Python code exactly, but rename the function `dedent` to `strip_margin`:\n\n```python\n{code}\n```"
FREE = "Tell me a story about a small whale that learns to read."
Work = tuple[list[list[int]], list[SamplingParams]]


def task_of(model: Path, tokenizer: Any, temperature: float, count: int) -> Work:
    """Questions that the model was measured on, one of each group of samples, spread over the whole file."""
    lines = (model / "samples.jsonl").read_text().splitlines()
    questions = list(dict.fromkeys(json.loads(line)["question"] for line in lines))
    chosen = questions[:: max(len(questions) // count, 1)][:count]
    params = [SamplingParams(200, temperature, seed=seed) for seed in range(len(chosen))]
    return [encode_question(tokenizer, question) for question in chosen], params


def counts(engine: Engine) -> Counter[str]:
    """What an engine has counted so far."""
    m = engine.metrics
    places = {f"right at {at}": number for at, number in m.accepted_at.items()}
    return Counter(tokens=m.generation_tokens, right=m.accepted_tokens, drafts=m.drafts, **places)


def lap(engine: Engine, work: Work) -> tuple[float, Counter[str], list[Any]]:
    """(tokens a second, what was counted, answers)."""
    before = counts(engine)
    seconds, outputs = timed(lambda: engine.generate(*work))
    new = counts(engine) - before
    return new["tokens"] / seconds, new, [(o.token_ids, o.logprobs) for o in outputs]


def race(
    title: str, name: str, make: Callable[[str | int], Engine], drafts: list[str | int], work: Work, rounds: int
) -> list[str]:
    """Time each way of drafting, print the table, return the ratios."""
    engines = {draft: make(draft) for draft in drafts}
    laps = interleaved({draft: lambda _, e=engine: lap(e, work) for draft, engine in engines.items()}, rounds)
    answers = laps["off"][0][2]
    wrong = [draft for draft, found in laps.items() if any(said != answers for _, _, said in found)]
    assert not wrong, f"{title}: drafting {wrong} changes answers"
    print(f"\n{title}: {sum(len(ids) for ids, _ in answers):,} tokens in {len(answers)} answers, equal bit for bit")
    print(f"  {'drafts':8}{'tok/s':>26}{'against off':>14}{'tokens a step':>16}   right at 1, 2, 3, ...")
    speeds = {draft: [speed for speed, _, _ in found] for draft, found in laps.items()}
    lines = []
    for draft, found in laps.items():
        total = sum((new for _, new, _ in found), Counter())
        places = [total[f"right at {at}"] / max(total["drafts"], 1) for at in range(5)]
        right = ", ".join(f"{share:.2f}" for share in places if share)
        line = ratio(f"engine_mtp_{name}_{draft}_against_off", speeds[draft], speeds["off"])
        step = total["tokens"] / (total["tokens"] - total["right"])
        print(f"  {draft!s:8}{spread(speeds[draft]):>26}{line.split()[-1]:>14}{step:>16.2f}   {right}", flush=True)
        lines += [line] if draft != "off" else []
    return lines


def race_layers(model: Path, asked: argparse.Namespace, rounds: int) -> list[str]:
    """The model's own layers."""
    decoder, tokenizer = load(model)
    if not decoder.config.num_nextn_predict_layers:
        sys.exit(f"{model} has no layers of multi-token prediction")
    lines = []
    for temperature in (0.0, 1.0):
        work = task_of(model, tokenizer, temperature, 8 if asked.quick else asked.questions)
        for batch in asked.batches:

            def make(draft: str | int, batch: int = batch) -> Engine:
                return make_engine(decoder, tokenizer, asked.format, draft, max_batch=batch, prefix_cache=False)

            how = "greedy" if temperature == 0.0 else f"temperature {temperature:g}"
            name = f"t{temperature:g}_{batch}"
            lines += race(f"{model.name}, {asked.format}, {how}, batch {batch}", name, make, DRAFTS, work, rounds)
    return lines


def race_lookup(asked: argparse.Namespace, rounds: int) -> list[str]:
    """What followed the last words before, on a model without such layers."""
    path = find_smollm2()
    if path is None:
        return []
    decoder, tokenizer = load(path)
    lines = []
    edit = EDIT.format(code=inspect.getsource(textwrap.dedent))
    for name, question, temperature in (("lookup_edit", edit, 0.0), ("lookup_free", FREE, 1.0)):
        prompt = encode_chat(tokenizer, [{"role": "user", "content": question}])
        params = SamplingParams(32 if asked.quick else 300, temperature, ignore_eos=True)

        def make(draft: str | int) -> Engine:
            return make_engine(decoder, tokenizer, asked.lookup_format, draft, max_batch=1, prefix_cache=False)

        how = f"temperature {temperature:g}, batch 1, {len(prompt)} tokens of prompt"
        title = f"SmolLM2, {asked.lookup_format}, {name.replace('_', ' ')}, {how}"
        lines += race(title, name, make, ["off", "auto"], ([prompt], [params]), rounds)
    return lines


def main() -> None:
    """Race."""
    parser = options(__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=DEFAULT, help="folder (default: runs/nano/final)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="sequences in flight")
    parser.add_argument("--questions", type=int, default=64, help="how many are asked (default 64)")
    parser.add_argument("--format", default="bfloat16", help="of the weights: bfloat16 (default), int8 or int4")
    parser.add_argument("--lookup-format", default="int4", help="of SmolLM2's weights (default int4)")
    asked = parser.parse_args()
    if not (asked.model / "samples.jsonl").is_file():
        sys.exit(f"{asked.model} is no trained model with samples.jsonl: `make demo` makes one in runs/nano/final")
    rounds = 1 if asked.quick else asked.rounds
    announce(rounds, model=asked.model)
    lines = race_layers(asked.model, asked, rounds) + race_lookup(asked, rounds)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
