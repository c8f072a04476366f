"""Rejection sampling: many tries at each question, and only the best one kept."""

from collections.abc import Sequence

from kogia.engine.engine import Engine
from kogia.engine.request import Output
from kogia.reason.grpo import sample_groups
from kogia.reason.rewards import Reward
from kogia.tasks.problems import Problem


def keep_best(
    engine: Engine, problems: Sequence[Problem], tries: int, max_tokens: int, temperature: float, seed: int
) -> list[tuple[Problem, Output]]:
    """For each problem the shortest of the answers that are right, well formed and wholly in the question's
    language (arXiv 2501.12948, section 2.3.3); problems without such an answer are left out."""
    outputs, rewards = sample_groups(engine, problems, tries, max_tokens, temperature, seed)
    kept = []
    for i, problem in enumerate(problems):
        group = range(i * tries, (i + 1) * tries)
        flawless = [j for j in group if rewards[j] == Reward(1.0, 1.0, 1.0)]
        if flawless:
            kept.append((problem, outputs[min(flawless, key=lambda j: len(outputs[j].token_ids))]))
    return kept
