"""DeepSeek's layouts with DSML tools: V3.2 and V4. The published encoders are Python, not templates.

V3.2 follows the encoder in DeepSeek-V3.2's repository, V4 the newest public converter (deepseek-recipe, for "DeepSeek
V4 Pro"). V4's first public weights (April 2026) had one instruction less: their default effort is "low" here, and
their "max" is "high" here.
"""

from typing import Any

from kogia.text.deepseek import begun_reply
from kogia.text.messages import Call, Chat, Turn, as_json, parsed_arguments
from kogia.text.pieces import Piece, Special, marked
from kogia.text.tokenizer import ASSISTANT, BOS, END_THINK, EOS, THINK, USER

_BOS, _EOS, _USER, _ASSISTANT = map(Special, (BOS, EOS, USER, ASSISTANT))
_THINK, _END_THINK, DSML = Special(THINK), Special(END_THINK), Special("｜DSML｜")

_EFFORTS = {
    "low": "",
    "high": """\
Reasoning Effort: Absolute maximum with no shortcuts permitted.
You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, \
rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.
Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, \
and rejected hypothesis to ensure absolutely no assumption is left unchecked.

""",
    "max": """\
Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.
You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the \
problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying cause \
rather than any surface symptom.
Do not stop reasoning until you have independently verified the solution from multiple angles and are certain that no \
assumption remains unchecked and no error remains undiscovered.

""",
}

_V32_TOOLS = """\
## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to the \
user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should \
use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types \
(numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. \
Here is an example:

<｜DSML｜function_calls>
...
</｜DSML｜function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
{schemas}
</functions>
"""

_V4_TOOLS = """\
## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a \
"<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, \
objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> \
BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

{schemas}

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""


def _tools(template: str, functions: list[dict[str, Any]]) -> list[Piece]:
    if not functions:
        return []
    start, end = template.split("{schemas}")
    schemas = "\n".join(as_json(function) for function in functions)
    return ["\n\n", *marked(start, DSML, THINK, END_THINK), schemas, *marked(end, DSML, THINK, END_THINK)]


def _calls(turn: Turn, block: str, empty_line: bool) -> list[Piece]:
    """The calls of a turn as DSML. empty_line: whether one stands where a call has no arguments."""
    if not turn.calls:
        return []
    pieces: list[Piece] = ["\n\n<", DSML, f"{block}>\n"]
    for call in turn.calls:
        parameters = _parameters(turn, call)
        gap = "\n" if parameters or empty_line else ""
        pieces += ["<", DSML, f'invoke name="{call.name}">\n', *parameters, gap + "</", DSML, "invoke>\n"]
    return [*pieces, "</", DSML, f"{block}>"]


def _parameters(turn: Turn, call: Call) -> list[Piece]:
    """A call's arguments, one a line (a text may hold more)."""
    pieces: list[Piece] = []
    for i, (name, value) in enumerate(parsed_arguments(turn, call).items()):
        text = isinstance(value, str)
        pieces += ["\n<" if i else "<", DSML, f'parameter name="{name}" string="{"true" if text else "false"}">']
        pieces += [value if text else as_json(value), "</", DSML, "parameter>"]
    return pieces


def v32(chat: Chat) -> list[Piece]:
    """V3.2. Every turn stands where it was said; tools follow the first message's text when it is a system message.

    Thinking is written for replies after the last user's message only, so it is kept while tools answer each other.
    """
    tools = _tools(_V32_TOOLS, [tool["function"] for tool in chat.tools])
    first = chat.turns[0].role == "system"
    pieces: list[Piece] = [_BOS, *([] if first else tools)]
    last = chat.last_user()
    for i, turn in enumerate(chat.turns):
        thinks: Piece = _THINK if chat.thinking and i >= last else _END_THINK
        if turn.role == "system":
            pieces += [turn.content, *(tools if i == 0 else [])]
        elif turn.role == "user":
            pieces += [_USER, turn.content, _ASSISTANT, thinks]
        elif turn.role == "tool":
            pieces += _v32_result(chat.turns, i, thinks)
        else:
            pieces += _v32_reply(chat, turn, thinks is _THINK)
    return pieces


def _v32_result(turns: list[Turn], i: int, thinks: Piece) -> list[Piece]:
    first = turns[i - 1].role != "tool"
    last = i + 1 == len(turns) or turns[i + 1].role != "tool"
    opening: list[Piece] = ["\n\n<function_results>"] if first else []
    end: list[Piece] = ["\n</function_results>\n\n", thinks] if last else []
    return [*opening, f"\n<result>{turns[i].content}</result>", *end]


def _v32_reply(chat: Chat, turn: Turn, thinks: bool) -> list[Piece]:
    if chat.unfinished(turn):
        return begun_reply(turn, thinks)[1 if thinks else 0 :]  # <think> stands there already
    thought: list[Piece] = [turn.reasoning or "", _END_THINK] if thinks else []
    return [*thought, turn.content, *_calls(turn, "function_calls", empty_line=True), _EOS]


def v4(chat: Chat) -> list[Piece]:
    """V4. System messages come first, as one; tools' results are part of a user's turn, in the order of the calls.

    Thinking is kept everywhere when there are tools, and else only after the last user's turn.
    """
    effort = _EFFORTS[chat.effort or "high"] if chat.thinking else ""
    pieces: list[Piece] = [_BOS, effort, chat.system(), *_tools(_V4_TOOLS, _v4_functions(chat))]
    last = chat.last_user("tool")
    said: list[str] = []  # the texts of the user's turn that is being gathered
    for i, turn in enumerate(chat.turns):
        if turn.role in ("user", "tool"):
            said.append(turn.content if turn.role == "user" else f"<tool_result>{_result(chat.turns, i)}</tool_result>")
        elif turn.role == "assistant":
            pieces += [
                *_v4_user(said),
                _ASSISTANT,
                *_v4_reply(chat, turn, chat.thinking and (i > last or chat.tools != [])),
            ]
            said = []
    if chat.goes_on:
        return pieces
    return [*pieces, *_v4_user(said), _ASSISTANT, _THINK if chat.thinking else _END_THINK]


def _v4_user(said: list[str]) -> list[Piece]:
    return [_USER, "\n\n".join(filter(None, said))] if said else []


def _v4_reply(chat: Chat, turn: Turn, thinks: bool) -> list[Piece]:
    if chat.unfinished(turn):
        return begun_reply(turn, True) if thinks else [_END_THINK, turn.content]
    thought: list[Piece] = [_THINK, turn.reasoning or ""] if thinks else []
    return [*thought, _END_THINK, turn.content, *_calls(turn, "tool_calls", empty_line=False), _EOS]


def _v4_functions(chat: Chat) -> list[dict[str, Any]]:
    """What of a tool's definition V4 is shown."""
    functions = [tool["function"] for tool in chat.tools]
    return [
        {"name": f["name"], "description": f.get("description") or "", "parameters": f.get("parameters") or {}}
        for f in functions
    ]


def _result(turns: list[Turn], i: int) -> str:
    """The result that stands at place `i`: clients may send them in any order, V4 reads them in that of the calls."""
    start = max(j for j in range(i) if turns[j].role == "assistant")
    order = {call.id: n for n, call in enumerate(turns[start].calls)}
    results = turns[start + 1 : start + 1 + len(turns[start].calls)]
    results.sort(key=lambda turn: order.get(turn.call_id, 0))
    return results[i - start - 1].content
