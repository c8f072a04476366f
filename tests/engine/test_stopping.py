"""Stop strings: nothing leaks, nothing is held back for nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogia.engine.stopping import StopText

LETTERS = st.text(st.sampled_from("ab\n<>가힣🐋é"), max_size=30)
STOPS = st.lists(
    st.one_of(
        st.text(st.sampled_from("ab\n<가🐋"), min_size=1, max_size=5),
        st.sampled_from(["aa", "aab", "abab", "ababa", "b", "ab", "\n\n", "<a", "가나가"]),
    ),
    min_size=0,
    max_size=4,
).map(tuple)


def earliest(text, stops):
    """The stop string that is complete first, of equals the longest, and what stands before it."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


def pieces_of(tokenizer, text, cuts):
    """Tokens of a text, cut anywhere, in groups of random size; the cuts may part a character's bytes."""
    ids = []
    for letter in text:
        ids += tokenizer.encode(letter)
    if cuts % 2:
        ids = tokenizer.encode(text)
    size = cuts % 5 + 1
    return [ids[i : i + size] for i in range(0, len(ids), size)]


@given(LETTERS, STOPS, st.integers(0, 99))
def test_what_is_handed_out(tiny_tokenizer, text, stops, cuts):
    stopping = StopText(tiny_tokenizer, stops)
    expected, stop = earliest(text, stops)
    out, fed = "", []
    for piece in pieces_of(tiny_tokenizer, text, cuts):
        fed += piece
        out += stopping.feed(piece)
        if stopping.matched is None:
            whole = tiny_tokenizer.decode(fed).rstrip("\ufffd")
            held = whole.removeprefix(out)
            assert whole == out + held
            assert held == max(
                (whole[-n:] for n in range(1, len(whole) + 1) if any(s.startswith(whole[-n:]) for s in stops)),
                key=len,
                default="",
            )
    out += stopping.feed([], last=True)
    assert (out, stopping.matched) == (expected, stop)


@pytest.mark.parametrize(
    ("stops", "text", "before", "matched"),
    [
        (("aab",), "aaab!", "a", "aab"),
        (("abab",), "aabababx", "a", "abab"),
        (("b", "abc"), "zabc", "za", "b"),  # b is complete first
        (("c", "abc"), "zabc", "z", "abc"),  # complete at once: the longest
        (("abcd", "bx"), "abcbx!", "abc", "bx"),
        (("안녕",), "안안녕", "안", "안녕"),
        (("🐋",), "a🐋b", "a", "🐋"),
    ],
)
def test_by_hand(tiny_tokenizer, stops, text, before, matched):
    for cuts in range(6):
        stopping = StopText(tiny_tokenizer, stops)
        out = "".join(stopping.feed(piece) for piece in pieces_of(tiny_tokenizer, text, cuts))
        assert (out, stopping.matched) == (before, matched)
        assert stopping.feed(tiny_tokenizer.encode("more"), last=True) == ""


def test_without_stops_text_is_certain_at_once(tiny_tokenizer):
    stopping = StopText(tiny_tokenizer, ())
    assert "".join(stopping.feed([id]) for id in tiny_tokenizer.encode("안녕 abc")) == "안녕 abc"


def test_a_last_piece_hands_out_what_was_held(tiny_tokenizer):
    stopping = StopText(tiny_tokenizer, ("END.",))
    assert stopping.feed(tiny_tokenizer.encode("xEND")) == "x"
    assert stopping.feed([], last=True) == "END"
    assert stopping.matched is None
