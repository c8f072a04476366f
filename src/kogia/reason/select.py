"""Rejection sampling: many tries at each question, and only the best one kept."""

from collections.abc import Sequence

from kogia.engine.request import Output
from kogia.reason.rewards import Reward
from kogia.tasks.problems import Problem

FLAWLESS = Reward(accuracy=1.0, format=1.0, language=1.0)


def keep_best(
    problems: Sequence[Problem], outputs: Sequence[Output], rewards: Sequence[Reward]
) -> list[tuple[Problem, Output]]:
    """For each problem the shortest of the answers that are right, well formed and wholly in the question's
    language (arXiv 2501.12948, section 2.3.3); problems without such an answer are left out.

    outputs, rewards: equally many for each problem, in the order of the problems.
    """
    tries = len(outputs) // max(len(problems), 1)
    kept = []
    for i, problem in enumerate(problems):
        flawless = [j for j in range(i * tries, (i + 1) * tries) if rewards[j] == FLAWLESS]
        if flawless:
            kept.append((problem, outputs[min(flawless, key=lambda j: len(outputs[j].token_ids))]))
    return kept
