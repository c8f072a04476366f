"""Where guesses come from: the seam between the engine and whatever drafts tokens for it."""

from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kogia.engine.batch import Batch, Result
from kogia.engine.request import Sequence


@dataclass
class Step:
    """What a step came to, for a drafter.

    batch, result: what was computed; `result` is valid until the runner's next call, so copy what must last.
    kept_N: which of the batch's rows stand (those of refused drafts do not); next_N: the token after each row that
    stands (the one at its position + 1). sequences: by number of `batch.sequence_N`. rows: the numbers of those that
    go on decoding; room: how many drafts each of them may have; tokens_RT: everybody's tokens, [row, position];
    length_R: how many of them are known. drafted, accepted: by row, how many drafts were verified and how many held.
    """

    batch: Batch
    result: Result
    kept_N: np.ndarray
    next_N: np.ndarray
    sequences: list[Sequence]
    rows: np.ndarray
    room: np.ndarray
    tokens_RT: np.ndarray
    length_R: np.ndarray
    drafted: np.ndarray
    accepted: np.ndarray


class Drafter(Protocol):
    """Guesses the next tokens. A wrong guess costs time and never changes an answer."""

    def propose(self, step: Step) -> Sequences[Sequences[int]]:
        """Called after every step: draft tokens for each of `step.rows`, in that order (an empty list: none)."""

    def forget(self, sequence: Sequence) -> None:
        """A sequence has left, or was preempted and will be computed anew: drop what is kept about it."""
