"""Tool calls that cannot go wrong: a grammar in the form the model was taught, with each tool's own schema inside.

What it lets through, `kogia.text.calls.ReplyParser` reads back as calls of the given tools with arguments that fit.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kogia.engine.grammar import JSON_OPTIONS, Constraint
from kogia.errors import PromptError
from kogia.formats.untrusted import shown
from kogia.text.messages import check_tools
from kogia.text.styles import STYLES
from kogia.text.tokenizer import Tokenizer

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _END_CALL, _SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"


def tool_constraint(
    tokenizer: Tokenizer,
    tools: Sequence[Mapping[str, Any]],
    choice: str | Mapping[str, Any] = "auto",
    parallel: bool = True,
) -> Constraint | None:
    """A constraint under which every tool call fits its tool's schema; None where nothing may be called ("none").

    tools: OpenAI's function definitions. choice: "auto" (text, calls, or text and then calls), "required" (calls and
    nothing else), "none", or {"type": "function", "function": {"name": ...}} (one call, of that tool). parallel:
    whether several calls may follow each other.

    Raises:
        PromptError: a style whose calls cannot be constrained (DSML, or none at all), a choice that is none of these,
            no tools, a tool that is not there, a name with odd characters, or parameters that are no object's schema.
    """
    if choice == "none":
        return None
    style = STYLES[tokenizer.style]
    if style.calls not in _FORMS:
        raise PromptError(f"strict tool calls are not possible with this model's prompt style ({tokenizer.style})")
    functions = [tool["function"] for tool in check_tools(tools, style, tokenizer.style)]
    if choice not in ("auto", "required"):
        functions, parallel = [_named(functions, choice)], False
    if not functions:
        raise PromptError("tools is empty: strict tool calls need at least one")
    forms = _FORMS[style.calls](tokenizer, functions, parallel)
    return Constraint("lark", forms if choice != "auto" else _with_text(forms))


def _named(functions: Sequence[Mapping[str, Any]], choice: Any) -> Mapping[str, Any]:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise PromptError('tool_choice must be auto, required, none or {"type": "function", "function": {"name": ...}}')
    found = next((function for function in functions if function["name"] == name), None)
    if found is None:
        raise PromptError(f"tool_choice names {shown(name)}, which is none of the tools")
    return found


def _schema(function: Mapping[str, Any]) -> str:
    """A tool's parameters as the grammar's rule."""
    if not _NAME.fullmatch(function["name"]):
        raise PromptError(f"tool name {shown(function['name'])}: it must be 1 to 128 of A-Z a-z 0-9 _ . : / -")
    parameters = function.get("parameters") or {}
    try:
        schema = json.loads(Constraint("json_schema", parameters).value)
    except PromptError as error:
        raise PromptError(f"tool {function['name']}: {error}") from None
    if schema.setdefault("type", "object") != "object":
        raise PromptError(f"tool {function['name']}: its parameters must be a schema with type object")
    return "%json " + json.dumps(schema | {"x-guidance": JSON_OPTIONS}, ensure_ascii=False)


def _mark(tokenizer: Tokenizer, text: str) -> str:
    """A marker in the grammar: the control token where there is one, else its letters."""
    return f"<[{tokenizer.ids[text]}]>" if text in tokenizer.ids else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _hermes(tokenizer: Tokenizer, functions: Sequence[Mapping[str, Any]], parallel: bool) -> str:
    opening, closing = _mark(tokenizer, "<tool_call>"), _mark(tokenizer, "</tool_call>")
    lines = [
        "start: calls",
        'calls: opening rest ("\\n" opening rest)*' if parallel else "calls: opening rest",
        f"opening: {opening}",
        f'rest: "\\n" call "\\n" {closing}',
        "call: " + " | ".join(f"call_{i}" for i in range(len(functions))),
    ]
    for i, function in enumerate(functions):
        head = _quoted(f'{{"name": {_quoted(function["name"])}, "arguments": ')
        lines += [f'call_{i}: {head} arguments_{i} "}}"', f"arguments_{i}: {_schema(function)}"]
    return "\n".join(lines)


def _deepseek(tokenizer: Tokenizer, functions: Sequence[Mapping[str, Any]], parallel: bool) -> str:
    """V3.1's form. (Older models write another one, but their layouts have no place for tools.)"""
    begin, end, call, end_call, sep = (_mark(tokenizer, text) for text in (_BEGIN, _END, _CALL, _END_CALL, _SEP))
    lines = [
        "start: calls",
        f"calls: opening rest {end}",
        f"opening: {begin}",
        "rest: call+" if parallel else "rest: call",
        "call: " + " | ".join(f"call_{i}" for i in range(len(functions))),
    ]
    for i, function in enumerate(functions):
        lines.append(f"call_{i}: {call} {_quoted(function['name'])} {sep} arguments_{i} {end_call}")
        lines.append(f"arguments_{i}: {_schema(function)}")
    return "\n".join(lines)


def _with_text(grammar: str) -> str:
    """The same calls, with any text before them, or text alone.

    Where the opening marker is ordinary text, it ends the text before it the first time it appears.
    """
    opening = grammar.partition("\nopening: ")[2].partition("\n")[0]
    text = "TEXT: /(.|\\n)*/\n"
    if opening.startswith("<["):
        start = "start: TEXT | TEXT calls"
        return text + grammar.replace("start: calls", start, 1)
    head = f"head[lazy]: TEXT {opening}\n"
    grammar = grammar.replace("start: calls", "start: TEXT | calls", 1)
    return text + head + grammar.replace("calls: opening", "calls: head", 1)


_FORMS = {"hermes": _hermes, "deepseek": _deepseek}
