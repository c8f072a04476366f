"""Llama 3's layout, from Meta's public documentation of the format and its published chat templates.

No package at hand holds the templates, so it is tested against hand-written prompts only, and tools are refused.
"""

from kogia.text.messages import Chat
from kogia.text.pieces import Piece, Special

_BOS, _END = Special("<|begin_of_text|>"), Special("<|eot_id|>")
_HEADER, _END_HEADER = Special("<|start_header_id|>"), Special("<|end_header_id|>")
# What 3.1's template says of time when nobody gives a date; 3.2's and 3.3's use it where there is no clock.
_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"


def llama3(chat: Chat, dated: bool) -> list[Piece]:
    """A conversation; texts lose the white space around them. dated: 3.1's, where a system message with dates always
    comes first."""
    pieces: list[Piece] = [_BOS]
    turns = chat.turns
    if dated:
        own = turns[0].content.strip() if turns[0].role == "system" else ""
        turns = turns[1:] if turns[0].role == "system" else turns
        pieces += [*_header("system"), _DATES + own, _END]
    for turn in turns:
        pieces += [*_header(turn.role), turn.content.strip()]
        if chat.unfinished(turn):
            return pieces
        pieces.append(_END)
    return [*pieces, *_header("assistant")]


def _header(role: str) -> list[Piece]:
    return [_HEADER, role, _END_HEADER, "\n\n"]
