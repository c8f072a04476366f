"""Problems from reasoning-gym, worded in English and Korean, split into train and held-out by their content.

The numbers and the checker are reasoning-gym's; the wording, the names in the stories and the worked steps are ours.
"""

import functools
import hashlib
import random
import re
from dataclasses import dataclass
from typing import Any

import reasoning_gym

from kogia.errors import RecipeError

LANGUAGES = ("en", "ko")
LARGEST = 20

TASKS: dict[str, dict[str, Any]] = {
    "chain_sum": dict(min_terms=2, max_terms=4, min_digits=1, max_digits=1),
    "basic_arithmetic": dict(
        min_terms=2, max_terms=3, min_digits=1, max_digits=1, operators=["+", "-", "*"],
        allow_parentheses=False, allow_negation=False,
    ),
}  # fmt: skip

NAMES = {
    "en": ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry"),
    "ko": ("민수", "지영", "서준", "하은", "도윤", "수아", "지호", "예린"),
}
ITEMS = {
    "en": ("apples", "books", "coins", "pens", "cards", "eggs"),
    "ko": ("사과", "구슬", "동전", "연필", "카드", "달걀"),
}
PLAIN = {
    "en": ("Calculate {e}.", "What is {e}?", "Solve: {e}"),
    "ko": ("{e} 값을 구하세요.", "{e} 값은 얼마입니까?", "계산하세요: {e}"),
}


@dataclass(frozen=True)
class Problem:
    """One question. `answer` is the checker's own; `expression` the arithmetic it asks for."""

    task: str
    language: str
    question: str
    answer: str
    expression: str

    @property
    def key(self) -> str:
        """What makes two problems the same, whatever their wording or language."""
        return self.expression

    @property
    def held_out(self) -> bool:
        """Whether this problem is kept for measuring: decided by its content, so no seed can leak it."""
        return is_held_out(self.key)


def is_held_out(content: str, share: float = 0.1) -> bool:
    """A stable coin flip on the content: the same text falls on the same side in every run."""
    digest = hashlib.sha256(content.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


@functools.lru_cache
def _dataset(task: str, size: int, seed: int) -> Any:
    return reasoning_gym.create_dataset(task, size=size, seed=seed, **TASKS[task])


def draw(tasks: dict[str, float], count: int, seed: int, held_out: bool, languages: dict[str, float]) -> list[Problem]:
    """Draw problems at random, all from one side of the split.

    tasks: weight of each reasoning-gym task; languages: weight of each language ("en", "ko").

    Raises:
        RecipeError: a task or language this version has no wording and solver for.
    """
    for kind, given, known in (("task", tasks, tuple(TASKS)), ("language", languages, LANGUAGES)):
        for name in given:
            if name not in known:
                raise RecipeError(f"unknown {kind} {name!r}: there are {', '.join(known)}")
    rng = random.Random(f"{seed}:{held_out}")
    sources = {task: _dataset(task, 1 << 30, rng.randrange(1 << 30)) for task in tasks}
    problems: list[Problem] = []
    for _ in range(1000 * count + 1):
        if len(problems) == count:
            return problems
        task = rng.choices(list(tasks), list(tasks.values()))[0]
        entry = sources[task][rng.randrange(1 << 30)]
        language = rng.choices(list(languages), list(languages.values()))[0]
        problem = worded(task, entry, language, rng)
        if problem.held_out == held_out and is_in_reach(problem.expression) and agrees(problem):
            problems.append(problem)
    raise RecipeError(f"could not find {count} problems in {', '.join(tasks)}: too few exist on this side of the split")


def is_in_reach(expression: str) -> bool:
    """Whether a model of a few million parameters can learn to work this in minutes: every result on the way from 0
    to LARGEST. Negative totals and larger ones were right at 20 to 60% where these are at 96% (docs/LOG.md)."""
    return all(0 <= result <= LARGEST for result in totals(expression))


def agrees(problem: Problem) -> bool:
    """Whether reasoning-gym's answer is ours: it works "1 + 2 * 8" from left to right, which nobody should learn."""
    return problem.answer == str(totals(problem.expression)[-1])


def worded(task: str, entry: dict[str, Any], language: str, rng: random.Random) -> Problem:
    """Put a reasoning-gym entry into words: its arithmetic plainly, or as a little story with a name."""
    expression = entry["metadata"]["expression"]
    if task == "chain_sum" and rng.random() < 0.4:
        question = _story(expression, language, rng)
    elif language == "en" and rng.random() < 0.25:
        question = entry["question"]
    else:
        question = rng.choice(PLAIN[language]).format(e=expression)
    return Problem(task, language, question, str(entry["answer"]), expression)


def _story(expression: str, language: str, rng: random.Random) -> str:
    name, item = rng.choice(NAMES[language]), rng.choice(ITEMS[language])
    first, *rest = re.findall(r"([+-]?)\s*(\d+)", expression)
    if language == "en":
        moves = [f"gets {n} more" if sign == "+" else f"gives away {n}" for sign, n in rest]
        return f"{name} has {first[1]} {item}, {', then '.join(moves)}. How many {item} now?"
    moves = [f"{n}개를 받았습니다" if sign == "+" else f"{n}개를 주었습니다" for sign, n in rest]
    return f"{name}에게 {item} {first[1]}개가 있습니다. {'. '.join(moves)}. 지금 {item} 개수는 몇 개입니까?"


def steps(expression: str, slip: int = -1, error: int = 0) -> list[tuple[int, str, int, int]]:
    """Work an expression of +, - and * step by step: products first, then from left to right.

    slip: number of a step to miscalculate by `error`; what follows uses the wrong result.
    Returns (left, operator, right, result) for each step.
    """
    tokens: list[Any] = [int(t) if t.isdigit() else t for t in re.findall(r"\d+|[+*-]", expression)]
    worked: list[tuple[int, str, int, int]] = []
    while len(tokens) > 1:
        at = tokens.index("*") if "*" in tokens else 1
        left, operator, right = tokens[at - 1 : at + 2]
        result = {"+": left + right, "-": left - right, "*": left * right}[operator]
        if len(worked) == slip:
            result += error
        worked.append((left, operator, right, result))
        tokens[at - 1 : at + 2] = [result]
    return worked


def totals(expression: str) -> list[int]:
    """Every intermediate result of `steps`, the last one being the answer."""
    return [result for *_, result in steps(expression)]


def grade(problem: Problem, answer: str | None) -> bool:
    """Full marks or none, from the task's own checker on the extracted answer.

    reasoning-gym gives part of the marks to a text that merely contains the answer; only 1.0 counts here.
    """
    if answer is None:
        return False
    scorer = _dataset(problem.task, 1 << 30, 0)
    entry = {"question": problem.question, "answer": problem.answer, "metadata": {"expression": problem.expression}}
    return scorer.score_answer(answer.strip(), entry) == 1.0
