"""The engine: the same answers whatever else runs, rows that come and go, and clear refusals."""

import itertools

import pytest
import torch

from kogia.engine.engine import Engine
from kogia.engine.request import Output, SamplingParams
from kogia.engine.torch_runner import TorchRunner
from kogia.errors import PromptError


@pytest.fixture(scope="module")
def model(make_model, tiny_tokenizer):
    return make_model(11, vocab_size=tiny_tokenizer.vocab_size, initializer_range=0.2, max_position_embeddings=64)


@pytest.fixture
def engine(model, tiny_tokenizer) -> Engine:
    return Engine(model, tiny_tokenizer, draft="off")


def prompts(count: int) -> list[list[int]]:
    """Prompts of different lengths."""
    return [[(7 * i + 3 * j) % 390 + 6 for j in range(1 + i % 9)] for i in range(count)]


def params(count: int, tokens: int = 12, temperature: float = 1.0) -> list[SamplingParams]:
    return [SamplingParams(tokens + i % 5, temperature, seed=i) for i in range(count)]


def said(outputs) -> list[list[int]]:
    return [o.token_ids for o in outputs]


@pytest.fixture(scope="module")
def alone(model, tiny_tokenizer) -> list[Output]:
    """Sixteen requests, each in an engine of its own."""
    return [Engine(model, tiny_tokenizer).generate([p], [s])[0] for p, s in zip(prompts(16), params(16), strict=True)]


# what is said --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def naive_greedy(model, prompt, count, eos) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] == eos:
            break
    return tokens[len(prompt) :]


def test_greedy_is_the_naive_loop(model, engine):
    outputs = engine.generate(prompts(8), params(8, temperature=0.0))
    expected = [
        naive_greedy(model, p, s.max_tokens, engine.tokenizer.eos) for p, s in zip(prompts(8), params(8), strict=True)
    ]
    assert said(outputs) == expected


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_are_the_models(model, engine, temperature):
    for output in engine.generate(prompts(6), params(6, temperature=temperature)):
        tokens = torch.tensor([[*output.prompt, *output.token_ids]])
        logp = torch.log_softmax(model(tokens)[0, len(output.prompt) - 1 : -1] / temperature, -1)
        expected = logp.gather(-1, torch.tensor(output.token_ids).unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(torch.tensor(output.logprobs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("max_batch", [1, 2, 3, 5, 16, 512])
def test_the_batch_changes_no_answer(model, tiny_tokenizer, alone, max_batch):
    outputs = Engine(model, tiny_tokenizer, max_batch).generate(prompts(16), params(16))
    assert said(outputs) == said(alone)
    assert [o.finish_reason for o in outputs] == [o.finish_reason for o in alone]
    for a, b in zip(outputs, alone, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_the_order_of_arrival_changes_no_answer(engine, alone):
    order = [5, 3, 15, 0, 1, 14, 2, 9, 8, 7, 6, 13, 12, 11, 10, 4]
    outputs = engine.generate([prompts(16)[i] for i in order], [params(16)[i] for i in order])
    assert said(outputs) == [alone[i].token_ids for i in order]


def test_requests_that_arrive_while_others_run_change_no_answer(model, tiny_tokenizer, alone):
    engine, done, waiting = Engine(model, tiny_tokenizer, max_batch=4), {}, list(range(16))
    ids = {}
    for step in itertools.count():
        if waiting and step % 3 == 0:
            i = waiting.pop(0)
            ids[engine.add(prompts(16)[i], params(16)[i])] = i
        if not engine.busy:
            break
        done |= {ids[event.id]: event.output for event in engine.step() if event.output}
    assert said(done[i] for i in range(16)) == said(alone)


def test_an_engine_can_be_used_again(engine, alone):
    assert said(engine.generate(prompts(16), params(16))) == said(alone)
    assert said(engine.generate(prompts(4), params(4))) == said(alone)[:4]


def test_equal_prompts_with_different_seeds_differ_and_with_equal_seeds_do_not(engine):
    settings = [SamplingParams(12, seed=s) for s in (1, 2, 1)]
    a, b, c = said(engine.generate([[5, 6, 7]] * 3, settings))
    assert a == c != b


def test_every_step_hands_out_one_token_of_each_running_request(engine):
    ids = [engine.add(p, s) for p, s in zip(prompts(3), params(3), strict=True)]
    got = {id: [] for id in ids}
    outputs = {}
    while engine.busy:
        for event in engine.step():
            assert len(event.tokens) == 1
            got[event.id] += event.tokens
            if event.output:
                outputs[event.id] = event.output
    assert all(outputs[id].token_ids == got[id] and outputs[id].id == id for id in ids)


# where it ends -------------------------------------------------------------------------------------------------------


@pytest.fixture
def talkative(model, tiny_tokenizer):
    """An engine whose model ends its answers soon: EOS is made likely."""
    engine = Engine(model, tiny_tokenizer, runner=TorchRunner(model, one_by_one=False))
    with torch.no_grad():
        engine.model.lm_head.weight.mul_(0.1)
        engine.model.lm_head.weight[engine.tokenizer.eos] = 0.0
    engine.model.logits = lambda h: engine.model.lm_head(h).float() + 5.0 * torch.eye(400)[engine.tokenizer.eos]
    return engine


def test_eos_ends_an_answer_and_stays_out_of_its_text(talkative):
    eos = talkative.tokenizer.eos
    outputs = talkative.generate(prompts(20), [SamplingParams(30, seed=i) for i in range(20)])
    stopped = [o for o in outputs if o.finish_reason == "stop"]
    assert len(stopped) > 5
    for o in stopped:
        assert o.token_ids[-1] == eos and o.token_ids.count(eos) == 1 and len(o.logprobs) == len(o.token_ids)
        assert o.text == talkative.tokenizer.decode(o.token_ids[:-1])


def test_length_ends_an_answer(engine):
    outputs = engine.generate(prompts(4), [SamplingParams(n, seed=1) for n in (1, 2, 3, 20)])
    for output, limit in zip(outputs, (1, 2, 3, 20), strict=True):
        if output.finish_reason == "length":
            assert len(output.token_ids) == limit and output.text == engine.tokenizer.decode(output.token_ids)
    assert outputs[0].finish_reason == "length"


def test_the_context_ends_an_answer(model, tiny_tokenizer):
    engine = Engine(model, tiny_tokenizer, max_length=20)
    output = engine.generate([[6] * 15], [SamplingParams(1000, seed=3)])[0]
    assert output.finish_reason == "stop" or len(output.token_ids) == 5
    assert Engine(model, tiny_tokenizer, max_length=10_000).max_length == 64  # no longer than the model's context


def test_many_requests_all_finish(model, tiny_tokenizer):
    engine = Engine(model, tiny_tokenizer, max_batch=3)
    outputs = engine.generate(prompts(40), [SamplingParams(1 + i % 7, seed=i) for i in range(40)])
    assert [o.prompt for o in outputs] == [tuple(p) for p in prompts(40)]
    assert not engine.busy and len({o.id for o in outputs}) == 40


# leaving early -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_abort_frees_the_row_and_disturbs_nobody(model, tiny_tokenizer, alone, victim, after):
    engine = Engine(model, tiny_tokenizer, max_batch=3, draft="off")
    ids = [engine.add(p, s) for p, s in zip(prompts(4), params(4), strict=True)]  # the fourth has to wait
    done = {}
    for _ in range(after):
        done |= {event.id: event.output for event in engine.step() if event.output}
    engine.abort(ids[victim])
    while engine.busy:
        done |= {event.id: event.output for event in engine.step() if event.output}
    assert done.keys() == set(ids) - {ids[victim]}
    assert all(done[id].token_ids == alone[i].token_ids for i, id in enumerate(ids) if i != victim)


def test_aborting_what_is_gone_is_nothing(engine):
    engine.abort(12345)
    id = engine.add([5, 6], SamplingParams(3))
    engine.abort(id)
    engine.abort(id)
    assert not engine.busy


def test_a_step_with_nothing_to_do_does_nothing(engine):
    """As happens when the last request is aborted between two steps."""
    assert engine.step() == []


# refusals ------------------------------------------------------------------------------------------------------------


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(PromptError, match="empty"):
        engine.add([], SamplingParams())


@pytest.mark.parametrize("length", [20, 21, 1000])
def test_a_prompt_too_long_names_both_numbers(model, tiny_tokenizer, length):
    engine = Engine(model, tiny_tokenizer, max_length=20)
    with pytest.raises(PromptError, match=rf"{length} tokens.*holds 20"):
        engine.add([6] * length, SamplingParams())
    assert not engine.busy
    assert len(engine.generate([[6] * 19], [SamplingParams(5)])[0].token_ids) == 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"max_tokens": "9"}, "max_tokens is '9'"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": 2.1}, "temperature is 2.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": float("nan")}, "top_p is nan"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings, named):
    with pytest.raises(PromptError, match=named):
        SamplingParams(**settings)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_does_not_fit_is_refused_before_it_reaches_the_batch(seed):
    """One request's seed must not be able to stop the step of all the others."""
    with pytest.raises(PromptError, match="seed is"):
        SamplingParams(seed=seed)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_any_63_bit_seed_works(engine, seed):
    a, b = (engine.generate([[5, 6]], [SamplingParams(4, seed=seed)])[0] for _ in range(2))
    assert a.token_ids == b.token_ids


@pytest.mark.parametrize("token", [-1, 400, 10**9])
def test_a_token_outside_the_vocabulary_is_refused(engine, token):
    with pytest.raises(PromptError, match=r"outside the vocabulary \(0 to 399\)"):
        engine.add([5, token, 6], SamplingParams())
    assert not engine.busy


# live weights --------------------------------------------------------------------------------------------------------


def test_refresh_takes_over_the_live_weights(make_model, tiny_tokenizer):
    live = make_model(1, vocab_size=400, initializer_range=0.2)
    engine = Engine(live, tiny_tokenizer)
    before = said(engine.generate(prompts(3), params(3)))
    live.load_state_dict(make_model(2, vocab_size=400, initializer_range=0.2).state_dict())
    assert said(engine.generate(prompts(3), params(3))) == before
    engine.refresh()
    after = said(engine.generate(prompts(3), params(3)))
    assert after != before and after == said(Engine(live, tiny_tokenizer).generate(prompts(3), params(3)))


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_keeps_router_and_norms_exact(make_model, tiny_tokenizer, tied):
    live = make_model(1, vocab_size=400, tie_word_embeddings=tied).compute_in(torch.bfloat16)
    engine = Engine(live, tiny_tokenizer, runner=TorchRunner(live, one_by_one=False))
    dtypes = {name: p.dtype for name, p in engine.model.named_parameters()}
    exact = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert exact == {n for n in dtypes if "norm" in n or n.endswith("mlp.gate.weight")}
    assert all(p.dtype == torch.float32 for p in live.parameters())
    assert not any(p.requires_grad for p in engine.model.parameters())
    assert len(engine.generate(prompts(3), params(3))) == 3
    engine.refresh()
