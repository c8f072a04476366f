"""tokenizer.json from strangers: checked before the library sees it, because the library does whatever a file says.

Three `Replace` steps turn a letter into a gigabyte, and broken settings end in a Rust panic. So only the steps that
byte-level tokenizers need are let through: none of these writes more than a small multiple of what it reads. Padding
and truncation cannot hurt, `Tokenizer` turns them off; the decoder is never run.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models

from kogia.errors import FolderError
from kogia.formats.untrusted import shown

LARGEST_FILE = 64 * 2**20  # bytes of tokenizer.json; the largest vocabularies in use take half of it
LARGEST_ID = 2**24 - 1  # the largest vocabularies in use have 2**18 tokens
DEEPEST, MOST_STEPS = 4, 64  # of steps within steps; published tokenizers have 7 steps in one Sequence
NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD")  # NFKD's worst letter becomes 18
PRE_TOKENIZERS = ("Split", "Digits", "ByteLevel")
POST_PROCESSORS = ("ByteLevel", "TemplateProcessing")


def read_backend(path: Path) -> Backend:
    """The library's tokenizer of a tokenizer.json.

    Raises:
        FolderError: missing, too large, broken, or with parts that this version does not run.
    """
    if not path.is_file():
        raise FolderError(f"{path} is missing")
    if path.stat().st_size > LARGEST_FILE:
        raise FolderError(f"{path} has {path.stat().st_size:,} bytes: no tokenizer takes more than {LARGEST_FILE:,}")
    try:
        text = path.read_text(encoding="utf-8")
        check_parts(json.loads(text, object_pairs_hook=_unique))
        return Backend.from_str(text)
    except FolderError as error:
        raise FolderError(f"{path}: {error}") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics are not even that
        raise FolderError(f"{path} is not a readable tokenizer ({shown(str(error))})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two members with one name the library might take the other one than was checked."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object in it names a key twice")
    return members


def check_parts(parts: Any) -> None:
    """Check what a tokenizer.json says.

    Raises:
        FolderError: something that this version does not run, or that no byte-level tokenizer says.
    """
    if not isinstance(parts, dict):
        raise FolderError(f"it holds a {type(parts).__name__}, not an object")
    _check_model(parts.get("model"))
    _check_ids(parts)
    _check_types(parts, "normalizer", "normalizers", NORMALIZERS)
    _check_types(parts, "pre_tokenizer", "pretokenizers", PRE_TOKENIZERS)
    _check_types(parts, "post_processor", "processors", POST_PROCESSORS)
    for step in _steps(parts.get("post_processor"), "post_processor", "processors"):
        _check_template(step)


def _check_model(model: Any) -> None:
    if not isinstance(model, dict):
        raise FolderError(f"model is a {type(model).__name__}: it must be an object")
    if model.get("type", "BPE") != "BPE":
        raise FolderError(_not_byte_level(f"a {shown(model['type'])} tokenizer"))
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise FolderError(_not_byte_level(f"a tokenizer with a {key} ({shown(model[key])})"))


def _check_ids(parts: dict[str, Any]) -> None:
    vocabulary, added = parts["model"].get("vocab"), parts.get("added_tokens")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    wrong = next((id for id in ids if type(id) is not int or not 0 <= id <= LARGEST_ID), None)
    if wrong is not None:
        raise FolderError(f"a token has the id {shown(str(wrong))}: ids must be whole numbers up to {LARGEST_ID:,}")


def _check_types(parts: dict[str, Any], name: str, inner: str, known: Collection[str]) -> None:
    steps = _steps(parts.get(name), name, inner)
    if len(steps) > MOST_STEPS:
        raise FolderError(f"{name} has {len(steps)} steps: at most {MOST_STEPS} are read")
    for step in steps:
        if _type(step) not in known:
            raise FolderError(
                f"{name} has the type {shown(_type(step))}, which this version does not run: "
                f"it must be {', '.join(known)} or a Sequence of them"
            )


def _steps(part: Any, name: str, inner: str, depth: int = 0) -> list[Any]:
    """The steps of a part in one list: sequences of sequences are opened up."""
    if part is None or _type(part) != "Sequence":
        return [] if part is None else [part]
    inside = part.get(inner)
    if depth == DEEPEST or not isinstance(inside, list):
        reason = "is nested too deeply" if depth == DEEPEST else f"is a Sequence without a list of {inner}"
        raise FolderError(f"{name} {reason}")
    return [step for each in inside for step in _steps(each, name, inner, depth + 1)]


def _type(step: Any) -> Any:
    return step.get("type") if isinstance(step, dict) else type(step).__name__


def _check_template(step: dict[str, Any]) -> None:
    """A template that names the text a thousand times would have it a thousand times, control tokens or not."""
    if step["type"] != "TemplateProcessing":
        return
    single = step.get("single")
    texts = [each for each in single if "SpecialToken" not in each] if isinstance(single, list) else []
    if len(texts) != 1 or not isinstance(texts[0], dict) or texts[0].get("Sequence", {}).get("id") != "A":
        raise FolderError(f"post_processor's template has the text {len(texts)} times: it must have it once, as A")


def require_byte_level(backend: Backend) -> None:
    """Check that every text is bytes to the tokenizer, written as letters.

    Raises:
        FolderError: it is not byte-level BPE.
    """
    kind = type(backend.model).__name__
    if not isinstance(backend.model, models.BPE) or "ByteLevel" not in _types(backend.decoder, "decoders"):
        raise FolderError(_not_byte_level(f"a {kind} tokenizer"))
    if _types(backend.pre_tokenizer, "pretokenizers").count("ByteLevel") != 1:
        raise FolderError(_not_byte_level(f"a {kind} tokenizer whose pre_tokenizer does not write bytes as letters"))


def _types(part: Any, inner: str) -> list[Any]:
    """The types of a part's steps as the library has them."""
    state = json.loads(part.__getstate__()) if part is not None else None
    return list(map(_type, _steps(state, inner.removesuffix("s"), inner)))


def _not_byte_level(what: str) -> str:
    return f"{what} that is not byte-level: this version reads byte-level BPE only"
