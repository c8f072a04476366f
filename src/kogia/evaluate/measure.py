"""Measure a model on held-out problems: accuracy, majority vote, form, language, length, MTP acceptance."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kogia.data.conversations import pad_batch
from kogia.engine.engine import Engine
from kogia.engine.request import Output, SamplingParams
from kogia.evaluate.intervals import clustered_interval
from kogia.models.decoder import Decoder
from kogia.tasks.language import language_share
from kogia.tasks.problems import Problem, grade
from kogia.text.parsers import boxed, is_well_formed, split_reply
from kogia.text.prompts import encode_question


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, the first one seen among equals; no answer is no vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def measure(
    engine: Engine, problems: Sequence[Problem], samples: int, max_tokens: int, temperature: float, top_p: float,
    seed: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """Sample `samples` answers to each problem and score them.

    Returns the table (pass@1 with its 95% interval, maj@k, language, Korean language, format, mean length, and the
    acceptance of the 2nd and 3rd predicted token in greedy decoding) and one row for every sample.
    """
    prompts = [encode_question(engine.tokenizer, p.question) for p in problems]
    params = [SamplingParams(max_tokens, temperature, top_p, seed + i) for i in range(len(problems) * samples)]
    outputs = engine.generate([prompt for prompt in prompts for _ in range(samples)], params)
    rows = [_row(problems[i // samples], output) for i, output in enumerate(outputs)]
    groups = [rows[i : i + samples] for i in range(0, len(rows), samples)]
    mean, low, high = clustered_interval([[row["correct"] for row in group] for group in groups])
    voted = [grade(p, majority([row["answer"] for row in g])) for p, g in zip(problems, groups, strict=True)]
    korean = [row["language"] for row in rows if row["question_language"] == "ko"]
    table = {
        "problems": len(problems),
        "samples": samples,
        "pass@1": mean,
        "pass@1_low": low,
        "pass@1_high": high,
        f"maj@{samples}": sum(voted) / len(voted),
        "language": _mean([row["language"] for row in rows]),
        "korean_in_korean": _mean(korean),
        "format": _mean([row["format"] for row in rows]),
        "mean_tokens": _mean([row["tokens"] for row in rows]),
        **acceptance(engine, prompts, max_tokens),
    }
    table["sampled_tokens"] = sum(row["tokens"] for row in rows)
    return table, rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _row(problem: Problem, output: Output) -> dict[str, Any]:
    reply = split_reply(output.text)
    answer = boxed(reply.content)
    return {
        "task": problem.task,
        "question_language": problem.language,
        "question": problem.question,
        "expected": problem.answer,
        "text": output.text,
        "answer": answer,
        "correct": float(grade(problem, answer)),
        "format": float(output.finish_reason == "stop" and is_well_formed(output.text)),
        "language": language_share(reply.reasoning or "", problem.language),
        "tokens": len(output.token_ids),
        "finish_reason": output.finish_reason,
    }


@torch.inference_mode()
def acceptance(engine: Engine, prompts: Sequence[Sequence[int]], max_tokens: int) -> dict[str, float]:
    """How often the MTP layers' greedy guesses equal what the model itself then says.

    "accept_2": the guess of depth 1 is right; "accept_3": those of depth 1 and 2 both are, as speculative decoding
    needs (a draft counts only if all before it were accepted). Over every position of one greedy answer a prompt.
    """
    depth = engine.model.config.num_nextn_predict_layers
    if not depth:
        return {}
    outputs = engine.generate(list(prompts), [SamplingParams(max_tokens, temperature=0.0)] * len(prompts))
    replies = [output.token_ids for output in outputs]
    tokens, labels = pad_batch(prompts, replies, pad=engine.tokenizer.eos, extra=depth)
    hits = torch.zeros(depth)
    count = torch.zeros(depth)
    for rows in torch.arange(len(tokens)).split(64):
        right, used = _guesses(engine.model, tokens[rows], labels[rows], depth)
        hits += right
        count += used
    return {f"accept_{k + 2}": float(hits[k] / count[k].clamp(min=1)) for k in range(depth)}


def _guesses(model: Decoder, tokens: Tensor, labels: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    length = tokens.shape[1] - depth
    h = model.hidden_states(tokens[:, :length])
    accepted = labels[:, 1 : 1 + length] >= 0  # the main head says this reply token
    right, used = torch.zeros(depth), torch.zeros(depth)
    for k, state in enumerate(model.further_hidden_states(h, tokens), start=1):
        target = torch.full_like(tokens[:, :length], -100)
        target[:, : length - k] = labels[:, 1 + k : 1 + length]
        used[k - 1] = ((target >= 0) & (labels[:, 1 : 1 + length] >= 0)).sum()
        accepted = accepted & (model.logits(state).argmax(-1) == target)
        right[k - 1] = accepted.sum()
    return right, used
