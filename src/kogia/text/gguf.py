"""Tokenizers in GGUF files: byte-level BPE out of the metadata, and into them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf import TokenType
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from kogia.errors import FolderError
from kogia.formats.gguf import GGUF, STOP_IDS
from kogia.formats.untrusted import shown
from kogia.text.gguf_pre import SAMPLES, cutting_named, nearest, pre_tokenizer, recognise
from kogia.text.styles import STYLE_KEY, template_text
from kogia.text.tokenizer import Tokenizer, load_tokenizer, tokenizer_config

PREFIX = "tokenizer.ggml."
STOPS = ("eot", "eom")  # what ends a reply beside eos: the ends of a turn and of a message


def tokenizer_from_gguf(path: str | Path) -> Tokenizer:
    """Rebuild the tokenizer that a GGUF file carries.

    Raises:
        FolderError: not byte-level BPE, a way of cutting text that is not known, or parts that do not fit together.
    """
    file = GGUF(path)
    try:
        vocabulary = _Vocabulary(file)
        return Tokenizer(vocabulary.backend(), config=vocabulary.config(), stops=vocabulary.stops())
    except FolderError as error:
        raise error if str(path) in str(error) else FolderError(f"{path}: {error}") from None


class _Vocabulary:
    """The tokenizer's part of the metadata, checked."""

    def __init__(self, file: GGUF) -> None:
        self._path, self._metadata, self._noted_stops = file.path, file.metadata, file.stop_ids()
        kind = self._text("model")
        if kind != "gpt2":
            self._fail(f"{PREFIX}model is {shown(kind) or 'missing'}: only gpt2 (byte-level BPE) is supported")
        self._cutting = cutting_named(self._text("pre", "default"))
        self.tokens, self._merges = self._strings("tokens"), self._strings("merges")
        types = self._metadata.get(f"{PREFIX}token_type")
        types = np.full(len(self.tokens), TokenType.NORMAL) if types is None else types
        if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != len(self.tokens):
            self._fail(f"{PREFIX}token_type must be a list of {len(self.tokens)} whole numbers, one for each token")
        self._types: list[int] = types.tolist()

    def backend(self) -> Backend:
        used = [i for i, kind in enumerate(self._types) if kind != TokenType.UNUSED]
        tokens = self.tokens[: used[-1] + 1 if used else 0]
        ids = {token: id for id, token in enumerate(tokens)}
        if len(ids) < len(tokens):
            twice = next(token for id, token in enumerate(tokens) if ids[token] != id)
            self._fail(f"token {shown(twice)} stands there twice")
        try:
            model = models.BPE(ids, [_pair(merge) for merge in self._merges], ignore_merges=self._cutting.whole)
        except Exception as error:  # the library raises bare Exception
            self._fail(f"{PREFIX}merges do not fit the tokens ({shown(str(error))})")
        return self._with_cutting(Backend(model), tokens)

    def _with_cutting(self, backend: Backend, tokens: Sequence[str]) -> Backend:
        backend.add_tokens([
            AddedToken(token, special=kind == TokenType.CONTROL, normalized=False)
            for token, kind in zip(tokens, self._types, strict=False)
            if token and kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
        ])  # fmt: skip
        parts = json.loads(backend.to_str())
        parts["pre_tokenizer"] = pre_tokenizer(self._cutting)
        parts["normalizer"] = {"type": "NFC"} if self._cutting.nfc else None
        finished = Backend.from_str(json.dumps(parts))
        finished.decoder = decoders.ByteLevel()
        return finished

    def config(self) -> dict[str, Any]:
        """What would stand in tokenizer_config.json."""
        named = {f"{name}_token": self._id(name) for name in ("bos", "eos")}
        config: dict[str, Any] = {key: None if id is None else self.tokens[id] for key, id in named.items()}
        if config["eos_token"] is None:
            self._fail(f"{PREFIX}eos_token_id is missing: nothing would end a reply")
        template, style = self._metadata.get("tokenizer.chat_template"), self._metadata.get(f"tokenizer.{STYLE_KEY}")
        config |= {"chat_template": template} if isinstance(template, str) else {}
        return config | ({STYLE_KEY: style} if isinstance(style, str) else {})

    def stops(self) -> list[int]:
        named = [id for id in map(self._id, STOPS) if id is not None]
        return named + [self._checked(STOP_IDS, id) for id in self._noted_stops]

    def _id(self, name: str) -> int | None:
        key = f"{PREFIX}{name}_token_id"
        id = self._metadata.get(key)
        return None if id is None else self._checked(key, id)

    def _checked(self, key: str, id: Any) -> int:
        if type(id) is not int or not 0 <= id < len(self.tokens):
            self._fail(f"{key} is {shown(id)}: it must be one of {len(self.tokens)} tokens")
        return id

    def _text(self, key: str, default: str = "") -> str:
        value = self._metadata.get(PREFIX + key, default)
        if not isinstance(value, str):
            self._fail(f"{PREFIX}{key} is a {type(value).__name__}: it must be text")
        return value

    def _strings(self, key: str) -> list[str]:
        value = self._metadata.get(PREFIX + key)
        if not isinstance(value, list):
            self._fail(f"{PREFIX}{key} is missing, or not a list of texts")
        return value

    def _fail(self, reason: str) -> NoReturn:
        raise FolderError(f"{self._path}: {reason}")


def _pair(merge: str) -> tuple[str, str]:
    """`Ġ t` -> ("Ġ", "t"); the first letter may be no separator."""
    cut = merge.find(" ", 1)
    return (merge[:cut], merge[cut + 1 :]) if cut > 0 else (merge, "")


def vocabulary(source: str | Path | Tokenizer, vocab_size: int) -> tuple[dict[str, Any], list[str]]:
    """A tokenizer (or that of a model folder or .gguf file) as GGUF metadata, and what a user should be warned of.

    vocab_size: the model's; rows beyond the tokenizer's last token become unused tokens `[PAD17]`, as in llama.cpp's
    converter. llama.cpp knows ways of cutting text by name only: where none is exactly the tokenizer's, the one that
    differs for the fewest of a few texts is named, and the warning says for how many it does.

    Raises:
        FolderError: no readable tokenizer, one with more tokens than the model, or one that GGUF cannot hold.
    """
    tokenizer = source if isinstance(source, Tokenizer) else load_tokenizer(source)
    backend = tokenizer._trusted
    if tokenizer.vocab_size > vocab_size:
        raise FolderError(f"the tokenizer has {tokenizer.vocab_size} tokens, but the model only {vocab_size} rows")
    token, largest = max(backend.get_vocab().items(), key=lambda item: item[1])
    if largest >= vocab_size:
        raise FolderError(f"token {shown(token)} has id {largest}, but the model has only {vocab_size} rows")
    try:
        parts = json.loads(backend.to_str())
        pre, warnings = _named_cutting(backend, parts)
    except Exception as error:  # the library raises bare Exception
        raise FolderError(f"the tokenizer cannot be taken apart ({shown(str(error))})") from None
    tokens, types = _tokens(backend, vocab_size)
    metadata: dict[str, Any] = {
        f"{PREFIX}model": "gpt2",
        f"{PREFIX}pre": pre,
        f"{PREFIX}tokens": tokens,
        f"{PREFIX}token_type": types,
        f"{PREFIX}merges": [" ".join(merge) for merge in _merges(parts)],
    }
    return metadata | _ends(tokenizer) | _template(tokenizer), warnings


def _named_cutting(backend: Backend, parts: dict[str, Any]) -> tuple[str, list[str]]:
    name = recognise(parts)
    if name is not None:
        return name, []
    name, differing = nearest(backend)
    return name, [
        f"llama.cpp does not know how this tokenizer cuts text. The nearest it knows is {name!r}, which gives other "
        f"tokens for {differing} of {len(SAMPLES)} sample texts (English, Korean, arithmetic, code): what the model "
        "reads there may differ from what it was trained on"
    ]


def _tokens(backend: Backend, vocab_size: int) -> tuple[list[str], list[int]]:
    added = backend.get_added_tokens_decoder()
    tokens, types = [], []
    for id in range(vocab_size):
        token = added[id].content if id in added else backend.id_to_token(id)
        if token is None:
            kind = TokenType.UNUSED
        elif id not in added:
            kind = TokenType.NORMAL
        else:
            kind = TokenType.CONTROL if added[id].special or _looks_special(token) else TokenType.USER_DEFINED
        tokens.append(f"[PAD{id}]" if token is None else token)
        types.append(int(kind))
    return tokens, types


def _looks_special(token: str) -> bool:
    """DeepSeek's and Qwen's role marks are often not marked special; llama.cpp's converter goes by their look too."""
    return token.startswith(("<|", "<｜")) and token.endswith(("|>", "｜>"))


def _merges(parts: dict[str, Any]) -> list[list[str]]:
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in parts["model"]["merges"]]
    broken = next((merge for merge in merges if len(merge) != 2 or any(" " in part for part in merge)), None)
    if broken is not None:
        raise FolderError(f"merge {shown(broken)} holds a space: GGUF cannot say it")
    return merges


def _ends(tokenizer: Tokenizer) -> dict[str, Any]:
    ids = {"eos": tokenizer.eos} | ({} if tokenizer.bos is None else {"bos": tokenizer.bos})
    if tokenizer.end_of_turn != tokenizer.eos:
        ids["eot"] = tokenizer.end_of_turn
    metadata: dict[str, Any] = {f"{PREFIX}{name}_token_id": id for name, id in ids.items()}
    metadata[STOP_IDS] = sorted(tokenizer.stops)
    begins = bool(tokenizer.config.get("add_bos_token", tokenizer.style == "kogia"))
    return metadata | {f"{PREFIX}add_bos_token": begins and tokenizer.bos is not None}


def _template(tokenizer: Tokenizer) -> dict[str, Any]:
    """The chat template for llama.cpp, and Kogia's own name of the style, which a template may not tell; but no name
    for a template that was not recognised, which must not come back as a choice of "plain"."""
    own = tokenizer.style == "kogia" and not tokenizer.config.get("chat_template")
    template = template_text(tokenizer_config() if own else tokenizer.config)
    style = {} if tokenizer.unknown_template else {f"tokenizer.{STYLE_KEY}": tokenizer.style}
    return style | ({"tokenizer.chat_template": template} if template else {})
