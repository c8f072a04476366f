"""Runners to put the engine on, an oracle of one request at a time, and a drafter that guesses as it is told to."""

import random

import pytest
import torch

from kogia.engine.engine import Engine
from kogia.engine.native_runner import NativeRunner
from kogia.engine.torch_runner import TorchRunner
from kogia.kernels.native import why_not

# Every runner that promises exactness is held to it: (name, dtype, how to make one for a model).
EXACT_RUNNERS = [
    ("torch", torch.float32, lambda model: TorchRunner(model, one_by_one=True)),
    ("torch", torch.bfloat16, lambda model: TorchRunner(model, one_by_one=True)),
]
if why_not() is None:
    EXACT_RUNNERS += [
        ("native", torch.float32, lambda model: NativeRunner(model, "float32")),
        ("native", torch.bfloat16, lambda model: NativeRunner(model, "bfloat16")),
        ("native-int8", torch.float32, lambda model: NativeRunner(model, "int8")),
        ("native-int4", torch.float32, lambda model: NativeRunner(model, "int4")),
    ]


@pytest.fixture(scope="session", params=EXACT_RUNNERS, ids=lambda p: f"{p[0]}-{str(p[1]).removeprefix('torch.')}")
def exact_runner(request, make_model, tiny_tokenizer):
    """(model, make_runner): a model with a context of 64 in the runner's dtype, and the runner's maker."""
    _, dtype, make = request.param
    model = make_model(11, vocab_size=tiny_tokenizer.vocab_size, initializer_range=0.2, max_position_embeddings=64)
    return model.compute_in(dtype).requires_grad_(False), make


class Oracle:
    """What each request says when it is alone, remembered: (token ids, logprobs, finish reason, text) of each of n."""

    def __init__(self, model, make_runner, tokenizer) -> None:
        self._engine = Engine(model, tokenizer, 1, prefix_cache=False, runner=make_runner(model))
        self._known = {}

    def answers(self, prompt, params) -> list[tuple]:
        key = (tuple(prompt), repr(params))
        if key not in self._known:
            self._known[key] = [facts(output) for output in self._engine.generate([prompt], [params])]
        return self._known[key]


def facts(output) -> tuple:
    """All of an output that must not depend on what else runs."""
    end = output.finish_reason, output.stop_reason
    return output.index, output.token_ids, output.logprobs, output.text, *end, output.top_logprobs


@pytest.fixture(scope="session")
def oracle(exact_runner, tiny_tokenizer) -> Oracle:
    return Oracle(*exact_runner, tiny_tokenizer)


class Guesser:
    """A drafter that knows the answers and spoils them: each guess is right with probability `skill`."""

    def __init__(self, oracle: Oracle, skill: float, depth: int, seed: int) -> None:
        self.oracle, self.skill, self.depth, self.random = oracle, skill, depth, random.Random(seed)
        self.steps = []

    def ready(self, rows, tokens, only_decoding):
        return True

    def propose(self, step):
        self.steps.append(step)
        return [self._guess(step.sequences[row], int(step.length_R[row])) for row in step.rows]

    def _guess(self, sequence, length) -> list[int]:
        answer = self.oracle.answers(sequence.prompt, sequence.params)[sequence.index][1]
        coming = answer[length - len(sequence.prompt) :][: self.random.randint(0, self.depth)]
        return [token if self.random.random() < self.skill else self.random.randrange(400) for token in coming]

    def forget(self, sequence) -> None:
        pass
