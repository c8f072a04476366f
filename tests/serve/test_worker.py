"""The inference thread: answers, aborts, refusals, failures, and its end."""

import asyncio
import shutil
from contextlib import aclosing

import pytest
import torch

from kogia.convert import convert
from kogia.engine.engine import Engine
from kogia.engine.request import SamplingParams
from kogia.errors import EngineError, FolderError, PromptError, QueueFullError, UserError
from kogia.kernels.native import why_not
from kogia.serve.worker import Computing, StoppedError, Token, Worker, WorkerError, load_engine
from kogia.text.prompts import encode_question
from kogia.text.tokenizer import train_tokenizer

from .conftest import CONVERSATIONS, GREETING

ENDLESS = SamplingParams(max_tokens=8000, seed=1)
SHORT = SamplingParams(max_tokens=3, seed=2)


def sabotage(worker: Worker) -> None:
    """Take the runner's programs away, so that its next step fails for real."""
    worker.engine.runner._programs = []


def load(folder, max_batch: int = 4) -> Engine:
    """An engine of its own for each test."""
    return load_engine(folder, max_batch, Computing(threads=1))


async def tokens_of(worker: Worker, prompt: list[int], params: SamplingParams) -> list[Token]:
    """A whole reply."""
    return [token async for token in worker.stream(prompt, params)]


@pytest.fixture
def hello(tokenizer) -> list[int]:
    """A prompt."""
    return encode_question(tokenizer, GREETING)


def test_streams_what_the_engine_says(thinker, tokenizer):
    params = SamplingParams(max_tokens=100, temperature=0.0)
    prompts = [encode_question(tokenizer, question) for question in CONVERSATIONS]
    expected = load(thinker).generate(prompts, [params] * len(prompts))

    async def ask_all() -> list[list[Token]]:
        return await asyncio.gather(*(tokens_of(worker, prompt, params) for prompt in prompts))

    with Worker(load(thinker)) as worker:
        replies = asyncio.run(ask_all())
    assert [[token.id for token in reply] for reply in replies] == [output.token_ids for output in expected]
    assert [reply[-1].finish_reason for reply in replies] == ["stop"] * 3
    assert all(token.finish_reason is None for reply in replies for token in reply[:-1])


def test_a_seed_fixes_the_reply_whatever_runs_beside_it(babbler, hello):
    params = SamplingParams(max_tokens=60, seed=5)

    async def alone_and_in_company() -> list[list[Token]]:
        alone = await tokens_of(worker, hello, params)
        others = [SamplingParams(max_tokens=20 + 9 * i, seed=i) for i in range(3)]
        replies = await asyncio.gather(*(tokens_of(worker, hello, p) for p in (params, *others, params)))
        return [alone, replies[0], replies[-1], replies[1]]

    with Worker(load(babbler)) as worker:
        alone, first, last, other = asyncio.run(alone_and_in_company())
    assert alone == first == last
    assert alone[:20] != other[:20]
    assert worker.stats() == {"in_flight": 0, "finished": 6, "aborted": 0, "failed": 0}


def test_a_closed_stream_frees_its_row(babbler, hello):
    async def leave_early() -> dict[str, int]:
        async with aclosing(worker.stream(hello, ENDLESS)) as stream:
            await anext(stream)
        # Commands are obeyed in order, so by the end of this reply the one before is long aborted.
        await tokens_of(worker, hello, SHORT)
        return worker.stats()

    with Worker(load(babbler)) as worker:
        assert asyncio.run(leave_early()) == {"in_flight": 0, "finished": 1, "aborted": 1, "failed": 0}
        assert not worker.engine.busy


def test_a_cancelled_task_frees_its_row_and_one_that_waited_never_runs(babbler, hello):
    async def cancel() -> dict[str, int]:
        running = worker.stream(hello, ENDLESS)
        await anext(running)
        waiting = asyncio.create_task(tokens_of(worker, hello, ENDLESS))
        await asyncio.sleep(0)  # let the task begin
        assert worker.stats()["in_flight"] == 2
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await running.aclose()
        await tokens_of(worker, hello, SHORT)
        return worker.stats()

    with Worker(load(babbler, max_batch=1)) as worker:
        assert asyncio.run(cancel()) == {"in_flight": 0, "finished": 1, "aborted": 2, "failed": 0}


def test_a_full_queue_refuses_and_then_has_room_again(babbler, hello):
    async def fill() -> list[Token]:
        async with aclosing(worker.stream(hello, ENDLESS)) as running:
            await anext(running)
            waiting = asyncio.create_task(tokens_of(worker, hello, SHORT))
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError, match="2 requests are in flight"):
                await tokens_of(worker, hello, SHORT)
        assert len(await waiting) == 3
        return await tokens_of(worker, hello, SHORT)

    with Worker(load(babbler, max_batch=1), max_waiting=1) as worker:
        assert len(asyncio.run(fill())) == 3


def test_a_failing_step_fails_what_is_in_flight_and_the_worker_goes_on(babbler, hello, caplog):
    async def fail() -> list[object]:
        before = await tokens_of(worker, hello, SHORT)
        async with aclosing(worker.stream(hello, ENDLESS)) as innocent:
            await anext(innocent)
            sabotage(worker)
            with pytest.raises(WorkerError, match="the server goes on"):
                while True:
                    await anext(innocent)
        return [before, await tokens_of(worker, hello, SHORT)]

    with Worker(load(babbler)) as worker:
        before, after = asyncio.run(fail())
        assert not worker.engine.busy
    assert before == after
    assert worker.stats() == {"in_flight": 0, "finished": 2, "aborted": 0, "failed": 1}
    assert "Traceback" in caplog.text  # in the log, where the operator can see it


def test_broken_logits_are_their_own_requests_failure(babbler, hello):
    engine = load(babbler)
    poison = 300
    assert poison not in hello
    engine.runner.parts.table[poison] = float("nan")

    async def ask() -> list[Token]:
        async with aclosing(worker.stream(hello, ENDLESS)) as other:
            await anext(other)
            with pytest.raises(WorkerError, match=r"not finite.*; the server goes on"):
                await tokens_of(worker, [*hello, poison], SHORT)
            assert (await anext(other)).finish_reason is None
        return await tokens_of(worker, hello, SHORT)

    with Worker(engine) as worker:
        assert len(asyncio.run(ask())) == 3
    assert worker.stats() == {"in_flight": 0, "finished": 1, "aborted": 1, "failed": 1}


def test_n_replies_come_in_one_stream(babbler, hello):
    params = SamplingParams(max_tokens=5, seed=3, n=3)

    async def ask() -> tuple[list[Token], list[Token]]:
        return await tokens_of(worker, hello, params), await tokens_of(worker, hello, SamplingParams(5, seed=3))

    with Worker(load(babbler)) as worker:
        several, one = asyncio.run(ask())
    replies = [[token for token in several if token.index == i] for i in range(3)]
    assert [len(reply) for reply in replies] == [5] * 3
    assert [(token.id, token.text) for token in replies[0]] == [(token.id, token.text) for token in one]
    assert all([token.finish_reason for token in reply] == [None] * 4 + ["length"] for reply in replies)
    assert worker.stats() == {"in_flight": 0, "finished": 2, "aborted": 0, "failed": 0}


def test_the_last_token_tells_what_was_in_the_cache(babbler, hello):
    prompt = (hello * 40)[:40]

    async def twice() -> list[int]:
        return [(await tokens_of(worker, prompt, SHORT))[-1].cached for _ in range(2)]

    with Worker(load(babbler)) as worker:
        assert asyncio.run(twice()) == [0, 32]


def test_the_text_of_the_tokens_is_the_text_of_the_reply(thinker, tokenizer, hello):
    params = SamplingParams(max_tokens=100, temperature=0.0)
    with Worker(load(thinker)) as worker:
        tokens = asyncio.run(tokens_of(worker, hello, params))
    assert "".join(token.text for token in tokens) == tokenizer.decode([token.id for token in tokens][:-1])


def test_tenant_and_priority_reach_the_engine(babbler, hello):
    seen = []

    async def ask() -> None:
        async for _ in worker.stream(hello, SHORT, priority=2, salt="tenant"):
            pass

    engine = load(babbler)
    engine.add = lambda *given, add=engine.add, **named: seen.append(named) or add(*given, **named)
    with Worker(engine) as worker:
        asyncio.run(ask())
    assert seen == [{"priority": 2, "salt": "tenant", "stream": True}]


def test_a_bad_prompt_is_its_own_clients_business(babbler, hello):
    async def ask() -> None:
        async with aclosing(worker.stream(hello, ENDLESS)) as other:
            await anext(other)
            with pytest.raises(PromptError, match="empty"):
                await tokens_of(worker, [], SHORT)
            with pytest.raises(PromptError, match="9000 tokens, but the context holds 8192"):
                await tokens_of(worker, hello * (9000 // len(hello)) + hello[: 9000 % len(hello)], SHORT)
            assert (await anext(other)).finish_reason is None

    with Worker(load(babbler)) as worker:
        asyncio.run(ask())


def test_closing_ends_what_is_in_flight_with_an_error(babbler, hello):
    async def close() -> None:
        stream = worker.stream(hello, ENDLESS)
        await anext(stream)
        await asyncio.to_thread(worker.close)
        with pytest.raises(StoppedError, match="shutting down"):
            while True:
                await anext(stream)
        with pytest.raises(StoppedError):
            await tokens_of(worker, hello, SHORT)

    worker = Worker(load(babbler))
    worker.start()
    asyncio.run(close())
    worker.close()
    assert not worker.serving
    assert worker.stats()["in_flight"] == 0


def test_a_worker_that_was_never_started_refuses(babbler, hello):
    worker = Worker(load(babbler))
    with pytest.raises(StoppedError):
        asyncio.run(tokens_of(worker, hello, SHORT))
    worker.close()


def test_a_tokenizer_larger_than_the_model_is_refused(babbler, tmp_path):
    shutil.copytree(babbler, tmp_path / "mixed")
    train_tokenizer([" ".join(f"{chr(0xAC00 + i)}{chr(0xAC00 + i)}" for i in range(400))] * 2, 700).save(
        tmp_path / "mixed"
    )
    with pytest.raises(FolderError, match=r"tokenizer has 700 tokens.*vocab_size 512"):
        load(tmp_path / "mixed")


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_an_engine_computes_in_the_dtype_that_is_asked_for(babbler, dtype, expected):
    engine = load_engine(babbler, 1, Computing(threads=1, dtype=dtype))
    assert engine.model.dtype == engine.model.embed_tokens.weight.dtype == expected
    assert engine.model is engine.live  # as it was loaded: no second copy of the weights


def test_an_unknown_dtype_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(UserError, match="dtype is 'int8': it must be auto, bfloat16 or float32"):
        load_engine(tmp_path / "nothing", 1, Computing(dtype="int8"))


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_a_folder_in_few_bits_is_computed_in_them(babbler, hello, tmp_path, format):
    """And its weights' own memory is given back: only the packed ones are left."""
    convert(babbler, tmp_path / "small", quantize=format)
    engine = load_engine(tmp_path / "small", 1, Computing(threads=1))
    if why_not() is None:
        assert engine.runner.format == format and engine.model.lm_head.weight.is_meta
    told = load_engine(tmp_path / "small", 1, Computing(threads=1, quantize=format))
    first, second = (e.generate([hello], [SHORT])[0] for e in (engine, told))
    assert (first.token_ids, first.logprobs) == (second.token_ids, second.logprobs)
    with pytest.raises(EngineError, match="released"):
        engine.refresh()
