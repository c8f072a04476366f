"""How a model is reached: an inference thread, the wire format of OpenAI and DeepSeek, and HTTP on the loopback.

Here: what the API and the terminal chat share, the default sampling and the way to read a reply's tokens.
"""

from collections.abc import Sequence

from kogia.text.calls import CallDelta
from kogia.text.prompts import reply_parser
from kogia.text.tokenizer import Tokenizer

TEMPERATURE, TOP_P = 0.6, 0.95  # what DeepSeek recommends for R1


class ReplyReader:
    """Takes the text of one reply, token by token, and hands it out, the thinking apart from the answer.

    prompt: what is replied to; where it has opened <think> itself, the reply begins with thinking.
    `reasoning` and `content` are what was handed out so far; `tokens` counts all tokens, EOS and markers included, and
    `reasoning_tokens` those before the answer began.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._parser = reply_parser(tokenizer, prompt, calls=False)
        self._shown = 0  # tokens whose text has been handed to the parser
        self._text = {"reasoning": "", "content": ""}
        self.tokens = self.reasoning_tokens = 0
        self.finish_reason: str | None = None

    @property
    def reasoning(self) -> str:
        """The thinking, without its markers."""
        return self._text["reasoning"]

    @property
    def content(self) -> str:
        """The answer."""
        return self._text["content"]

    def feed(self, text: str, finish_reason: str | None = None) -> list[tuple[str, str]]:
        """Add a token by the text it made certain; returns ("reasoning" | "content", text) in order. finish_reason:
        set on the last token."""
        self.finish_reason = finish_reason
        self.tokens += 1
        if finish_reason == "length":
            text = text.rstrip("\ufffd")  # a character that the limit cut in two is left out, not shown broken
        events = self._parser.feed(text, last=finish_reason is not None)
        pieces = [event for event in events if not isinstance(event, CallDelta)]
        for kind, piece in pieces:
            self._add(kind, piece)
        if finish_reason and not self.content and self.reasoning:
            self.reasoning_tokens = self.tokens
        if text:
            self._shown = self.tokens
        return pieces

    def _add(self, kind: str, piece: str) -> None:
        if kind == "content" and not self.content and self.reasoning:
            self.reasoning_tokens = self._shown
        self._text[kind] += piece
