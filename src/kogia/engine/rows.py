"""The running sequences in numpy tables, one row each, kept dense: when one leaves, the last row moves into its place.

Whatever is needed of every sequence at every step is here, so that a step is a few operations on whole columns.
"""

import numpy as np

from kogia.engine.batch import BLOCK
from kogia.engine.request import Sequence
from kogia.kernels.draw import Drawer
from kogia.kernels.native import why_not

NEVER = np.iinfo(np.int64).max


class Rows:
    """Columns (R: max_batch rows) and what they hold. `count` rows are in use, by `sequences` in that order.

    tokens_RT, logprobs_RT: by position, drafts after the known tokens; tables_RP: block of each BLOCK positions.
    length: known tokens, computed: those whose cache entries are there, draft: guesses after them, limit: where the
    reply ends at the latest, prompt: where it began, blocks: how many it holds, full: how many of them are remembered
    by digest. following: it waits for another to read the same prompt. shared: its last block may have other users.
    special: needs each of its tokens in turn, in Python. experts: wants to know its routed experts. told: when its last
    token came. `odd` of the rows are special, want experts, or have a top_k or min_p.
    """

    def __init__(self, max_batch: int, max_length: int) -> None:
        self.count = self.odd = 0
        self.sequences: list[Sequence] = []
        self.tokens_RT = np.zeros((max_batch, max_length), dtype=np.int32)
        self.logprobs_RT = np.zeros((max_batch, max_length), dtype=np.float32)
        self.tables_RP = np.zeros((max_batch, -(-max_length // BLOCK)), dtype=np.int32)
        ints = (
            "length",
            "computed",
            "draft",
            "limit",
            "prompt",
            "blocks",
            "full",
            "priority",
            "arrival",
            "seed",
            "top_k",
        )
        floats = ("temperature", "top_p", "min_p")
        flags = ("following", "shared", "special", "ignore_eos", "experts")
        self.length, self.computed, self.draft, self.limit, self.prompt, self.blocks, self.full, self.priority, \
            self.arrival, self.seed, self.top_k = (np.zeros(max_batch, dtype=np.int64) for _ in ints)  # fmt: skip
        self.temperature, self.top_p, self.min_p = (np.zeros(max_batch, dtype=np.float32) for _ in floats)
        self.following, self.shared, self.special, self.ignore_eos, self.experts = (
            np.zeros(max_batch, dtype=bool) for _ in flags
        )
        self.told = np.zeros(max_batch)  # when its last token came, seconds
        self.every, self.every32 = np.arange(max_batch), np.arange(max_batch, dtype=np.int32)
        self.none = np.zeros(max_batch, dtype=np.int64)
        columns = (self.temperature, self.top_p, self.min_p, self.top_k, self.seed)
        self.drawer = Drawer(*columns) if why_not() is None else None  # of tokens, by the C++ kernels
        self._columns = [getattr(self, name) for name in (*ints, *floats, *flags, "told")]

    def add(self, sequence: Sequence) -> int:
        """Give a sequence the next row, with its tokens and numbers and without blocks."""
        row, params = self.count, sequence.params
        sequence.row = row
        self.count += 1
        self.sequences.append(sequence)
        known, prompt = len(sequence.tokens), len(sequence.prompt)
        self.tokens_RT[row, :known] = sequence.tokens
        self.logprobs_RT[row, prompt:known] = sequence.logprobs
        self.length[row], self.prompt[row], self.limit[row] = known, prompt, sequence.limit
        self.computed[row] = self.draft[row] = self.blocks[row] = self.full[row] = 0
        self.priority[row], self.arrival[row], self.seed[row] = sequence.priority, sequence.arrival, sequence.seed
        self.temperature[row], self.top_p[row] = params.temperature, params.top_p
        self.top_k[row], self.min_p[row], self.ignore_eos[row] = params.top_k, params.min_p, params.ignore_eos
        self.special[row], self.experts[row] = sequence.reply is not None, params.routed_experts
        self.following[row] = self.shared[row] = False
        self.odd += self._is_odd(row)
        self.told[row] = sequence.told
        return row

    def clear(self) -> None:
        """Take everybody out."""
        self.tables_RP[: self.count] = 0
        self.count = self.odd = 0
        self.sequences.clear()

    def table(self, row: int) -> list[int]:
        """The blocks of a row."""
        return self.tables_RP[row, : self.blocks[row]].tolist()

    def known(self, row: int) -> np.ndarray:
        """Prompt and reply of a row so far: a view."""
        return self.tokens_RT[row, : self.length[row]]

    def remove(self, row: int) -> None:
        """Take a sequence out, its tokens with it."""
        sequence, last = self.sequences[row], self.count - 1
        sequence.tokens = self.known(row).copy()
        sequence.logprobs = self.logprobs_RT[row, self.prompt[row] : self.length[row]].copy()
        sequence.told = float(self.told[row])
        sequence.row = -1
        self.odd -= self._is_odd(row)
        if row != last:
            self._move(last, row)
        self.tables_RP[last] = 0
        self.sequences.pop()
        self.count = last

    def _is_odd(self, row: int) -> bool:
        return bool(self.special[row] or self.experts[row] or self.top_k[row] or self.min_p[row])

    def _move(self, source: int, target: int) -> None:
        used, start = self.length[source] + self.draft[source], self.prompt[source]
        self.tokens_RT[target, :used] = self.tokens_RT[source, :used]
        self.logprobs_RT[target, start:used] = self.logprobs_RT[source, start:used]
        self.tables_RP[target] = self.tables_RP[source]
        for column in self._columns:
            column[target] = column[source]
        self.sequences[target] = self.sequences[source]
        self.sequences[target].row = target
