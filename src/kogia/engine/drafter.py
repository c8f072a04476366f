"""Where guesses come from: the seam between the engine and whatever drafts tokens for it."""

from collections.abc import Callable
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from kogia.engine.batch import Batch, Result
from kogia.engine.request import Sequence


@dataclass
class Step:
    """What a step came to, for a drafter.

    batch, result: what was computed; `result` is valid until the runner's next call, so copy what must last.
    kept_N: which of the batch's rows stand (those of refused drafts do not); next_N: the token after each row that
    stands (the one at its position + 1). sequences: by number of `batch.sequence_N`. rows: the numbers of those that
    go on decoding; room: how many drafts each of them may have; tokens_RT: everybody's tokens, [row, position];
    length_R: how many of them are known. draw(logits, rows, ahead): tokens for those rows, `ahead` places after the
    next, drawn as the places' own tokens will be.
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
    draw: Callable[[Tensor, np.ndarray, int], np.ndarray]


class Drafter(Protocol):
    """Guesses the next tokens. A wrong guess costs time and never changes an answer."""

    def ready(self, rows: int, tokens: int, only_decoding: bool) -> bool:
        """Whether to guess after a step in which `rows` sequences got `tokens` tokens. only_decoding: nobody came or
        read a prompt in it, so that its time says what guessing costs."""

    def propose(self, step: Step) -> Sequences[Sequences[int]]:
        """Called after a step if `ready`: draft tokens for each of `step.rows`, in that order (an empty list: none)."""

    def forget(self, sequence: Sequence) -> None:
        """A sequence has left, or was preempted and will be computed anew: drop what is kept about it."""
