"""What may be asked, what it costs, what is counted, and what one bad request does to the others: nothing."""

import numpy as np
import pytest
import torch

from kogia.engine.engine import Engine
from kogia.engine.request import SamplingParams
from kogia.engine.torch_runner import TorchRunner
from kogia.errors import EngineError, PromptError, QueueFullError

LONG = [(7 * i) % 390 + 6 for i in range(100)]


@pytest.fixture(scope="module")
def model(make_model, tiny_tokenizer):
    size = tiny_tokenizer.vocab_size
    model = make_model(11, vocab_size=size, initializer_range=0.2, max_position_embeddings=256)
    return model.requires_grad_(False)


class Counting(TorchRunner):
    """Counts the rows it computes."""

    def __init__(self, model) -> None:
        super().__init__(model, one_by_one=False)
        self.rows = 0

    def forward(self, batch):
        self.rows += len(batch.tokens_N)
        return super().forward(batch)


@pytest.fixture
def engine(model, tiny_tokenizer) -> Engine:
    return Engine(model, tiny_tokenizer, runner=Counting(model), draft="off")


def run(engine: Engine) -> dict:
    """Step until everything is done; returns the outputs by id and index."""
    done = {}
    while engine.busy:
        done |= {(e.id, e.index): e.output for e in engine.step() if e.output}
    return done


# what it costs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix_cache", [False, True])
def test_equal_prompts_are_read_once(model, tiny_tokenizer, prefix_cache):
    engine = Engine(model, tiny_tokenizer, prefix_cache=prefix_cache, runner=Counting(model), draft="off")
    outputs = engine.generate([LONG] * 16, [SamplingParams(3, seed=i, ignore_eos=True) for i in range(16)])
    assert engine.runner.rows == 100 + 16 * 2
    assert [o.cached_tokens for o in outputs] == [0] + [100] * 15
    assert len({tuple(o.token_ids) for o in outputs}) > 10


def test_n_replies_are_n_seeds_over_one_prompt(engine):
    outputs = engine.generate([LONG, LONG[:5]], [SamplingParams(5, seed=3, n=n, ignore_eos=True) for n in (6, 2)])
    assert engine.runner.rows == 105 + 8 * 4
    assert [o.index for o in outputs] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert outputs[0].token_ids == engine.generate([LONG], [SamplingParams(5, seed=3, ignore_eos=True)])[0].token_ids
    assert len({tuple(o.token_ids) for o in outputs[:6]}) == 6


def test_siblings_share_all_blocks_but_the_one_they_write(engine):
    engine.add(LONG, SamplingParams(4, n=5, ignore_eos=True))
    engine.step()
    pool = engine._scheduler.pool
    assert pool.total - pool.available == 7  # 100 tokens
    engine.step()
    assert pool.total - pool.available == 6 + 5
    run(engine)
    assert pool.available == pool.total


def test_a_prefix_that_was_read_before_is_not_read_again(engine):
    params = SamplingParams(2, temperature=0.0, ignore_eos=True)
    first = engine.generate([LONG], [params])[0]
    before = engine.runner.rows
    again, longer, exact = (engine.generate([p], [params])[0] for p in (LONG, [*LONG, 7, 8], LONG[:96]))
    assert [o.cached_tokens for o in (first, again, longer, exact)] == [0, 96, 96, 80]  # never all of the prompt
    assert engine.runner.rows - before == (4 + 6 + 16) + 3
    assert again.token_ids == first.token_ids
    assert engine.stats()["prefix_cache_hits"] == 272


def test_another_tenant_or_other_weights_never_hit(engine):
    engine.generate([LONG], [SamplingParams(1)])
    for salt, hits in (("", 96), ("a", 0), ("b", 0), ("a", 96)):
        engine.add(LONG, SamplingParams(1), salt=salt)
        assert [o.cached_tokens for o in run(engine).values()] == [hits]
    engine.refresh()
    for hits in (0, 96):
        assert engine.generate([LONG], [SamplingParams(1)])[0].cached_tokens == hits


def test_tenants_do_not_share_a_prompt_that_is_being_read(engine):
    engine.add(LONG, SamplingParams(1), salt="a")
    engine.add(LONG, SamplingParams(1), salt="b")
    assert [o.cached_tokens for o in run(engine).values()] == [0, 0]


def test_the_cache_takes_no_memory_before_it_is_used(model):
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    runner, before = TorchRunner(model, one_by_one=False), resident()
    runner.allocate((1 << 30) // runner.cache[:, 0].nbytes)
    assert runner.cache.nbytes > 0.9 * (1 << 30)
    assert resident() - before < 50 << 20


# leaving and waiting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 3])
def test_abort_frees_the_blocks_at_once(engine, after):
    ids = [engine.add(LONG[:50], SamplingParams(50, n=3, ignore_eos=True)) for _ in range(2)]
    for _ in range(after):
        engine.step()
    engine.abort(ids[0])
    engine.abort(ids[1])
    pool = engine._scheduler.pool
    assert pool.available == pool.total and not engine.busy
    engine._scheduler.check()
    assert engine.metrics.finished["abort"] == 6


def test_who_reads_a_prompt_for_others_may_leave(engine):
    engine._scheduler.budget = 30
    params = SamplingParams(3, temperature=0.0, ignore_eos=True)
    first, second, third = (engine.add(LONG, params) for _ in range(3))
    engine.step()
    engine.abort(first)
    done = run(engine)
    assert done.keys() == {(second, 0), (third, 0)}
    assert done[second, 0].token_ids == done[third, 0].token_ids == engine.generate([LONG], [params])[0].token_ids


def test_a_bounded_queue(model, tiny_tokenizer):
    engine = Engine(model, tiny_tokenizer, 2, max_waiting=1)
    for _ in range(3):
        engine.add([5], SamplingParams(2))
    with pytest.raises(QueueFullError, match="3 requests are in flight"):
        engine.add([5], SamplingParams(2))
    run(engine)
    with pytest.raises(QueueFullError):
        engine.add([5], SamplingParams(2, n=4))
    assert len(engine.generate([[5]] * 9, [SamplingParams(1)] * 9)) == 9  # its own queue


def test_the_more_urgent_comes_first(model, tiny_tokenizer):
    engine = Engine(model, tiny_tokenizer, 1)
    ids = [engine.add([5 + i], SamplingParams(1), priority=p) for i, p in enumerate([1, 0, 1, -1])]
    assert [id for id, _ in run(engine)] == [ids[3], ids[1], ids[0], ids[2]]


def test_a_paused_engine_does_nothing_and_loses_nothing(engine):
    engine.add([5, 6], SamplingParams(3, seed=1, ignore_eos=True))
    engine.step()
    engine.pause()
    assert not engine.busy and engine.step() == []
    with pytest.raises(EngineError, match="paused"):
        engine.generate([[5]], [SamplingParams(1)])
    engine.resume()
    (output,) = run(engine).values()
    assert output.token_ids == engine.generate([[5, 6]], [SamplingParams(3, seed=1, ignore_eos=True)])[0].token_ids


def test_reset_forgets_everything_and_works_on(engine):
    before = engine.generate([LONG], [SamplingParams(3, seed=1)])[0].token_ids
    engine.add(LONG, SamplingParams(9, n=3))
    engine.step()
    engine.add(LONG, SamplingParams(9))
    engine.runner.cache = None
    engine.reset()
    assert not engine.busy and engine.stats()["kv_cache_usage_perc"] == 0
    again = engine.generate([LONG], [SamplingParams(3, seed=1)])[0]
    assert again.token_ids == before and again.cached_tokens == 0


# bad input -----------------------------------------------------------------------------------------------------------


def test_a_huge_max_tokens_is_capped_by_the_context(model, tiny_tokenizer):
    engine = Engine(model, tiny_tokenizer, max_length=40)
    output = engine.generate([LONG[:30]], [SamplingParams(10**18, ignore_eos=True)])[0]
    assert (len(output.token_ids), output.finish_reason) == (10, "length")


def test_what_can_never_fit_the_cache_is_refused(model, tiny_tokenizer):
    engine = Engine(model, tiny_tokenizer, cache_tokens=64)
    assert engine.max_length == 64
    with pytest.raises(PromptError, match=r"100 tokens, but the context holds 64"):
        engine.add(LONG, SamplingParams())
    assert len(engine.generate([LONG[:40]], [SamplingParams(99, ignore_eos=True)])[0].token_ids) == 24


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"stop": "end"}, r"stop is the string 'end': it must be a tuple"),
        ({"stop": ("",)}, "stop is "),
        ({"stop": (3,)}, "stop is "),
        ({"stop": 3}, "stop is 3"),
        ({"stop": ("a",) * 17}, "stop has 17 strings: it may have at most 16"),
        ({"stop_token_ids": ("a",)}, "stop_token_ids is "),
        ({"stop_token_ids": (-1,)}, "stop_token_ids is "),
        ({"stop_token_ids": 7}, "stop_token_ids is 7"),
        ({"logit_bias": {5: 101}}, "logit_bias has 5: 101"),
        ({"logit_bias": {"5": 1}}, "logit_bias has '5': 1"),
        ({"logit_bias": [5]}, "logit_bias is "),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 1.0}, "top_k is 1.0"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"top_logprobs": 21}, "top_logprobs is 21"),
        ({"n": 0}, "n is 0"),
        ({"n": 129}, "n is 129"),
        ({"thinking_budget": -1}, "thinking_budget is -1"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"seed": 1.5}, "seed is 1.5"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_named(settings, named):
    with pytest.raises(PromptError, match=named):
        SamplingParams(**settings)


@pytest.mark.parametrize("settings", [{"stop_token_ids": (5, 400)}, {"logit_bias": {400: 1.0}}], ids=str)
def test_ids_outside_the_vocabulary_are_refused(engine, settings):
    with pytest.raises(PromptError, match="has 400: the vocabulary goes from 0 to 399"):
        engine.add([5], SamplingParams(**settings))
    assert not engine.busy


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_end_their_own_request_only(make_model, tiny_tokenizer, value, temperature):
    broken = make_model(11, vocab_size=400, initializer_range=0.2)
    params = [SamplingParams(6, temperature, seed=i, ignore_eos=True) for i in range(4)]
    prompts = [[10 + i] * 20 for i in range(4)]
    expected = Engine(broken, tiny_tokenizer).generate(prompts, params)
    with torch.no_grad():
        broken.embed_tokens.weight[12] = value  # so every request that has token 12
    engine = Engine(broken, tiny_tokenizer)
    outputs = engine.generate(prompts, params)
    assert outputs[2].finish_reason == "error" and "not finite" in outputs[2].error
    assert outputs[2].token_ids == [] and outputs[2].logprobs == []
    good = [0, 1, 3]
    assert [outputs[i].token_ids for i in good] == [expected[i].token_ids for i in good]
    engine._scheduler.pool._free.sort(reverse=True)
    assert (
        engine.generate([prompts[3]], [params[3]])[0].token_ids == expected[3].token_ids
    )  # in the broken one's blocks


# ends ----------------------------------------------------------------------------------------------------------------


def test_stop_tokens_and_ignored_eos(engine):
    free = engine.generate([[9, 8]], [SamplingParams(12, seed=4, ignore_eos=True)])[0]
    stop = free.token_ids[5]
    at = free.token_ids.index(stop)
    params = SamplingParams(12, seed=4, ignore_eos=True, stop_token_ids=(stop,))
    output = engine.generate([[9, 8]], [params])[0]
    assert (output.token_ids, output.finish_reason, output.stop_reason) == (free.token_ids[: at + 1], "stop", stop)
    assert output.text == engine.tokenizer.decode(free.token_ids[:at])


def test_a_stop_string_ends_a_reply_and_is_in_no_text(engine):
    free = engine.generate([[9, 8]], [SamplingParams(30, seed=4, ignore_eos=True)])[0]
    stop = next(free.text[i : i + 2] for i in range(5, len(free.text)) if free.text[i : i + 2].isascii())
    engine.add([9, 8], SamplingParams(30, seed=4, ignore_eos=True, stop=(stop,)), stream=True)
    text, output = "", None
    while engine.busy:
        for event in engine.step():
            text += event.text
            output = event.output
    assert output.text == text == free.text[: free.text.index(stop)]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)
    assert output.token_ids == free.token_ids[: len(output.token_ids)]


def test_streamed_text_is_the_whole_text(engine):
    ids = [engine.add([9, 8 + i], SamplingParams(20, seed=i), stream=True) for i in range(5)]
    texts, outputs = dict.fromkeys(ids, ""), {}
    while engine.busy:
        for event in engine.step():
            assert len(event.pieces) == len(event.tokens)
            texts[event.id] += event.text
            if event.output:
                outputs[event.id] = event.output
    assert all(outputs[id].text == texts[id] for id in ids)


def test_top_logprobs_come_with_every_token(engine):
    output = engine.generate([[9, 8]], [SamplingParams(5, temperature=0.0, top_logprobs=3, ignore_eos=True)])[0]
    assert len(output.top_logprobs) == 5
    for id, logprob, top in zip(output.token_ids, output.logprobs, output.top_logprobs, strict=True):
        assert len(top) == 3 and top[0][0] == id and top[0][1] == pytest.approx(logprob)


# routed experts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [3, 2048])
def test_routed_experts_are_those_of_the_model(model, tiny_tokenizer, budget):
    engine = Engine(model, tiny_tokenizer, max_batch_tokens=budget)
    params = [SamplingParams(6, seed=i, n=n, routed_experts=True) for i, n in ((1, 1), (2, 3))]
    engine.generate([LONG[:40]], [SamplingParams(1)])  # a cache that knows the prompt cannot tell its experts
    for output in engine.generate([LONG[:20], LONG[:40]], params):
        heard = []
        hook = model.layers[1].mlp.gate.register_forward_hook(lambda m, a, r, heard=heard: heard.append(r.experts_NK))
        model(torch.tensor([[*output.prompt, *output.token_ids]])[:, :-1])
        hook.remove()
        assert output.routed_experts.dtype == np.int16 and output.routed_experts.shape[1:] == (1, 2)
        found = np.sort(output.routed_experts[:, 0], axis=-1)
        assert (found == np.sort(heard[0].numpy(), axis=-1)).all()
    assert engine.generate([[5]], [SamplingParams(1)])[0].routed_experts is None


# metrics -------------------------------------------------------------------------------------------------------------


def test_metrics_count_what_happened(engine):
    engine.generate([LONG, LONG], [SamplingParams(3, seed=i, ignore_eos=True) for i in range(2)])
    engine.generate([LONG[:50]], [SamplingParams(4, seed=1, ignore_eos=True)])
    engine.abort(engine.add([5], SamplingParams(1)))
    engine.add(LONG[:20], SamplingParams(2))
    lines = dict(line.rsplit(" ", 1) for line in engine.metrics.text().splitlines() if not line.startswith("#"))
    values = {name: float(value) for name, value in lines.items()}
    expected = {
        "kogia:num_requests_running": 0,
        "kogia:num_requests_waiting": 1,
        "kogia:kv_cache_usage_perc": 0,
        "kogia:prompt_tokens_total": 250,
        "kogia:generation_tokens_total": 10,
        "kogia:prefix_cache_queries_total": 150,
        "kogia:prefix_cache_hits_total": 48,
        "kogia:num_preemptions_total": 0,
        "kogia:spec_decode_num_draft_tokens_total": 0,
        "kogia:spec_decode_num_accepted_tokens_total": 0,
        'kogia:request_success_total{finished_reason="length"}': 3,
        'kogia:request_success_total{finished_reason="stop"}': 0,
        'kogia:request_success_total{finished_reason="abort"}': 1,
        "kogia:time_to_first_token_seconds_count": 3,
        "kogia:inter_token_latency_seconds_count": 7,
    }
    assert {name: values[name] for name in expected} == expected
    assert 0 < values["kogia:time_to_first_token_seconds_sum"] < 60
    assert values['kogia:time_to_first_token_seconds_bucket{le="+Inf"}'] == 3
