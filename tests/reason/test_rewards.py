"""Rewards on known texts."""

import pytest

from kogia.engine.request import Output
from kogia.reason.rewards import Reward, reward
from kogia.reason.select import keep_best
from kogia.tasks.problems import Problem

ENGLISH = Problem("chain_sum", "en", "What is 3 + 4?", "7", "3 + 4")
KOREAN = Problem("chain_sum", "ko", "3 + 4 값을 구하세요.", "7", "3 + 4")


def output(text: str, finish: str = "stop", tokens: int = 5) -> Output:
    return Output(1, [9] * tokens, [-1.0] * tokens, finish, text)


def good(answer: str = "7", thought: str = "First, 3 + 4 = 7.") -> str:
    return f"<think>\n{thought}\n</think>\n\nThe answer is \\boxed{{{answer}}}."


@pytest.mark.parametrize(
    ("problem", "text", "finish", "expected"),
    [
        (ENGLISH, good(), "stop", Reward(1.0, 1.0, 1.0)),
        (ENGLISH, good("8"), "stop", Reward(0.0, 1.0, 1.0)),
        (ENGLISH, good(), "length", Reward(1.0, 0.0, 1.0)),
        (KOREAN, good(), "stop", Reward(1.0, 1.0, 0.0)),
        (KOREAN, good(thought="먼저 3 + 4 = 7입니다."), "stop", Reward(1.0, 1.0, 1.0)),
        (KOREAN, good(thought="먼저 we add 그리고 끝"), "stop", Reward(1.0, 1.0, 0.6)),
        (ENGLISH, "The answer is \\boxed{7}.", "stop", Reward(1.0, 0.0, 0.0)),
        (ENGLISH, "<think>\nthe answer is \\boxed{7}", "length", Reward(0.0, 0.0, 1.0)),
        (ENGLISH, good("6 or 7"), "stop", Reward(0.0, 1.0, 1.0)),
        (ENGLISH, "The answer is 7.", "stop", Reward(0.0, 0.0, 0.0)),
        (ENGLISH, "", "stop", Reward(0.0, 0.0, 0.0)),
        (ENGLISH, good(thought="3 + 4 = 7"), "stop", Reward(1.0, 1.0, 0.0)),
    ],
)
def test_known_texts(problem, text, finish, expected):
    found = reward(problem, output(text, finish))
    assert vars(found) == pytest.approx(vars(expected))


def test_total_is_the_weighted_sum_of_the_parts_named():
    parts = Reward(accuracy=1.0, format=0.5, language=0.25)
    assert parts.total({"accuracy": 1.0, "format": 0.5, "language": 0.5}) == pytest.approx(1.375)
    assert parts.total({"accuracy": 2.0}) == 2.0
    assert parts.total({}) == 0.0


FLAWLESS, WRONG, FOREIGN, FORMLESS = Reward(1, 1, 1), Reward(0, 1, 1), Reward(1, 1, 0.9), Reward(1, 0, 1)


def test_keep_best_takes_the_shortest_flawless_answer_of_each_problem():
    rewards = [
        *(FLAWLESS, FLAWLESS, WRONG, FLAWLESS),
        *(WRONG, FOREIGN, FORMLESS, WRONG),
        *(WRONG, WRONG, WRONG, FLAWLESS),
    ]
    lengths = [9, 6, 2, 6, 1, 1, 1, 1, 1, 2, 3, 30]
    outputs = [output(str(i), tokens=n) for i, n in enumerate(lengths)]
    problems = [ENGLISH, KOREAN, ENGLISH]
    kept = keep_best(problems, outputs, rewards)
    assert [(p, o.text) for p, o in kept] == [(ENGLISH, "1"), (ENGLISH, "11")]
    assert keep_best([], [], []) == []
