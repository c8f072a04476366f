"""What each kind of stage does: train, measure, and leave a model folder."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kogia.data.corpus import Document, read_documents, solution_documents, write_documents
from kogia.data.shards import Shard
from kogia.engine.engine import Engine
from kogia.evaluate.measure import measure
from kogia.files import read_json, write_json, write_text
from kogia.models.decoder import Decoder
from kogia.models.folder import load_model, save_model
from kogia.plan.flops import forward_flops
from kogia.reason.grpo import reinforce, sample_groups
from kogia.reason.select import keep_best
from kogia.recipe.schema import Recipe, Stage
from kogia.tasks.problems import Problem, draw
from kogia.text.prompts import encode_question, encode_reply
from kogia.text.tokenizer import Tokenizer
from kogia.train.loop import Job, fine_tune, pretrain
from kogia.train.meter import Meter, Watcher

SFT_SEED, SELECT_SEED, RL_SEED, SAMPLE_SEED = 11, 13, 17, 19  # added to the recipe's, so that no two draws are alike


@dataclass
class Workshop:
    """What every stage needs at hand."""

    recipe: Recipe
    dtype: torch.dtype
    threads: int
    watcher: Watcher
    tokenizer: Tokenizer = field(init=False)


def work(shop: Workshop, stage: Stage, folder: Path, meter: Meter, problems: list[Problem]) -> dict[str, Any]:
    """Train as the stage says, measure on held-out `problems`, write the model folder; returns what was measured."""
    recipe = shop.recipe
    if stage.start is None:
        model = Decoder(recipe.model).initialise(recipe.seed)
    else:
        model = load_model(recipe.out / stage.start)
    job = Job(model.compute_in(shop.dtype), folder, meter, recipe.checkpoint_seconds)
    {"pretrain": _pretrain, "sft": _sft, "rl": _rl}[stage.kind](shop, stage, job)
    shop.watcher.say(f"{stage.name}: measuring on {len(problems)} held-out problems")
    engine = sampler(shop, model)
    m = recipe.measure
    table, rows = measure(engine, problems, m.samples, m.max_tokens, m.temperature, m.top_p, recipe.seed + SAMPLE_SEED)
    write_text(folder / "samples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_json(folder / "measured.json", table)
    save_model(folder, model, {"temperature": m.temperature or 0.6, "top_p": m.top_p})
    shop.tokenizer.save(folder)
    meter.tick()
    meter.bill.flops += forward_flops(model.config, table["mean_tokens"]) * table["sampled_tokens"]
    return table


def sampler(shop: Workshop, model: Decoder, max_batch: int = 512) -> Engine:
    """An engine on the model that is trained, for many short replies at once: guesses would cost more than they bring,
    and without a compiler speed is worth more than the same bits in any batch."""
    return Engine(model, shop.tokenizer, max_batch, draft="off", exact=False)


def _pretrain(shop: Workshop, stage: Stage, job: Job) -> None:
    path = shop.recipe.out / "tokenizer" / "tokens.npy"
    shard = Shard(path, stage.settings.row_length, 1 + shop.recipe.model.num_nextn_predict_layers, shop.recipe.seed)
    pretrain(job, shard, stage.settings)


def _sft(shop: Workshop, stage: Stage, job: Job) -> None:
    documents = _clean(shop, stage) if stage.settings.data == "clean" else _selected(shop, stage, job)
    prompts = [encode_question(shop.tokenizer, d.question) for d in documents]
    replies = [encode_reply(shop.tokenizer, d.reply) for d in documents]
    fine_tune(job, prompts, replies, stage.settings, shop.tokenizer.eos, shop.recipe.seed)


def _clean(shop: Workshop, stage: Stage) -> list[Document]:
    """Cold start: flawless worked solutions."""
    text, seed = shop.recipe.text, shop.recipe.seed + SFT_SEED
    problems = draw(text.tasks, stage.settings.examples, seed, False, text.languages)
    return solution_documents(problems, {"good": 1.0}, seed)


def _selected(shop: Workshop, stage: Stage, job: Job) -> list[Document]:
    """Rejection sampling: the best of the starting model's own tries, kept in `selected.jsonl` with their cost."""
    path, cost_path = job.folder / "selected.jsonl", job.folder / "selected.cost.json"
    if not cost_path.is_file():
        shop.watcher.say(f"{stage.name}: keeping the best of {stage.settings.tries} tries a question")
        write_json(cost_path, _select(shop, stage, job, path))
    job.meter.charge(**read_json(cost_path))
    documents = read_documents(path)
    if not documents:
        shop.watcher.say(f"{stage.name}: no try was good enough to learn from; the model stays as it was")
    return documents


def _select(shop: Workshop, stage: Stage, job: Job, path: Path) -> dict[str, float]:
    """Sample, keep the best, write them down; returns what it cost."""
    started = time.perf_counter()
    s, text, seed = stage.settings, shop.recipe.text, shop.recipe.seed + SELECT_SEED
    problems = draw(text.tasks, s.examples, seed, False, text.languages)
    engine = sampler(shop, job.model)
    outputs, rewards = sample_groups(engine, problems, s.tries, s.max_tokens, s.temperature, seed)
    kept = keep_best(problems, outputs, rewards)
    write_documents(path, [Document(question=problem.question, reply=output.text) for problem, output in kept])
    sampled = sum(len(output.token_ids) for output in outputs)
    flops = forward_flops(job.model.config, sampled / len(outputs)) * sampled
    return {"tokens": sampled, "flops": flops, "seconds": time.perf_counter() - started}


def _rl(shop: Workshop, stage: Stage, job: Job) -> None:
    text, seed = shop.recipe.text, shop.recipe.seed + RL_SEED
    s = stage.settings

    def questions(step: int) -> list[Problem]:
        return draw(text.tasks, s.questions, seed * 10_000 + step, False, text.languages)

    engine = sampler(shop, job.model, s.questions * s.group_size)
    reinforce(job, engine, questions, s, seed)
