"""What steers a request token by token, all of it together."""

import json
import random

import numpy as np
import pytest
import torch

from kogia.engine.control import make_control
from kogia.engine.grammar import Constraint
from kogia.engine.request import SamplingParams
from kogia.engine.sampler import sample, uniforms
from kogia.errors import PromptError
from kogia.text.parsers import split_reply
from kogia.text.prompts import encode_question
from kogia.text.tokenizer import Tokenizer

ANSWER = Constraint(
    "json_schema",
    {
        "type": "object",
        "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["answer"],
        "additionalProperties": False,
    },
)


def control_of(tokenizer, opened="", **settings):
    prompt = encode_question(tokenizer, "3 + 4?") + tokenizer.encode_trusted(opened)
    return make_control(SamplingParams(**settings), tokenizer, prompt, tokenizer.vocab_size + 5)


def reply_of(tokenizer, control, seed, most=300, script=(), check=False):
    """Sample from random logits under a control; `script` is what the model wants to say first. Drafts, that is,
    adjustments that nothing is accepted after, must not matter."""
    rng = torch.Generator().manual_seed(seed)
    reply = []
    while len(reply) < most and not control.finished:
        logits = torch.randn(tokenizer.vocab_size + 5, generator=rng) * 3
        if len(reply) < len(script):
            logits[script[len(reply)]] = 50.0
        logits[list(tokenizer.stops)] += 2.0
        if check:
            twice = logits.clone()
            control.adjust(twice, reply)
            again = logits.clone()
            control.adjust(again, reply)
            assert twice.equal(again)
        control.adjust(logits, reply)
        one, u = torch.ones(1), uniforms(np.array([seed]), np.array([len(reply)]))
        reply.append(int(sample(logits.unsqueeze(0), one, one, u)[0]))
        control.accept(reply[-1])
        if reply[-1] in tokenizer.stops:
            break
    return reply


def said(tokenizer, reply):
    return tokenizer.decode([id for id in reply if id not in tokenizer.stops])


def test_a_plain_request_needs_no_control(tiny_tokenizer):
    assert control_of(tiny_tokenizer, top_k=5, min_p=0.1, stop=("x",), top_logprobs=3) is None


@pytest.mark.parametrize(
    "settings",
    [
        dict(presence_penalty=0.1), dict(frequency_penalty=-0.1), dict(repetition_penalty=1.1),
        dict(logit_bias={3: 1.0}), dict(thinking_budget=0), dict(constraint=ANSWER),
    ],
)  # fmt: skip
def test_anything_that_looks_back_needs_one(tiny_tokenizer, settings):
    control = control_of(tiny_tokenizer, **settings)
    assert control is not None and not control.finished


def test_a_bias_outside_the_vocabulary_is_named(tiny_tokenizer):
    with pytest.raises(PromptError, match="token 99999, which is outside the vocabulary"):
        control_of(tiny_tokenizer, logit_bias={99999: 1.0})


def test_penalties_and_bias_reach_the_logits(tiny_tokenizer):
    control = control_of(tiny_tokenizer, presence_penalty=1.0, frequency_penalty=0.5, logit_bias={7: 3.0})
    for token in (5, 5, 6):
        control.accept(token)
    logits = torch.zeros(tiny_tokenizer.vocab_size + 5)
    control.adjust(logits)
    assert logits[5:9].tolist() == [-2.0, -1.5, 3.0, 0.0]


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("opened", ["", "<think>\n", "</think>"])
def test_all_together(tiny_tokenizer, seed, opened):
    """Thinking goes on until the budget is used up; the answer is JSON, whatever the model would like to say."""
    control = control_of(
        tiny_tokenizer, opened, constraint=ANSWER, thinking_budget=20, presence_penalty=0.5, repetition_penalty=1.2
    )
    script = [tiny_tokenizer.ids["<think>"]] if opened == "" and seed % 2 else []
    reply = reply_of(tiny_tokenizer, control, seed, script=script, check=True)
    assert control.finished
    parts = split_reply(opened.replace("</think>", "") + said(tiny_tokenizer, reply))
    assert json.loads(parts.content)["answer"] in range(10)
    thinks = opened == "<think>\n" or tiny_tokenizer.ids["<think>"] in reply
    assert (parts.reasoning is not None) == thinks
    assert thinks or not script
    if thinks:
        assert 1 <= reply.index(tiny_tokenizer.ids["</think>"]) <= 20 + 3 + 2


def test_an_opened_thought_may_be_closed_by_the_model(tiny_tokenizer):
    control = control_of(tiny_tokenizer, "<think>\n", constraint=ANSWER, thinking_budget=200)
    script = tiny_tokenizer.encode_trusted("First, 3 + 4 = 7.\n</think>\n\n")
    reply = reply_of(tiny_tokenizer, control, 0, script=script)
    assert reply[: len(script)] == script
    assert json.loads(said(tiny_tokenizer, reply).split("</think>")[1]).keys() == {"answer"}


def test_the_answer_may_follow_without_newlines(tiny_tokenizer):
    control = control_of(tiny_tokenizer, "<think>\n", constraint=Constraint("choice", ["yes", "no"]))
    script = tiny_tokenizer.encode_trusted("a</think>yes")
    assert said(tiny_tokenizer, reply_of(tiny_tokenizer, control, 0, script=script)) == "a</think>yes"


def test_no_more_newlines_than_the_layout_sets(tiny_tokenizer):
    control = control_of(tiny_tokenizer, "<think>\n", constraint=Constraint("choice", ["yes", "no"]))
    newline = tiny_tokenizer.encode("\n")
    script = [*tiny_tokenizer.encode_trusted("a</think>"), *newline * 5]
    text = said(tiny_tokenizer, reply_of(tiny_tokenizer, control, 0, script=script))
    assert text in ("a</think>\n\nyes", "a</think>\n\nno")


def test_a_constrained_reply_cannot_end_in_its_thinking(tiny_tokenizer):
    control = control_of(tiny_tokenizer, "<think>\n", constraint=ANSWER)
    logits = torch.zeros(tiny_tokenizer.vocab_size)
    control.adjust(logits)
    assert all(logits[id] == -torch.inf for id in tiny_tokenizer.stops)


class Spelled(Tokenizer):
    """A tokenizer in which </think> is ordinary text, and one token holds its end and the beginning of an answer."""

    def token_bytes(self, id):
        return b'>{"' if id == 300 else b">\n" if id == 301 else super().token_bytes(id)


def test_the_answer_does_not_begin_inside_a_closing_token(tiny_tokenizer):
    tokenizer = Spelled(tiny_tokenizer._trusted, config=tiny_tokenizer.config)
    control = control_of(tokenizer, "<think>\n", constraint=ANSWER)
    logits = torch.zeros(tokenizer.vocab_size)
    control.adjust(logits)
    assert logits[300] == 0.0
    for token in tokenizer.encode("x</think"):
        control.accept(token)
    control.adjust(logits)
    assert logits[300] == -torch.inf and logits[301] == 0.0
    control.accept(301)
    allowed = torch.zeros(tokenizer.vocab_size)
    control.adjust(allowed)
    assert allowed[tokenizer.encode("\n")[0]] == 0.0 and allowed[tokenizer.encode("{")[0]] == 0.0
    assert allowed[tokenizer.encode("a")[0]] == -torch.inf


def test_what_an_answer_says_is_not_thinking(tiny_tokenizer):
    """A grammar may demand the letters of <think>; the budget has nothing to close then."""
    control = control_of(tiny_tokenizer, constraint=Constraint("regex", "<think>a{30}"), thinking_budget=2)
    reply = reply_of(tiny_tokenizer, control, 0, script=tiny_tokenizer.encode("<think>"))
    assert said(tiny_tokenizer, reply) == "<think>" + "a" * 30


def test_two_requests_share_no_history(tiny_tokenizer):
    rng = random.Random(0)
    seeds = [rng.randrange(1000) for _ in range(4)]
    settings = dict(constraint=ANSWER, thinking_budget=10, frequency_penalty=0.5)
    alone = [reply_of(tiny_tokenizer, control_of(tiny_tokenizer, **settings), seed) for seed in seeds]
    controls = [control_of(tiny_tokenizer, **settings) for _ in seeds]
    assert [reply_of(tiny_tokenizer, control, seed) for control, seed in zip(controls, seeds, strict=True)] == alone


def test_a_grammar_that_fails_ends_its_request_alone(tiny_tokenizer):
    """The logits are no numbers then, which the engine finds out; the control says why."""
    control = control_of(tiny_tokenizer, constraint=ANSWER)
    logits = torch.zeros(tiny_tokenizer.vocab_size)
    control.adjust(logits)
    assert control.error is None
    control.accept(tiny_tokenizer.encode("x")[0])
    assert "constraint cannot be followed" in control.error and not control.finished
    control.adjust(logits)
    assert logits.isnan().all()
