"""Conversations as token ids, in DeepSeek's layout (R1): BOS, then <｜User｜>... and <｜Assistant｜>...EOS by turns."""

from collections.abc import Sequence
from typing import Any

from kogia.errors import PromptError
from kogia.text.parsers import split_reply
from kogia.text.tokenizer import ASSISTANT, USER, Tokenizer


def encode_chat(tokenizer: Tokenizer, messages: Sequence[dict[str, Any]]) -> list[int]:
    """Tokens of a conversation, ready for the assistant to speak.

    messages: [{"role": "system" | "user" | "assistant", "content": text}]; thinking in earlier replies is left out,
    as R1's template does.

    Raises:
        PromptError: no messages, an unknown role, content that is not text, or no user message at the end.
    """
    if not messages:
        raise PromptError("messages is empty: send at least one message with role user")
    ids = [tokenizer.bos]
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(content, str):
            raise PromptError(f"messages[{i}].content is {type(content).__name__}: it must be text")
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in content):
            raise PromptError(f"messages[{i}].content holds half a surrogate pair, which is no character")
        if role in ("system", "developer"):
            ids += tokenizer.encode(content)
        elif role == "user":
            ids += [tokenizer.ids[USER], *tokenizer.encode(content)]
        elif role == "assistant":
            ids += [tokenizer.ids[ASSISTANT], *tokenizer.encode(split_reply(content).content), tokenizer.eos]
        else:
            raise PromptError(f"messages[{i}].role is {role!r}: it must be system, user or assistant")
    if messages[-1].get("role") != "user":
        raise PromptError("the last message must have role user")
    return [*ids, tokenizer.ids[ASSISTANT]]


def encode_question(tokenizer: Tokenizer, question: str) -> list[int]:
    """Tokens of a single question, ready for the assistant to speak."""
    return encode_chat(tokenizer, [{"role": "user", "content": question}])


def encode_reply(tokenizer: Tokenizer, reply: str) -> list[int]:
    """Tokens of a reply that Kogia wrote or sampled itself, thinking included, with EOS."""
    return [*tokenizer.encode_trusted(reply), tokenizer.eos]
