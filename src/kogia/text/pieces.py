"""What a prompt is made of: plain text, and control tokens that only a layout may set."""

import re
from collections.abc import Iterable

from kogia.text.tokenizer import Tokenizer


class Special(str):
    """The text of a control token: becomes that one token, or plain text where the tokenizer has none of that name.

    An empty one is no token but a seam: the texts on its two sides are encoded apart.
    """

    __slots__ = ()


Piece = str  # plain text, or Special
SEAM = Special("")


def marked(text: str, *tokens: str) -> list[Piece]:
    """A layout's own wording as pieces: the given tokens' texts in it become Special."""
    parts = re.split("(" + "|".join(map(re.escape, tokens)) + ")", text)
    return [Special(part) if i % 2 else part for i, part in enumerate(parts) if part]


def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> list[int]:
    """Token ids of a prompt. Neighbouring texts are joined first, so that merges cross from one into the next, as they
    do where the whole prompt is encoded as one text."""
    ids: list[int] = []
    waiting: list[str] = []
    for piece in pieces:
        control = isinstance(piece, Special) and (not piece or piece in tokenizer.ids)
        if not control:
            waiting.append(piece)
            continue
        ids += tokenizer.encode("".join(waiting))
        waiting = []
        if piece:
            ids.append(tokenizer.ids[piece])
    return ids + tokenizer.encode("".join(waiting))
