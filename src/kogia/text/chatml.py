"""ChatML, <|im_start|>role ... <|im_end|>, as the templates of Qwen2, Qwen2.5, Qwen3 (and its Instruct-2507), QwQ
and SmolLM2 lay it out."""

from typing import NamedTuple

from kogia.text.messages import Call, Chat, Turn, as_json, parsed_arguments
from kogia.text.pieces import Piece, Special, marked
from kogia.text.tokenizer import END_THINK, THINK

_START, _END = Special("<|im_start|>"), Special("<|im_end|>")
_THINK, _END_THINK = Special(THINK), Special(END_THINK)
_CALL, _END_CALL = Special("<tool_call>"), Special("</tool_call>")
_RESPONSE, _END_RESPONSE = Special("<tool_response>"), Special("</tool_response>")

_TOOLS = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


class Dialect(NamedTuple):
    """What a model family adds to ChatML.

    system: said when the conversation has no system message of its own. thoughts: None, "qwq" (the prompt opens
    <think>, earlier thinking is dropped) or "qwen3" (the model opens it, or the prompt closes an empty one at once;
    thinking is kept after the last user's question). terse: as in Qwen3's templates no empty lines stand where there is
    nothing before them, and a call's arguments keep their spelling.
    """

    system: str | None = None
    thoughts: str | None = None
    terse: bool = False


DIALECTS = {
    "chatml": Dialect(),
    "smollm2": Dialect("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "qwen2": Dialect("You are a helpful assistant."),
    "qwen2.5": Dialect("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen3": Dialect(thoughts="qwen3", terse=True),
    "qwen3-instruct": Dialect(terse=True),
    "qwq": Dialect(thoughts="qwq"),
}


def chatml(chat: Chat, dialect: Dialect) -> list[Piece]:
    """A conversation in ChatML."""
    pieces = _system(chat, dialect)
    asked = _last_question(chat.turns)
    for i, turn in enumerate(chat.turns):
        if turn.role == "system" and i == 0:
            continue
        if turn.role == "tool":
            pieces += _result(chat.turns, i)
        elif turn.role == "assistant":
            thinks = dialect.thoughts == "qwen3" and i > asked
            pieces += [_START, "assistant", *_reply(chat, turn, dialect, thinks)]
        else:
            pieces += [_START, f"{turn.role}\n{turn.content}", _END, "\n"]
    return pieces if chat.goes_on else [*pieces, *_opening(chat, dialect)]


def _opening(chat: Chat, dialect: Dialect) -> list[Piece]:
    opening: list[Piece] = [_START, "assistant\n"]
    if dialect.thoughts == "qwq":
        return [*opening, _THINK, "\n"]
    if dialect.thoughts == "qwen3" and not chat.thinking:
        return [*opening, _THINK, "\n\n", _END_THINK, "\n\n"]
    return opening


def _system(chat: Chat, dialect: Dialect) -> list[Piece]:
    own = chat.turns[0].content if chat.turns[0].role == "system" else dialect.system
    if not chat.tools:
        return [] if own is None else [_START, f"system\n{own}", _END, "\n"]
    start, end = _TOOLS.split("{tools}")
    # Qwen3 leaves the gap out where there is no text before it, Qwen2.5 and QwQ do not.
    gap = "" if own is None and dialect.terse else "\n\n"
    tools = "\n".join(map(as_json, chat.tools))
    return [_START, f"system\n{own or ''}{gap}{start}{tools}", *marked(end, _CALL, _END_CALL), _END, "\n"]


def _result(turns: list[Turn], i: int) -> list[Piece]:
    """A tool's result; neighbouring ones share a user's turn."""
    first = turns[i - 1].role != "tool"
    last = i + 1 == len(turns) or turns[i + 1].role != "tool"
    opening: list[Piece] = [_START, "user"] if first else []
    end: list[Piece] = [_END, "\n"] if last else []
    return [*opening, "\n", _RESPONSE, f"\n{turns[i].content}\n", _END_RESPONSE, *end]


def _last_question(turns: list[Turn]) -> int:
    """Index of the last user's message that is not a tool's result in disguise; the last message if there is none."""
    for i in range(len(turns) - 1, -1, -1):
        content = turns[i].content
        disguised = content.startswith(_RESPONSE) and content.endswith(_END_RESPONSE)
        if turns[i].role == "user" and not disguised:
            return i
    return len(turns) - 1


def _reply(chat: Chat, turn: Turn, dialect: Dialect, thinks: bool) -> list[Piece]:
    reasoning, content = _parts(turn, dialect)
    if chat.unfinished(turn):
        return ["\n", *_begun(reasoning, content)] if dialect.thoughts else [f"\n{content}"]
    pieces: list[Piece] = [f"\n{content}"]
    if thinks and reasoning:
        pieces = ["\n", _THINK, "\n" + reasoning.strip("\n") + "\n", _END_THINK, "\n\n" + content.lstrip("\n")]
    if turn.calls and not turn.content and not dialect.terse:
        pieces = []  # Qwen2.5 and QwQ leave out the empty line
    for i, call in enumerate(turn.calls):
        gap = "" if i == 0 and dialect.terse and not content else "\n"
        pieces += [gap, _CALL, f"\n{_call(turn, call, dialect)}\n", _END_CALL]
    return [*pieces, _END, "\n"]


def _begun(reasoning: str, content: str) -> list[Piece]:
    """A reply to be continued, thinking included; open while there is no answer yet."""
    if not content:
        return [_THINK, "\n" + reasoning.strip("\n")] if reasoning else []
    return [_THINK, "\n" + reasoning.strip("\n") + "\n", _END_THINK, "\n\n" + content.lstrip("\n")]


def _parts(turn: Turn, dialect: Dialect) -> tuple[str, str]:
    """Reasoning and answer of a reply; reasoning may also stand in the content, before </think>."""
    answer = turn.content.split(END_THINK)[-1].lstrip("\n")
    if dialect.thoughts == "qwq":
        return turn.reasoning or "", answer
    if dialect.thoughts is None or turn.reasoning is not None or END_THINK not in turn.content:
        return turn.reasoning or "", turn.content
    return turn.content.split(END_THINK)[0].rstrip("\n").split(THINK)[-1].lstrip("\n"), answer


def _call(turn: Turn, call: Call, dialect: Dialect) -> str:
    """A call as JSON: Qwen3 keeps the arguments' spelling, the others write them anew."""
    arguments = call.arguments if dialect.terse else as_json(parsed_arguments(turn, call))
    return f'{{"name": "{call.name}", "arguments": {arguments}}}'
