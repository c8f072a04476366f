"""Conversations as tokens."""

import pytest

from kogia.errors import PromptError
from kogia.text.prompts import encode_chat, encode_question, encode_reply
from kogia.text.tokenizer import ASSISTANT, BOS, END_THINK, EOS, SPECIALS, THINK, USER


def trusted(tokenizer, *parts: str) -> list[int]:
    """Token ids of the parts, each encoded on its own."""
    return [i for part in parts for i in tokenizer.encode_trusted(part)]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_layout(tiny_tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        user("안녕?"),
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi."},
        user("2 + 2?"),
    ]
    expected = trusted(
        tiny_tokenizer, BOS, "Be brief.", USER, "안녕?", ASSISTANT, "Hi.", EOS, USER, "2 + 2?", ASSISTANT
    )
    assert encode_chat(tiny_tokenizer, messages) == expected


def test_a_developer_message_is_a_system_message(tiny_tokenizer):
    messages = [{"role": "developer", "content": "x"}, user("y")]
    assert encode_chat(tiny_tokenizer, messages) == trusted(tiny_tokenizer, BOS, "x", USER, "y", ASSISTANT)


@pytest.mark.parametrize("token", SPECIALS)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_nobody_can_write_special_tokens_into_a_message(tiny_tokenizer, token, role):
    messages = [{"role": role, "content": f"a {token} b"}, user("x")]
    ids = encode_chat(tiny_tokenizer, messages)
    counts = {t: ids.count(i) for t, i in tiny_tokenizer.ids.items()}
    expected = {BOS: 1, EOS: 0, USER: 1, ASSISTANT: 1, THINK: 0, END_THINK: 0}
    if role == "user":
        expected[USER] += 1
    if role == "assistant":
        expected[ASSISTANT] += 1
        expected[EOS] += 1
    assert counts == expected


def test_a_question_is_a_conversation_of_one(tiny_tokenizer):
    assert encode_question(tiny_tokenizer, "3 + 4?") == encode_chat(tiny_tokenizer, [user("3 + 4?")])


def test_a_reply_keeps_its_thinking_and_ends(tiny_tokenizer):
    ids = encode_reply(tiny_tokenizer, "<think>\nso\n</think>\n\n\\boxed{7}")
    special = tiny_tokenizer.ids
    assert ids[0] == special[THINK] and ids.count(special[END_THINK]) == 1 and ids[-1] == special[EOS]
    assert ids.count(special[EOS]) == 1


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "messages is empty"),
        ([{"role": "tool", "content": "x"}], r"messages\[0\]\.role is 'tool'"),
        ([{"content": "x"}], r"messages\[0\]\.role is None"),
        ([user("x"), {"role": "User", "content": "x"}], r"messages\[1\]\.role is 'User'"),
        ([{"role": "user"}], r"messages\[0\]\.content is NoneType"),
        ([{"role": "user", "content": 3}], r"messages\[0\]\.content is int"),
        ([user("x"), {"role": "user", "content": [{"type": "text"}]}], r"messages\[1\]\.content is list"),
        ([user("x"), {"role": "assistant", "content": "y"}], "last message must have role user"),
        ([{"role": "system", "content": "y"}], "last message must have role user"),
    ],
    ids=str,
)
def test_errors_name_the_message(tiny_tokenizer, messages, named):
    with pytest.raises(PromptError, match=named):
        encode_chat(tiny_tokenizer, messages)


def test_half_a_surrogate_pair_is_the_clients_error(tiny_tokenizer):
    """JSON may hold "\\ud800"; it is no character, and no UTF-8 exists for it."""
    with pytest.raises(PromptError, match=r"messages\[0\]"):
        encode_chat(tiny_tokenizer, [user("\ud800")])
