"""Prompt styles: which layout a tokenizer's model was taught, and how to find out.

A model understands only the layout of its training. `STYLES` says what each one can do; `find_style` recognises it.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kogia.errors import FolderError
from kogia.formats.untrusted import shown

STYLE_KEY = "kogia_prompt_style"  # in tokenizer_config.json: overrules what the chat template looks like


@dataclass(frozen=True)
class Style:
    """What a prompt style can do.

    ends: texts of the tokens that end a reply, the first one being written after every reply of a conversation.
    thinking: whether it thinks when nobody says; switchable: whether the caller may say.
    tools: whether it has a place for tool definitions; calls: the form of its tool calls, None when it has none.
    efforts: what `effort` may be.
    """

    ends: tuple[str, ...] = ()
    thinking: bool = False
    switchable: bool = False
    tools: bool = False
    calls: str | None = None  # "deepseek", "dsml" or "hermes"
    efforts: tuple[str, ...] = ()


_EOS = ("<｜end▁of▁sentence｜>",)
_CHATML = ("<|im_end|>", "<|endoftext|>")
_LLAMA = ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")
STYLES = {
    "kogia": Style(_EOS, thinking=True),
    "plain": Style(),
    "deepseek-coder": Style(("<|EOT|>",)),
    "deepseek-v2": Style(_EOS),
    "deepseek-v2.5": Style(_EOS, calls="deepseek"),
    "deepseek-v3": Style(_EOS, calls="deepseek"),
    "deepseek-r1": Style(_EOS, thinking=True, calls="deepseek"),
    "deepseek-r1-0528": Style(_EOS, thinking=True, calls="deepseek"),
    "deepseek-r1-distill": Style(_EOS, thinking=True, calls="deepseek"),
    "deepseek-v3.1": Style(_EOS, switchable=True, tools=True, calls="deepseek"),
    "deepseek-v3.2": Style(_EOS, switchable=True, tools=True, calls="dsml"),
    "deepseek-v4": Style(
        _EOS, thinking=True, switchable=True, tools=True, calls="dsml", efforts=("low", "high", "max")
    ),
    "chatml": Style(_CHATML),
    "smollm2": Style(_CHATML),
    "qwen2": Style(_CHATML),
    "qwen2.5": Style(_CHATML, tools=True, calls="hermes"),
    "qwen3": Style(_CHATML, thinking=True, switchable=True, tools=True, calls="hermes"),
    "qwen3-instruct": Style(_CHATML, tools=True, calls="hermes"),
    "qwq": Style(_CHATML, thinking=True, tools=True, calls="hermes"),
    "llama3": Style(_LLAMA),
    "llama3.1": Style(_LLAMA),
}

# (style, what its chat template holds, what it does not hold), the first that fits. From the templates themselves.
_TEMPLATES: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("kogia", ("in ('system', 'developer')", "<｜Assistant｜>", ".lstrip().startswith('<think>')"), ()),
    ("deepseek-v3.2", ("｜DSML｜function_calls",), ()),
    ("deepseek-v4", ("｜DSML｜tool_calls",), ()),
    ("deepseek-v3.1", ("<｜Assistant｜>", "</think>", "<｜tool▁output▁begin｜>"), ("<｜tool▁outputs▁begin｜>",)),
    ("deepseek-r1-0528", ("<｜User｜>' + content + '<｜Assistant｜>",), ()),
    ("deepseek-r1", ("<｜Assistant｜><think>\\n", "is_first_sp"), ()),
    ("deepseek-r1-distill", ("<｜Assistant｜><think>\\n",), ()),
    ("deepseek-v3", ("<｜Assistant｜>", "is_first_sp"), ()),
    ("deepseek-v2.5", ("<｜Assistant｜>",), ()),
    ("deepseek-v2", ("'User: '", "'Assistant:'"), ()),
    ("deepseek-coder", ("{{bos_token}}", "will refuse to answer\\n'", "'### Instruction:\\n'", "\\n<|EOT|>\\n'"), ()),
    ("qwen3", ("<|im_start|>", "enable_thinking"), ("<function=",)),
    ("qwen3-instruct", ("<|im_start|>", "messages[0].content + '\\n\\n'", "(loop.first and content)", '{"name": "'),
     ("think>", "<function=", "Alibaba")),
    ("qwq", ("<|im_start|>assistant\\n<think>\\n", "<tool_call>"), ("<function=",)),
    ("qwen2.5", ("<|im_start|>", "created by Alibaba Cloud", "<tool_call>"), ()),
    ("smollm2", ("<|im_start|>", "named SmolLM"), ()),
    ("qwen2", ("<|im_start|>", "You are a helpful assistant."), ()),
    ("chatml", ("<|im_start|>",), ()),
    ("llama3.1", ("<|start_header_id|>", "Cutting Knowledge Date"), ()),
    ("llama3", ("<|start_header_id|>",), ()),
]  # fmt: skip

# (style, tokens it needs, the token its replies end with): for tokenizers without a chat template. A base model has
# the chat tokens too, but does not name one of them as its end.
_VOCABULARIES: list[tuple[str, tuple[str, ...], str]] = [
    ("deepseek-v4", ("｜DSML｜", "<｜latest_reminder｜>"), _EOS[0]),
    ("deepseek-v3.2", ("｜DSML｜", "<think>"), _EOS[0]),
    ("deepseek-v3", ("<｜User｜>", "<｜Assistant｜>"), _EOS[0]),
    ("chatml", ("<|im_start|>",), "<|im_end|>"),
    ("llama3", ("<|start_header_id|>",), "<|eot_id|>"),
]


def find_style(config: Mapping[str, Any], tokens: Collection[str], eos: str) -> str:
    """The name of a tokenizer's prompt style: what tokenizer_config.json says under "kogia_prompt_style", else by its
    chat template, else by its special tokens, else "plain".

    config: tokenizer_config.json. tokens: the control tokens' texts. eos: the text of the end token.

    Raises:
        FolderError: a style is asked for by name that does not exist.
    """
    named = config.get(STYLE_KEY)
    if named is not None:
        if not isinstance(named, str) or named not in STYLES:
            raise FolderError(
                f"tokenizer_config.json: {STYLE_KEY} is {shown(named)}: it must be one of {', '.join(STYLES)}"
            )
        return named
    template = template_text(config)
    for style, present, absent in _TEMPLATES:
        if all(part in template for part in present) and not any(part in template for part in absent):
            return style
    for style, needed, end in _VOCABULARIES:
        if eos == end and all(token in tokens for token in needed):
            return style
    return "plain"


def template_text(config: Mapping[str, Any]) -> str:
    """The chat template, "" when there is none. Several under names: the one called "default".

    Newlines that were typed as such are written as \\n, so that one template has one spelling.
    """
    template = config.get("chat_template")
    if isinstance(template, list):
        named = [each.get("template") for each in template if isinstance(each, dict) and each.get("name") == "default"]
        template = named[-1] if named else None
    text = template if isinstance(template, str) else ""
    return re.sub(r"(?<=>)\n(?=')", r"\\n", text)
