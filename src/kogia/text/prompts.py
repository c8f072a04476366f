"""Conversations as token ids, in the layout of the model that is to read them (kogia.text.styles).

A layout is a function from a checked conversation to pieces: plain text, and control tokens. Only a layout sets control
tokens; what anybody typed is plain text, whatever it looks like.
"""

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from kogia.errors import PromptError
from kogia.text import deepseek, dsml
from kogia.text.calls import ReplyParser
from kogia.text.chatml import DIALECTS, chatml
from kogia.text.llama3 import llama3
from kogia.text.messages import Chat, check_messages, check_tools
from kogia.text.pieces import Piece, encode_pieces
from kogia.text.styles import STYLE_KEY, STYLES, Style
from kogia.text.tokenizer import END_THINK, THINK, Tokenizer


class ChatOptions(TypedDict, total=False):
    """What may be said beside the messages.

    tools: OpenAI's function definitions. thinking: None leaves it to the family. effort: V4's, "low" to "max".
    continue_last: the last message is the beginning of the assistant's reply, to go on from.
    """

    tools: Sequence[dict[str, Any]] | None
    thinking: bool | None
    effort: str | None
    continue_last: bool


def encode_chat(tokenizer: Tokenizer, messages: Sequence[dict[str, Any]], **options: Unpack[ChatOptions]) -> list[int]:
    """Tokens of a conversation, ready for the assistant to speak.

    messages: OpenAI's: role system, developer (the same), user, assistant (also with reasoning_content, tool_calls) or
        tool (with tool_call_id). Whether thinking of earlier replies is kept is the family's rule.

    Raises:
        PromptError: no messages, a field that is not what it must be, a last message nobody answers to, something
            that this model's layout has no place for, or a model whose layout this version does not know.
    """
    return encode_pieces(tokenizer, chat_pieces(tokenizer, messages, **options))


def chat_pieces(
    tokenizer: Tokenizer,
    messages: Sequence[dict[str, Any]],
    *,
    tools: Sequence[dict[str, Any]] | None = None,
    thinking: bool | None = None,
    effort: str | None = None,
    continue_last: bool = False,
) -> list[Piece]:
    """What `encode_chat` encodes; "".join of it is the prompt as people read it."""
    _require_known(tokenizer)
    style = STYLES[tokenizer.style]
    chat = Chat(
        turns=check_messages(messages, style, continue_last),
        tools=check_tools(tools, style, tokenizer.style),
        thinking=_check_thinking(thinking, style, tokenizer.style),
        effort=_check_effort(effort, style, tokenizer.style),
        goes_on=continue_last,
    )
    return _lay_out(chat, tokenizer)


def _require_known(tokenizer: Tokenizer) -> None:
    if tokenizer.unknown_template:
        raise PromptError(
            "this model's chat template is not one that this version knows. If you know a prompt style that is the "
            f'same, name it as "{STYLE_KEY}" in tokenizer_config.json: {", ".join(STYLES)} '
            "(plain: the texts alone, without who said them)"
        )


def _lay_out(chat: Chat, tokenizer: Tokenizer) -> list[Piece]:
    name = tokenizer.style
    if name in deepseek.LAYOUTS:
        return deepseek.v3(chat, deepseek.LAYOUTS[name])
    if name in DIALECTS:
        return chatml(chat, DIALECTS[name])
    if name.startswith("llama"):
        return llama3(chat, dated=name == "llama3.1")
    if name == "plain":
        bos = next((text for text, id in tokenizer.ids.items() if id == tokenizer.bos), None)
        return deepseek.plain(chat, bos)
    others = {
        "kogia": deepseek.kogia, "deepseek-coder": deepseek.coder, "deepseek-v2": deepseek.v2,
        "deepseek-v3.1": deepseek.v31,
        "deepseek-v3.2": dsml.v32, "deepseek-v4": dsml.v4,
    }  # fmt: skip
    return others[name](chat)


def _check_thinking(thinking: bool | None, style: Style, name: str) -> bool:
    if thinking is None or thinking == style.thinking or style.switchable:
        return style.thinking if thinking is None else thinking
    habit = "always thinks" if style.thinking else "does not think"
    raise PromptError(f"thinking is {thinking}: a model with the prompt style {name} {habit}; leave it out")


def _check_effort(effort: str | None, style: Style, name: str) -> str | None:
    if effort is None or effort in style.efforts:
        return effort
    known = f"it must be one of {', '.join(style.efforts)}" if style.efforts else "leave it out"
    raise PromptError(f"effort is {effort!r}, which the prompt style {name} does not know: {known}")


def render(tokenizer: Tokenizer, messages: Sequence[dict[str, Any]], **options: Unpack[ChatOptions]) -> str:
    """The prompt as text, for people: control tokens and typed text look the same in it."""
    return "".join(chat_pieces(tokenizer, messages, **options))


def reply_parser(tokenizer: Tokenizer, prompt: Sequence[int], calls: bool = True) -> ReplyParser:
    """A parser for the reply to `prompt`: it knows whether the prompt has opened <think>, and the style's tool calls.

    The prompt's last control token decides: after <think> the reply begins with reasoning, after </think> with content.
    calls: whether to look for tool calls; otherwise they are left in the content.
    """
    controls = {id: text for text, id in tokenizer.ids.items()}
    at = next((i for i in range(len(prompt) - 1, -1, -1) if prompt[i] in controls), None)
    last = "" if at is None else controls[prompt[at]]
    fresh = at is None or not tokenizer.decode(prompt[at + 1 :]).strip("\n")
    start = {THINK: "reasoning", END_THINK: "content"}.get(last, "start")
    return ReplyParser(STYLES[tokenizer.style].calls if calls else None, start, fresh)


def encode_question(tokenizer: Tokenizer, question: str) -> list[int]:
    """Tokens of a single question, ready for the assistant to speak."""
    return encode_chat(tokenizer, [{"role": "user", "content": question}])


def encode_reply(tokenizer: Tokenizer, reply: str) -> list[int]:
    """Tokens of a reply that Kogia wrote or sampled itself, thinking included, with the token that ends a turn."""
    return [*tokenizer.encode_trusted(reply), tokenizer.end_of_turn]
