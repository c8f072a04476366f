"""Guess the next tokens and let the model check them all in one pass: with its own layers of multi-token prediction
(arXiv 2412.19437, section 2.2), or, where it has none, by looking up what followed the last words before.

The token of each place is drawn by a number that belongs to the place (engine/sampler.py), and a guess stands exactly
if it is the token so drawn. That is rejection sampling with a coupling: a guess drawn from the draft distribution q
with the same number as the target's p is accepted with probability P(X_p = X_q), a refused one is replaced by the
target's own draw, and what comes out is distributed as p; more than that, it is the very text of the run without
guesses. So how many to make is a matter of speed alone, and measured while running (`Pace`).
"""

import time
from collections import defaultdict
from collections.abc import Sequence as Sequences

import numpy as np
import torch
from torch import Tensor

from kogia.engine.batch import BLOCK, Batch, Runner
from kogia.engine.drafter import Step
from kogia.engine.request import Sequence
from kogia.engine.sampler import sample, uniforms

MTP_DEPTH, LOOKUP_DEPTH = 3, 4  # guesses at most, where nobody says
TRIALS, EXPLORE_EVERY = 6, 64
KEEP = 0.97  # of what was measured, at each further measurement


class Pace:
    """How many guesses a step bring the most tokens a second, for each size of batch: tries all, keeps the fastest,
    and looks again now and then, since the share of right guesses changes with the text."""

    def __init__(self, deepest: int) -> None:
        self.deepest = deepest
        self._cost: dict[tuple[int, int], tuple[float, float]] = {}  # (batch's bits, depth) -> moving seconds, tokens
        self._trials: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._last: tuple[float, int, int] | None = None  # when the last step began, its batch and depth
        self._steps = 0

    def choose(self, step: Step) -> int:
        """Depth for the next step; learns from the one that has just ended."""
        now, batch = time.perf_counter(), len(step.rows)
        self._learn(step, now)
        depth = self._best(batch.bit_length())
        self._last = (now, batch, depth) if batch else None
        return depth

    def _learn(self, step: Step, now: float) -> None:
        if self._last is None:
            return
        began, batch, depth = self._last
        only_decoding = len(step.batch.tokens_N) == len(step.drafted) + int(step.drafted.sum())
        if batch != len(step.drafted) or not only_decoding:
            return  # somebody came, went or read a prompt: this step says nothing about the depth
        key = (batch.bit_length(), depth)
        seconds, tokens = self._cost.get(key, (0.0, 0.0))
        self._trials[key] += 1
        self._cost[key] = (KEEP * seconds + now - began, KEEP * tokens + batch + int(step.accepted.sum()))

    def _best(self, size: int) -> int:
        depths = range(self.deepest + 1)
        fresh = [depth for depth in depths if self._trials[size, depth] < TRIALS]
        if fresh:
            return fresh[-1]
        self._steps += 1
        if self._steps % EXPLORE_EVERY == 0:
            return self._steps // EXPLORE_EVERY % (self.deepest + 1)
        return min(depths, key=lambda depth: self._cost[size, depth][0] / self._cost[size, depth][1])


class Constant:
    """Always the same number of guesses."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def choose(self, step: Step) -> int:
        """That number."""
        return self.depth


class MTPDrafter:
    """Guesses with the model's own layers of multi-token prediction; beyond their number the last one goes on alone.

    A layer's cache is as long as the model's. Where no guesses are made it is not filled, so guesses after such a
    stretch are worse for a while; they are only guesses.
    """

    def __init__(self, runner: Runner, pace: Pace | Constant) -> None:
        self.runner, self.pace = runner, pace
        self.layers = runner.config.num_nextn_predict_layers

    def forget(self, sequence: Sequence) -> None:
        """Nothing is kept."""

    def propose(self, step: Step) -> list[list[int]]:
        """Guesses for each of `step.rows`."""
        depth = self.pace.choose(step)
        kept = np.flatnonzero(step.kept_N)
        rows_N = step.batch.sequence_N[kept]
        last = np.searchsorted(rows_N, step.rows, side="right") - 1
        here = (last >= 0) & (rows_N[last] == step.rows) if len(rows_N) else np.zeros(len(step.rows), dtype=bool)
        guesses: list[list[int]] = [[] for _ in step.rows]
        if depth and here.any():
            self._guess(step, depth, kept, last[here], np.flatnonzero(here), guesses)
        return guesses

    def _guess(
        self, step: Step, depth: int, kept: np.ndarray, last: np.ndarray, which: np.ndarray, guesses: list[list[int]]
    ) -> None:
        """Fill in `guesses[i]` for i in `which`; `last` is where in `kept` each one's last token is."""
        rows_N, at_N = step.batch.sequence_N[kept], step.batch.positions_N[kept]
        tokens, hidden = step.next_N[kept], step.result.hidden_ND[torch.from_numpy(kept)]
        picker = _Picker(step, which)
        for j in range(depth):
            if j >= self.layers:
                tokens, hidden, rows_N, at_N = guess, hidden[torch.from_numpy(last)], rows_N[last], at_N[last] + 1
                stays = at_N % BLOCK != 0  # the next block may not be ours yet
                tokens, hidden, rows_N, at_N = (
                    tokens[stays],
                    hidden[torch.from_numpy(stays)],
                    rows_N[stays],
                    at_N[stays],
                )
                which, last = which[stays], np.arange(int(stays.sum()))
                picker.keep(stays)
            elif j:  # the token one further on: known, or guessed by the layer before
                known = step.length_R[rows_N]
                for i, token in zip(which.tolist(), guess.tolist(), strict=True):
                    row = step.rows[i]
                    step.tokens_RT[row, min(int(step.length_R[row]) + j - 1, step.tokens_RT.shape[1] - 1)] = token
                ahead = np.minimum(np.minimum(at_N + j + 1, known + j - 1), step.tokens_RT.shape[1] - 1)
                tokens = step.tokens_RT[rows_N, ahead]
            if not len(which):
                return
            batch = Batch(tokens.astype(np.int32), at_N.astype(np.int32), rows_N, step.batch.tables_SP, last)
            logits, hidden = self.runner.draft(min(j, self.layers - 1), batch, hidden.clone())
            guess = picker.pick(logits, j)
            for i, token in zip(which.tolist(), guess.tolist(), strict=True):
                guesses[i].append(token)


class _Picker:
    """Draws guesses with the numbers that the places' own tokens will be drawn with."""

    def __init__(self, step: Step, which: np.ndarray) -> None:
        rows = step.rows[which].tolist()
        sequences = [step.sequences[row] for row in rows]
        self.temperature = np.array([s.params.temperature for s in sequences], dtype=np.float32)
        self.top_p = np.array([s.params.top_p for s in sequences], dtype=np.float32)
        self.seed = np.array([s.seed for s in sequences], dtype=np.int64)
        self.place = np.array([step.length_R[s.row] - len(s.prompt) for s in sequences], dtype=np.int64)
        self.greedy = not self.temperature.any()

    def keep(self, stays: np.ndarray) -> None:
        """Only these go on."""
        self.temperature, self.top_p = self.temperature[stays], self.top_p[stays]
        self.seed, self.place = self.seed[stays], self.place[stays]

    def pick(self, logits_BV: Tensor, ahead: int) -> np.ndarray:
        """A token a row, `ahead` places after the next."""
        if self.greedy:
            tokens: np.ndarray = logits_BV.cpu().numpy().argmax(-1)  # NumPy's is the quicker one
            return tokens
        settings = (torch.from_numpy(x).to(logits_BV.device) for x in (self.temperature, self.top_p))
        drawn, _ = sample(logits_BV, *settings, uniforms(self.seed, self.place + ahead).to(logits_BV.device))
        return drawn.cpu().numpy()


class LookupDrafter:
    """Guesses that what followed the last words the last time will follow them again (prompt lookup): good where a
    reply repeats its prompt, as in summaries, code edits and retrieved text; costs next to nothing elsewhere."""

    LONGEST, SHORTEST = 3, 2  # words looked for

    def __init__(self, pace: Pace | Constant) -> None:
        self.pace = pace
        self._seen: dict[int, tuple[int, dict[tuple[int, ...], int]]] = {}  # by sequence: how far, n-gram -> its end

    def forget(self, sequence: Sequence) -> None:
        """Drop a sequence's index."""
        self._seen.pop(id(sequence), None)

    def propose(self, step: Step) -> Sequences[Sequences[int]]:
        """Guesses for each of `step.rows`."""
        depth = self.pace.choose(step)
        if not depth:
            return [[] for _ in step.rows]
        return [self._look(step, int(row), depth) for row in step.rows]

    def _look(self, step: Step, row: int, depth: int) -> list[int]:
        length = int(step.length_R[row])
        tokens = step.tokens_RT[row, :length]
        seen, index = self._seen.get(id(step.sequences[row]), (self.LONGEST, {}))
        new = tokens[seen - self.LONGEST : length].tolist()
        for n in range(self.SHORTEST, self.LONGEST + 1):
            for i in range(self.LONGEST - n, len(new) - n):  # not the last words themselves
                index[tuple(new[i : i + n])] = seen - self.LONGEST + i + n
        self._seen[id(step.sequences[row])] = (max(length - 1, self.LONGEST), index)
        for n in range(self.LONGEST, self.SHORTEST - 1, -1):
            end = index.get(tuple(tokens[-n:].tolist()))
            if end is not None:
                found: list[int] = tokens[end : end + depth].tolist()
                return found
        return []


def make_drafter(runner: Runner, draft: str | int) -> MTPDrafter | LookupDrafter | None:
    """ "off" or 0: none; "auto": as many guesses as pay, by multi-token prediction or lookup; a number: so many always."""
    if draft in ("off", 0):
        return None
    has_layers = runner.config.num_nextn_predict_layers > 0
    if draft == "auto":
        return MTPDrafter(runner, Pace(MTP_DEPTH)) if has_layers else LookupDrafter(Pace(LOOKUP_DEPTH))
    pace = Constant(int(draft))
    return MTPDrafter(runner, pace) if has_layers else LookupDrafter(pace)
