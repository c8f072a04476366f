"""Tool calls out of replies: by hand, cut anywhere, and against DeepSeek's own stream processor."""

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogia.text.calls import CallDelta, ReplyParser

D = "｜DSML｜"
CALLS, END_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEP, END_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def fenced(name: str, arguments: str) -> str:
    return f"{CALL}function{SEP}{name}\n```json\n{arguments}\n```{END_CALL}"


def bare(name: str, arguments: str) -> str:
    return f"{CALL}{name}{SEP}{arguments}{END_CALL}"


def parameter(name: str, value: str, text: str = "true") -> str:
    return f'<{D}parameter name="{name}" string="{text}">{value}</{D}parameter>\n'


def invoke(name: str, *parameters: str) -> str:
    return f'<{D}invoke name="{name}">\n{"".join(parameters)}</{D}invoke>\n'


def dsml(*invokes: str, block: str = "tool_calls") -> str:
    return f"\n\n<{D}{block}>\n{''.join(invokes)}</{D}{block}>"


def parse(form, text: str, cuts=(), start: str = "start"):
    """(reasoning, content, [(name, arguments)]) of a reply cut at `cuts`."""
    parser, said, calls = ReplyParser(form, start), {"reasoning": "", "content": ""}, []
    edges = [0, *sorted(cuts), len(text)]
    for n, (left, right) in enumerate(itertools.pairwise(edges)):
        for event in parser.feed(text[left:right], last=n == len(edges) - 2):
            if isinstance(event, CallDelta):
                if event.index == len(calls):
                    calls.append([event.name, ""])
                else:
                    assert event.index == len(calls) - 1 and event.name is None
                    assert event.arguments, "an empty part was handed out"
                calls[-1][1] += event.arguments
            else:
                assert event[1], "an empty text was handed out"
                said[event[0]] += event[1]
    return said["reasoning"], said["content"], [tuple(call) for call in calls]


ONE, TWO = '{"city": "서울", "n": 1.50}', '{"q": "a\\nb"}'
GOOD = [
    ("hermes", hermes("f", ONE), "", [("f", '{"city": "서울", "n": 1.5}')]),
    ("hermes", "Let me see.\n" + hermes("f", "{}") + "\n" + hermes("g", TWO), "Let me see.", [("f", "{}"), ("g", TWO)]),
    ("hermes", hermes("f", "{}") + "\n\nDone.\n", "Done.\n", [("f", "{}")]),
    ("deepseek", f"So:{CALLS}{fenced('f', ONE)}\n{fenced('g', TWO)}{END_CALLS}", "So:", [("f", ONE), ("g", TWO)]),
    ("deepseek", f"{CALLS}{bare('f', ONE)}{bare('g', TWO)}{END_CALLS}", "", [("f", ONE), ("g", TWO)]),
    ("deepseek", f"{CALLS}{bare('f', '{}')}{END_CALLS}\nmore", "more", [("f", "{}")]),
    ("deepseek", f"{CALLS}{bare('f', ONE)}", "", [("f", ONE)]),
    ("deepseek", f"{CALLS}{bare(' f ', f' {ONE} ')}{END_CALLS}", "", [("f", ONE)]),
    ("deepseek", f"{CALLS}{fenced(' f ', f' {ONE} ')}{END_CALLS}", "", [("f", ONE)]),
    ("dsml", "A" + dsml(invoke("f", parameter("a", 'x"\n한'), parameter("n", "1.50", "false"))), "A",
     [("f", '{"a": "x\\"\\n한", "n": 1.50}')]),
    ("dsml", dsml(invoke("f"), invoke("g", parameter("o", '{"q": [1]}', "false"))), "",
     [("f", "{}"), ("g", '{"o": {"q": [1]}}')]),
    ("dsml", "A" + dsml(invoke("f", parameter("a", "</b> < <｜DSML")), block="function_calls"), "A",
     [("f", '{"a": "</b> < <｜DSML"}')]),
    ("dsml", dsml(invoke("f", parameter("n", "three", "false"))), "", [("f", '{"n": "three"}')]),
    ("dsml", dsml(invoke("f", parameter("n", "NaN", "false"), parameter("m", "null", "false"))), "",
     [("f", '{"n": "NaN", "m": null}')]),
    ("dsml", dsml(invoke("f")) + "\n\nB" + dsml(invoke("g")), "B", [("f", "{}"), ("g", "{}")]),
    (None, hermes("f", "{}"), hermes("f", "{}"), []),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "content", "calls"), GOOD)
def test_calls_by_hand_cut_everywhere(form, text, content, calls):
    assert parse(form, text) == ("", content, calls)
    for cut in range(len(text)):
        assert parse(form, text, [cut]) == ("", content, calls), cut
    assert parse(form, text, range(1, len(text))) == ("", content, calls)


BAD = [
    ("hermes", "<tool_call>\nnot JSON\n</tool_call>"),
    ("hermes", 'x\n<tool_call>{"name": 3, "arguments": {}}</tool_call>\ny'),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    ("hermes", "a\n\n" + hermes("f", "{}")[:-5]),
    ("hermes", "a <tool_ca"),
    ("hermes", hermes("f", '{"a": 1e400}')),
    ("hermes", hermes("f", '{"a": NaN}')),
    ("hermes", hermes("f", '{"a": "\\ud800"}')),
    ("hermes", hermes("\\ud800", "{}")),
    ("deepseek", bare("f", '{"a": Infinity}')),
    ("deepseek", f"{CALLS}junk{END_CALLS}"),
    ("deepseek", f"a\n{CALLS}{bare('f', 'not JSON')}{END_CALLS}"),
    ("deepseek", f"{CALLS}{CALL}no separator{END_CALL}"),
    ("deepseek", f"a\n{CALLS}{fenced('f', ONE)[:-9]}"),
    ("deepseek", f"{END_CALL}{SEP}{END_CALLS} a"),
    ("dsml", f"A\n\n<{D}tool_calls>\njunk</{D}tool_calls>"),
    ("dsml", f'A\n<{D}tool_calls><{D}invoke name="f'),
    ("dsml", f"A {D} b </{D}invoke> c\n\n<{D}"),
    ("dsml", f"<{D}tool_calls>\n</{D}tool_calls>"),
    ("dsml", f'A <{D}invoke name="f">\n</{D}invoke>'),
]


@pytest.mark.parametrize(("form", "text"), BAD)
def test_what_is_not_a_call_is_text_to_the_last_letter(form, text):
    for cut in range(len(text)):
        assert parse(form, text, [cut]) == ("", text, []), cut
    assert parse(form, text, range(1, len(text))) == ("", text, [])


def test_stray_text_inside_a_block_is_content():
    text = "A" + dsml(f'<{D}invoke name="f">\nstray {parameter("a", "1")} more </{D}invoke>\n', " and < this ")
    expected = ("", "A\nstray\n more\n and < this", [("f", '{"a": "1"}')])
    for cut in range(len(text)):
        assert parse("dsml", text, [cut]) == expected


def test_a_cut_off_call_keeps_what_it_said():
    text = "A" + dsml(invoke("f", parameter("a", "long text")))
    at = text.index(" text<")
    assert parse("dsml", text[:at]) == ("", "A", [("f", '{"a": "long')])


def test_text_arguments_are_handed_out_as_they_arrive():
    parser = ReplyParser("dsml", "content")
    assert parser.feed(f'Hi\n\n<{D}tool_calls>\n<{D}invoke name="f">\n') == [("content", "Hi"), CallDelta(0, "f", "")]
    assert parser.feed(f'<{D}parameter name="a" string="true">one ') == [
        CallDelta(0, None, '{"a": "'), CallDelta(0, None, "one "),
    ]  # fmt: skip
    assert parser.feed('"two"<') == [CallDelta(0, None, '\\"two\\"')]
    assert parser.feed("b") == [CallDelta(0, None, "<b")]


def test_reasoning_comes_apart_and_markup_in_it_is_none():
    text = f"<think>\nI could say {hermes('f', '{}')}\n</think>\n\nok\n{hermes('g', '{}')}"
    assert parse("hermes", text) == (f"I could say {hermes('f', '{}')}", "ok", [("g", "{}")])


def test_a_dsml_block_ends_the_reasoning():
    """As in DeepSeek's own parser: a model that forgets </think> still gets its call."""
    assert parse("dsml", "so" + dsml(invoke("f")), start="reasoning") == ("so", "", [("f", "{}")])


@pytest.mark.parametrize(
    ("start", "text", "reasoning", "content"),
    [
        ("reasoning", "\na\n</think>\n\nb", "a", "b"),
        ("reasoning", "never closed\n", "never closed", ""),
        ("reasoning", "<think>a</think>b", "<think>a", "b"),
        ("content", "\n\nb", "", "b"),
        ("content", "<think>a</think>b", "", "<think>a</think>b"),
        ("start", "<think>a</think>b", "a", "b"),
    ],
)
def test_where_the_prompt_left_off(start, text, reasoning, content):
    for cut in range(len(text)):
        assert parse(None, text, [cut], start) == (reasoning, content, [])


def test_a_reply_that_is_gone_on_with_keeps_its_newlines():
    parser = ReplyParser(None, "content", fresh=False)
    assert parser.feed("\n\nb") == [("content", "\n\nb")]


PIECES = {
    "hermes": [
        "<tool_call>", "</tool_call>", '{"name": "f", "arguments": {}}', '{"name": "f"', "}", "\n", " ", "x", "<tool",
        "가",
    ],
    "deepseek": [
        CALLS, END_CALLS, CALL, END_CALL, SEP, "f", "{}", "function", "\n```json\n", "\n```", "\n", " ", "<｜tool",
        "가",
    ],
    "dsml": [
        f"<{D}tool_calls>", f"</{D}tool_calls>", f'<{D}invoke name="f">', f"</{D}invoke>", f"<{D}function_calls>",
        f'<{D}parameter name="a" string="true">', f'<{D}parameter name="a" string="false">', f"</{D}parameter>",
        f'<{D}invoke name="', f"<{D}", '">', "\n", " ", "x", "1", "<", "가",
    ],
}  # fmt: skip


@settings(max_examples=600)
@given(st.sampled_from(list(PIECES)), st.sampled_from(["start", "reasoning", "content"]), st.data())
def test_however_it_is_cut_it_is_the_same(form, start, data):
    pieces = st.sampled_from([*PIECES[form], "<think>", "</think>"])
    text = "".join(data.draw(st.lists(pieces, max_size=14)))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    whole = parse(form, text, (), start)
    assert parse(form, text, cuts, start) == whole
    assert parse(form, text, range(1, len(text)), start) == whole


@settings(max_examples=400)
@given(st.sampled_from(["hermes", "deepseek", "dsml"]), st.data())
def test_without_a_call_no_letter_is_lost(form, data):
    text = "x" + "".join(data.draw(st.lists(st.sampled_from(PIECES[form]), max_size=14)))
    _, content, calls = parse(form, text, (), "content")
    assert calls or content == text


# DeepSeek's own stream processor --------------------------------------------------------------------------------------


def by_recipe(recipe, pieces: list[str], thinking: bool):
    request = recipe.ConversationRequest(
        recipe.Conversation([recipe.UserMessage("x")]), recipe.ModelVersion.DeepseekV4Pro
    )
    stage = recipe.ThinkingInitialStage.ReasoningStart if thinking else None
    generator = recipe.ChatCompletionRequest.chunk_generator(request, "id", "model")
    processor = recipe.StreamProcessor(generator, recipe.ParsingOptions(thinking_initial_stage=stage))
    chunks = processor.push(recipe.InferenceChunk.ready())
    for piece in pieces:
        chunks += processor.push(recipe.InferenceChunk.text(piece, 1))
    chunks += processor.push(recipe.InferenceChunk.finish(recipe.InferenceFinishReason.Stop)) + processor.finish()
    reasoning, content, calls = "", "", []
    for delta in (choice["delta"] for chunk in chunks for choice in json.loads(chunk.to_json())["choices"]):
        reasoning += delta.get("reasoning_content") or ""
        content += delta.get("content") or ""
        for call in delta.get("tool_calls") or []:
            if call["index"] == len(calls):
                calls.append([call["function"]["name"], ""])
            calls[-1][1] += call["function"]["arguments"]
    return reasoning, content, [tuple(call) for call in calls]


def test_as_deepseeks_stream_processor_reads_it():
    """Well-formed replies of V4, cut anywhere. (Broken ones it completes, drops or repeats; here they are text.)"""
    recipe = pytest.importorskip("deepseek_recipe", reason="oracle missing: pip install deepseek-recipe")
    rng = random.Random(0)
    texts = ["안녕 👩‍🚀", 'a "b"\n\tc\\', "x < y </b>", "<think>", "\n", "", "12", "｜DSML", "\u0001\u2028"]
    values = ["1.50", "true", '{"a": [1, "값"]}', "null", "[]", '"s"']
    for _ in range(400):

        def said() -> str:
            return "".join(rng.choices([*texts, "word ", "말 "], k=rng.randrange(1, 4)))

        def one() -> str:
            parts = [parameter(rng.choice("abc한"), said()) if rng.random() < 0.6
                     else parameter("n", rng.choice(values), "false") for _ in range(rng.randrange(4))]  # fmt: skip
            return invoke(rng.choice(["get", "search-web"]), *parts)

        thinking = rng.random() < 0.6
        reply = (said() + "end</think>\n\n" if thinking else "") + "so " + said()
        reply += dsml(*(one() for _ in range(rng.randrange(1, 4)))) if rng.random() < 0.7 else ""
        cuts = sorted(rng.choices(range(len(reply) + 1), k=rng.randrange(6)))
        pieces = [reply[a:b] for a, b in itertools.pairwise([0, *cuts, len(reply)])]
        ours = parse("dsml", reply, cuts, "reasoning" if thinking else "content")
        assert ours == by_recipe(recipe, pieces, thinking), reply
