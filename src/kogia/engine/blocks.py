"""Which block of the cache belongs to whom, and which of the unused ones are worth keeping.

A block is free, used (by one or more sequences), or cached: full, used by nobody, its content known by a digest, kept
until its room is needed. Who needs a block takes a free one, or else the cached one that was used longest ago.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kogia.engine.batch import BLOCK
from kogia.errors import EngineError


def root_digest(salt: str, version: int, key: bytes = b"") -> bytes:
    """What a chain of digests begins with: another tenant, another weight version or another key (of what is computed
    with, where blocks outlive the process) has another chain."""
    start = len(key).to_bytes(8, "little") + key + version.to_bytes(8, "little")
    return hashlib.sha256(start + salt.encode("utf-8", "surrogatepass")).digest()


def block_digest(parent: bytes, tokens: np.ndarray) -> bytes:
    """Digest of a full block: of its BLOCK tokens (int32) and of all before it."""
    return hashlib.sha256(parent + tokens.tobytes()).digest()


def extend_digests(digests: list[bytes], root: bytes, tokens: np.ndarray, count: int) -> None:
    """Let `digests` cover the first `count` blocks of `tokens` (int32)."""
    for i in range(len(digests), count):
        digests.append(block_digest(digests[-1] if digests else root, tokens[i * BLOCK : (i + 1) * BLOCK]))


class BlockPool:
    """All blocks of a cache. `on_evict(block, digest)` is called before a cached block's content is given up."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.references = [0] * total
        self.on_evict: Callable[[int, bytes], None] | None = None
        self._free = list(range(total - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._digest: dict[int, bytes] = {}
        self._by_digest: dict[bytes, int] = {}

    @property
    def available(self) -> int:
        """Blocks that can be taken."""
        return len(self._free) + len(self._cached)

    @property
    def cached(self) -> int:
        """Blocks that nobody uses and whose content is known."""
        return len(self._cached)

    def take(self) -> int:
        """A block with one user; evicts where none is free.

        Raises:
            EngineError: none is available.
        """
        if self._free:
            block = self._free.pop()
        elif self._cached:
            block, _ = self._cached.popitem(last=False)
            digest = self._digest.pop(block)
            del self._by_digest[digest]
            if self.on_evict:
                self.on_evict(block, digest)
        else:
            raise EngineError(f"all {self.total} blocks of the cache are in use")
        self.references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more user of a used or cached block."""
        if self.references[block] == 0:
            del self._cached[block]
        self.references[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One user less of each of a sequence's blocks, given first to last: the last are evicted first."""
        for block in reversed(list(blocks)):
            self.references[block] -= 1
            if self.references[block] == 0:
                if block in self._digest:
                    self._cached[block] = None
                else:
                    self._free.append(block)

    def remember(self, block: int, digest: bytes) -> None:
        """A used block is full, and this is its content. Of two blocks with the same content one is remembered."""
        if digest not in self._by_digest and block not in self._digest:
            self._digest[block] = digest
            self._by_digest[digest] = block

    def find(self, digest: bytes) -> int | None:
        """The block with that content, to be shared; None: there is none."""
        return self._by_digest.get(digest)

    def check_idle(self) -> None:
        """Verify, in no time, that no block is lost while nobody uses any.

        Raises:
            EngineError: some are.
        """
        if self.available != self.total:
            raise EngineError(f"nothing runs, but only {self.available} of {self.total} blocks are free or cached")

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Verify the books against the blocks of every live sequence.

        Raises:
            EngineError: a block lost, or counted wrongly.
        """
        users = Counter(block for table in tables for block in table)
        wrong = [block for block, n in enumerate(self.references) if n != users.get(block, 0)]
        if wrong:
            block = wrong[0]
            raise EngineError(
                f"block {block} of the cache is counted {self.references[block]} times and used {users.get(block, 0)}"
            )
        used = len(users)
        if len(self._free) + len(self._cached) + used != self.total or not self._books_agree():
            raise EngineError(
                f"{len(self._free)} free + {len(self._cached)} cached + {used} used blocks are not all {self.total}"
            )

    def _books_agree(self) -> bool:
        idle = set(self._free) | self._cached.keys()
        known = all(self._by_digest[digest] == block for block, digest in self._digest.items())
        return (
            len(idle) == len(self._free) + len(self._cached)
            and not any(self.references[block] for block in idle)
            and known
            and self._cached.keys() <= self._digest.keys()
            and self._digest.keys().isdisjoint(self._free)
            and len(self._digest) == len(self._by_digest)
        )
