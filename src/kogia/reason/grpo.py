"""Reinforcement learning with GRPO: sample groups of answers, reward them by rule, make the better ones likelier.

The engine samples with the very weights that are trained, so sampler and trainer agree; by how much is logged.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kogia.data.conversations import pad_batch
from kogia.engine.engine import Engine
from kogia.engine.request import Output, SamplingParams
from kogia.models.decoder import Decoder
from kogia.plan.flops import forward_flops, training_flops
from kogia.reason.advantages import group_advantages, informative
from kogia.reason.losses import grpo_loss, token_weights
from kogia.reason.rewards import Reward, reward
from kogia.tasks.problems import Problem
from kogia.text.prompts import encode_question
from kogia.train.loop import Job, expert_loads
from kogia.train.optim import Optimizer, apply_step
from kogia.train.schedule import cosine_schedule


def reply_logprobs(model: Decoder, tokens: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Log-probability of each reply token. tokens, labels: (B, T) -> FP32 (B, T - 1), 0 where labels are -100.

    Entry t belongs to token t + 1. Only the positions of replies go through the head.
    """
    targets = labels[:, 1:]
    used = targets >= 0
    logits = model.logits(model.hidden_states(tokens[:, :-1])[used]) / temperature
    picked = torch.log_softmax(logits, dim=-1).gather(-1, targets[used].unsqueeze(-1)).squeeze(-1)
    return torch.zeros(targets.shape, device=tokens.device).masked_scatter(used, picked)


def sample_groups(
    engine: Engine, problems: Sequence[Problem], group: int, max_tokens: int, temperature: float, seed: int
) -> tuple[list[Output], list[Reward]]:
    """`group` answers to each problem, and their rewards, in the order of the problems."""
    prompts = [encode_question(engine.tokenizer, p.question) for p in problems for _ in range(group)]
    params = [SamplingParams(max_tokens, temperature, seed=seed + i) for i in range(len(prompts))]
    outputs = engine.generate(prompts, params)
    return outputs, [reward(problems[i // group], output) for i, output in enumerate(outputs)]


def update(
    model: Decoder, outputs: Sequence[Output], advantages: Tensor, settings: Any, pad: int, batch_tokens: int,
    batch_sequences: int,
) -> dict[str, float]:  # fmt: skip
    """Gradients of the GRPO objective for some answers, in micro-batches of similar length.

    batch_tokens, batch_sequences: sizes of the whole batch the mean is taken over. Answers without advantage have no
    gradient and are not computed. Returns sums: clipped tokens, sampler/trainer mismatch, reply tokens, and tokens
    that went through the model.
    """
    rows = [i for i in range(len(outputs)) if advantages[i] != 0]
    rows.sort(key=lambda i: len(outputs[i].prompt) + len(outputs[i].token_ids))
    sums = {"clipped": 0.0, "mismatch": 0.0, "tokens": 0.0, "trained": 0.0}
    for start in range(0, len(rows), settings.micro_rows):
        picked = rows[start : start + settings.micro_rows]
        tokens, labels = pad_batch([outputs[i].prompt for i in picked], [outputs[i].token_ids for i in picked], pad)
        mask = labels[:, 1:] >= 0
        old = torch.zeros(mask.shape).masked_scatter(
            mask, torch.tensor([x for i in picked for x in outputs[i].logprobs])
        )
        logp = reply_logprobs(model, tokens, labels, settings.temperature)
        weights = token_weights(mask, settings.normalise, batch_sequences, batch_tokens)
        part = grpo_loss(logp, old, advantages[picked], weights, settings.clip_low, settings.clip_high)
        part.loss.backward()
        sums["clipped"] += float(part.clipped)
        sums["mismatch"] += float((logp.detach() - old).abs().sum())
        sums["tokens"] += float(mask.sum())
        sums["trained"] += sum(len(outputs[i].prompt) + len(outputs[i].token_ids) for i in picked)
    return sums


def reinforce(job: Job, engine: Engine, draw: Callable[[int], list[Problem]], settings: Any, seed: int) -> None:
    """GRPO for `settings.steps` steps. draw(step) gives the step's questions."""
    model, config = job.model, job.model.config
    optimizer = Optimizer(model, settings.optimizer, weight_decay=0.0)

    def step(i: int) -> dict[str, Any]:
        problems = draw(i)
        engine.refresh()
        outputs, rewards = sample_groups(
            engine, problems, settings.group_size, settings.max_tokens, settings.temperature, seed + i * 1_000_003
        )
        totals = torch.tensor([r.total(settings.reward) for r in rewards]).view(len(problems), settings.group_size)
        advantages = group_advantages(totals, settings.divide_by_std).flatten()
        sums = _learn(job, optimizer, engine, outputs, advantages, settings, i)
        sampled = sum(len(o.token_ids) for o in outputs)
        read = sum(len(o.prompt) for o in outputs)
        context = (sampled + read) / len(outputs) / 2
        flops = forward_flops(config, context) * (sampled + read / settings.group_size)  # a prompt is read once
        flops += training_flops(config, context) * sums["trained"]
        return dict(tokens=sampled, flops=flops, **_summary(outputs, rewards, totals), **_averages(sums),
                    samples=_examples(problems, outputs, rewards, settings))  # fmt: skip

    job.run(optimizer, settings.steps, step)


def _learn(
    job: Job, optimizer: Optimizer, engine: Engine, outputs: list[Output], advantages: Tensor,
    settings: Any, i: int,
) -> dict[str, Any]:  # fmt: skip
    """One pass over the answers in `settings.mini_batches` optimiser steps."""
    sums: dict[str, Any] = {"clipped": 0.0, "mismatch": 0.0, "tokens": 0.0, "trained": 0.0, "gradient_norm": 0.0}
    rate = settings.learning_rate * cosine_schedule(i, settings.steps, settings.warmup)
    for part in torch.arange(len(outputs)).view(settings.mini_batches, -1):
        chosen = [outputs[int(j)] for j in part]
        length = sum(len(o.token_ids) for o in chosen)
        got = update(job.model, chosen, advantages[part], settings, engine.tokenizer.eos, length, len(chosen))
        sums["loads"] = expert_loads(job.model)
        if got["tokens"]:
            sums["gradient_norm"] = apply_step(job.model, optimizer, rate, settings.clip)
        for key, value in got.items():
            sums[key] += value
    return sums


def _averages(sums: dict[str, Any]) -> dict[str, Any]:
    tokens = max(sums["tokens"], 1.0)
    return {
        "clip_fraction": sums["clipped"] / tokens,
        "mismatch": sums["mismatch"] / tokens,
        "gradient_norm": sums["gradient_norm"],
        "loads": sums["loads"],
    }


def _summary(outputs: list[Output], rewards: list[Reward], totals: Tensor) -> dict[str, float]:
    n = len(outputs)
    logprobs = [x for o in outputs for x in o.logprobs]
    return {
        "reward": float(totals.mean()),
        "accuracy": sum(r.accuracy for r in rewards) / n,
        "format": sum(r.format for r in rewards) / n,
        "language": sum(r.language for r in rewards) / n,
        "length": sum(len(o.token_ids) for o in outputs) / n,
        "entropy": -sum(logprobs) / max(len(logprobs), 1),
        "informative_groups": float(informative(totals).float().mean()),
    }


def _examples(problems: list[Problem], outputs: list[Output], rewards: list[Reward], settings: Any) -> list[Any]:
    """The first answers to the first two questions, for whoever reads the metrics file."""
    picked = [0, settings.group_size] if len(problems) > 1 else [0]
    return [
        {"question": problems[i // settings.group_size].question, "text": outputs[i].text, **vars(rewards[i])}
        for i in picked
    ]
