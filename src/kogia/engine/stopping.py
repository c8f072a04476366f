"""Stop strings: a reply ends before the first of them, and none of it is ever handed out, not even in part."""

from collections.abc import Sequence

from kogia.text.tokenizer import Detokenizer, Tokenizer


class StopText:
    """Text of a reply while it arrives, up to the earliest stop string.

    The earliest is the one that is complete first; of several that are complete at the same character the longest.
    Text that may still become a stop string is held back, and no more than that.
    """

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...] = ()) -> None:
        self._decoder = Detokenizer(tokenizer)
        self._stops = tuple(sorted(stops, key=len, reverse=True))
        self._held = ""  # not yet handed out: may begin a stop string
        self.matched: str | None = None  # the stop string that ended the text

    def feed(self, tokens: Sequence[int], last: bool = False) -> str:
        """Add tokens; returns the text that is certain by now. Once a stop string is complete, what came before it;
        the rest is dropped. last: nothing follows, so nothing is held back."""
        if self.matched is not None:
            return ""
        text = self._decoder.feed(tokens, last)
        if not self._stops:
            return text
        text = self._held + text
        found = [(text.index(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in text]
        if found:
            end, _, self.matched = min(found)
            self._held = ""
            return text[: end - len(self.matched)]
        held = 0 if last else self._undecided(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = min(len(self._stops[0]) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stops)), 0)
