"""Drawing in C++ against its definition in engine/sampler.py."""

import numpy as np
import pytest
import torch

from kogia.engine.sampler import sample, uniforms
from kogia.kernels.native import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
SETTINGS = [  # temperature, top_p, top_k, min_p
    (0.0, 1.0, 0, 0.0), (1.0, 1.0, 0, 0.0), (0.3, 1.0, 0, 0.0), (2.0, 0.9, 0, 0.0), (1.0, 0.3, 0, 0.0),
    (1.0, 1.0, 7, 0.0), (0.7, 0.8, 20, 0.0), (1.0, 1.0, 0, 0.1), (1.0, 0.9, 30, 0.02), (1e-6, 0.5, 3, 0.0),
]  # fmt: skip


def draw(logits, settings, seeds, places, threads=1):
    from kogia.kernels.draw import Drawer

    count = len(seeds)
    t, p, k, m = settings
    floats = [np.full(count, x, dtype=np.float32) for x in (t, p, m)]
    drawer = Drawer(*floats, np.full(count, k, dtype=np.int64), np.asarray(seeds, dtype=np.int64))
    every = np.arange(count)
    return drawer.draw(logits, every, every, places, threads)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [5, 64, 777, 8192])
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_tokens_are_the_definitions(settings, size, scale):
    rows = 200
    logits = torch.randn(rows, size) * scale
    logits[:, 3] = -float("inf")
    seeds, places = np.arange(rows) * 7919, np.arange(rows)
    tokens, logprobs = draw(logits, settings, seeds, places)
    t, p, k, m = settings
    column = [torch.full((rows,), x) for x in (t, p)]
    expected, logp = sample(logits, *column, uniforms(seeds, places), torch.full((rows,), k), torch.full((rows,), m))
    same = tokens == expected.numpy()
    assert same.mean() >= 0.99, "a draw may fall on the other side of a rounding, hardly ever"
    np.testing.assert_allclose(logprobs[same], logp.numpy()[same], rtol=2e-5, atol=2e-5)
    assert (tokens != 3).all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_row_alone_is_the_row_among_others(settings):
    logits = torch.randn(40, 1000)
    seeds, places = np.arange(40), np.arange(40) * 3
    tokens, logprobs = draw(logits, settings, seeds, places, threads=3)
    for i in range(40):
        one, logp = draw(logits[i : i + 1], settings, seeds[i : i + 1], places[i : i + 1])
        assert one[0] == tokens[i] and logp[0] == logprobs[i]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 17, 36])
@pytest.mark.parametrize("settings", SETTINGS[:4], ids=str)
def test_broken_logits_show(bad, place, settings):
    logits = torch.randn(3, 37)
    logits[1, place] = bad
    _, logprobs = draw(logits, settings, np.arange(3), np.arange(3))
    assert np.isnan(logprobs).tolist() == [False, True, False]


def test_nothing_possible_shows():
    _, logprobs = draw(torch.full((1, 20), -float("inf")), SETTINGS[1], np.arange(1), np.arange(1))
    assert np.isnan(logprobs[0])


def test_frequencies_are_the_softmax():
    logits = torch.tensor([[2.0, 0.0, -1.0, 1.0, -30.0]]).expand(20_000, -1).contiguous()
    tokens, _ = draw(logits, (0.5, 1.0, 0, 0.0), np.zeros(20_000, dtype=np.int64), np.arange(20_000))
    p = torch.softmax(logits[0] / 0.5, -1).numpy()
    share = np.bincount(tokens, minlength=5) / 20_000
    assert (np.abs(share - p)[:4] < 4 * np.sqrt(p * (1 - p) / 20_000)[:4]).all() and share[4] == 0
