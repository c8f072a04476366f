"""From a step's logits to the tokens of each sequence, and to its end.

The token at a place of a reply is a function of the logits there, the request's seed and the place, and of nothing
else. So a draft is right exactly if it is the token that would have been drawn anyway, and it never changes an answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kogia.engine.request import SamplingParams, Sequence
from kogia.engine.rows import Rows
from kogia.engine.sampler import sample, uniforms
from kogia.errors import PromptError
from kogia.text.tokenizer import Tokenizer


@dataclass
class Draw:
    """Who gets tokens in a step: B rows, where the logits of their first place are, how many drafts come after it,
    and how many tokens they knew before. pick: the same rows as an index, a slice where it is all of them.
    Afterwards: how many tokens they got (counts), the first of them, and whether any sequence ended."""

    rows: np.ndarray
    at: np.ndarray
    drafts: np.ndarray
    before: np.ndarray
    pick: np.ndarray | slice
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    first: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    single: bool = True
    ended: bool = False

    def tokens(self, table: Rows) -> list[list[int]]:
        """The new tokens of each row."""
        if self.single:
            return [[token] for token in self.first.tolist()]
        ends = self.before + self.counts
        places = zip(self.rows.tolist(), self.before.tolist(), ends.tolist(), strict=True)
        return [table.tokens_RT[row, start:end].tolist() for row, start, end in places]


class Drawing:
    """Draws tokens for the running sequences in `rows`."""

    def __init__(self, rows: Rows, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.rows, self.tokenizer, self.vocab_size = rows, tokenizer, vocab_size
        self._stops_V = np.zeros(max(vocab_size, max(tokenizer.stops) + 1), dtype=bool)
        self._stops_V[list(tokenizer.stops)] = True

    def prepare(self, sequence: Sequence) -> None:
        """Give a new sequence what its parameters need.

        Raises:
            PromptError: a token id outside the vocabulary, or a grammar that cannot be.
        """
        params = sequence.params
        _check_ids("stop_token_ids", params.stop_token_ids, self.vocab_size)
        _check_ids("logit_bias", params.logit_bias, self.vocab_size)
        if sequence.index:
            from kogia.engine.sampler import sibling_seed

            sequence.seed = sibling_seed(params.seed, sequence.index)
        if _steered(params):
            from kogia.engine.control import make_control

            sequence.control = make_control(params, self.tokenizer, sequence.prompt, self.vocab_size)
        if sequence.stream or params.stop:
            from kogia.engine.stopping import StopText

            sequence.text = StopText(self.tokenizer, params.stop)
        sequence.stops = frozenset(params.stop_token_ids)
        if sequence.control or sequence.text or sequence.stops or params.top_logprobs:
            sequence.reply = []

    def draw(self, logits_WV: Tensor, draw: Draw) -> Draw:
        """Draw the tokens of a step, in rounds: the r-th round is about the r-th place of every sequence whose drafts
        were right so far. Writes them into `rows`, with their log-probabilities."""
        table, rows, at, left = self.rows, draw.rows, draw.at, draw.drafts
        pick: np.ndarray | slice = draw.pick
        draw.single = left.base is table.none or not left.any()
        draw.first, right = self._round(logits_WV, rows, pick, at, left, draw)
        while right is not None and right.any():
            rows, at, left = rows[right], at[right] + 1, left[right] - 1
            _, right = self._round(logits_WV, rows, rows, at, left, draw)
        draw.counts = table.length[draw.pick] - draw.before
        table.computed[draw.pick] = table.length[draw.pick] - 1
        if not draw.single:
            table.draft[draw.pick] = 0
        return draw

    def text(self, sequence: Sequence, ids: list[int]) -> str:
        """The whole text of a finished reply."""
        if sequence.text is not None:
            return sequence.said
        by_token = sequence.finish == "stop" and bool(ids) and self._is_stop(sequence, ids[-1])
        return self.tokenizer.decode(ids[:-1] if by_token else ids)

    def _round(
        self, logits_WV: Tensor, rows: np.ndarray, pick: np.ndarray | slice, at: np.ndarray, left: np.ndarray,
        draw: Draw,
    ) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
        """One place of each of some rows; returns the tokens and which rows go on to their next draft, if any."""
        table, here = self.rows, self.rows.length[pick].copy()
        everyone = at.base is table.every and len(at) == len(logits_WV)
        logits = logits_WV if everyone else logits_WV[torch.from_numpy(at).to(logits_WV.device)]
        special = table.special[pick].nonzero()[0].tolist() if table.odd else []
        for i in special:
            self._adjust(table.sequences[rows[i]], logits[i])
        tokens, logprobs = self._sample(logits, pick)
        right = None if draw.single else (left > 0) & (table.tokens_RT[rows, here] == tokens)
        bad = ~np.isfinite(logprobs)
        table.tokens_RT[rows, here], table.logprobs_RT[rows, here] = tokens, logprobs
        table.length[pick] = here + ~bad
        ends = self._ends(rows, pick, tokens, bad)
        for i in special:
            sequence = table.sequences[rows[i]]
            if sequence.finish != "error":
                self._accept(sequence, int(tokens[i]), logits[i])
                ends[i] = sequence.finish is not None
        if ends.any():
            draw.ended = True
            draw.single = draw.single and not bad.any()
        return tokens, None if right is None else right & ~ends

    def _sample(self, logits: Tensor, pick: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        table, device = self.rows, logits.device
        uniform = uniforms(table.seed[pick], table.length[pick] - table.prompt[pick])
        more = {}
        if table.odd and table.top_k[pick].any():
            more["top_k_B"] = torch.from_numpy(table.top_k[pick]).to(device)
        if table.odd and table.min_p[pick].any():
            more["min_p_B"] = torch.from_numpy(table.min_p[pick]).to(device)
        temperature, top_p = torch.from_numpy(table.temperature[pick]), torch.from_numpy(table.top_p[pick])
        tokens, logprobs = sample(logits, temperature.to(device), top_p.to(device), uniform.to(device), **more)
        return tokens.cpu().numpy(), logprobs.cpu().numpy()

    def _ends(self, rows: np.ndarray, pick: np.ndarray | slice, tokens: np.ndarray, bad: np.ndarray) -> np.ndarray:
        """Which rows end here as far as EOS, the limit and broken logits go; says so in their sequences."""
        table = self.rows
        stopped = self._stops_V[tokens] & ~table.ignore_eos[pick]
        ends = bad | stopped | (table.length[pick] >= table.limit[pick])
        for i in ends.nonzero()[0].tolist():
            sequence = table.sequences[rows[i]]
            sequence.finish = "error" if bad[i] else "stop" if stopped[i] else "length"
            if bad[i]:
                sequence.error = "the model's logits are not finite: its weights or this prompt have broken it"
        return ends

    def _adjust(self, sequence: Sequence, logits_V: Tensor) -> None:
        if sequence.control is not None:
            sequence.control.adjust(logits_V, sequence.reply or [])

    def _accept(self, sequence: Sequence, token: int, logits_V: Tensor) -> None:
        """What a special sequence does with its next token."""
        params = sequence.params
        if params.top_logprobs:
            from kogia.engine.sampler import top_logprobs

            sequence.top.append(top_logprobs(logits_V, params.temperature, params.top_logprobs))
        if sequence.reply is not None:
            sequence.reply.append(token)
        by_token = self._is_stop(sequence, token)
        if by_token:
            sequence.finish = "stop"
            sequence.stop_reason = token if token in sequence.stops else None
        elif sequence.control is not None:
            sequence.control.accept(token)
            if sequence.control.finished:
                sequence.finish = "stop"
        if sequence.text is not None:
            self._read(sequence, [] if by_token else [token])

    def _read(self, sequence: Sequence, tokens: list[int]) -> None:
        assert sequence.text is not None
        piece = sequence.text.feed(tokens, last=sequence.finish is not None)
        sequence.said += piece
        if sequence.stream:
            sequence.news.append(piece)
        if sequence.text.matched is not None:
            sequence.finish, sequence.stop_reason = "stop", sequence.text.matched

    def _is_stop(self, sequence: Sequence, token: int) -> bool:
        return token in sequence.stops or (token in self.tokenizer.stops and not sequence.params.ignore_eos)


def _steered(params: SamplingParams) -> bool:
    """Whether a request's logits depend on its history."""
    return bool(
        params.presence_penalty
        or params.frequency_penalty
        or params.repetition_penalty != 1.0
        or params.logit_bias
        or params.thinking_budget is not None
        or params.constraint
    )


def _check_ids(name: str, ids: Iterable[int], size: int) -> None:
    for id in ids:
        if not 0 <= id < size:
            raise PromptError(f"{name} has {id}: the vocabulary goes from 0 to {size - 1}")
