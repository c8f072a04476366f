"""The share of words in a language."""

import unicodedata

import pytest

from kogia.tasks.language import language_share


@pytest.mark.parametrize(
    ("text", "english", "korean"),
    [
        ("First, we add three and four.", 1.0, 0.0),
        ("먼저 셋과 넷을 더합니다.", 0.0, 1.0),
        ("먼저 add 그리고 subtract", 0.5, 0.5),
        ("하나 둘 셋 four", 0.25, 0.75),
        ("naïve café Ærøskøbing", 1.0, 0.0),
        ("don't", 1.0, 0.0),
        ("API를", 0.5, 0.5),  # letters of two scripts in one run are two words
        ("ㅋㅋㅋ ㅠㅠ", 0.0, 1.0),
        (unicodedata.normalize("NFD", "한국어 문장"), 0.0, 1.0),
        ("First, 3 + 4 = 7.", 1.0, 0.0),
        ("먼저 3 + 4 = 7입니다.", 0.0, 1.0),
        ("", 0.0, 0.0),
        ("3 + 4 = 7", 0.0, 0.0),
        (" \n\t", 0.0, 0.0),
        ("?!… — 😀", 0.0, 0.0),
        ("`print(x)`", 0.0, 0.0),
        ("```python\ndef f(x): return x\n```", 0.0, 0.0),
        ("```python\nnever closed", 0.0, 0.0),
        ("답은 `x = 3` 입니다", 0.0, 1.0),
        ("먼저\n```\nfor i in range(3): print(i)\n```\n끝", 0.0, 1.0),
        ("\\frac{3}{4} \\cdot \\boxed{7}", 0.0, 0.0),
        ("답은 \\boxed{7}입니다.", 0.0, 1.0),
        ("<think>\n생각\n</think>", 0.0, 1.0),
    ],
)
def test_shares(text, english, korean):
    assert language_share(text, "en") == pytest.approx(english)
    assert language_share(text, "ko") == pytest.approx(korean)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_signs_are_no_words(language):
    """× (U+00D7) and ÷ (U+00F7) lie among the Latin letters of Unicode, but they are signs."""
    assert language_share("3 × 4 ÷ 2 = 6", language) == 0.0
    assert language_share("먼저 3 × 4", "ko") == 1.0


@pytest.mark.parametrize(("language", "own"), [("en", "first"), ("ko", "먼저")])
def test_a_third_language_is_not_the_one_asked_for(language, own):
    """R1's reward is about exactly this: Chinese in an English chain of thought must cost something."""
    shares = {
        foreign: language_share(f"{own} {foreign}", language) for foreign in ("计算总和", "сначала", "まず", "αβγ")
    }
    assert max(shares.values()) <= 0.5, shares


def test_an_unknown_language_is_an_error():
    with pytest.raises(KeyError):
        language_share("text", "fr")
