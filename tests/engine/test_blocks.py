"""The block pool's books, and who may find whose blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogia.engine.blocks import BLOCK, BlockPool, extend_digests, root_digest
from kogia.errors import EngineError


def digest(i: int) -> bytes:
    return bytes([i]) * 32


def test_what_is_released_can_be_taken_again():
    pool = BlockPool(3)
    taken = [pool.take() for _ in range(3)]
    assert sorted(taken) == [0, 1, 2] and pool.available == 0
    with pytest.raises(EngineError, match="all 3 blocks"):
        pool.take()
    pool.release(taken[:2])
    assert pool.available == 2
    pool.check([taken[2:]])


def test_a_shared_block_is_free_when_its_last_user_has_left():
    pool = BlockPool(1)
    block = pool.take()
    pool.share(block)
    pool.release([block])
    assert pool.available == 0
    pool.release([block])
    assert pool.available == 1


def test_a_remembered_block_outlives_its_users_until_its_room_is_needed():
    pool = BlockPool(2)
    kept, other = pool.take(), pool.take()
    pool.remember(kept, digest(1))
    pool.release([kept])
    assert pool.find(digest(1)) == kept and pool.cached == 1
    pool.share(kept)
    assert pool.available == 0
    pool.release([kept])
    gone = []
    pool.on_evict = lambda block, d: gone.append((block, d))
    assert pool.take() == kept
    assert pool.find(digest(1)) is None and gone == [(kept, digest(1))]
    pool.check([[kept], [other]])


def test_the_least_recently_used_is_evicted_first_and_of_one_sequence_the_last_block():
    pool = BlockPool(4)
    first, second = [pool.take(), pool.take()], [pool.take(), pool.take()]
    for i, block in enumerate(first + second):
        pool.remember(block, digest(i))
    pool.release(first)
    pool.release(second)
    pool.share(first[0])  # used again, so the youngest now
    pool.release(first[:1])
    assert [pool.take() for _ in range(4)] == [first[1], second[1], second[0], first[0]]


def test_of_two_blocks_with_the_same_content_one_is_remembered():
    pool = BlockPool(2)
    a, b = pool.take(), pool.take()
    pool.remember(a, digest(1))
    pool.remember(b, digest(1))
    pool.release([a, b])
    assert pool.find(digest(1)) == a and pool.cached == 1 and pool.available == 2
    pool.check([])


@pytest.mark.parametrize("table", [[[0]], [[1], [0, 1]], [[0], [0]]], ids=str)
def test_wrong_books_are_noticed(table):
    pool = BlockPool(2)
    pool.take(), pool.take()
    with pytest.raises(EngineError, match="is counted 1 times and used"):
        pool.check([*table])


def test_a_lost_block_is_noticed():
    pool = BlockPool(2)
    pool._free.pop()
    with pytest.raises(EngineError, match=r"1 of 2 blocks"):
        pool.check_idle()
    with pytest.raises(EngineError, match=r"not all 2"):
        pool.check([])


@given(st.lists(st.tuples(st.sampled_from(["take", "share", "release", "remember"]), st.integers(0, 9)), max_size=60))
def test_the_books_always_add_up(moves):
    pool, held = BlockPool(5), []
    for move, i in moves:
        if move == "take" and pool.available:
            held.append(pool.take())
        elif move == "share":
            block = pool.find(digest(i))
            if block is not None:
                pool.share(block)
                held.append(block)
        elif move == "release" and held:
            pool.release([held.pop(i % len(held))])
        elif move == "remember" and held:
            pool.remember(held[i % len(held)], digest(i))
        pool.check([held])


def chain(tokens, salt="", version=0) -> list[bytes]:
    digests = []
    extend_digests(digests, root_digest(salt, version), np.array(tokens, dtype=np.int32), len(tokens) // BLOCK)
    return digests


def test_a_digest_stands_for_all_tokens_so_far_the_tenant_and_the_weights():
    tokens = list(range(48))
    assert chain(tokens) == chain(tokens) and len(set(chain(tokens))) == 3
    assert chain(tokens[:32] + [0] * 16)[:2] == chain(tokens)[:2]
    for other in (chain([1, *tokens[1:]]), chain(tokens, salt="a"), chain(tokens, version=1)):
        assert set(other).isdisjoint(chain(tokens))
    assert set(chain([0] * 48)).isdisjoint(chain([0] * 16)[1:]) and len(set(chain([0] * 48))) == 3
