"""The HTTP server: one model, OpenAI's and DeepSeek's chat API, on the loopback interface.

A request's life here: body (bounded) -> openai.parse_request -> tokens -> worker -> openai.Answer -> JSON or events.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from kogia.errors import KogiaError, PromptError, QueueFullError, UserError
from kogia.serve import ReplyReader
from kogia.serve.openai import (
    Answer,
    ApiError,
    ChatRequest,
    bad_prompt,
    check_model,
    error_event,
    model_list,
    parse_request,
    sampling,
)
from kogia.serve.worker import Computing, StoppedError, Token, Worker, WorkerError, load_engine
from kogia.text.prompts import encode_chat

MAX_BODY = 1 << 20
DRAIN = 16 * MAX_BODY  # how much more of a body that is too large is read (and dropped) so that the client hears why
RETRY_AFTER = "5"  # seconds: about one answer of a small model
GRACE = 5  # seconds that answers in flight get to finish when the server is stopped
MAX_BATCH = 16

T = TypeVar("T")


def create_app(worker: Worker, name: str, aliases: Sequence[str] = ()) -> FastAPI:
    """The application for one model.

    worker: not yet started; it starts and closes with the application. name: what the model is called in the API;
    aliases: what else it answers to.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.close)

    app = FastAPI(title="Kogia", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    api = _Api(worker, name, aliases)
    for prefix in ("", "/v1"):
        app.add_api_route(f"{prefix}/chat/completions", api.chat, methods=["POST"])
        app.add_api_route(f"{prefix}/models", api.models, methods=["GET"])
    app.add_api_route("/health", api.health, methods=["GET"])
    for kind in (KogiaError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _respond_to_error)
    return app


class _Api:
    """The routes."""

    def __init__(self, worker: Worker, name: str, aliases: Sequence[str]) -> None:
        self.worker, self.name, self.names = worker, name, (name, *aliases)
        self.created = int(time.time())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked = parse_request(await _read_body(request))
        check_model(asked.model, self.names)
        prompt, tokens = await self._begin(asked)
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        answer = Answer(self.name, len(prompt), ReplyReader(self.worker.engine.tokenizer, prompt), usage)
        if not asked.stream:
            await _unless_gone(request, _collect(answer, tokens))
            return JSONResponse(answer.completion().model_dump())
        events = _events(answer, tokens)
        # The first token comes before the status line: what fails until then still gets a status of its own.
        first = await _unless_gone(request, anext(events))
        return _EventStream(first, events)

    async def _begin(self, asked: ChatRequest) -> tuple[list[int], AsyncGenerator[Token, None]]:
        engine = self.worker.engine
        prompt = await asyncio.to_thread(encode_chat, engine.tokenizer, asked.messages)
        params = sampling(asked, engine.max_length - len(prompt))
        return prompt, self.worker.stream(prompt, params)

    async def models(self) -> Response:
        """GET /v1/models."""
        return JSONResponse(model_list([self.name], self.created))

    async def health(self) -> Response:
        """GET /health: 200 while requests are taken, else 503; and how many there are."""
        serving = self.worker.serving
        facts = {"status": "ok" if serving else "stopped", "model": self.name, **self.worker.stats()}
        return JSONResponse(facts, 200 if serving else 503)


class _EventStream(StreamingResponse):
    """Server-sent events, whose source is closed whichever way the response ends."""

    def __init__(self, first: str, events: AsyncGenerator[str, None]) -> None:
        super().__init__(_prepend(first, events), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _prepend(first: str, events: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    yield first
    async for event in events:
        yield event


async def _collect(answer: Answer, tokens: AsyncGenerator[Token, None]) -> None:
    async with aclosing(tokens):
        async for token in tokens:
            answer.reader.feed(token.text, token.finish_reason)
            answer.cached_tokens = token.cached


async def _events(answer: Answer, tokens: AsyncGenerator[Token, None]) -> AsyncGenerator[str, None]:
    begun = False
    try:
        async with aclosing(tokens):
            async for token in tokens:
                news = answer.pieces(token.text, token.finish_reason)
                answer.cached_tokens = token.cached
                if news or not begun:
                    yield news if begun else answer.opening() + news
                begun = True
        yield answer.closing()
    except KogiaError as error:
        if not begun:
            raise
        yield error_event(_as_api_error(error))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do some work for a client, but drop it as soon as the client hangs up.

    Raises:
        ClientDisconnect: the client hung up; the work was cancelled and has come to its end.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait((task, gone))


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read_body(request: Request) -> bytes:
    """Read the request's body.

    Raises:
        ApiError: 413, it is larger than `MAX_BODY`.
    """
    body, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= MAX_BODY:
            body += piece
        elif size > DRAIN:
            break
    if size > MAX_BODY:
        raise ApiError(413, f"the body is larger than {MAX_BODY} bytes, which is the most this server reads")
    return bytes(body)


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PromptError):
        return bad_prompt(error)
    if isinstance(error, (QueueFullError, StoppedError)):
        return ApiError(503, str(error), code="queue_full" if isinstance(error, QueueFullError) else "stopping")
    if isinstance(error, WorkerError):
        return ApiError(500, str(error), code="engine_failed")
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, f"{error.detail}: see POST /v1/chat/completions and GET /v1/models")
    return ApiError(500, "something went wrong in the server; its log says what")


async def _respond_to_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads this
    api_error = _as_api_error(error)
    headers = dict(getattr(error, "headers", None) or {})
    if api_error.status == 503:
        headers["Retry-After"] = RETRY_AFTER
    return JSONResponse(api_error.body(), api_error.status, headers)


def bind(host: str, port: int) -> socket.socket:
    """Listen on a port of the loopback interface (0: any free one).

    Raises:
        UserError: not a loopback address, or a port that is in use or cannot be had.
    """
    family, address = _loopback(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # take over from a server that just ended
        listener.bind(address)
        listener.listen(128)  # clients that come before the model is loaded wait instead of being refused
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        raise UserError(f"port {port} on {host} {why}: choose another with --port") from None
    return listener


def _loopback(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    if not 0 <= port <= 65535:
        raise UserError(f"port is {port}: it must be from 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(f"host {host!r} cannot be resolved: use 127.0.0.1") from None
    if not _is_loopback(str(address[0])):
        raise UserError(
            f"host {host!r} can be reached from other machines, but this server has no API keys yet, so it listens "
            "on the loopback interface only: use 127.0.0.1"
        )
    return family, address


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.split("%")[0]).is_loopback


def make_server(app: FastAPI) -> uvicorn.Server:
    """A server for the application: `make_server(app).run(sockets=[bind(host, port)])`."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=GRACE)
    )


def serve(folder: str | Path, host: str = "127.0.0.1", port: int = 8000, how: Computing = Computing()) -> None:  # noqa: B008
    """Serve a model until interrupted.

    Raises:
        UserError: a host that is not loopback, or a port in use. FolderError, ShapeError: the folder cannot be read.
    """
    with bind(host, port) as listener:
        worker = Worker(load_engine(folder, MAX_BATCH, how))
        name = Path(folder).resolve().name
        app = create_app(worker, name, aliases=(str(folder),))
        print(f"Serving {name} on {_url(listener)} (Ctrl-C stops it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            make_server(app).run(sockets=[listener])


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
