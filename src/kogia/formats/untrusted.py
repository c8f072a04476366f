"""JSON of unknown origin, read member by member, so that a hostile file costs no more memory than an honest one.

`json.loads` makes up to fifty bytes of Python objects of each byte of text, keeps the last of two equal keys, and
recurses as deep as the text asks. Here objects are walked one member at a time and only short values are built.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kogia.errors import FolderError

SPACE = re.compile(r"[ \t\n\r]*")
SHOWN = 80  # characters of a foreign name in a message


def shown(name: object) -> str:
    """A foreign name or value as it may stand in a message: short, and no control characters."""
    text = name if isinstance(name, str) and name.isprintable() else ascii(name)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


class JsonText:
    """A place in a JSON text. `what` names the text in errors, all of which are `FolderError`."""

    def __init__(self, text: str, what: str) -> None:
        self.text, self.what, self.at = text, what, 0

    def members(self) -> Iterator[str]:
        """Walk the object that begins here: stops at each value with its key. Read the value before going on."""
        self._take("{")
        seen: set[str] = set()
        while self._next() != "}" or seen:
            key = self.string()
            if key in seen:
                raise FolderError(f"{self.what} names {shown(key)} twice")
            seen.add(key)
            self._take(":")
            yield key
            if self._next() == "}":
                break
            self._take(",")
        self._take("}")

    def string(self) -> str:
        """Read the string that stands here."""
        if self._next() != '"':
            raise FolderError(f"{self.what} is not as it should be: no string at character {self.at}")
        return self._decode(self.text, self.at)

    def value(self, longest: int) -> Any:
        """Read whatever value stands here, if it is no longer than `longest` characters."""
        start = self.at
        self._next()
        piece = self.text[self.at : self.at + longest + 1]
        return self._decode(piece, 0, f" (or longer than {longest} characters) from character {start} on")

    def end(self) -> None:
        """Check that nothing but white space is left."""
        if self._next():
            raise FolderError(f"{self.what} goes on after its end, at character {self.at}")

    def _decode(self, text: str, at: int, note: str = "") -> Any:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except _Twice as error:
            raise FolderError(f"{self.what} names {shown(error.args[0])} twice in one object") from None
        except (ValueError, RecursionError):  # a number of 5,000 digits is a ValueError, too
            raise FolderError(f"{self.what} is not valid JSON{note or f' at character {at}'}") from None
        self.at += end - at
        return value

    def _next(self) -> str:
        """The character that comes after white space, or "" at the end."""
        character = self.text[self.at : self.at + 1]
        if character > " ":
            return character  # nearly always
        self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches at least nothing
        return self.text[self.at : self.at + 1]

    def _take(self, character: str) -> None:
        if self._next() != character:
            found = shown(self.text[self.at : self.at + 1]) or "the end"
            raise FolderError(f"{self.what} is not valid JSON: {found} at character {self.at}, expected {character}")
        self.at += 1


class _Twice(Exception):
    """A key stands twice in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise _Twice(key)
        members[key] = value
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def read_text(path: Path, largest: int, encoding: str = "utf-8") -> str:
    """Read a whole text file of at most `largest` bytes.

    Raises:
        FolderError: not a file, larger, or not text in this encoding.
    """
    try:
        if not path.is_file():
            raise FolderError(f"{path} is missing" if not path.exists() else f"{path} is not a file")
        with path.open("rb") as file:
            raw = file.read(largest + 1)
        if len(raw) > largest:
            raise FolderError(f"{path} is larger than the {largest:,} bytes that such a file may have")
        return raw.decode(encoding)
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FolderError(
            f"{path} is not {encoding.upper()} text: byte {error.start} is {raw[error.start]:#x}"
        ) from None
