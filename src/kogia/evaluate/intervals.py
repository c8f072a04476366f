"""Confidence intervals that know that samples of one problem belong together."""

from collections.abc import Sequence

import numpy as np


def clustered_interval(scores: Sequence[Sequence[float]], level: float = 1.96) -> tuple[float, float, float]:
    """Mean over problems of the mean over samples, and its 95% interval clustered by problem.

    scores[i][j]: score of sample j of problem i, in [0, 1]. The standard error is that of the problem means, so more
    samples of the same problems do not pretend to be more problems. Returns (mean, low, high) within [0, 1].
    """
    means = np.array([float(np.mean(row)) for row in scores])
    mean = float(means.mean())
    if len(means) < 2:
        return mean, 0.0, 1.0
    half = level * float(means.std(ddof=1)) / len(means) ** 0.5
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)
