"""Who computes how many tokens in the next step.

One rule: a step has a budget of tokens. Running sequences come first, and each gets what it lacks: the tokens it knows
less those it has computed, which is one when it decodes and many while its prompt is being read. Then waiting ones
join, in order of (priority, arrival), while budget, rows and blocks last. A prompt that does not fit the budget is
read in chunks. When a running sequence needs a block and none is left, the last one in order gives its blocks back
and waits again; its tokens are kept and computed anew.
"""

import heapq
from collections.abc import Callable

import numpy as np

from kogia.engine.batch import BLOCK
from kogia.engine.blocks import BlockPool, extend_digests, root_digest
from kogia.engine.request import Sequence
from kogia.engine.rows import Rows

Key = tuple[tuple[int, ...], str, bool]


class Scheduler:
    """The waiting line, the running rows and their blocks.

    copy_block(source, target) copies a block's content; forget(sequence) hears of each sequence that was preempted;
    holds(digest) says whether a block lies somewhere beyond the pool, and restore(digest, block) fetches it from there.
    """

    def __init__(self, rows: Rows, pool: BlockPool, max_batch: int, budget: int, prefix_cache: bool) -> None:
        self.rows, self.pool, self.max_batch, self.budget = rows, pool, max_batch, budget
        self.prefix_cache = prefix_cache
        self.copy_block: Callable[[int, int], None] = lambda source, target: None
        self.forget: Callable[[Sequence], None] = lambda sequence: None
        self.holds: Callable[[bytes], bool] = lambda digest: False
        self.restore: Callable[[bytes, int], bool] = lambda digest, block: False
        self.version, self.key = 0, b""  # of the weights; of what computes
        self.preemptions = self.queried = self.hits = 0
        self._waiting: list[tuple[int, int, Sequence]] = []  # a heap
        self._reading: dict[Key, Sequence] = {}  # who reads which prompt
        self._lacking = 0  # tokens that the running ones lacked in this step
        self._sharing = False  # whether any row may share its last block
        self.steady = False

    @property
    def waiting(self) -> int:
        """Sequences in the line."""
        return len(self._waiting)

    def clear(self) -> None:
        """Forget everybody and everything that is cached; `rows` must be cleared, too."""
        self._waiting.clear()
        self._reading.clear()
        evict, self.pool = self.pool.on_evict, BlockPool(self.pool.total)
        self.pool.on_evict = evict

    def push(self, sequence: Sequence) -> None:
        """Into the line."""
        heapq.heappush(self._waiting, (sequence.priority, sequence.arrival, sequence))

    def abort(self, id: int) -> list[Sequence]:
        """Take a request out, wherever it is; its blocks are free at once. Returns its sequences."""
        gone = [s for _, _, s in self._waiting if s.id == id]
        if gone:
            self._waiting = [entry for entry in self._waiting if entry[2].id != id]
            heapq.heapify(self._waiting)
        running = [s for s in self.rows.sequences if s.id == id]
        for sequence in sorted(running, key=lambda s: s.order, reverse=True):  # those who follow before who is followed
            self.leave(sequence)
        return gone + running

    def schedule(self) -> np.ndarray:
        """How many tokens each row computes in this step; all their blocks are there. Sets `steady`: every row gets
        its one next token and nothing else happens, which is what most steps are."""
        counts = self._shares()
        if self._sharing or self._short(counts).any():
            while self._missing(counts) > self.pool.available:
                self._make_room()
                counts = self._shares()
            self._grow(counts)
        if self._waiting:
            counts = self._admit(counts)
        self.steady = not self._reading and len(counts) == int(np.add.reduce(counts)) == self._lacking
        return counts

    def leave(self, sequence: Sequence) -> None:
        """Take a running sequence out: its blocks are free; who waited for it to read their prompt waits in line."""
        self._stop_reading(sequence)
        for follower in list(sequence.followers):
            self._back(follower)
        if sequence.leader:
            sequence.leader.followers.remove(sequence)
            sequence.leader = None
        self.pool.release(self.rows.table(sequence.row))
        self.rows.remove(sequence.row)

    def preempt_all(self) -> None:
        """Send everybody back into the line: what they have computed is worth nothing."""
        for sequence in sorted(self.rows.sequences, key=lambda s: s.order, reverse=True):
            if sequence.row >= 0:
                self._back(sequence)

    def fork(self) -> list[tuple[int, int]]:
        """Where a prompt has been read, its followers go on from it, over the same blocks. Returns (row of who read,
        row of who followed)."""
        rows, pairs = self.rows, []
        for leader in [s for s in self._reading.values() if rows.computed[s.row] >= rows.length[s.row]]:
            self._stop_reading(leader)
            for sequence in leader.followers:
                self._share(leader.row, sequence.row)
                sequence.leader, sequence.digests, sequence.version = None, leader.digests[:], leader.version
                sequence.experts = leader.experts[:]
                pairs.append((leader.row, sequence.row))
            leader.followers = []
        return pairs

    def remember(self) -> None:
        """Note the content of blocks that have become full, so that others can find them."""
        rows = self.rows
        new = rows.computed[: rows.count] // BLOCK > rows.full[: rows.count]
        if not self.prefix_cache or not new.any():
            return
        for row in new.nonzero()[0].tolist():
            sequence = rows.sequences[row]
            if sequence.finish == "error":
                continue
            full = int(rows.computed[row]) // BLOCK
            digests = self._digests(sequence, rows.known(row), full)
            for i in range(int(rows.full[row]), full):
                self.pool.remember(int(rows.tables_RP[row, i]), digests[i])
            rows.full[row] = full

    def check(self) -> None:
        """Verify the block pool's books: all of them.

        Raises:
            EngineError: they do not add up.
        """
        self.pool.check(self.rows.table(row) for row in range(self.rows.count))

    # running ----------------------------------------------------------------------------------------------------------

    def _shares(self) -> np.ndarray:
        """What each row gets. If not all get what they lack: those that decode first, then in order."""
        rows, n = self.rows, self.rows.count
        lacks = rows.length[:n] - rows.computed[:n] + rows.draft[:n]
        if self._reading:
            lacks[rows.following[:n]] = 0
        self._lacking = int(np.add.reduce(lacks))
        if self._lacking <= self.budget:
            return lacks
        reads = rows.length[:n] - rows.computed[:n] > 1
        order = np.lexsort((rows.arrival[:n], rows.priority[:n], reads))
        before = np.cumsum(lacks[order]) - lacks[order]
        counts = np.zeros_like(lacks)
        counts[order] = np.clip(self.budget - before, 0, lacks[order])
        return counts

    def _short(self, counts: np.ndarray) -> np.ndarray:
        """Which rows need another block for a step."""
        rows, n = self.rows, self.rows.count
        return rows.computed[:n] + counts > rows.blocks[:n] * BLOCK

    def _missing(self, counts: np.ndarray) -> int:
        """Blocks that must be taken for a step."""
        rows, n, short = self.rows, self.rows.count, self._short(counts)
        missing = -((rows.computed[:n] + counts) // -BLOCK) - rows.blocks[:n]
        return int(missing[short].sum()) + len(self._to_copy(counts))

    def _to_copy(self, counts: np.ndarray) -> list[int]:
        """Rows that are about to write into a block that others use, too."""
        rows, n = self.rows, self.rows.count
        if not self._sharing:
            return []
        writing = np.flatnonzero(rows.shared[:n] & (counts > 0))
        users = [self.pool.references[rows.tables_RP[r, rows.computed[r] // BLOCK]] for r in writing.tolist()]
        rows.shared[writing] = np.array(users, dtype=np.int64) > 1
        self._sharing = bool(rows.shared[:n].any())
        return writing[rows.shared[writing]].tolist()

    def _make_room(self) -> None:
        """Give up the drafts; where there are none, send the last sequence in order back into the line."""
        rows, n = self.rows, self.rows.count
        if rows.draft[:n].any():
            rows.draft[:n] = 0
            return
        worst = max((s for s in rows.sequences if rows.blocks[s.row]), key=lambda s: s.order)
        self.preemptions += 1
        self._back(worst)

    def _back(self, sequence: Sequence) -> None:
        self.leave(sequence)
        sequence.experts.clear()
        self.forget(sequence)
        self.push(sequence)

    def _grow(self, counts: np.ndarray) -> None:
        """Take the blocks that the step needs."""
        for row in self._to_copy(counts):
            self._copy(row)
        for row in self._short(counts).nonzero()[0].tolist():
            self._take(row, -(int(self.rows.computed[row] + counts[row]) // -BLOCK))

    def _take(self, row: int, blocks: int) -> None:
        rows = self.rows
        for i in range(int(rows.blocks[row]), blocks):
            rows.tables_RP[row, i] = self.pool.take()
        rows.blocks[row] = blocks

    def _copy(self, row: int) -> None:
        """Copy on write; the last user of the block keeps it."""
        rows, at = self.rows, int(self.rows.computed[row]) // BLOCK
        old = int(rows.tables_RP[row, at])
        rows.shared[row] = False
        if self.pool.references[old] > 1:
            new = self.pool.take()
            self.copy_block(old, new)
            self.pool.release([old])
            rows.tables_RP[row, at] = new

    def _share(self, source: int, target: int) -> None:
        rows = self.rows
        held = int(rows.blocks[source])
        for block in rows.table(source):
            self.pool.share(block)
        rows.tables_RP[target, :held] = rows.tables_RP[source, :held]
        rows.blocks[target], rows.full[target] = held, rows.full[source]
        rows.computed[target] = rows.length[target]
        rows.following[target] = False
        self._sharing = True
        rows.shared[source] = rows.shared[target] = bool(rows.length[target] % BLOCK)

    # waiting ----------------------------------------------------------------------------------------------------------

    def _admit(self, counts: np.ndarray) -> np.ndarray:
        """Let waiting sequences join; returns the counts with theirs."""
        left, new = self.budget - int(counts.sum()), []
        while self._waiting and self.rows.count < self.max_batch:
            sequence = self._waiting[0][2]
            leader = self._reading.get(self._key(sequence)) if len(sequence.tokens) == len(sequence.prompt) else None
            if leader:
                self._follow(leader, sequence)
            elif left <= 0 or not self._start(sequence):
                break
            heapq.heappop(self._waiting)
            row = sequence.row
            new.append(0 if leader else min(left, int(self.rows.length[row] - self.rows.computed[row])))
            left -= new[-1]
        return np.concatenate((counts, np.array(new, dtype=np.int64))) if new else counts

    def _follow(self, leader: Sequence, sequence: Sequence) -> None:
        self.rows.following[self.rows.add(sequence)] = True
        sequence.leader = leader
        leader.followers.append(sequence)
        if sequence.cached_tokens < 0:
            sequence.cached_tokens = len(sequence.prompt)

    def _start(self, sequence: Sequence) -> bool:
        """Give a sequence a row and blocks for all the tokens it knows, if there is room for them.

        While others run, a block for each of them stays free, so that the newcomer is not sent back at once."""
        known = len(sequence.tokens)
        found = self._find(sequence, known)
        if (known + BLOCK) // BLOCK - len(found) + self.rows.count > self.pool.available:
            self.pool.release(found)
            return False
        self._settle(sequence, found, known)
        return True

    def _settle(self, sequence: Sequence, found: list[int], known: int) -> None:
        rows, row = self.rows, self.rows.add(sequence)
        rows.tables_RP[row, : len(found)] = found
        rows.blocks[row] = rows.full[row] = len(found)
        rows.computed[row] = len(found) * BLOCK
        self._take(row, -(-known // BLOCK))
        if known == len(sequence.prompt):
            self._reading[self._key(sequence)] = sequence
        if sequence.cached_tokens < 0:
            sequence.cached_tokens = len(found) * BLOCK
            self.queried += known
            self.hits += sequence.cached_tokens

    def _find(self, sequence: Sequence, known: int) -> list[int]:
        """Blocks that hold the beginning of a sequence already, now used by it too: whole ones, and never all of it,
        since the logits of the last token are wanted. What was computed before cannot tell its experts."""
        if not self.prefix_cache or sequence.params.routed_experts:
            return []
        found = []
        for digest in self._digests(sequence, sequence.tokens, (known - 1) // BLOCK)[: (known - 1) // BLOCK]:
            block = self.pool.find(digest)
            if block is not None:
                self.pool.share(block)
            else:
                block = self._fetch(digest)
            if block is None:
                break
            found.append(block)
        return found

    def _fetch(self, digest: bytes) -> int | None:
        """A block from beyond the pool, now in use and remembered."""
        if not self.pool.available or not self.holds(digest):
            return None
        block = self.pool.take()
        if not self.restore(digest, block):
            self.pool.release([block])
            return None
        self.pool.remember(block, digest)
        return block

    def _digests(self, sequence: Sequence, tokens: np.ndarray, count: int) -> list[bytes]:
        if sequence.version != self.version:
            sequence.digests.clear()
            sequence.version = self.version
        if len(sequence.digests) < count:
            extend_digests(sequence.digests, root_digest(sequence.salt, self.version, self.key), tokens, count)
        return sequence.digests

    def _key(self, sequence: Sequence) -> Key:
        return sequence.prompt, sequence.salt, sequence.params.routed_experts

    def _stop_reading(self, sequence: Sequence) -> None:
        if self._reading.get(key := self._key(sequence)) is sequence:
            del self._reading[key]
