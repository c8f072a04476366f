"""The server as its clients see it: OpenAI's own client, and raw HTTP for what that client would never send."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from kogia.errors import FolderError, PromptError, UserError
from kogia.serve import ReplyReader
from kogia.serve.http import bind, serve
from kogia.serve.openai import UNSUPPORTED, ChatRequest, sampling
from kogia.text.prompts import encode_question
from kogia.text.tokenizer import Detokenizer

from .conftest import CONVERSATIONS, GREETING, HTTP, THINKING, serving

pytestmark = pytest.mark.timeout(60)
GREETED = "안녕하세요, 세계! 만나서 반갑습니다."


def ask(question: str = GREETING, **options) -> dict:
    """The arguments of a request to the thinker."""
    return {"model": "thinker", "messages": [{"role": "user", "content": question}], "temperature": 0.0, **options}


def babble(**options) -> dict:
    """The arguments of a request to the babbler."""
    return {"model": "babbler", "messages": [{"role": "user", "content": "hi"}], "seed": 7, **options}


def gather(stream) -> tuple[str, str, str | None]:
    """Reasoning, content and finish reason of a stream of the client's chunks."""
    reasoning, content, reason = "", "", None
    for chunk in stream:
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return reasoning, content, reason


def post(served, body: object, path: str = "/v1/chat/completions") -> httpx.Response:
    """POST raw bytes, or anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HTTP.post(served.url + path, content=content)


def error_of(response: httpx.Response) -> dict:
    """The error of a response, whose shape is always the same and which never shows our insides."""
    assert "Traceback" not in response.text
    assert 'File "' not in response.text
    assert list(response.json()) == ["error"]
    assert list(response.json()["error"]) == ["message", "type", "param", "code"]
    return response.json()["error"]


# Answers


def test_thinking_and_answer_come_apart_and_korean_comes_whole(thinking_server):
    answer = thinking_server.client().chat.completions.create(**ask())
    message = answer.choices[0].message
    assert message.role == "assistant"
    assert message.reasoning_content == THINKING
    assert message.content == GREETED
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("chat.completion", "thinker")


def test_an_answer_without_thinking_has_none(thinking_server):
    answer = thinking_server.client().chat.completions.create(**ask("바로 대답해 줘."))
    assert answer.choices[0].message.content == "네, 알겠습니다."
    assert answer.choices[0].message.reasoning_content is None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_usage_counts_every_token(thinking_server, tokenizer):
    usage = thinking_server.client().chat.completions.create(**ask()).usage
    thinking, content = CONVERSATIONS[GREETING].split("</think>\n")
    assert usage.prompt_tokens == len(encode_question(tokenizer, GREETING))
    thought = len(tokenizer.encode_trusted(thinking + "</think>\n"))
    assert usage.completion_tokens_details.reasoning_tokens == thought
    assert usage.completion_tokens == thought + len(tokenizer.encode(content)) + 1  # EOS
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 <= usage.prompt_cache_hit_tokens < usage.prompt_tokens
    assert usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens == usage.prompt_tokens


def test_a_stream_begins_with_the_role_and_ends_with_reason_usage_and_done(thinking_server):
    response = post(thinking_server, ask(stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert last == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    kinds = [next(iter(chunk["choices"][0]["delta"])) for chunk in chunks[1:-2]]
    assert kinds == sorted(kinds, reverse=True)  # first reasoning_content, then content
    assert set(kinds) == {"reasoning_content", "content"}
    assert chunks[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_stream_has_no_usage_unless_asked(thinking_server):
    assert "usage" not in post(thinking_server, ask(stream=True)).text


@pytest.mark.parametrize("question", CONVERSATIONS)
def test_a_stream_says_the_same_as_a_response(thinking_server, question):
    client = thinking_server.client()
    whole = client.chat.completions.create(**ask(question))
    message = whole.choices[0].message
    streamed = gather(client.chat.completions.create(**ask(question), stream=True))
    assert streamed == (message.reasoning_content or "", message.content, "stop")


def test_a_stream_says_the_same_with_the_same_seed(babbling_server):
    client = babbling_server.client()
    whole = client.chat.completions.create(**babble(max_tokens=80)).choices[0]
    _, content, reason = gather(client.chat.completions.create(**babble(max_tokens=80), stream=True))
    assert (content, reason) == (whole.message.content, whole.finish_reason) == (content, "length")
    other = client.chat.completions.create(**babble(max_tokens=80) | {"seed": 8}).choices[0]
    assert other.message.content != content


def test_two_requests_at_once_with_one_seed_answer_alike(babbling_server):
    async def both() -> tuple[str, str]:
        async with AsyncOpenAI(base_url=f"{babbling_server.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(**babble(max_tokens=60), stream=True)
            whole = asyncio.create_task(client.chat.completions.create(**babble(max_tokens=60)))
            content = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return content, (await whole).choices[0].message.content

    streamed, whole = asyncio.run(both())
    assert streamed == whole


def test_without_a_seed_answers_differ(babbling_server):
    request = babble(max_tokens=40) | {"seed": None}
    answers = [post(babbling_server, request).json()["choices"][0]["message"]["content"] for _ in range(2)]
    assert answers[0] != answers[1]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_answer(babbling_server, limit):
    answer = babbling_server.client().chat.completions.create(**babble(**{limit: 5}))
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"


def test_a_cut_never_shows_half_a_syllable(thinking_server, tokenizer):
    ids = tokenizer.encode_trusted(CONVERSATIONS[GREETING])
    whole = next(n for n in range(len(ids)) if "뷁" in tokenizer.decode(ids[:n]))
    assert tokenizer.decode(ids[: whole - 1]).endswith("\ufffd")
    place = THINKING.index("뷁")
    for limit, shown in ((whole - 1, THINKING[:place]), (whole, THINKING[: place + 1])):
        choice = thinking_server.client().chat.completions.create(**ask(max_tokens=limit)).choices[0]
        assert (choice.message.reasoning_content, choice.finish_reason) == (shown, "length")


def test_a_whole_conversation_with_a_system_message_is_read(thinking_server):
    messages = [
        {"role": "system", "content": "짧게 말해."},
        {"role": "user", "content": GREETING},
        {"role": "assistant", "content": GREETED, "reasoning_content": "left out"},
        {"role": "user", "content": "바로 대답해 줘."},
    ]
    answer = thinking_server.client().chat.completions.create(model="thinker", messages=messages, max_tokens=5)
    assert answer.usage.prompt_tokens > 40


def test_both_paths_and_both_names_work(thinking_server, thinker):
    for path in ("/chat/completions", "/v1/chat/completions"):
        response = post(thinking_server, ask() | {"model": str(thinker)}, path)
        assert response.json()["model"] == "thinker"


def test_models_and_health(thinking_server):
    assert [model.id for model in thinking_server.client().models.list()] == ["thinker"]
    assert HTTP.get(f"{thinking_server.url}/models").json()["object"] == "list"
    health = thinking_server.health()
    assert (health["status"], health["model"], health["in_flight"]) == ("ok", "thinker", 0)


def test_what_changes_nothing_is_accepted(thinking_server):
    harmless = {name: values[0] for name, values in UNSUPPORTED.items() if values}
    request = ask(**harmless, user="me", metadata={"a": 1}, store=False, unheard_of=[1], seed=None, max_tokens=None)
    response = post(thinking_server, request)
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == GREETED


# Refusals


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("stop", ["\n"]),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"1": 5}),
        ("presence_penalty", 0.5),
        ("thinking", {"type": "disabled"}),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(thinking_server, name, value):
    with pytest.raises(openai.BadRequestError) as caught:
        thinking_server.client().chat.completions.create(**ask(), extra_body={name: value})
    assert caught.value.param == name
    assert caught.value.code == "unsupported_parameter"
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b'{"model": "thinker", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b"[" * 100_000, None),
        ({"messages": []}, "model"),
        ({"model": "thinker"}, "messages"),
        ({"model": 3, "messages": []}, "model"),
        (ask(messages=[]), "messages"),
        (ask(messages="hi"), "messages"),
        (ask(messages=["hi"]), "messages[0]"),
        (ask(messages=[{"role": "user"}]), "messages[0].content"),
        (ask(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content"),
        (ask(messages=[{"role": "wizard", "content": "hi"}]), "messages[0].role"),
        (ask(messages=[{"role": "assistant", "content": "hi"}]), "messages"),
        (ask(messages=[{"role": "user", "content": "hi", "tool_calls": [1]}]), "messages[0].tool_calls"),
        (ask("말 " * 600), "messages"),
        (ask(max_tokens=0), "max_tokens"),
        (ask(max_tokens=1.5), "max_tokens"),
        (ask(max_tokens="many"), "max_tokens"),
        (ask(max_tokens=True), "max_tokens"),
        (ask(max_completion_tokens=-1), "max_completion_tokens"),
        (ask(max_tokens=5, max_completion_tokens=6), "max_completion_tokens"),
        (ask(temperature=-1), "temperature"),
        (ask(temperature="hot"), "temperature"),
        (ask(temperature=float("nan")), "temperature"),
        (ask(temperature=10**400), "temperature"),
        (ask(top_p=0), "top_p"),
        (ask(top_p=1.01), "top_p"),
        (ask(seed=2**63), "seed"),
        (ask(seed="x"), "seed"),
        (ask(stream="yes"), "stream"),
        (ask(stream_options=True), "stream_options"),
        (ask(stream_options={"include_usage": "yes"}), "stream_options.include_usage"),
    ],
)
def test_bad_input_is_a_400_that_names_the_parameter(thinking_server, body, param):
    response = post(thinking_server, body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    words = ("message", "prompt") if param == "messages" else (param or "body",)
    assert any(word in error["message"] for word in words)


def test_limits_beyond_the_context_and_big_numbers_are_no_trouble(babbling_server):
    response = post(babbling_server, babble(max_tokens=3, seed=-(2**63), temperature=2, top_p=1))
    assert response.json()["usage"]["completion_tokens"] == 3


def test_an_unknown_model_is_a_404_that_names_the_known_one(thinking_server):
    with pytest.raises(openai.NotFoundError, match="there is 'thinker'") as caught:
        thinking_server.client().chat.completions.create(**ask() | {"model": "gpt-4o"})
    assert caught.value.code == "model_not_found"


def test_unknown_paths_and_methods_answer_in_the_same_shape(thinking_server):
    assert error_of(HTTP.get(f"{thinking_server.url}/v2/nothing"))["type"] == "invalid_request_error"
    wrong = HTTP.get(f"{thinking_server.url}/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    error_of(wrong)


def test_a_large_body_is_refused_before_it_is_parsed(thinking_server):
    just_fits = b"{" + b" " * ((1 << 20) - 1)
    assert post(thinking_server, just_fits).status_code == 400
    for body in (just_fits + b" ", b"x" * (3 << 20)):
        response = post(thinking_server, body)
        assert response.status_code == 413
        assert "1048576 bytes" in error_of(response)["message"]


def test_a_large_body_of_unknown_length_is_refused_too(thinking_server):
    pieces = (b"x" * 65536 for _ in range(20))  # sent chunked, without a Content-Length
    response = HTTP.post(f"{thinking_server.url}/v1/chat/completions", content=pieces)
    assert response.status_code == 413


# Streams that end early


def test_a_full_queue_is_a_503_that_says_when_to_try_again(babbler):
    with serving(babbler, max_batch=1, max_waiting=0) as served:
        with served.client().chat.completions.create(**babble(), stream=True) as running:
            next(running)
            response = post(served, babble(max_tokens=1))
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
            assert error_of(response)["code"] == "queue_full"
            assert post(served, babble(max_tokens=1, stream=True)).status_code == 503
        served.wait_until(lambda health: health["in_flight"] == 0)
        assert post(served, babble(max_tokens=1)).status_code == 200


def test_a_dropped_stream_frees_its_row(babbler):
    with serving(babbler) as served:
        with served.client().chat.completions.create(**babble(), stream=True) as stream:
            next(stream)
            assert served.health()["in_flight"] == 1
        health = served.wait_until(lambda health: health["in_flight"] == 0)
        assert (health["aborted"], health["finished"]) == (1, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_while_it_waits_frees_its_place(babbler, stream):
    async def hang_up() -> None:
        async with httpx.AsyncClient(verify=False) as client:
            request = client.post(f"{served.url}/chat/completions", json=babble(stream=stream), timeout=None)
            waiting = asyncio.create_task(request)
            while served.health()["in_flight"] < 2:
                await asyncio.sleep(0)
            waiting.cancel()

    with (
        serving(babbler, max_batch=1) as served,
        served.client().chat.completions.create(**babble(), stream=True) as running,
    ):
        next(running)
        asyncio.run(hang_up())
        health = served.wait_until(lambda health: health["in_flight"] == 1)
        assert (health["aborted"], health["finished"]) == (1, 0)
        next(running)


def test_an_engine_failure_is_one_clear_error_and_the_server_goes_on(babbler):
    answers: list[httpx.Response] = []
    with serving(babbler) as served:
        waiting = threading.Thread(target=lambda: answers.append(post(served, babble())))
        with served.client().chat.completions.create(**babble(), stream=True) as stream:
            next(stream)
            waiting.start()
            served.wait_until(lambda _: served.worker.engine.stats()["num_requests_running"] == 2)  # both are answered
            served.worker.engine.runner._programs = []  # its next step fails for real
            with pytest.raises(openai.APIError, match="the server goes on"):
                gather(stream)
        waiting.join()
        assert answers[0].status_code == 500
        assert error_of(answers[0])["code"] == "engine_failed"
        assert post(served, babble(max_tokens=2)).status_code == 200


# The pure parts


def texts(tokenizer, ids: list[int], reason: str) -> list[str]:
    """What each token makes certain; that of EOS is nothing."""
    stream, last = Detokenizer(tokenizer), len(ids) - 1
    return [stream.feed([] if reason == "stop" and i == last else [id], last=i == last) for i, id in enumerate(ids)]


@pytest.mark.parametrize(
    ("reply", "reason", "reasoning", "content", "thought"),
    [
        ("<think>\na\n</think>\nb", "stop", "a", "b", "<think>\na\n</think>\n"),
        ("<think>뷁</think>쀍", "stop", "뷁", "쀍", "<think>뷁</think>"),
        ("<think>a b", "length", "a b", "", "<think>a b"),
        ("b", "length", "", "b", ""),
        ("<think></think>b", "stop", "", "b", ""),
        ("a <b> c < d", "stop", "", "a <b> c < d", ""),
    ],
)
def test_a_reply_is_read_token_by_token(tokenizer, reply, reason, reasoning, content, thought):
    reader = ReplyReader(tokenizer)
    ids = tokenizer.encode_trusted(reply) + ([tokenizer.eos] if reason == "stop" else [])
    *before, last = texts(tokenizer, ids, reason)
    pieces = [piece for text in before for piece in reader.feed(text)] + reader.feed(last, reason)
    assert (reader.reasoning, reader.content, reader.finish_reason) == (reasoning, content, reason)
    assert "".join(text for _, text in pieces) == reasoning + content
    assert reader.tokens == len(ids)
    assert reader.reasoning_tokens == len(tokenizer.encode_trusted(thought))


def test_a_cut_anywhere_leaves_whole_characters(tokenizer):
    ids = tokenizer.encode_trusted(CONVERSATIONS[GREETING])
    for cut in range(1, len(ids)):
        reader = ReplyReader(tokenizer)
        *before, last = texts(tokenizer, ids[:cut], "length")
        for text in before:
            reader.feed(text)
        reader.feed(last, "length")
        assert THINKING.startswith(reader.reasoning)
        assert GREETED.startswith(reader.content)


def test_sampling_defaults_to_deepseeks_advice_and_the_room_there_is():
    request = ChatRequest(model="m", messages=[])
    params = sampling(request, room=100)
    assert (params.max_tokens, params.temperature, params.top_p) == (100, 0.6, 0.95)
    assert params.seed != sampling(request, room=100).seed
    with pytest.raises(PromptError):
        sampling(ChatRequest(model="m", messages=[], temperature=3.0), room=100)


# Starting and stopping


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_only_the_loopback_is_served(host):
    with pytest.raises(UserError, match="no API keys yet"):
        bind(host, 0)


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 65536), ("127.0.0.1", -1), ("no such host", 0), ("a" * 99, 0)]
)
def test_a_host_or_port_that_cannot_be_is_a_clear_error(host, port):
    with pytest.raises(UserError, match=r"host|port"):
        bind(host, port)


def test_a_port_in_use_is_a_clear_error(thinking_server, thinker):
    port = int(thinking_server.url.rpartition(":")[2])
    with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use: choose another with --port"):
        serve(thinker, port=port)


def test_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(FolderError, match="is not a folder"):
        serve(tmp_path / "nowhere", port=0)


def test_serve_runs_until_interrupted(thinker):
    code = "from kogia.serve.http import serve; from kogia.serve.worker import Computing; "
    code += f"serve({str(thinker)!r}, port=0, how=Computing(threads=1)); print('the end')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert url, line + process.stderr.read()
    answer = HTTP.post(f"{url[0]}/v1/chat/completions", json=ask() | {"model": str(thinker)})
    assert answer.json()["choices"][0]["message"]["content"] == GREETED
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "the end\n", "")
