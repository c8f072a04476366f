"""Rewards by rule: right answer, R1's form, and thinking in the language of the question."""

from dataclasses import dataclass

from kogia.engine.request import Output
from kogia.tasks.language import language_share
from kogia.tasks.problems import Problem, grade
from kogia.text.parsers import boxed, is_well_formed, split_reply


@dataclass(frozen=True)
class Reward:
    """The parts of one answer's reward, each from 0 to 1."""

    accuracy: float
    format: float
    language: float

    def total(self, weights: dict[str, float]) -> float:
        """Weighted sum of the parts."""
        return sum(weight * getattr(self, part) for part, weight in weights.items())


def reward(problem: Problem, output: Output) -> Reward:
    """Judge one answer. Nobody rates it and no model does: the task's own checker sees the boxed answer, the form
    must be kept and ended, and the language is that of the words in the thinking."""
    reply = split_reply(output.text)
    return Reward(
        accuracy=float(grade(problem, boxed(reply.content))),
        format=float(output.finish_reason == "stop" and is_well_formed(output.text)),
        language=language_share(reply.reasoning or "", problem.language),
    )
