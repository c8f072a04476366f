"""What is asked of the engine and what comes back."""

from dataclasses import dataclass, field

from kogia.errors import PromptError


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens. temperature 0 is greedy. `seed` fixes the answer, whatever else runs in the batch."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.max_tokens, bool) or not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise PromptError(f"max_tokens is {self.max_tokens!r}: it must be a whole number of at least 1")
        if not 0.0 <= self.temperature <= 2.0:
            raise PromptError(f"temperature is {self.temperature!r}: it must be from 0 to 2")
        if not 0.0 < self.top_p <= 1.0:
            raise PromptError(f"top_p is {self.top_p!r}: it must be over 0 and at most 1")
        if not 0 <= self.seed < 2**63:
            raise PromptError(f"seed is {self.seed!r}: it must be from 0 to 2**63 - 1")


@dataclass
class Request:
    """A prompt on its way through the engine."""

    id: int
    prompt: tuple[int, ...]
    params: SamplingParams


@dataclass
class Output:
    """A finished request. `logprobs` are those of the sampled tokens at the request's temperature, FP32."""

    id: int
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str  # "stop" (EOS, kept in token_ids), "length" or "abort"
    text: str = ""
    prompt: tuple[int, ...] = field(default=(), repr=False)
