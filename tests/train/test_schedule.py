"""Learning rates at points computed by hand."""

import pytest

from kogia.train.schedule import cosine_schedule, v3_schedule

LOWEST = 7.3 / 220


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 1 / 2000),  # warm-up over 2000 steps
        (999, 0.5),
        (1999, 1.0),
        (2000, 1.0),
        (9_999_999, 1.0),  # constant to 10 of 14.8
        (10_000_000, 1.0),  # the cosine starts at its top
        (11_075_000, 0.1 + 0.9 * 0.5 * (1 + 0.5**0.5)),  # a quarter down
        (12_150_000, 0.55),  # half way between 10 and 14.3
        (14_299_999, 0.1),
        (14_300_000, 0.1),
        (14_632_999, 0.1),
        (14_633_001, LOWEST),
        (14_799_999, LOWEST),
    ],
)
def test_v3_by_hand(step, share):
    """One step for every million of V3's 14.8 T tokens."""
    assert v3_schedule(step, 14_800_000, 2000) == pytest.approx(share, abs=1e-6)


def test_v3s_published_rates():
    """2.2e-4 at the peak, 2.2e-5 after the cosine, 7.3e-6 at the end."""
    rates = [2.2e-4 * v3_schedule(step, 1480, 0) for step in (500, 1440, 1479)]
    assert rates == pytest.approx([2.2e-4, 2.2e-5, 7.3e-6])


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.25), (3, 1.0), (4, 1.0), (29, 0.1 + 0.45 * (1 + 0.5**0.5)), (54, 0.55), (104, 0.1)]
)
def test_cosine_by_hand(step, share):
    assert cosine_schedule(step, 104, 4) == pytest.approx(share)


@pytest.mark.parametrize("schedule", [v3_schedule, cosine_schedule])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 5), (10, 0), (10, 10), (100, 7)])
def test_always_between_zero_and_one_and_never_up_after_the_warm_up(schedule, steps, warmup):
    shares = [schedule(step, steps, warmup) for step in range(steps)]
    assert all(0.0 < share <= 1.0 for share in shares)
    after = shares[warmup:]
    assert after == sorted(after, reverse=True)
    assert shares[:warmup] == sorted(shares[:warmup])
