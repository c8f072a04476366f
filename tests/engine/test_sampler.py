"""From logits to tokens: the random numbers, the distribution, the nucleus."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kogia.engine.sampler import sample, uniforms


def draw(logits, temperature=1.0, top_p=1.0, n=20_000, seed=0):
    """n samples from one row of logits."""
    rows = torch.tensor(logits).expand(n, -1)
    u = uniforms(np.full(n, seed, dtype=np.int64), np.arange(n))
    return sample(rows, torch.full((n,), temperature), torch.full((n,), top_p), u)


# random numbers ------------------------------------------------------------------------------------------------------


def test_uniforms_depend_on_seed_and_position_alone():
    seeds, positions = np.arange(50), np.arange(50)[::-1].copy()
    u = uniforms(seeds, positions)
    assert u.dtype == torch.float64
    order = np.random.default_rng(0).permutation(50)
    assert torch.equal(uniforms(seeds[order], positions[order]), u[order])
    assert uniforms(seeds[7:8], positions[7:8]).item() == u[7].item()


@pytest.mark.parametrize("kind", ["positions of one seed", "first positions of many seeds"])
def test_uniforms_are_uniform(kind):
    n, bins = 100_000, 100
    many, one = np.arange(n), np.full(n, 3)
    u = uniforms(one, many) if kind.startswith("positions") else uniforms(many, one)
    assert float(u.min()) >= 0.0 and float(u.max()) < 1.0
    expected = n / bins
    chi_square = float(((torch.histc(u, bins, 0.0, 1.0) - expected) ** 2 / expected).sum())
    assert 55 < chi_square < 160  # 99 degrees of freedom: 99.98% of true uniforms
    neighbours = float(torch.corrcoef(torch.stack((u[1:], u[:-1])))[0, 1])
    assert abs(neighbours) < 5 / n**0.5


def test_seeds_do_not_overlap_in_their_streams():
    """Neighbouring seeds must not be shifted copies of each other."""
    streams = [uniforms(np.full(200, seed), np.arange(200)).tolist() for seed in range(50)]
    assert len({u for stream in streams for u in stream}) == 50 * 200


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31))
def test_any_64_bit_seed_is_a_seed(seed, position):
    u = uniforms(np.array([seed], dtype=np.int64), np.array([position]))
    assert 0.0 <= u.item() < 1.0


# tokens --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax(temperature):
    logits = [2.0, 0.0, -1.0, 1.0, -30.0]
    p = torch.softmax(torch.tensor(logits) / temperature, -1)
    tokens, logp = draw(logits, temperature)
    counts = torch.bincount(tokens, minlength=5)
    deviation = (counts / len(tokens) - p).abs() / (p * (1 - p) / len(tokens)).sqrt().clamp(min=1e-9)
    assert float(deviation[:4].max()) < 4.0 and counts[4] == 0
    torch.testing.assert_close(logp, p.log()[tokens])


def test_cumulative_inversion_by_hand():
    """p = (0.2, 0.5, 0.3): u below 0.2 is token 0, below 0.7 token 1."""
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(6, -1)
    u = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 1.0 - 2.0**-53], dtype=torch.float64)
    tokens, _ = sample(logits, torch.ones(6), torch.ones(6), u)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2]


def test_impossible_tokens_are_never_taken():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(3, -1)
    u = torch.tensor([0.0, 0.5, 1.0 - 2.0**-53], dtype=torch.float64)
    tokens, logp = sample(logits, torch.ones(3), torch.ones(3), u)
    assert tokens.tolist() == [1, 3, 3]
    assert logp.tolist() == pytest.approx([math.log(0.5)] * 3)


def test_temperature_zero_takes_the_most_likely_and_reports_it_at_one():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    for u in (0.0, 0.5, 0.999):
        token, logp = sample(logits, torch.zeros(1), torch.ones(1), torch.tensor([u], dtype=torch.float64))
        assert token.item() == 1
        assert logp.item() == pytest.approx(torch.log_softmax(logits, -1)[0, 1].item())


@pytest.mark.parametrize("temperature", [1e-2, 1e-4, 1e-8, 1e-37, 1e-40])
def test_hardly_any_temperature_is_as_good_as_none(temperature):
    """Dividing by it may leave the range of FP32; the answer must not."""
    tokens, logp = draw([1.0, 3.0, 2.0], temperature, n=20)
    assert tokens.tolist() == [1] * 20
    assert torch.isfinite(logp).all()


def test_hardly_any_nucleus_is_the_most_likely_token():
    for top_p in (1e-9, 1e-45):
        assert set(draw([1.0, 3.0, 2.9], top_p=top_p, n=200)[0].tolist()) == {1}


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.1, {1}),
        (0.5, {1}),
        (0.51, {1, 3}),
        (0.74, {1, 3}),
        (0.76, {1, 3, 0}),
        (0.91, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_nucleus_by_hand(top_p, kept):
    """p = (0.15, 0.5, 0.1, 0.25); the smallest set of likely tokens that reaches top_p."""
    tokens, logp = draw(torch.tensor([0.15, 0.5, 0.1, 0.25]).log().tolist(), top_p=top_p, n=2000)
    assert set(tokens.tolist()) == kept
    assert logp[tokens == 1][0].item() == pytest.approx(math.log(0.5))  # before the nucleus was cut out


def test_nucleus_keeps_the_proportions():
    tokens, _ = draw(torch.tensor([0.15, 0.5, 0.1, 0.25]).log().tolist(), top_p=0.7)
    assert float((tokens == 1).float().mean()) == pytest.approx(2 / 3, abs=0.015)


def test_rows_have_their_own_settings():
    logits = torch.tensor([[0.0, 1.0, 0.5]]).expand(3, -1)
    u = torch.full((3,), 0.01, dtype=torch.float64)
    tokens, _ = sample(logits, torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.3]), u)
    assert tokens.tolist() == [1, 0, 1]
