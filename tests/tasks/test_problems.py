"""Problems: their arithmetic, their wording, their split, their grading."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogia.errors import RecipeError
from kogia.tasks.problems import LARGEST, TASKS, Problem, draw, grade, is_held_out, is_in_reach, steps, totals

BOTH = {"chain_sum": 0.5, "basic_arithmetic": 0.5}
LANGUAGES = {"en": 0.5, "ko": 0.5}


@pytest.fixture(scope="module")
def train() -> list[Problem]:
    return draw(BOTH, 1500, 1, False, LANGUAGES)


@pytest.fixture(scope="module")
def held_out() -> list[Problem]:
    return draw(BOTH, 500, 2, True, LANGUAGES)


# arithmetic ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "worked"),
    [
        ("3 + 4", [(3, "+", 4, 7)]),
        ("3 - 4 - 5", [(3, "-", 4, -1), (-1, "-", 5, -6)]),
        ("2 + 3 * 4", [(3, "*", 4, 12), (2, "+", 12, 14)]),
        ("2 * 3 * 4 - 1", [(2, "*", 3, 6), (6, "*", 4, 24), (24, "-", 1, 23)]),
        ("1 - 2 * 3 + 10", [(2, "*", 3, 6), (1, "-", 6, -5), (-5, "+", 10, 5)]),
        ("12*10", [(12, "*", 10, 120)]),
    ],
)
def test_steps_by_hand(expression, worked):
    assert steps(expression) == worked
    assert totals(expression) == [result for *_, result in worked]


EXPRESSIONS = st.builds(
    lambda first, rest: str(first) + "".join(f" {op} {n}" for op, n in rest),
    st.integers(0, 999),
    st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 999)), min_size=1, max_size=6),
)


@given(EXPRESSIONS)
def test_the_last_step_is_what_python_says(expression):
    worked = steps(expression)
    assert totals(expression)[-1] == eval(expression)
    assert len(worked) == sum(expression.count(op) for op in "+-*")
    assert all(result == eval(f"({left}) {op} ({right})") for left, op, right, result in worked)


@given(EXPRESSIONS, st.integers(0, 5), st.sampled_from([-3, -1, 2]))
def test_a_slip_is_one_wrong_step_and_what_follows_from_it(expression, slip, error):
    worked = steps(expression, slip, error)
    right = steps(expression)
    assert len(worked) == len(right)
    for i, (left, op, other, result) in enumerate(worked):
        assert result == eval(f"({left}) {op} ({other})") + (error if i == slip else 0)
    assert worked[:slip] == right[:slip]


# drawing -------------------------------------------------------------------------------------------------------------


def test_the_answer_is_what_the_question_asks(train, held_out):
    """Products before sums, as every reader of "2 + 3 * 4" expects and as the worked solutions do it."""
    wrong = [(p.expression, p.answer) for p in train + held_out if int(p.answer) != eval(p.expression)]
    assert not wrong, f"{len(wrong)} of {len(train + held_out)} answers are wrong, such as {wrong[0]}"


def test_problems_are_on_the_side_asked_for(train, held_out):
    assert not any(p.held_out for p in train) and all(p.held_out for p in held_out)
    assert not {p.key for p in train} & {p.key for p in held_out}


def test_no_held_out_question_is_trained_on_under_another_tasks_name(train, held_out):
    """3 + 4 is the same question whether chain_sum or basic_arithmetic asks it."""
    shared = {p.expression for p in train} & {p.expression for p in held_out}
    assert not shared, f"{len(shared)} expressions are on both sides, such as {sorted(shared)[0]}"
    assert not {p.question for p in train} & {p.question for p in held_out}


def test_drawing_is_deterministic(train):
    assert draw(BOTH, 50, 7, False, LANGUAGES) == draw(BOTH, 50, 7, False, LANGUAGES)
    assert draw(BOTH, 50, 7, False, LANGUAGES) != draw(BOTH, 50, 8, False, LANGUAGES)
    assert draw(BOTH, 1500, 1, False, LANGUAGES)[:50] == train[:50] == draw(BOTH, 50, 1, False, LANGUAGES)


def test_weights_are_shares(train):
    assert 0.4 < sum(p.task == "chain_sum" for p in train) / len(train) < 0.6
    assert 0.45 < sum(p.language == "ko" for p in train) / len(train) < 0.55
    assert {p.language for p in draw(BOTH, 40, 1, False, {"ko": 1.0})} == {"ko"}
    assert {p.task for p in draw({"chain_sum": 1.0}, 40, 1, False, LANGUAGES)} == {"chain_sum"}
    assert {p.task for p in draw({"chain_sum": 1.0, "basic_arithmetic": 0.0}, 40, 1, False, LANGUAGES)} == {"chain_sum"}


def test_every_result_on_the_way_is_within_reach(train, held_out):
    assert all(0 <= result <= LARGEST for p in train + held_out for result in totals(p.expression))
    assert is_in_reach("10 + 10 - 20") and not is_in_reach("10 + 11 - 20") and not is_in_reach("1 - 2 + 5")


def test_drawing_nothing():
    assert draw(BOTH, 0, 1, False, LANGUAGES) == []


def test_about_a_tenth_is_held_out():
    shares = sum(is_held_out(f"chain_sum:{i} + {j}") for i in range(100) for j in range(100)) / 10_000
    assert 0.09 < shares < 0.11
    assert is_held_out("a", 1.0) and not is_held_out("a", 0.0)


@pytest.mark.parametrize(
    ("tasks", "languages", "named"),
    [
        ({"chain_sums": 1.0}, LANGUAGES, "unknown task 'chain_sums': there are chain_sum, basic_arithmetic"),
        (BOTH, {"fr": 1.0}, "unknown language 'fr': there are en, ko"),
        ({**BOTH, "sudoku": 0.0}, LANGUAGES, "unknown task 'sudoku'"),
    ],
    ids=str,
)
def test_unknown_names_are_answered_with_the_valid_ones(tasks, languages, named):
    with pytest.raises(RecipeError, match=named):
        draw(tasks, 1, 1, False, languages)


# wording -------------------------------------------------------------------------------------------------------------


def arithmetic(p: Problem) -> str:
    """The expression that a question's words mean, read without looking at `p.expression`."""
    if "How many" in p.question:
        moves = re.findall(r"gets (\d+) more|gives away (\d+)", p.question)
        first = re.search(r"has (\d+) ", p.question).group(1)
    elif "몇 개입니까" in p.question:
        moves = re.findall(r"(\d+)개를 받았습니다|(\d+)개를 주었습니다", p.question)
        first = re.search(r"(\d+)개가 있습니다", p.question).group(1)
    else:
        return re.search(r"\d[\d +*-]*\d", p.question).group().strip()
    return first + "".join(f" + {got}" if got else f" - {given}" for got, given in moves)


def test_every_wording_asks_for_its_expression(train, held_out):
    for p in train + held_out:
        assert arithmetic(p) == p.expression, p.question


def test_questions_are_in_their_language(train):
    for p in train:
        assert bool(re.search("[가-힣]", p.question)) == (p.language == "ko"), p.question


def test_stories_never_go_below_nothing(train):
    stories = [p for p in train if "How many" in p.question or "몇 개" in p.question]
    assert len(stories) > 100 and all(min(totals(p.expression)) >= 0 for p in stories)
    assert all(p.task == "chain_sum" for p in stories)


# grading -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("42", True),
        (" 42 ", True),
        ("\n42\n", True),
        ("The answer is 42", False),
        ("42 or 43", False),
        ("42 apples", False),
        ("4242", False),
        ("4 2", False),
        ("-42", False),
        ("43", False),
        ("", False),
        ("   ", False),
        ("nan", False),
        ("40 + 2", False),
        (None, False),
    ],
)
def test_full_marks_or_none(task, answer, right):
    assert grade(Problem(task, "en", "What is 40 + 2?", "42", "40 + 2"), answer) is right


@pytest.mark.parametrize("task", sorted(TASKS))
def test_negative_answers(task):
    problem = Problem(task, "en", "What is 2 - 5?", "-3", "2 - 5")
    assert grade(problem, "-3") and not grade(problem, "3") and not grade(problem, "-30")


@given(st.text(max_size=12))
def test_no_text_breaks_the_grader(answer):
    problem = Problem("chain_sum", "en", "What is 3 + 4?", "7", "3 + 4")
    assert grade(problem, answer) in (True, False)
    if not re.search(r"7", answer) and answer.isascii():
        assert not grade(problem, answer)
