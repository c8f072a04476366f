"""Penalties: by hand, and against transformers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kogia.engine.penalties import Penalties


def adjusted(logits, reply=(), prompt=(), **settings):
    penalties = Penalties(prompt, **settings)
    for token in reply:
        penalties.accept(token)
    out = torch.tensor(logits)
    penalties.adjust(out)
    return out.tolist()


def test_presence_counts_a_token_of_the_reply_once():
    assert adjusted([1.0, 1.0, 1.0], [2, 2, 0], [1], presence=0.5) == [0.5, 1.0, 0.5]


def test_frequency_counts_every_time():
    assert adjusted([1.0, 1.0, 1.0], [2, 2, 0], [1], frequency=0.5) == [0.5, 1.0, 0.0]


def test_both_may_be_negative():
    assert adjusted([1.0, 1.0], [1, 1], presence=-1.0, frequency=-0.5) == [1.0, 3.0]


def test_repetition_looks_at_prompt_and_reply():
    assert adjusted([4.0, -4.0, 4.0, 0.0], [0, 0], [1], repetition=2.0) == [2.0, -8.0, 4.0, 0.0]


def test_bias_comes_last_and_weighs_what_it_says():
    assert adjusted([4.0, -1.0], [0], repetition=2.0, presence=1.0, bias={0: 10.0, 1: -100.0}) == [11.0, -101.0]


def test_impossible_stays_impossible():
    assert adjusted([-torch.inf, 0.0], [0], presence=-2.0, frequency=-2.0, repetition=0.5)[0] == -torch.inf


def test_applying_twice_is_applying_to_two_rows():
    """The object counts what was accepted, not how often it was asked."""
    penalties = Penalties([1], frequency=1.0, repetition=2.0)
    penalties.accept(0)
    first, second = torch.ones(3), torch.ones(3)
    penalties.adjust(first)
    penalties.adjust(second)
    assert first.equal(second)


@given(st.lists(st.integers(0, 30), min_size=1), st.lists(st.integers(0, 30)), st.sampled_from([0.5, 1.1, 2.0]))
def test_repetition_is_that_of_transformers(prompt, reply, repetition):
    transformers = pytest.importorskip("transformers")
    logits = torch.randn(1, 31)
    theirs = transformers.RepetitionPenaltyLogitsProcessor(repetition)(torch.tensor([prompt + reply]), logits.clone())
    assert adjusted(logits[0].tolist(), reply, prompt, repetition=repetition) == theirs[0].tolist()
