"""What may stand in a recipe, and clear words for what may not."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kogia.errors import RecipeError, ShapeError
from kogia.models.config import ModelConfig
from kogia.models.presets import preset
from kogia.tasks.problems import LANGUAGES, TASKS
from kogia.tasks.solutions import QUALITIES

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """Base of every table: unknown keys are errors, values are checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(Section):
    """What an hour of the chip costs, in the words of the bill."""

    chip: str = "this machine"
    per_chip_hour: Weight = 0.0
    currency: str = "USD"


class Text(Section):
    """The corpus."""

    stdlib_bytes: Natural = 0
    files: tuple[str, ...] = ()
    solutions: Natural = 0
    tasks: dict[str, Weight] = {"chain_sum": 0.7, "basic_arithmetic": 0.3}
    languages: dict[str, Weight] = {"en": 0.5, "ko": 0.5}
    quality: dict[str, Weight] = {"good": 1.0}

    @model_validator(mode="after")
    def _known(self) -> "Text":
        for key, given, known in (
            ("tasks", self.tasks, tuple(TASKS)),
            ("languages", self.languages, LANGUAGES),
            ("quality", self.quality, QUALITIES),
        ):
            for name in given:
                if name not in known:
                    raise ValueError(f"{key}.{name} is unknown: {nearest(name, known)}")
            if sum(given.values()) <= 0:
                raise ValueError(f"{key}: at least one weight must be over 0")
        return self


class TokenizerSection(Section):
    """The vocabulary."""

    vocab_size: Count = 1024


class Pretrain(Section):
    """Learning from packed text."""

    steps: Count
    row_length: Count = 128
    batch_rows: Count = 48
    micro_rows: Count = 16
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 3e-3
    warmup: Natural = 20
    mtp_weight: Weight = 0.3
    balance_weight: Weight = 1e-4
    bias_speed: Weight = 1e-3
    weight_decay: Weight = 0.1
    clip: Positive = 1.0


class Sft(Section):
    """Supervised fine-tuning. data: "clean" worked solutions, or the model's own "selected" best answers."""

    data: Literal["clean", "selected"] = "clean"
    examples: Count = 400
    tries: Count = 8
    max_tokens: Count = 96
    temperature: Positive = 1.0
    epochs: Count = 2
    batch_size: Count = 64
    micro_rows: Count = 32
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 1e-3
    warmup: Natural = 2
    mtp_weight: Weight = 0.3
    weight_decay: Weight = 0.1
    clip: Positive = 1.0


class Rl(Section):
    """GRPO."""

    steps: Count
    questions: Count = 24
    group_size: Annotated[int, Field(ge=2)] = 16
    mini_batches: Count = 2
    micro_rows: Count = 64
    max_tokens: Count = 96
    temperature: Positive = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 1e-3
    warmup: Natural = 2
    clip: Positive = 1.0
    clip_low: Positive = 0.2
    clip_high: Positive = 0.2
    divide_by_std: bool = True
    normalise: Literal["sequence", "token"] = "sequence"
    reward: dict[Literal["accuracy", "format", "language"], Weight] = {"accuracy": 1.0, "format": 0.5, "language": 0.5}

    @model_validator(mode="after")
    def _divides(self) -> "Rl":
        if self.questions * self.group_size % self.mini_batches:
            raise ValueError(
                f"mini_batches is {self.mini_batches}, which does not divide questions * group_size = "
                f"{self.questions * self.group_size}"
            )
        return self


class Measure(Section):
    """How a model is measured after every stage."""

    problems: Count = 200
    samples: Count = 8
    max_tokens: Count = 96
    temperature: Weight = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


KINDS: dict[str, type[Section]] = {"pretrain": Pretrain, "sft": Sft, "rl": Rl}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: its kind, the stage it starts from (none for pre-training) and its settings."""

    name: str
    kind: str
    start: str | None
    settings: Any


class _Document(Section):
    """The file as a whole. `pretrain`, `sft` and `rl` hold settings for all stages of that kind."""

    name: str
    out: str = ""
    seed: Natural = 1
    threads: Natural = 0
    checkpoint_seconds: Weight = 15.0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    price: Price = Price()
    text: Text
    tokenizer: TokenizerSection = TokenizerSection()
    model: dict[str, Any]
    pretrain: dict[str, Any] = {}
    sft: dict[str, Any] = {}
    rl: dict[str, Any] = {}
    measure: Measure = Measure()
    stages: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A checked recipe. `source` is the plain data it came from, which a run folder remembers."""

    name: str
    out: Path
    seed: int
    threads: int
    checkpoint_seconds: float
    dtype: str
    price: Price
    text: Text
    tokenizer: TokenizerSection
    model: ModelConfig
    measure: Measure
    stages: tuple[Stage, ...]
    source: dict[str, Any]


def read_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a TOML recipe, change some keys ({"rl.steps": 2}), and check everything.

    Raises:
        RecipeError: no such file, not TOML, an unknown key (with the nearest valid one), a wrong type, or numbers
            that do not fit together. The message names file and key.
    """
    path = Path(path)
    try:
        source = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (IsADirectoryError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not a TOML file: {error}") from None
    for key, value in (overrides or {}).items():
        _set(source, key, value)
    try:
        return check_recipe(source)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def check_recipe(source: dict[str, Any]) -> Recipe:
    """Turn plain data into a `Recipe`, or say what is wrong with it."""
    document = _validate(_Document, source, "")
    stages = tuple(_stage(name, values, document) for name, values in document.stages.items())
    _check_order(stages)
    config = _model(document)
    for stage in stages:
        if stage.kind == "pretrain" and stage.settings.row_length > config.max_position_embeddings:
            raise RecipeError(
                f"stages.{stage.name}: row_length {stage.settings.row_length} is longer than the model's context "
                f"(max_position_embeddings = {config.max_position_embeddings})"
            )
    return Recipe(
        name=document.name, out=Path(document.out or f"runs/{document.name}"), seed=document.seed,
        threads=document.threads, checkpoint_seconds=document.checkpoint_seconds, dtype=document.dtype,
        price=document.price, text=document.text, tokenizer=document.tokenizer, model=config,
        measure=document.measure, stages=stages, source=source,
    )  # fmt: skip


def _model(document: _Document) -> ModelConfig:
    values = dict(document.model)
    name = values.pop("preset", None)
    if not isinstance(name, str):
        raise RecipeError('model.preset is missing: set it to a preset such as "nano"')
    fields = {field.name for field in dataclasses.fields(ModelConfig)} - {"vocab_size"}
    for key in values:
        if key not in fields:
            raise RecipeError(f"unknown key model.{key}: {nearest(key, fields)}")
    try:
        return preset(name, **values, vocab_size=document.tokenizer.vocab_size)
    except ShapeError as error:
        raise RecipeError(f"model: {error}") from None
    except TypeError as error:
        raise RecipeError(f"model: a value has the wrong type ({error})") from None


def _stage(name: str, values: dict[str, Any], document: _Document) -> Stage:
    values = dict(values)
    kind = values.pop("kind", None)
    start = values.pop("start", None)
    if kind not in KINDS:
        raise RecipeError(f"stages.{name}.kind is {kind!r}: {nearest(str(kind), KINDS)}")
    if name in ("text", "tokenizer") or not name.replace("_", "").replace("-", "").isalnum():
        raise RecipeError(f"stages.{name}: choose another name, of letters, digits, - and _")
    _validate(KINDS[kind], getattr(document, kind) | values, f"stages.{name}.", own=values, defaults=f"{kind}.")
    return Stage(name, kind, start, KINDS[kind](**(getattr(document, kind) | values)))


def _check_order(stages: tuple[Stage, ...]) -> None:
    if not stages:
        raise RecipeError("stages is empty: a recipe needs at least one stage")
    seen: list[str] = []
    for stage in stages:
        if stage.kind == "pretrain" and stage.start is not None:
            raise RecipeError(f"stages.{stage.name}.start: pre-training starts from nothing; leave `start` out")
        if stage.kind != "pretrain" and stage.start not in seen:
            what = "is missing" if stage.start is None else f"is {stage.start!r}"
            known = ", ".join(seen) or "none"
            raise RecipeError(f"stages.{stage.name}.start {what}: it must name an earlier stage ({known})")
        seen.append(stage.name)


def _validate(model: type[Any], values: dict[str, Any], where: str, own: dict[str, Any] | None = None,
              defaults: str = "") -> Any:  # fmt: skip
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part != "[key]"]
        if own is not None and path and path[0] not in own:
            where = defaults
        raise RecipeError(_explain(model, where, path, first)) from None


def _explain(model: type[BaseModel], where: str, path: list[str], error: Any) -> str:
    key = where + ".".join(path)
    if error["type"] == "extra_forbidden":
        known: Any = model
        for part in path[:-1]:
            known = known.model_fields[part].annotation
        return f"unknown key {key}: {nearest(path[-1], known.model_fields)}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{key}: {message}{given}" if path else f"{where}{message}"


def nearest(name: str, known: Any) -> str:
    """Did you mean ...? for a misspelt key, or the list of what there is."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def parse_override(text: str) -> tuple[str, Any]:
    """Split "rl.steps=2" into key and value; the value is read as TOML, or else taken as text.

    Raises:
        RecipeError: no "=" in it.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise RecipeError(f"--set {text}: write KEY=VALUE, for example --set rl.steps=2")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _set(source: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    at = source
    for table in tables:
        at = at.setdefault(table, {})
        if not isinstance(at, dict):
            raise RecipeError(f"--set {key}: {table} is not a table")
    at[last] = value
