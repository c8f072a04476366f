"""Continuous batching over a cache: requests join and leave the batch between steps.

Rows of the cache are kept dense: when a request leaves, the last row moves into its place, so that every step works
on one contiguous block. Weights are read from a live module, cast once after each change (`refresh`).
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kogia.engine.request import Output, Request, SamplingParams
from kogia.engine.sampler import sample, uniforms
from kogia.errors import PromptError
from kogia.models.decoder import Decoder
from kogia.models.layers import Linear
from kogia.models.moe import Experts
from kogia.text.tokenizer import Tokenizer

BLOCK = 16  # rows and columns of the cache are used in multiples of this


def inference_copy(model: Decoder) -> Decoder:
    """A copy of the model in its compute dtype. Router and norms stay FP32."""
    twin = Decoder(model.config).eval().requires_grad_(False).compute_in(model.dtype)
    twin.load_state_dict(model.state_dict())
    for module in twin.modules():
        if isinstance(module, (Linear, Experts, torch.nn.Embedding)):
            module.to(model.dtype)
    return twin


def is_ready(model: Decoder) -> bool:
    """Whether a model can be sampled from as it is: nothing trains it, and it is in its compute dtype already."""
    frozen = not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    return frozen and model.embed_tokens.weight.dtype == model.dtype


class Engine:
    """Samples from a model. `add` requests and `step` until they come out, or call `generate`."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, max_batch: int = 512, max_length: int = 0) -> None:
        """max_batch: requests in flight; max_length: tokens of prompt and reply together (0: the model's context)."""
        self.live, self.tokenizer = model, tokenizer
        self.model = model if is_ready(model) else inference_copy(model)
        self._stops = np.array(sorted(tokenizer.stops))
        c = model.config
        self.max_batch = max_batch
        self.max_length = min(max_length or c.max_position_embeddings, c.max_position_embeddings)
        self._cache = torch.zeros(c.num_hidden_layers, 0, 0, c.cache_width, dtype=model.dtype)
        self._waiting: deque[Request] = deque()
        self._rows: list[Request] = []  # row i of everything below belongs to _rows[i]
        self._tokens = torch.zeros(max_batch, self.max_length, dtype=torch.int64)
        self._logprobs = torch.zeros(max_batch, self.max_length)
        self._length = np.zeros(max_batch, dtype=np.int64)  # tokens so far, prompt included
        self._limit = np.zeros(max_batch, dtype=np.int64)
        self._next_id = 0

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the live model's weights. Call between requests, after the weights changed."""
        for mine, theirs in zip(self.model.state_dict().values(), self.live.state_dict().values(), strict=True):
            mine.copy_(theirs)

    def add(self, prompt: Sequence[int], params: SamplingParams) -> int:
        """Queue a request; returns its id.

        Raises:
            PromptError: an empty prompt, one that leaves no room for an answer (both numbers are named), or a token
                outside the vocabulary.
        """
        if not prompt:
            raise PromptError("the prompt is empty")
        size = self.model.config.vocab_size
        if not (min(prompt) >= 0 and max(prompt) < size):
            raise PromptError(f"the prompt holds a token outside the vocabulary (0 to {size - 1})")
        if len(prompt) >= self.max_length:
            raise PromptError(f"the prompt has {len(prompt)} tokens, but the context holds {self.max_length}")
        self._next_id += 1
        self._waiting.append(Request(self._next_id, tuple(prompt), params))
        return self._next_id

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._waiting or self._rows)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int, Output | None]]:
        """Advance: start waiting requests if there is room, else give every running one its next token.

        Returns (request id, new token, Output if that token was the last) for each request that got a token.
        """
        rows = self._admit()
        if not self._rows:
            return []
        logits = self._prefill(rows) if rows else self._decode()
        first = self._rows[rows[0] if rows else 0 :]
        return self._take(logits, first)

    @torch.inference_mode()
    def abort(self, request_id: int) -> None:
        """Forget a request; its row is free at once."""
        self._waiting = deque(r for r in self._waiting if r.id != request_id)
        for row, request in enumerate(self._rows):
            if request.id == request_id:
                self._release(row)
                return

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]) -> list[Output]:
        """Sample one reply to each prompt, in the order given."""
        ids = [self.add(prompt, p) for prompt, p in zip(prompts, params, strict=True)]
        done: dict[int, Output] = {}
        while self.busy:
            done |= {id: output for id, _, output in self.step() if output}
        return [done[id] for id in ids]

    def _admit(self) -> list[int]:
        first = len(self._rows)
        while self._waiting and len(self._rows) < self.max_batch:
            request = self._waiting.popleft()
            row = len(self._rows)
            self._rows.append(request)
            self._tokens[row, : len(request.prompt)] = torch.tensor(request.prompt)
            self._length[row] = len(request.prompt)
            self._limit[row] = min(len(request.prompt) + request.params.max_tokens, self.max_length)
        return list(range(first, len(self._rows)))

    def _prefill(self, rows: list[int]) -> Tensor:
        """Run the prompts of new rows, each different prompt once; returns the logits after each prompt."""
        self._reserve()
        prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(self._rows[r].prompt for r in rows))}
        source = torch.tensor([prompts[self._rows[r].prompt] for r in rows])
        lengths = torch.tensor([len(p) for p in prompts])
        width = min(-(-int(lengths.max()) // BLOCK) * BLOCK, self._cache.shape[2])
        tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
        for prompt, i in prompts.items():
            tokens[i, : len(prompt)] = torch.tensor(prompt)
        at = torch.arange(width).expand(len(prompts), width)
        cache = self._cache.new_zeros(self._cache.shape[0], len(prompts), width, self._cache.shape[3])
        hidden = self.model.decode(tokens, cache, at)
        self._cache[:, rows[0] : rows[-1] + 1, :width] = cache[:, source]
        last = hidden[torch.arange(len(prompts)), lengths - 1]
        return self.model.logits(last)[source]

    def _decode(self) -> Tensor:
        """One token for every running request, computed on whole blocks of rows and columns: a kernel is compiled for
        every new shape, so there must not be a new shape at every step. The rows beyond the running ones are idle."""
        n = len(self._rows)
        rows = min(-(-n // BLOCK) * BLOCK, self._cache.shape[1])
        width = min(-(-int(self._length[:n].max()) // BLOCK) * BLOCK, self._cache.shape[2])
        at = torch.from_numpy(np.where(np.arange(rows) < n, self._length[:rows] - 1, 0)).unsqueeze(1)
        tokens = self._tokens[:rows].gather(1, at)
        hidden = self.model.decode(tokens, self._cache[:, :rows, :width], at)
        return self.model.logits(hidden[:n, 0])

    def _take(self, logits: Tensor, rows: list[Request]) -> list[tuple[int, int, Output | None]]:
        n, first = len(rows), len(self._rows) - len(rows)
        length = self._length[first : first + n]
        params = [r.params for r in rows]
        tokens, logprobs = sample(
            logits,
            torch.tensor([p.temperature for p in params]),
            torch.tensor([p.top_p for p in params]),
            uniforms(np.array([p.seed for p in params], dtype=np.int64), length - [len(r.prompt) for r in rows]),
        )
        index = torch.arange(first, first + n)
        self._tokens[index, torch.from_numpy(length)] = tokens
        self._logprobs[index, torch.from_numpy(length)] = logprobs
        length += 1
        stopped = np.isin(tokens.numpy(), self._stops)
        finished = np.flatnonzero(stopped | (length >= self._limit[first : first + n]))
        outputs = {int(i): self._output(first + int(i), "stop" if stopped[i] else "length") for i in finished}
        for i in reversed(finished):
            self._release(first + int(i))
        return [(r.id, t, outputs.get(i)) for i, (r, t) in enumerate(zip(rows, tokens.tolist(), strict=True))]

    def _output(self, row: int, reason: str) -> Output:
        request = self._rows[row]
        start, end = len(request.prompt), int(self._length[row])
        ids = self._tokens[row, start:end].tolist()
        said = ids[:-1] if reason == "stop" else ids
        text = self.tokenizer.decode(said)
        return Output(request.id, ids, self._logprobs[row, start:end].tolist(), reason, text, request.prompt)

    def _release(self, row: int) -> None:
        """Free a row by moving the last one into it."""
        last = len(self._rows) - 1
        if row != last:
            self._rows[row] = self._rows[last]
            used = int(self._length[last])
            self._cache[:, row, :used] = self._cache[:, last, :used]
            for table in (self._tokens, self._logprobs, self._length, self._limit):
                table[row] = table[last]
        self._rows.pop()

    def _reserve(self) -> None:
        """Let the cache grow to the rows and lengths in flight, in powers of two."""
        rows = max(min(_round_up(len(self._rows)), self.max_batch), min(BLOCK, self.max_batch))
        length = min(_round_up(int(self._limit[: len(self._rows)].max())), self.max_length)
        layers, old_rows, old_length, width = self._cache.shape
        if rows > old_rows or length > old_length:
            grown = self._cache.new_zeros(layers, max(rows, old_rows), max(length, old_length), width)
            grown[:, :old_rows, :old_length] = self._cache
            self._cache = grown


def _round_up(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()
