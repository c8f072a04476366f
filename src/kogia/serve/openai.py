"""The chat API of OpenAI and DeepSeek as data: what a request may say, and what an answer looks like on the wire.

Nothing here knows HTTP or threads. A reply goes through one path, `ReplyReader`, whether it is streamed or not, so
both say the same.
"""

import json
import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kogia.engine.request import SamplingParams
from kogia.errors import KogiaError, PromptError
from kogia.serve import TEMPERATURE, TOP_P, ReplyReader

DONE = "data: [DONE]\n\n"

# Parameters that clients know from elsewhere and that would change the answer, with the values that would not.
# Leaving one out of the account silently would be a lie, so any other value is refused.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([], ""),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "thinking": ({"type": "enabled"},),
}


class ApiError(KogiaError):
    """An error as the client is to see it."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The JSON of OpenAI's error responses."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """`stream_options` of a request."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions. What is not named here or in `UNSUPPORTED` is ignored."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str
    messages: list[dict[str, Any]]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None  # the sampler's seeds have 64 bits
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class TokenDetails(BaseModel):
    """`usage.completion_tokens_details`."""

    reasoning_tokens: int


class Usage(BaseModel):
    """Tokens read and sampled. A hit is a prompt token that was not computed for this request: it was in the cache."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_cache_hit_tokens: int = 0
    prompt_cache_miss_tokens: int
    completion_tokens_details: TokenDetails


class Message(BaseModel):
    """The assistant's reply. `reasoning_content` is None when it did not think aloud."""

    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | None


class Choice(BaseModel):
    """The one choice of a response."""

    index: int = 0
    message: Message
    logprobs: None = None
    finish_reason: str


class ChatCompletion(BaseModel):
    """A whole response."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ChunkChoice(BaseModel):
    """The one choice of a piece of a streamed response."""

    index: int = 0
    delta: dict[str, str]
    logprobs: None = None
    finish_reason: str | None = None


class Chunk(BaseModel):
    """A piece of a streamed response."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


def parse_request(body: bytes) -> ChatRequest:
    """Read and check a request body.

    Raises:
        ApiError: 400, naming the parameter: not JSON, a wrong type, or something this server cannot do.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None
    for name, harmless in UNSUPPORTED.items():
        value = (request.model_extra or {}).get(name)
        if value is not None and value not in harmless:
            raise _unsupported(name)
    for i, message in enumerate(request.messages):
        if message.get("tool_calls"):
            raise _unsupported(f"messages[{i}].tool_calls")
    return request


def sampling(request: ChatRequest, room: int) -> SamplingParams:
    """How to sample for a request. room: tokens that the context leaves, the default of max_tokens.

    Raises:
        ApiError: 400, max_tokens and max_completion_tokens contradict each other. PromptError: a value out of range.
    """
    limits = {limit for limit in (request.max_tokens, request.max_completion_tokens) if limit is not None}
    if len(limits) > 1:
        raise ApiError(400, "max_tokens and max_completion_tokens differ: send one of them", "max_completion_tokens")
    return SamplingParams(
        max_tokens=limits.pop() if limits else max(room, 1),
        temperature=TEMPERATURE if request.temperature is None else request.temperature,
        top_p=TOP_P if request.top_p is None else request.top_p,
        seed=secrets.randbits(63) if request.seed is None else request.seed % 2**63,
    )


def check_model(asked: str, names: Sequence[str]) -> None:
    """Check that a request asks for the model there is. names: what it answers to, its own name first.

    Raises:
        ApiError: 404, naming the model there is.
    """
    if asked not in names:
        raise ApiError(
            404, f"the model {asked!r} does not exist here; there is {names[0]!r}", "model", "model_not_found"
        )


def bad_prompt(error: PromptError) -> ApiError:
    """A prompt error for the wire. Its message begins with the parameter at fault, unless that is the messages."""
    first = str(error).split(" ", 1)[0]
    named = first.split("[", 1)[0] in ChatRequest.model_fields
    return ApiError(400, str(error), first if named else "messages")


def model_list(names: Sequence[str], created: int) -> dict[str, Any]:
    """The body of GET /v1/models."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "kogia"} for name in names]
    return {"object": "list", "data": data}


class Answer:
    """One answer in wire format: whole (`completion`) or in pieces (`opening`, `pieces`..., `closing`)."""

    def __init__(self, model: str, prompt_tokens: int, reader: ReplyReader, include_usage: bool = False) -> None:
        self.model, self.prompt_tokens, self.reader, self.include_usage = model, prompt_tokens, reader, include_usage
        self.cached_tokens = 0  # of the prompt; known with the last token
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def usage(self) -> Usage:
        """The tokens so far."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.reader.tokens,
            total_tokens=self.prompt_tokens + self.reader.tokens,
            prompt_cache_hit_tokens=self.cached_tokens,
            prompt_cache_miss_tokens=self.prompt_tokens - self.cached_tokens,
            completion_tokens_details=TokenDetails(reasoning_tokens=self.reader.reasoning_tokens),
        )

    def completion(self) -> ChatCompletion:
        """The finished answer as one response."""
        message = Message(content=self.reader.content, reasoning_content=self.reader.reasoning or None)
        choice = Choice(message=message, finish_reason=self.reader.finish_reason or "length")
        return ChatCompletion(id=self.id, created=self.created, model=self.model, choices=[choice], usage=self.usage())

    def opening(self) -> str:
        """The first event of the stream."""
        return self._event([ChunkChoice(delta={"role": "assistant", "content": ""})])

    def pieces(self, text: str, finish_reason: str | None) -> str:
        """The events that a token's text brings: none while a character or a marker is incomplete."""
        pieces = self.reader.feed(text, finish_reason)
        keys = {"reasoning": "reasoning_content", "content": "content"}
        return "".join(self._event([ChunkChoice(delta={keys[kind]: text})]) for kind, text in pieces)

    def closing(self) -> str:
        """The last events: why it ended, the usage where asked for, and the end mark."""
        end = self._event([ChunkChoice(delta={}, finish_reason=self.reader.finish_reason)])
        return end + (self._event([], self.usage()) if self.include_usage else "") + DONE

    def _event(self, choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        chunk = Chunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)
        return f"data: {chunk.model_dump_json(exclude=None if self.include_usage else {'usage'})}\n\n"


def error_event(error: ApiError) -> str:
    """An error that struck after the stream had begun, when the HTTP status can no longer tell it."""
    return f"data: {json.dumps(error.body(), ensure_ascii=False)}\n\n"


def _unsupported(name: str) -> ApiError:
    return ApiError(400, f"{name} is not supported by this server yet: leave it out", name, "unsupported_parameter")


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", None, "invalid_json"
        )
    param = _spell(first["loc"])
    if not param:
        return ApiError(400, "the body must be a JSON object", None, "invalid_type")
    problem = "is required" if first["type"] == "missing" else f"is wrong: {first['msg'].removeprefix('Input ')}"
    return ApiError(400, f"{param} {problem}", param, "missing" if first["type"] == "missing" else "invalid_value")


def _spell(location: Sequence[int | str]) -> str:
    """("messages", 0, "role") -> "messages[0].role"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
