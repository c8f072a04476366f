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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kogia.engine.batch import BLOCK, Batch, Runner
from kogia.engine.drafter import Step
from kogia.engine.request import Sequence
from kogia.errors import UserError

MTP_DEPTH, LOOKUP_DEPTH = 3, 4  # guesses at most, where nobody says
MOST = 16
TRIALS, COLD, WARMING, LOOK, LOOK_EVERY = 12, 4, 3, 10, 300  # steps
KEEP = 0.95  # of what was measured, at each further measurement


class Pace:
    """How many guesses a step bring the most tokens a second, for each size of batch. It climbs from none while more is
    faster, and looks at its neighbours and at none again now and then, for the text and the machine's load change.

    The first steps of a stretch of guessing do not count: the MTP layers' cache has to be filled first.
    """

    def __init__(self, deepest: int) -> None:
        self.deepest = deepest
        self._cost: dict[tuple[int, int], tuple[float, float]] = {}  # (batch's bits, depth) -> moving seconds, tokens
        self._trials: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._began, self._batch, self._depth, self._stretch = 0.0, 0, 0, 0
        self._steps = self._looking = self._aside = 0

    def choose(self, batch: int, tokens: int, only_decoding: bool) -> int:
        """Depth for the next step; learns from the one that has just ended, in which `batch` rows got `tokens`."""
        now = time.perf_counter()
        if only_decoding and batch == self._batch and (self._depth == 0 or self._stretch > WARMING):
            self._learn((batch.bit_length(), self._depth), now - self._began, tokens)
        depth = self._best(batch.bit_length(), batch.bit_length() == self._batch.bit_length())
        self._stretch = self._stretch + 1 if depth == self._depth else 1
        self._began, self._batch, self._depth = now, batch, depth
        return depth

    def _learn(self, key: tuple[int, int], seconds: float, tokens: int) -> None:
        before = self._cost.get(key, (0.0, 0.0))
        self._trials[key] += 1
        if self._trials[key] > COLD:
            self._cost[key] = (KEEP * before[0] + seconds, KEEP * before[1] + tokens)

    def _best(self, size: int, same_size: bool) -> int:
        if self._looking and same_size:
            self._looking -= 1
            return self._aside
        known = [depth for depth in range(self.deepest + 1) if self._trials[size, depth] >= TRIALS]
        if not known:
            return 0
        best = min(known, key=lambda depth: self._cost[size, depth][0] / self._cost[size, depth][1])
        if best < self.deepest and best + 1 not in known:
            return best + 1
        self._steps += 1
        if self._steps % LOOK_EVERY:
            return best
        self._looking = LOOK - 1
        asides = [depth for depth in (0, best - 1, best + 1) if 0 <= depth <= self.deepest and depth != best]
        self._aside = asides[self._steps // LOOK_EVERY % len(asides)]
        return self._aside


class Constant:
    """Always the same number of guesses."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def choose(self, batch: int, tokens: int, only_decoding: bool) -> int:
        """That number."""
        return self.depth


class _Paced:
    """What drafters share: how deep to guess after a step."""

    def __init__(self, pace: Pace | Constant) -> None:
        self.pace, self.depth = pace, 0

    def ready(self, rows: int, tokens: int, only_decoding: bool) -> bool:
        """See `Drafter`."""
        self.depth = self.pace.choose(rows, tokens, only_decoding)
        return self.depth > 0


@dataclass
class _Front:
    """What a layer of multi-token prediction computes: rows of the step with the token one further on.

    which: the numbers (among `step.rows`) of those that get guesses; last: where each one's last row is here.
    """

    tokens_N: np.ndarray
    hidden_ND: Tensor
    rows_N: np.ndarray
    at_N: np.ndarray
    which: np.ndarray
    last: np.ndarray

    def batch(self, step: Step) -> Batch:
        """For a runner."""
        return Batch(self.tokens_N, self.at_N, self.rows_N, step.batch.tables_SP, self.last)


class MTPDrafter(_Paced):
    """Guesses with the model's own layers of multi-token prediction; beyond their number the last one goes on alone.

    A layer's cache is as long as the model's. Where no guesses are made it is not filled, so guesses after such a
    stretch are worse for a while; they are only guesses.
    """

    def __init__(self, runner: Runner, pace: Pace | Constant) -> None:
        super().__init__(pace)
        self.runner = runner
        self.layers = runner.config.num_nextn_predict_layers

    def forget(self, sequence: Sequence) -> None:
        """Nothing is kept."""

    def propose(self, step: Step) -> list[list[int]]:
        """Guesses for each of `step.rows`."""
        guesses: list[list[int]] = [[] for _ in step.rows]
        front = self._first(step)
        if self.runner.guess(self.depth, front.batch(step), front.hidden_ND):
            for i in front.which.tolist():
                row, known = step.rows[i], step.length_R[step.rows[i]]
                guesses[i] = step.tokens_RT[row, known : known + self.depth].tolist()
            return guesses
        for j in range(self.depth if len(step.rows) else 0):
            if not len(front.which):
                break
            logits, hidden = self.runner.draft(min(j, self.layers - 1), front.batch(step), front.hidden_ND)
            guess = step.draw(logits, step.rows[front.which], j)
            for i, token in zip(front.which.tolist(), guess.tolist(), strict=True):
                guesses[i].append(token)
            if j + 1 < self.depth:
                further = self._further if j + 1 < self.layers else self._alone
                front = further(step, front, hidden.clone(), guess, j)
        return guesses

    def _first(self, step: Step) -> _Front:
        """All rows that stand, those of prompts too, for the cache; guesses follow the last of each sequence."""
        kept = step.kept_N.nonzero()[0]
        rows_N = step.batch.sequence_N[kept]
        last = np.searchsorted(rows_N, step.rows, side="right") - 1
        which = ((last >= 0) & (rows_N[last] == step.rows)).nonzero()[0] if len(rows_N) else last[:0]
        every = len(kept) == len(step.kept_N)
        hidden = step.result.hidden_ND if every else step.result.hidden_ND[torch.from_numpy(kept)]
        return _Front(step.next_N[kept], hidden, rows_N, step.batch.positions_N[kept], which, last[which])

    def _further(self, step: Step, front: _Front, hidden_ND: Tensor, guess: np.ndarray, j: int) -> _Front:
        """For the next layer: the same rows, and the token one further on, known or just guessed."""
        widest = step.tokens_RT.shape[1] - 1
        rows = step.rows[front.which]
        step.tokens_RT[rows, np.minimum(step.length_R[rows] + j, widest)] = guess
        ahead_N = np.minimum(np.minimum(front.at_N + j + 2, step.length_R[front.rows_N] + j), widest)
        tokens_N = step.tokens_RT[front.rows_N, ahead_N]
        return _Front(tokens_N, hidden_ND, front.rows_N, front.at_N, front.which, front.last)

    def _alone(self, step: Step, front: _Front, hidden_ND: Tensor, guess: np.ndarray, j: int) -> _Front:
        """Beyond the last layer: it goes on from its own output, one position on, if that is in the same block of the
        cache; the next block may not be this sequence's yet."""
        at = front.at_N[front.last] + 1
        stays = (at % BLOCK != 0).nonzero()[0]
        rows = front.rows_N[front.last][stays]
        hidden = hidden_ND[torch.from_numpy(front.last[stays])]
        return _Front(guess[stays], hidden, rows, at[stays], front.which[stays], np.arange(len(stays)))


class LookupDrafter(_Paced):
    """Guesses that what followed the last words the last time will follow them again (prompt lookup): good where a
    reply repeats its prompt, as in summaries, code edits and retrieved text; costs next to nothing elsewhere."""

    LONGEST, SHORTEST = 3, 2  # words looked for

    def __init__(self, pace: Pace | Constant) -> None:
        super().__init__(pace)
        self._seen: dict[int, tuple[int, dict[tuple[int, ...], int]]] = {}  # by sequence: how far, n-gram -> its end

    def forget(self, sequence: Sequence) -> None:
        """Drop a sequence's index."""
        self._seen.pop(id(sequence), None)

    def propose(self, step: Step) -> Sequences[Sequences[int]]:
        """Guesses for each of `step.rows`."""
        return [self._look(step, int(row), self.depth) for row in step.rows]

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
    """What `draft` asks for: nothing ("off" or 0), as many guesses as pay ("auto"), or so many at every step.

    Raises:
        UserError: something else.
    """
    if draft in ("off", 0):
        return None
    if draft != "auto" and (isinstance(draft, (str, bool)) or not 0 < draft <= MOST):
        raise UserError(f"draft is {draft!r}: it must be auto, off, or a number of guesses from 1 to {MOST}")
    if runner.config.num_nextn_predict_layers:
        return MTPDrafter(runner, Pace(MTP_DEPTH) if draft == "auto" else Constant(int(draft)))
    return LookupDrafter(Pace(LOOKUP_DEPTH) if draft == "auto" else Constant(int(draft)))
