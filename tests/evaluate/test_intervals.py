"""Confidence intervals by hand and by what they promise."""

import numpy as np
import pytest

from kogia.evaluate.intervals import clustered_interval


def test_by_hand():
    """Problem means 1, 0.5, 0, 0.5: mean 0.5, sample variance 1/6, so they are worth 0.25 / (1/24) = 6 answers."""
    mean, low, high = clustered_interval([[1, 1], [1, 0], [0, 0], [0, 1]])
    half = 1.96 * (0.25 / 6 + 1.96**2 / 144) ** 0.5 / (1 + 1.96**2 / 6)
    assert (mean, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


@pytest.mark.parametrize(("score", "low", "high"), [(0, 0.0, 0.0370), (1, 0.9630, 1.0)])
def test_all_wrong_and_all_right_still_have_an_interval(score, low, high):
    """Wilson's interval for 0 and for 100 of 100, from the tables."""
    found = clustered_interval([[score] * 8] * 100)
    assert found == pytest.approx((score, low, high), abs=1e-4)


def test_more_samples_of_the_same_problems_are_not_more_problems():
    few = clustered_interval([[1], [0], [1], [1]])
    many = clustered_interval([[1] * 100, [0] * 100, [1] * 100, [1] * 100])
    assert few == pytest.approx(many)


def test_problems_weigh_the_same_however_many_samples_they_have():
    assert clustered_interval([[1, 1, 1, 1], [0]])[0] == 0.5


def test_it_stays_within_zero_and_one():
    assert 0.0 < clustered_interval([[1]] * 9 + [[0]])[1] < 0.9 < clustered_interval([[1]] * 9 + [[0]])[2] <= 1.0
    assert 0.0 <= clustered_interval([[0]] * 9 + [[1]])[1] < 0.1 < clustered_interval([[0]] * 9 + [[1]])[2] < 1.0


def test_one_problem_tells_nothing():
    assert clustered_interval([[1, 0, 1, 1]]) == (0.75, 0.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [(2.0, 2.0), (1.0, 4.0), (0.3, 0.3), (0.05, 2.0)])
def test_it_covers_the_truth_19_times_out_of_20(a, b):
    """Models whose skill differs from problem to problem: the interval of 200 problems, 8 samples each, holds the
    model's true accuracy in 93 to 97% of simulated measurements."""
    rng = np.random.default_rng(0)
    truth, runs, held = a / (a + b), 1500, 0
    for _ in range(runs):
        skill = rng.beta(a, b, 200)
        _, low, high = clustered_interval([[x] for x in rng.binomial(8, skill) / 8])
        held += low <= truth <= high
    assert 0.93 <= held / runs <= 0.97


def test_treating_samples_as_independent_would_not_cover():
    """The point of clustering: the naive interval is far too narrow when samples of a problem agree."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(500):
        samples = rng.random((50, 8)) < rng.beta(0.3, 0.3, 50)[:, None]
        mean = samples.mean()
        held += abs(mean - 0.5) <= 1.96 * (mean * (1 - mean) / samples.size) ** 0.5
    assert held / 500 < 0.8
