"""Byte-level BPE with DeepSeek's special tokens: train, load, save, and decode while tokens arrive."""

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from kogia.errors import CorpusError, FolderError
from kogia.files import write_json, write_text

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
SPECIALS = (BOS, EOS, USER, ASSISTANT, THINK, END_THINK)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] in ('system', 'developer') %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '" + USER + "' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '" + ASSISTANT + "' }}{% set text = message['content'] %}"
    "{% if not text.lstrip().startswith('<think>') %}{{ text }}"
    "{% elif '</think>' in text %}{{ text.split('</think>', 1)[1].lstrip('\\n') }}{% endif %}{{ eos_token }}"
    "{% else %}{{ raise_exception('role ' + message['role'] + ' is not known') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
)


# How byte-level BPE writes bytes as letters: printable ones as themselves, the others from U+0100 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTABLE}
_BYTES |= {chr(256 + i): byte for i, byte in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))}


class Tokenizer:
    """Text <-> token ids. Plain text never becomes a special token; only `encode_trusted` may make one."""

    def __init__(self, backend: Backend) -> None:
        self._trusted = backend
        self._plain = Backend.from_str(backend.to_str())
        self._plain.encode_special_tokens = True
        self.ids = {token: self._id(token) for token in SPECIALS}
        self.bos, self.eos = self.ids[BOS], self.ids[EOS]
        self.vocab_size = backend.get_vocab_size()

    def _id(self, token: str) -> int:
        found = self._trusted.token_to_id(token)
        if found is None:
            raise FolderError(f"the tokenizer has no token {token}: it is not one that this version can use")
        return int(found)

    def encode(self, text: str) -> list[int]:
        """Encode text from outside: what looks like a special token is spelled out in ordinary ones."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_trusted(self, text: str) -> list[int]:
        """Encode text that Kogia wrote itself, in which special tokens mean what they say."""
        return list(self._trusted.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode, special tokens included; bytes that form no character become U+FFFD."""
        return str(self._trusted.decode(list(ids), skip_special_tokens=False))

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, which need not be whole characters."""
        token = self._trusted.id_to_token(id) or ""
        return token.encode() if token in self.ids else bytes(_BYTES[letter] for letter in token)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and a tokenizer_config.json that transformers understands."""
        write_text(folder / "tokenizer.json", self._trusted.to_str(pretty=False))
        write_json(folder / "tokenizer_config.json", tokenizer_config())


def tokenizer_config() -> dict[str, Any]:
    """What transformers' AutoTokenizer needs to know beside tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train byte-level BPE. Every digit is a piece of its own (with the space before it); words,
    punctuation and line ends are split before merging.

    Raises:
        CorpusError: a vocabulary too small for the 256 bytes and the special tokens.
    """
    least = 256 + len(SPECIALS)
    if vocab_size < least:
        raise CorpusError(f"tokenizer.vocab_size is {vocab_size}: 256 bytes and the special tokens need {least}")
    backend = Backend(models.BPE())
    words = Regex(r" ?\p{N}|[\r\n]+| ?[\p{L}\p{M}]+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+")
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(words, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read `tokenizer.json` from a model folder.

    Raises:
        FolderError: missing, broken, or without the special tokens.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise FolderError(f"{path} is missing")
    try:
        json.loads(path.read_text(encoding="utf-8"))
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a broken file
        raise FolderError(f"{path} is not a readable tokenizer ({error})") from None
    return Tokenizer(backend)


class Detokenizer:
    """Decode a stream of tokens without ever handing out half a character: a token may end in the middle of one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Sequence[int], last: bool = False) -> str:
        """Add tokens; returns the text that is certain by now."""
        return self._decoder.decode(b"".join(map(self._tokenizer.token_bytes, ids)), last)
