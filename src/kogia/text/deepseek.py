"""DeepSeek's layouts up to V3.1, and Kogia's own, which is R1's without the opened <think>.

As the chat templates in the published tokenizer_config.json files lay them out, oddities included: a model was not
taught what a tidier template would have written. One thing is mended: where a template loses tool calls that stand
beside text (V2.5, V3, the distilled students) or the text (R1 from the second round on), both are written here.
"""

from typing import NamedTuple

from kogia.text.messages import Chat, Turn, as_json
from kogia.text.parsers import split_reply
from kogia.text.pieces import SEAM, Piece, Special, marked
from kogia.text.tokenizer import ASSISTANT, BOS, END_THINK, EOS, THINK, USER

_BOS, _EOS, _USER, _ASSISTANT = map(Special, (BOS, EOS, USER, ASSISTANT))
_THINK, _END_THINK = Special(THINK), Special(END_THINK)
CALLS, END_CALLS = Special("<｜tool▁calls▁begin｜>"), Special("<｜tool▁calls▁end｜>")
CALL, END_CALL, SEP = Special("<｜tool▁call▁begin｜>"), Special("<｜tool▁call▁end｜>"), Special("<｜tool▁sep｜>")
_OUTPUTS, _END_OUTPUTS = Special("<｜tool▁outputs▁begin｜>"), Special("<｜tool▁outputs▁end｜>")
_OUTPUT, _END_OUTPUT = Special("<｜tool▁output▁begin｜>"), Special("<｜tool▁output▁end｜>")

_V31_TOOLS = """\
## Tools
You have access to the following tools:

{tools}IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>\
{additional_tool_calls}<｜tool▁calls▁end｜>

Where:
- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces"""


def kogia(chat: Chat) -> list[Piece]:
    """Kogia's own models: thinking in earlier replies is left out, the model opens <think> itself."""
    pieces: list[Piece] = [_BOS]
    for turn in chat.turns:
        if turn.role == "system":
            pieces += [SEAM, turn.content]
        elif turn.role == "user":
            pieces += [_USER, turn.content]
        elif chat.unfinished(turn):
            return [*pieces, _ASSISTANT, *begun_reply(turn, bool(turn.reasoning), "\n")]
        else:
            pieces += [_ASSISTANT, split_reply(turn.content).content, _EOS]
    return [*pieces, _ASSISTANT]


def plain(chat: Chat, bos: str | None) -> list[Piece]:
    """Base models, which know no turns: the texts of the messages, a blank line between two, after BOS if there is one.

    Who said what is lost; a base model goes on from the last word.
    """
    start: list[Piece] = [Special(bos)] if bos else []
    return [*start, "\n\n".join(turn.content for turn in chat.turns)]


_CODER = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you "
    "only answer questions related to computer science. For politically sensitive questions, security and privacy "
    "issues, and other non-computer science questions, you will refuse to answer\n"
)
_EOT = Special("<|EOT|>")


def coder(chat: Chat) -> list[Piece]:
    """DeepSeek-Coder Instruct: headings as plain words, and its own opening where no system message stands."""
    pieces: list[Piece] = [_BOS, "" if any(turn.role == "system" for turn in chat.turns) else _CODER]
    for turn in chat.turns:
        if chat.unfinished(turn):
            return [*pieces, "### Response:\n" + turn.content]
        if turn.role == "assistant":
            pieces += [f"### Response:\n{turn.content}\n", _EOT, "\n"]
        else:
            pieces.append(f"### Instruction:\n{turn.content}\n" if turn.role == "user" else turn.content)
    return [*pieces, "### Response:\n"]


def v2(chat: Chat) -> list[Piece]:
    """DeepSeek-V2 Chat (and V2-Lite): User: and Assistant: as plain words."""
    pieces: list[Piece] = [_BOS]
    for turn in chat.turns:
        if chat.unfinished(turn):
            return [*pieces, "Assistant: " + turn.content]
        if turn.role == "assistant":
            pieces += ["Assistant: " + turn.content, _EOS]
        else:
            pieces.append(("User: " if turn.role == "user" else "") + turn.content + "\n\n")
    return [*pieces, "Assistant:"]


def begun_reply(turn: Turn, thinking: bool, gap: str = "") -> list[Piece]:
    """A reply to be continued. Thinking stays open while there is no answer yet. gap: what stands around thinking."""
    if not thinking:
        return [turn.content]
    opened: list[Piece] = [_THINK, gap + (turn.reasoning or "")]
    return [*opened, gap, _END_THINK, gap * 2 + turn.content] if turn.content else opened


class Layout(NamedTuple):
    """How V2.5's descendants differ from each other.

    last_system: only the last system message counts. answers_at_once: <｜Assistant｜> stands after each user's text,
    and each round of calls starts anew. drops_thinking: from earlier replies. closes_each: the calls are closed after
    each call but the first of the conversation, and never after that one. gap: between two results.
    opening: what the assistant's turn starts with.
    """

    last_system: bool = False
    answers_at_once: bool = False
    drops_thinking: bool = True
    closes_each: bool = False
    gap: str = "\n"
    opening: tuple[Piece, ...] = (_ASSISTANT,)


_R1_OPENING = (_ASSISTANT, _THINK, "\n")
LAYOUTS = {
    "deepseek-v2.5": Layout(last_system=True, closes_each=True, drops_thinking=False),
    "deepseek-v3": Layout(closes_each=True, drops_thinking=False),
    "deepseek-r1": Layout(gap="", opening=_R1_OPENING),
    "deepseek-r1-distill": Layout(last_system=True, closes_each=True, opening=_R1_OPENING),
    "deepseek-r1-0528": Layout(answers_at_once=True, opening=()),
}


def v3(chat: Chat, layout: Layout) -> list[Piece]:
    """V2.5, V3, R1, R1-0528 and the distilled students."""
    systems = [turn.content for turn in chat.turns if turn.role == "system"]
    system = (systems or [""])[-1] if layout.last_system else "\n\n".join(systems)
    writer = _Writer(layout)
    for turn in chat.turns:
        if chat.unfinished(turn):
            return [_BOS, system, *writer.pieces, *writer.go_on(turn)]
        if turn.role != "system":
            getattr(writer, turn.role)(turn)
    return [_BOS, system, *writer.pieces, *([_END_OUTPUTS] if writer.after_tool else layout.opening)]


class _Writer:
    """Writes turn after turn, remembering what the templates remember."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.pieces: list[Piece] = []
        self.after_tool = self._called = self._answered = False

    def user(self, turn: Turn) -> None:
        self.after_tool = False
        self.pieces += [_USER, turn.content, *([_ASSISTANT] if self.layout.answers_at_once else [])]

    def tool(self, turn: Turn) -> None:
        self.pieces += [self.layout.gap if self._answered else _OUTPUTS, _OUTPUT, turn.content, _END_OUTPUT]
        self.after_tool = self._answered = True

    def assistant(self, turn: Turn) -> None:
        if turn.calls:
            return self._calls(turn)
        drops = self.layout.drops_thinking and (self.layout.answers_at_once or not self.after_tool)
        content = turn.content.split(END_THINK)[-1] if drops else turn.content
        self.pieces += [*self._opening(), content, _EOS]
        self.after_tool = False

    def go_on(self, turn: Turn) -> list[Piece]:
        thinks = self.layout.drops_thinking and bool(turn.reasoning)
        return [*self._opening(), *begun_reply(turn, thinks, "\n")]

    def _opening(self) -> list[Piece]:
        if self.after_tool:
            return [_END_OUTPUTS]
        return [] if self.layout.answers_at_once else [_ASSISTANT]

    def _calls(self, turn: Turn) -> None:
        if self.layout.answers_at_once:
            self.pieces += [_END_OUTPUTS] if self.after_tool else []
            self._called = self._answered = False
        self.after_tool = False
        content = turn.content.split(END_THINK)[-1] if self.layout.answers_at_once else turn.content
        for call in turn.calls:
            opening: list[Piece] = [] if self.layout.answers_at_once else [_ASSISTANT]
            self.pieces += [content, "\n"] if self._called else [*opening, content, CALLS]
            content = ""
            self.pieces += [CALL, "function", SEP, f"{call.name}\n```json\n{call.arguments}\n```", END_CALL]
            if self.layout.closes_each and self._called:
                self.pieces += [END_CALLS, _EOS]
            self._called = True
        if not self.layout.closes_each:
            self.pieces += [END_CALLS, _EOS]


def v31(chat: Chat) -> list[Piece]:
    """V3.1: one model that thinks after <think> and answers at once after </think>.

    Turns from the template; the place and wording of tools from the model card, which the template leaves out.
    """
    pieces: list[Piece] = [_BOS, "\n\n".join(turn.content for turn in chat.turns if turn.role == "system")]
    pieces += _v31_tools(chat)
    after_user = after_tool = False
    for turn in chat.turns:
        if chat.unfinished(turn):
            thinks = chat.thinking and after_user
            closed: list[Piece] = [] if thinks or not after_user else [_END_THINK]
            return [*pieces, *([_ASSISTANT] if after_user else []), *closed, *begun_reply(turn, thinks)]
        if turn.role == "user":
            pieces += [_USER, turn.content]
        elif turn.role == "tool":
            pieces += [_OUTPUT, turn.content, _END_OUTPUT]
        elif turn.role == "assistant":
            pieces += [_ASSISTANT, _END_THINK] if after_user else []
            pieces += [turn.content, *_v31_calls(turn)] if turn.calls or after_tool else [_answer(turn.content)]
            pieces.append(_EOS)
        if turn.role != "system":
            after_user, after_tool = turn.role == "user", turn.role == "tool"
    return [*pieces, *([_ASSISTANT, _THINK if chat.thinking else _END_THINK] if after_user else [])]


def _answer(content: str) -> str:
    return content.split(END_THINK, 1)[-1]


def _v31_calls(turn: Turn) -> list[Piece]:
    if not turn.calls:
        return []
    calls = [piece for call in turn.calls for piece in (CALL, call.name, SEP, call.arguments, END_CALL)]
    return [CALLS, *calls, END_CALLS]


def _v31_tools(chat: Chat) -> list[Piece]:
    if not chat.tools:
        return []
    start, end = _V31_TOOLS.split("{tools}")
    listed = ""
    for function in (tool["function"] for tool in chat.tools):
        listed += f"### {function['name']}\nDescription: {function.get('description') or ''}\n\n"
        listed += f"Parameters: {as_json(function.get('parameters') or {})}\n\n"
    return ["\n\n" + start + listed, *marked(end, CALLS, END_CALLS, CALL, END_CALL, SEP)]
