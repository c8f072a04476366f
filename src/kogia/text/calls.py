"""Tool calls out of a reply while it arrives: Hermes' JSON (Qwen), DeepSeek's calls up to V3.1, and DSML (V3.2, V4).

Each parser takes the reply's content piece by piece and hands out text and calls; however the text is cut, what comes
out is the same when joined. What does not have a call's form is text: nothing is lost but the markup of good calls,
and the white space around it.
"""

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from kogia.text.parsers import StreamParser, undecided


@dataclass(frozen=True)
class CallDelta:
    """A part of a tool call. index: which call of the reply. name: on the first part only. arguments: joined over all
    parts they are JSON."""

    index: int
    name: str | None
    arguments: str


Event = tuple[str, str] | CallDelta  # ("reasoning" | "content", text), or a part of a call


class ReplyParser:
    """A reply's reasoning, content and tool calls, piece by piece.

    calls: the form of tool calls (kogia.text.styles), None to leave them in the text. start, fresh: as `StreamParser`.
    """

    def __init__(self, calls: str | None = None, start: str = "start", fresh: bool = True) -> None:
        self._calls = _FORMS[calls]() if calls else None
        self._stream = StreamParser(start, DSML_BLOCKS if calls == "dsml" else (), fresh)

    def feed(self, piece: str, last: bool = False) -> list[Event]:
        """Add a piece; returns what is certain by now, in order, never an empty text."""
        parts = self._stream.feed(piece, last)
        if self._calls is None:
            return list(parts)
        events: list[Event] = [part for part in parts if part[0] == "reasoning"]
        content = "".join(text for kind, text in parts if kind == "content")
        return events + self._calls.feed(content, last)


class _Calls:
    """What the parsers share: feed until nothing moves any more."""

    def __init__(self) -> None:
        self._text = ""  # not yet handed out
        self._place = "content"
        self._index = 0  # calls begun

    def feed(self, piece: str, last: bool = False) -> list[Event]:
        self._text += piece
        events: list[Event] = []
        while True:
            before = (self._place, self._text)
            events += getattr(self, f"_in_{self._place}")(last)
            if (self._place, self._text) == before:
                return [event for event in events if isinstance(event, CallDelta) or event[1]]

    def _take(self, length: int) -> list[Event]:
        """Hand out that much as content."""
        text, self._text = self._text[:length], self._text[length:]
        return [("content", text)]

    def _before(self, markers: tuple[str, ...], last: bool) -> tuple[list[Event], str]:
        """Hand out what stands before the first of `markers`, all but newlines, and which marker it is ("": none)."""
        found = [(self._text.index(marker), marker) for marker in markers if marker in self._text]
        if found:
            at, marker = min(found)
            return self._take(len(self._text[:at].rstrip("\n"))), marker
        held = 0 if last else undecided(self._text, markers)
        return self._take(len(self._text) - held), ""


class _WholeCalls(_Calls, ABC):
    """Calls that are handed out one by one when they are complete: `opening` body `closing`, and around a run of them
    perhaps `block` and `end_block`."""

    block = end_block = ""
    opening = closing = ""

    def _in_content(self, last: bool) -> list[Event]:
        events, marker = self._before(tuple(filter(None, (self.block, self.opening))), last)
        return events + self._call(marker, last) if marker else events

    def _call(self, marker: str, last: bool) -> list[Event]:
        start = self._text.index(marker)
        if marker == self.block:
            start += len(marker)
            inside = self._text[start:].lstrip()
            if not last and self.opening.startswith(inside):
                return []
            if not inside.startswith(self.opening):
                return self._take(start)
            start = self._text.index(self.opening, start)
        end = self._text.find(self.closing, start)
        if end < 0:
            return self._take(len(self._text)) if last else []
        call = self._read(self._text[start + len(self.opening) : end])
        end += len(self.closing)
        return self._take(end) if call is None else self._hand_out(call, end)

    def _hand_out(self, call: tuple[str, str], end: int) -> list[Event]:
        self._text, self._place = self._text[end:], "gap"
        self._index += 1
        return [CallDelta(self._index - 1, *call)]

    def _in_gap(self, last: bool) -> list[Event]:
        """Between calls, or after them."""
        inside = self._text.lstrip()
        if self.end_block and inside.startswith(self.end_block):
            self._text = inside.removeprefix(self.end_block)
        elif inside.startswith(self.opening) or not self._may_go_on(inside) or last:
            self._text, self._place = inside, "content"
        return []

    def _may_go_on(self, text: str) -> bool:
        return any(marker.startswith(text) for marker in (self.opening, self.end_block))

    @abstractmethod
    def _read(self, body: str) -> tuple[str, str] | None:
        """Name and arguments of a call, None when it is not one."""


class HermesCalls(_WholeCalls):
    """<tool_call>{"name": ..., "arguments": {...}}</tool_call>, as Qwen writes them."""

    opening, closing = "<tool_call>", "</tool_call>"

    def _read(self, body: str) -> tuple[str, str] | None:
        call = _parsed(body)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        arguments = call.get("arguments", {})
        try:  # a number too large for JSON's own rules, or half a surrogate pair, which no client could be sent
            written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            f"{call['name']}{written}".encode()
        except ValueError:
            return None
        return (call["name"], written) if isinstance(arguments, dict) else None


class DeepSeekCalls(_WholeCalls):
    """V3's and R1's calls, function<sep>name and arguments in a fenced block, and V3.1's, name<sep>arguments."""

    block, end_block = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
    opening, closing = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
    _FENCED = re.compile(r"\s*\w+<｜tool▁sep｜>([^\n]+)\n```(?:json)?\n(.*)\n```\s*", re.DOTALL)
    _BARE = re.compile(r"\s*([^\n]+?)<｜tool▁sep｜>(.*)", re.DOTALL)

    def _read(self, body: str) -> tuple[str, str] | None:
        found = self._FENCED.fullmatch(body) or self._BARE.fullmatch(body)
        if not found or not isinstance(_parsed(found[2]), dict):
            return None
        return found[1].strip(), found[2].strip()


def _parsed(text: str) -> object:
    """JSON as its standard has it; None when it is not, or is null."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


DSML_BLOCKS = ("<｜DSML｜tool_calls>", "<｜DSML｜function_calls>")  # V4, V3.2
_END_BLOCKS = ("</｜DSML｜tool_calls>", "</｜DSML｜function_calls>")
_INVOKE, _END_INVOKE = '<｜DSML｜invoke name="', "</｜DSML｜invoke>"
_PARAMETER, _END_PARAMETER = '<｜DSML｜parameter name="', "</｜DSML｜parameter>"


class DsmlCalls(_Calls):
    """V3.2's and V4's calls. A call's name is handed out at once, and text arguments as they arrive; what is not text
    comes when it is complete, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._parameters = 0  # of the call that is being read

    def _in_content(self, last: bool) -> list[Event]:
        events, marker = self._before(DSML_BLOCKS, last)
        if not marker:
            return events
        start = self._text.index(marker) + len(marker)
        header = _header(self._text[start:].lstrip(), _INVOKE, last)
        if header == "":
            return events + self._take(start)
        if header is not None:
            self._text, self._place = self._text[start:], "block"
        return events

    def _in_block(self, last: bool) -> list[Event]:
        """Between calls."""
        inside = self._text.lstrip()
        for end in _END_BLOCKS:
            if inside.startswith(end):
                self._text, self._place = inside.removeprefix(end), "after"
                return []
        header = _header(inside, _INVOKE, last)
        if header:
            self._text, self._place, self._parameters = inside.removeprefix(header), "invoke", 0
            self._index += 1
            return [CallDelta(self._index - 1, header[len(_INVOKE) : -2], "")]
        return self._stray(inside, header is None or _may_become(inside, _END_BLOCKS, last))

    def _in_after(self, last: bool) -> list[Event]:
        self._text = self._text.lstrip("\n")
        self._place = "content" if self._text else "after"
        return []

    def _in_invoke(self, last: bool) -> list[Event]:
        """Between the arguments of a call."""
        inside = self._text.lstrip()
        if inside.startswith(_END_INVOKE):
            self._text, self._place = inside.removeprefix(_END_INVOKE), "block"
            return self._arguments("}" if self._parameters else "{}")
        header = _header(inside, _PARAMETER, last)
        name, attribute, kind = (header or "").removeprefix(_PARAMETER).removesuffix('">').partition('" string="')
        if header and attribute and kind in ("true", "false"):
            self._text, self._place = inside.removeprefix(header), "text" if kind == "true" else "value"
            opening = ", " if self._parameters else "{"
            self._parameters += 1
            return self._arguments(f"{opening}{json.dumps(name, ensure_ascii=False)}: " + '"' * (kind == "true"))
        return self._stray(inside, header is None or _may_become(inside, (_END_INVOKE,), last))

    def _in_text(self, last: bool) -> list[Event]:
        """Inside a text argument."""
        text, end, rest = self._text.partition(_END_PARAMETER)
        if end:
            self._text, self._place = rest, "invoke"
            return self._arguments(json.dumps(text, ensure_ascii=False)[1:])
        held = 0 if last else undecided(self._text, (_END_PARAMETER,))
        text, self._text = self._text[: len(self._text) - held], self._text[len(self._text) - held :]
        return self._arguments(json.dumps(text, ensure_ascii=False)[1:-1])

    def _in_value(self, last: bool) -> list[Event]:
        """Inside an argument in JSON; what is not JSON becomes a text, so that the arguments stay readable."""
        text, end, rest = self._text.partition(_END_PARAMETER)
        if end:
            self._text, self._place = rest, "invoke"
            return self._arguments(
                text if text.strip() == "null" or _parsed(text) is not None else json.dumps(text, ensure_ascii=False)
            )
        self._text = "" if last else self._text
        return self._arguments(text if last else "")

    def _arguments(self, text: str) -> list[Event]:
        return [CallDelta(self._index - 1, None, text)] if text else []

    def _stray(self, inside: str, undecided: bool) -> list[Event]:
        """Text where markup should stand is content, up to where markup may begin again."""
        if not inside or undecided:
            return []
        word = re.match(r"[^\s][^\s<]*", inside)
        return self._take(len(self._text) - len(inside) + (word.end() if word else 0))


def _header(text: str, opening: str, last: bool) -> str | None:
    """An opening tag at the beginning of `text`: all of it, None when it is not complete yet, "" when it is not one."""
    if not last and opening.startswith(text):
        return None
    end = text.find('">')
    if not text.startswith(opening) or "\n" in (text if end < 0 else text[:end]):
        return ""
    return text[: end + 2] if end >= 0 else "" if last else None


def _may_become(text: str, markers: tuple[str, ...], last: bool) -> bool:
    return not last and any(marker.startswith(text) for marker in markers)


_FORMS: dict[str, type[_Calls]] = {"hermes": HermesCalls, "deepseek": DeepSeekCalls, "dsml": DsmlCalls}
