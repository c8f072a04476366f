"""Conversations as tokens."""

import json

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from kogia.errors import FolderError, PromptError
from kogia.text.prompts import chat_pieces, encode_chat, encode_question, encode_reply, render, reply_parser
from kogia.text.styles import STYLES, find_style
from kogia.text.tokenizer import (
    ASSISTANT,
    BOS,
    END_THINK,
    EOS,
    SPECIALS,
    THINK,
    USER,
    Tokenizer,
    load_tokenizer,
    train_tokenizer,
)


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


# other models' layouts, by hand (against their own templates: tests/parity/test_prompts.py) --------------------------

CHAT_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "｜DSML｜", "<tool_call>", "</tool_call>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁sep｜>",
)  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def styled():
    """styled(style): a small tokenizer that has every layout's tokens, with that prompt style."""
    plain = train_tokenizer(["hello world 안녕"] * 3, 280)
    backend = Backend.from_str(plain._trusted.to_str())
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in CHAT_TOKENS])
    text = backend.to_str()

    def make(style: str) -> Tokenizer:
        ends = {"llama3": "<|eot_id|>", "llama3.1": "<|eot_id|>", "qwen3": "<|im_end|>"}
        bos = "<|begin_of_text|>" if style.startswith("llama") else BOS
        config = {"kogia_prompt_style": style, "bos_token": bos, "eos_token": ends.get(style, EOS)}
        return Tokenizer(Backend.from_str(text), config=config)

    return make


def called(*ids: str, arguments: str = "{}", **more) -> dict:
    function = {"name": "f", "arguments": arguments}
    return {"role": "assistant", "content": None, **more,
            "tool_calls": [{"id": id, "type": "function", "function": function} for id in ids]}  # fmt: skip


def result(id: str | None, content: str = "r") -> dict:
    return {"role": "tool", "content": content, **({"tool_call_id": id} if id else {})}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_lays_out_a_conversation(styled, style):
    """And what it writes is encoded as what it reads: the control tokens are the layout's, one by one."""
    tokenizer = styled(style)
    messages = [
        {"role": "system", "content": "시스템"},
        user("<think> a"),
        {"role": "assistant", "content": "b"},
        user("c"),
    ]
    assert tokenizer.decode(encode_chat(tokenizer, messages)) == render(tokenizer, messages)
    typed = encode_chat(tokenizer, [user(token) for token in tokenizer.ids])
    harmless = encode_chat(tokenizer, [user("x") for _ in tokenizer.ids])
    assert all(typed.count(id) == harmless.count(id) for id in tokenizer.ids.values())


LLAMA = [
    {"role": "system", "content": " Be brief. "},
    user("안녕\n"),
    {"role": "assistant", "content": "Hi."},
    user("Bye"),
]


def test_llama3(styled):
    assert render(styled("llama3"), LLAMA) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n안녕<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_llama31_says_the_dates_even_without_a_system_message(styled):
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    start = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n" + dates
    assert render(styled("llama3.1"), LLAMA).startswith(start + "Be brief.<|eot_id|><|start_header_id|>user")
    assert render(styled("llama3.1"), [user("x")]).startswith(start + "<|eot_id|><|start_header_id|>user")


def test_a_base_model_gets_the_texts_only(styled):
    tokenizer = styled("plain")
    assert encode_question(tokenizer, "Once upon") == [tokenizer.bos, *tokenizer.encode("Once upon")]
    assert render(tokenizer, [{"role": "system", "content": "a"}, user("b")]) == BOS + "a\n\nb"


def test_v31_tools_as_its_model_card_words_them(styled):
    assert render(styled("deepseek-v3.1"), [{"role": "system", "content": "S"}, user("U")], tools=TOOLS) == (
        BOS + "S\n\n## Tools\nYou have access to the following tools:\n\n### f\nDescription: d\n\n"
        'Parameters: {"type": "object"}\n\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n'
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>"
        "{additional_tool_calls}<｜tool▁calls▁end｜>\n\nWhere:\n"
        "- `tool_call_name` must be an exact match to one of the available tools\n"
        "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n"
        "- For multiple tool calls, chain them directly without separators or spaces"
        "<｜User｜>U<｜Assistant｜></think>"
    )


def test_a_layouts_own_mention_of_a_control_token_is_one(styled):
    """The tool instructions show the model the tokens themselves, as the published prompts do."""
    tokenizer = styled("deepseek-v4")
    ids = encode_chat(tokenizer, [user("x")], tools=TOOLS)
    assert ids.count(tokenizer.ids["｜DSML｜"]) == 9 and ids.count(tokenizer.ids[THINK]) == 3


@pytest.mark.parametrize(
    ("style", "begun", "tail"),
    [
        ("kogia", {"content": "So"}, "<｜Assistant｜>So"),
        ("kogia", {"content": "So", "reasoning_content": "a"}, "<｜Assistant｜><think>\na\n</think>\n\nSo"),
        ("kogia", {"content": "", "reasoning_content": "a"}, "<｜Assistant｜><think>\na"),
        ("deepseek-v2", {"content": "So"}, "Assistant: So"),
        ("deepseek-r1", {"content": "", "reasoning_content": "a"}, "<｜Assistant｜><think>\na"),
        ("deepseek-v3.1", {"content": "So", "reasoning_content": "a"}, "<｜Assistant｜></think>So"),
        ("deepseek-v3.2", {"content": "So"}, "<｜Assistant｜></think>So"),
        ("qwen3", {"content": "", "reasoning_content": "a"}, "<|im_start|>assistant\n<think>\na"),
        ("deepseek-coder", {"content": "So"}, "### Instruction:\nx\n### Response:\nSo"),
        ("qwen3", {"content": ""}, "<|im_start|>assistant\n"),
        ("chatml", {"content": "So"}, "<|im_start|>assistant\nSo"),
        ("llama3", {"content": "So"}, "<|end_header_id|>\n\nSo"),
        ("plain", {"content": "So"}, "x\n\nSo"),
    ],
)
def test_a_reply_to_go_on_with(styled, style, begun, tail):
    messages = [user("x"), {"role": "assistant", **begun}]
    assert render(styled(style), messages, continue_last=True).endswith(tail)


@pytest.mark.parametrize(
    ("effort", "words"), [("low", ""), (None, "Absolute"), ("high", "Absolute"), ("max", "Beyond")]
)
def test_v4s_effort_comes_first(styled, effort, words):
    prompt = render(styled("deepseek-v4"), [user("x")], effort=effort)
    assert prompt.startswith(BOS + (f"Reasoning Effort: {words} maximum" if words else "<｜User｜>x"))
    assert render(styled("deepseek-v4"), [user("x")], effort=effort, thinking=False) == (
        BOS + "<｜User｜>x<｜Assistant｜></think>"
    )


@pytest.mark.parametrize(
    ("style", "messages", "options", "named"),
    [
        ("qwen3", [user("x"), called("a")], {}, r"messages\[1\]\.tool_calls: .* answers 'a'"),
        ("qwen3", [user("x"), {"role": "assistant", "content": "y"}], {}, "last message must have role user or tool"),
        ("qwen3", [user("x"), called("a", "b"), result("a")], {}, r"messages\[1\]\.tool_calls: .* answers 'b'"),
        ("qwen3", [user("x"), called("a"), user("y")], {}, r"messages\[1\]\.tool_calls: .* answers 'a'"),
        ("qwen3", [user("x"), result("a")], {}, r"messages\[1\]\.role is 'tool', but no call 'a'"),
        ("qwen3", [user("x"), called("a"), result("b")], {}, r"messages\[2\]\.role is 'tool', but no call 'b'"),
        ("qwen3", [user("x"), called("a"), result("a"), result("a")], {}, r"messages\[3\]\.role is 'tool'"),
        ("qwen3", [user("x"), called("a"), {"role": "tool", "content": 3}], {}, r"messages\[2\]\.content is int"),
        ("qwen3", [user("x"), {"role": "assistant", "content": None}], {}, r"messages\[1\]\.content is NoneType"),
        ("qwen3", [user("x"), {"role": "assistant", "tool_calls": [3]}], {}, r"messages\[1\]\.tool_calls\[0\] must be"),
        ("qwen3", [user("x"), {"role": "assistant", "tool_calls": {}}], {}, r"messages\[1\]\.tool_calls is dict"),
        ("qwen3", ["x"], {}, r"messages\[0\] is str"),
        ("qwen3", [{"role": "function", "content": "x"}], {}, r"messages\[0\]\.role is 'function': .* or tool"),
        ("qwen3", [{**user("x"), "reasoning_content": 3}], {}, r"messages\[0\]\.reasoning_content is int"),
        ("qwen2.5", [user("x"), called("a", arguments="{"), result("a")], {}, r"\[0\]\.function\.arguments is not"),
        ("deepseek-v4", [user("x"), called("a", arguments="[1]"), result("a")], {}, r"arguments is a list"),
        ("deepseek-v3.2", [user("x"), called("a", arguments='{"a": "\\ud800"}'), result("a")], {}, "half a surrogate"),
        ("deepseek-v4", [user("x")], {"tools": [{"name": "f"}]}, r"tools\[0\] must be"),
        ("deepseek-v4", [user("x")], {"tools": [{"function": {"name": 3}}]}, r"tools\[0\]\.function\.name is int"),
        ("deepseek-v3", [user("x")], {"tools": TOOLS}, r"tools: .*deepseek-v3.* no place"),
        ("llama3", [user("x"), called("a"), result("a")], {}, r"messages\[1\]\.tool_calls: .* no tool calls"),
        ("kogia", [user("x")], {"tools": TOOLS}, "no place"),
        ("kogia", [user("x")], {"thinking": False}, "kogia always thinks"),
        ("deepseek-v3", [user("x")], {"thinking": True}, "deepseek-v3 does not think"),
        ("deepseek-v4", [user("x")], {"effort": "huge"}, "effort is 'huge'.* low, high, max"),
        ("qwen3", [user("x")], {"effort": "low"}, "effort is 'low'.*leave it out"),
        ("qwen3", [user("x")], {"continue_last": True}, "last message must have role assistant"),
        ("qwen3", [user("x"), called("a")], {"continue_last": True}, "answers 'a'"),
    ],
    ids=str,
)  # fmt: skip
def test_errors_of_tools_and_options(styled, style, messages, options, named):
    with pytest.raises(PromptError, match=named):
        encode_chat(styled(style), messages, **options)


def test_tools_nested_too_deeply_are_the_clients_error(styled):
    schema: dict = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(PromptError, match="nested too deeply"):
        encode_chat(styled("deepseek-v4"), [user("x")], tools=[{"function": {"name": "f", "parameters": schema}}])


def test_results_without_ids_answer_in_order(styled):
    messages = [user("x"), called("a", "b"), result(None, "first"), result(None, "second")]
    assert render(styled("deepseek-v4"), messages).endswith(
        "<tool_result>first</tool_result>\n\n<tool_result>second</tool_result><｜Assistant｜><think>"
    )


def test_a_style_that_does_not_exist_is_refused(styled):
    with pytest.raises(FolderError, match=r"kogia_prompt_style is v5:.*deepseek-v4"):
        styled("v5")


CHATML = "{{- '<|im_start|>' + message.role }} <tools> <tool_call>"


@pytest.mark.parametrize(
    ("template", "style"),
    [
        (CHATML, "chatml"),  # with tools, but not Qwen2.5's
        (CHATML + "You are Qwen, created by Alibaba Cloud.", "qwen2.5"),
        ("<|im_start|> You are Qwen, created by Alibaba Cloud.", "chatml"),
        (CHATML + 'messages[0].content + \'\\n\\n\' (loop.first and content) {"name": "', "qwen3-instruct"),
        (CHATML + 'messages[0].content + \'\\n\\n\' (loop.first and content) {"name": " </think>', "chatml"),
        ([{"name": []}, {"name": "default", "template": CHATML}, {"name": "tool_use", "template": 3}, 4], "chatml"),
        ([{"name": []}], "plain"),
    ],
)
def test_styles_by_their_templates(template, style):
    assert find_style({"chat_template": template}, (), EOS) == style


@pytest.mark.parametrize("template", ["[INST] {{ message }} [/INST]", [{"name": "tool_use", "template": "x"}]], ids=str)
def test_a_template_that_nobody_knows_is_refused_and_not_taken_for_plain(styled, template, tmp_path):
    """A base model, which has no template, and a style that is named go on as ever."""
    backend = styled("plain")._trusted
    config = {"bos_token": BOS, "eos_token": "</tool_call>"}
    tokenizer = Tokenizer(backend, config={**config, "chat_template": template})
    assert tokenizer.unknown_template and tokenizer.style == "plain"
    with pytest.raises(PromptError, match=r"kogia_prompt_style.*tokenizer_config\.json.*plain.*deepseek-v4.*qwen3"):
        encode_question(tokenizer, "x")
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).unknown_template, "saving made it a plain one"
    named = Tokenizer(backend, config={**config, "chat_template": template, "kogia_prompt_style": "plain"})
    base = Tokenizer(backend, config=config)
    assert not named.unknown_template and not base.unknown_template
    assert encode_question(named, "x") == encode_question(base, "x") == [base.bos, *base.encode("x")]


def test_options_that_do_not_exist_are_refused(tiny_tokenizer):
    with pytest.raises(TypeError, match="thinks"):
        encode_chat(tiny_tokenizer, [user("x")], thinks=True)


def test_chat_pieces_join_to_the_prompt(tiny_tokenizer):
    assert "".join(chat_pieces(tiny_tokenizer, [user("x")])) == render(tiny_tokenizer, [user("x")])


@pytest.mark.parametrize(
    ("style", "options", "reply", "expected"),
    [
        ("kogia", {}, "<think>\na\n</think>\n\nb", [("reasoning", "a"), ("content", "b")]),
        ("deepseek-r1", {}, "a\n</think>\n\nb", [("reasoning", "a"), ("content", "b")]),
        ("deepseek-v3.1", {"thinking": True}, "a</think>b", [("reasoning", "a"), ("content", "b")]),
        ("deepseek-v3.1", {}, "a</think>b", [("content", "a</think>b")]),
        ("qwen3", {}, "<think>\na\n</think>\n\nb", [("reasoning", "a"), ("content", "b")]),
        ("qwen3", {"thinking": False}, "\n\nb", [("content", "b")]),
        ("deepseek-v4", {}, "a</think>b", [("reasoning", "a"), ("content", "b")]),
        ("deepseek-v4", {"thinking": False}, "b", [("content", "b")]),
        ("llama3", {}, "b", [("content", "b")]),
    ],
)
def test_the_parser_knows_where_the_prompt_left_off(styled, style, options, reply, expected):
    tokenizer = styled(style)
    prompt = encode_chat(tokenizer, [user("x"), {"role": "assistant", "content": "y"}, user("z")], **options)
    assert reply_parser(tokenizer, prompt).feed(reply, last=True) == expected


def test_the_parser_goes_on_where_a_begun_reply_stopped(styled):
    tokenizer = styled("deepseek-v4")
    begun = {"role": "assistant", "content": "", "reasoning_content": "first"}
    prompt = encode_chat(tokenizer, [user("x"), begun], continue_last=True)
    assert reply_parser(tokenizer, prompt).feed("\nthen</think>b", last=True) == [
        ("reasoning", "\nthen"), ("content", "b"),
    ]  # fmt: skip


def test_calls_are_left_in_the_text_when_nobody_asked_for_tools(styled):
    tokenizer = styled("qwen3")
    reply = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    prompt = encode_question(tokenizer, "x")
    assert reply_parser(tokenizer, prompt, calls=False).feed(reply, last=True) == [("content", reply)]
    (delta,) = reply_parser(tokenizer, prompt).feed(reply, last=True)
    assert (delta.index, delta.name, json.loads(delta.arguments)) == (0, "f", {})


def test_a_reply_ends_as_the_style_ends_turns(styled):
    tokenizer = styled("qwen3")
    assert encode_reply(tokenizer, "Hi.") == [*tokenizer.encode("Hi."), tokenizer.ids["<|im_end|>"]]


def test_the_old_seam_between_two_system_messages_stays(tiny_tokenizer):
    """Kogia's own prompts never merged letters across messages; recipes' results depend on their exact tokens."""
    two = [{"role": "system", "content": "hel"}, {"role": "system", "content": "lo"}, user("x")]
    assert encode_chat(tiny_tokenizer, two)[1:-3] == [*tiny_tokenizer.encode("hel"), *tiny_tokenizer.encode("lo")]
