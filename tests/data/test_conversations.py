"""Padded batches of conversations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogia.data.conversations import BLOCK, IGNORE, pad_batch


def test_by_hand():
    tokens, labels = pad_batch([[1, 2], [3]], [[4], [5, 6, 7]], pad=9)
    assert tokens.shape == labels.shape == (2, BLOCK + 1)
    assert tokens[:, :5].tolist() == [[1, 2, 4, 9, 9], [3, 5, 6, 7, 9]]
    assert labels[:, :5].tolist() == [[IGNORE, IGNORE, 4, IGNORE, IGNORE], [IGNORE, 5, 6, 7, IGNORE]]
    assert (tokens[:, 5:] == 9).all() and (labels[:, 5:] == IGNORE).all()


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("longest", [2, BLOCK, BLOCK + 1, BLOCK + 2, 3 * BLOCK])
def test_width_leaves_room_for_every_target(longest, extra):
    """Predicting from T positions takes T + 1 tokens, and one more for each MTP depth."""
    tokens, _ = pad_batch([[1]], [[2] * (longest - 1)], pad=0, extra=extra)
    predicting = tokens.shape[1] - 1 - extra
    assert predicting % BLOCK == 0 and longest - 1 <= predicting < longest - 1 + BLOCK


SEQUENCES = st.lists(st.integers(2, 50), min_size=1, max_size=20)


@given(st.lists(st.tuples(SEQUENCES, SEQUENCES), min_size=1, max_size=4))
def test_nothing_is_lost_and_only_replies_are_learned(rows):
    tokens, labels = pad_batch([p for p, _ in rows], [r for _, r in rows], pad=1)
    for row, label, (prompt, reply) in zip(tokens.tolist(), labels.tolist(), rows, strict=True):
        end = len(prompt) + len(reply)
        assert row[:end] == prompt + reply and set(row[end:]) <= {1}
        assert [x for x in label if x != IGNORE] == reply
        assert label[len(prompt) : end] == reply


def test_as_many_replies_as_prompts():
    with pytest.raises(ValueError, match="argument"):
        pad_batch([[1], [2]], [[3]], pad=0)
