"""The walk: text, tokenizer, then every stage of the recipe, each into a folder of its own, each only once."""

import contextlib
import fcntl
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import kogia
from kogia.data.corpus import (
    Document,
    own_files,
    read_documents,
    solution_documents,
    split,
    standard_library,
    write_documents,
)  # fmt: skip
from kogia.data.shards import write_shard
from kogia.errors import CorpusError, RunError
from kogia.files import disk_full_is_an_error, read_json, write_json
from kogia.kernels.host import compute_dtype, keep_freed_memory, set_threads
from kogia.plan.bill import BillEntry, total
from kogia.recipe.schema import Recipe, Stage
from kogia.recipe.stages import Workshop, work
from kogia.report.page import write_report
from kogia.tasks.problems import draw
from kogia.text.tokenizer import load_tokenizer, train_tokenizer
from kogia.train.checkpoint import drop_checkpoint
from kogia.train.meter import Meter, Watcher

MEASURE_SEED, TEXT_SEED = 7, 1
FREE = ("out", "price", "checkpoint_seconds")  # keys that may change between two sittings of one run
TOKENIZER_BYTES = 2_000_000  # text that the tokenizer is trained on at most


@dataclass(frozen=True)
class Finished:
    """A walked recipe: where it lies and what each stage's `kogia.json` says."""

    out: Path
    stages: list[dict[str, Any]]
    report: Path


def run_recipe(recipe: Recipe, watcher: Watcher) -> Finished:
    """Walk a recipe from where it stopped; stages that are done are skipped.

    Raises:
        RunError: the folder belongs to another recipe, or another run is at work in it.
        KogiaError: what a stage raises; everything finished so far is kept.
    """
    keep_freed_memory()
    threads = set_threads(recipe.threads)
    with _run_folder(recipe):
        shop = Workshop(recipe, compute_dtype(recipe.dtype), threads, watcher)
        bills = [_text(shop), _tokenizer(shop)]
        lives: dict[str, list[BillEntry]] = {}
        done = []
        for stage in recipe.stages:
            before = lives[stage.start] if stage.start else bills
            done.append(_stage(shop, stage, before))
            lives[stage.name] = [BillEntry.from_json(entry) for entry in done[-1]["bill"]]
        report = write_report(recipe.out)
    return Finished(recipe.out, done, report)


@contextlib.contextmanager
def _run_folder(recipe: Recipe) -> Iterator[None]:
    """Hold the run folder: it must be new, or this recipe's own, and nobody else's at the moment."""
    out, path = recipe.out, recipe.out / "run.json"
    source = {key: value for key, value in recipe.source.items() if key not in FREE}
    if path.is_file():
        changed = _changed(read_json(path).get("recipe", {}), source)
        if changed:
            raise RunError(
                f"{out} was written by another recipe ({changed} differs): set `out` to another folder "
                f"(--set out=...), or delete {out} to start over. Nothing was touched"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and is not a Kogia run: set `out` to another folder. Nothing was touched")
    else:
        with disk_full_is_an_error(path):
            out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"kogia": kogia.__version__, "recipe": source})
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another `kogia run` is at work in {out}: wait for it, or stop it") from None
        yield


def _changed(old: Any, new: Any, where: str = "") -> str:
    """The first key in which two recipes differ, or an empty text."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            found = _changed(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            if found:
                return found
        return ""
    return "" if old == new else where


def _meter(shop: Workshop, stage: str, folder: Path, steps: int) -> Meter:
    price = shop.recipe.price
    entry = BillEntry(stage, price.chip, price.per_chip_hour, price.currency)
    return Meter(folder / "metrics.jsonl", entry, steps, shop.watcher)


def _text(shop: Workshop) -> BillEntry:
    """Gather the corpus and split it; check that nothing to be measured on is in it."""
    recipe, folder = shop.recipe, shop.recipe.out / "text"
    if (folder / "text.json").is_file():
        return BillEntry.from_json(read_json(folder / "text.json")["bill"])
    shop.watcher.say("text: gathering the corpus")
    started = time.perf_counter()
    text = recipe.text
    plain = own_files(text.files) + (standard_library(text.stdlib_bytes) if text.stdlib_bytes else [])
    train, held_out = split(plain)
    problems = draw(text.tasks, text.solutions, recipe.seed + TEXT_SEED, False, text.languages)
    solutions = solution_documents(problems, text.quality, recipe.seed)
    if not train and not solutions:
        raise CorpusError("the corpus is empty: set text.stdlib_bytes, text.files or text.solutions")
    asked = draw(text.tasks, recipe.measure.problems, recipe.seed + MEASURE_SEED, True, text.languages)
    overlap = {p.key for p in problems} & {p.key for p in asked}
    overlap |= {d.digest() for d in train} & {d.digest() for d in held_out}
    if overlap:
        raise CorpusError(f"{len(overlap)} documents are both trained on and held out, for example {min(overlap)}")
    write_documents(folder / "documents.jsonl", train + solutions)
    write_documents(folder / "held_out.jsonl", held_out)
    meter = _meter(shop, "text", folder, 0)
    meter.bill.chip_seconds = time.perf_counter() - started
    write_json(folder / "text.json", {
        "plain_documents": len(train), "solutions": len(solutions), "held_out_documents": len(held_out),
        "bytes": sum(len((d.text + d.question + d.reply).encode()) for d in train + solutions),
        "overlap": len(overlap), "sha256": _digest(folder / "documents.jsonl"), "bill": meter.bill.to_json(),
    })  # fmt: skip
    return meter.bill


def _tokenizer(shop: Workshop) -> BillEntry:
    """Train the tokenizer on the corpus and pack the corpus into one shard of tokens."""
    recipe, folder = shop.recipe, shop.recipe.out / "tokenizer"
    if (folder / "stage.json").is_file():
        return BillEntry.from_json(read_json(folder / "stage.json")["bill"])
    shop.watcher.say(f"tokenizer: {recipe.tokenizer.vocab_size} pieces")
    started = time.perf_counter()
    documents = read_documents(recipe.out / "text" / "documents.jsonl")
    tokenizer = train_tokenizer(_sample(documents), recipe.tokenizer.vocab_size)
    if tokenizer.vocab_size != recipe.tokenizer.vocab_size:
        raise CorpusError(
            f"the corpus yields only {tokenizer.vocab_size} pieces of the {recipe.tokenizer.vocab_size} asked for: "
            "give it more text or lower tokenizer.vocab_size"
        )
    tokenizer.save(folder)
    tokens = write_shard(folder / "tokens.npy", tokenizer, documents, recipe.seed)
    meter = _meter(shop, "tokenizer", folder, 0)
    meter.bill.chip_seconds = time.perf_counter() - started
    write_json(folder / "stage.json", {
        "vocab_size": tokenizer.vocab_size, "tokens": tokens, "sha256": _digest(folder / "tokenizer.json"),
        "bill": meter.bill.to_json(),
    })  # fmt: skip
    return meter.bill


def _sample(documents: list[Document]) -> Iterator[str]:
    """Every n-th document, so that about TOKENIZER_BYTES of text are seen."""
    size = sum(len(d.text) + len(d.question) + len(d.reply) for d in documents)
    for document in documents[:: max(1, size // TOKENIZER_BYTES)]:
        yield document.text or f"{document.question}\n{document.reply}"


def _stage(shop: Workshop, stage: Stage, before: list[BillEntry]) -> dict[str, Any]:
    """Do one stage unless it is done; returns its `kogia.json`, the last file that it writes."""
    recipe, folder = shop.recipe, shop.recipe.out / stage.name
    path = folder / "kogia.json"
    if path.is_file():
        shop.watcher.say(f"{stage.name}: done before")
        done: dict[str, Any] = read_json(path)
        return done
    shop.tokenizer = load_tokenizer(recipe.out / "tokenizer")
    meter = _meter(shop, stage.name, folder, getattr(stage.settings, "steps", 0))
    problems = draw(recipe.text.tasks, recipe.measure.problems, recipe.seed + MEASURE_SEED, True, recipe.text.languages)
    measured = work(shop, stage, folder, meter, problems)
    life = [*before, meter.bill]
    facts = {
        "kogia": kogia.__version__, "recipe": recipe.name, "stage": stage.name, "kind": stage.kind,
        "start": stage.start, "seed": recipe.seed, "threads": shop.threads, "dtype": str(shop.dtype),
        "python": platform.python_version(), "torch": torch.__version__,
        "data": {"text": read_json(recipe.out / "text" / "text.json")["sha256"],
                 "tokenizer": read_json(recipe.out / "tokenizer" / "stage.json")["sha256"]},
        "settings": json.loads(stage.settings.model_dump_json()), "model": asdict(recipe.model),
        "measured": measured, "bill": [entry.to_json() for entry in life], "total": total(life),
    }  # fmt: skip
    write_json(path, facts)
    drop_checkpoint(folder)  # only now: a kill while measuring must not cost the training
    return facts


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
