"""Guesses change no answer; right ones are taken; the pace learns what pays."""

import numpy as np
import pytest
import torch

from kogia.engine.engine import Engine
from kogia.engine.native_runner import NativeRunner
from kogia.engine.request import SamplingParams
from kogia.engine.speculate import Constant, LookupDrafter, MTPDrafter, Pace, make_drafter
from kogia.engine.torch_runner import TorchRunner
from kogia.errors import UserError
from kogia.kernels.native import why_not

NEEDS_KERNELS = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
PROMPTS = [[5 + i % 50 for i in range(n)] for n in (3, 40, 17, 60, 31)]


def said(model, tokenizer, runner, drafter, temperature=0.0, tokens=40, **settings):
    engine = Engine(model, tokenizer, runner=runner, **settings)
    engine.drafter = drafter(engine.runner) if drafter else None
    params = [SamplingParams(tokens, temperature, seed=i, ignore_eos=True) for i in range(len(PROMPTS))]
    return [(o.token_ids, o.logprobs) for o in engine.generate(PROMPTS, params)], engine.stats()


@pytest.fixture(scope="module")
def repeating(make_model):
    """A model that says what it said before: hardly any attention to pay, so that guesses are often right."""
    model = make_model(3, vocab_size=400, num_nextn_predict_layers=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "down_proj")):
                parameter.mul_(0.02)
    return model


@NEEDS_KERNELS
@pytest.mark.parametrize("format", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_mtp_changes_no_answer(make_model, tiny_tokenizer, format, temperature, depth):
    model = make_model(4, vocab_size=400, num_nextn_predict_layers=2)

    def runner():
        return NativeRunner(model, format)

    plain, _ = said(model, tiny_tokenizer, runner(), None, temperature)
    guessed, stats = said(
        model, tiny_tokenizer, runner(), lambda r: MTPDrafter(r, Constant(depth)), temperature, max_batch_tokens=40
    )
    assert guessed == plain and stats["draft_tokens"] > 100


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_lookup_changes_no_answer_and_finds_repetition(repeating, tiny_tokenizer, temperature):
    def runner():
        return TorchRunner(repeating, one_by_one=True)

    plain, _ = said(repeating, tiny_tokenizer, runner(), None, temperature)
    guessed, stats = said(repeating, tiny_tokenizer, runner(), lambda r: LookupDrafter(Constant(4)), temperature)
    assert guessed == plain
    if temperature == 0.0:  # greedy random models soon run in circles
        assert stats["accepted_tokens"] > 0.3 * stats["draft_tokens"] > 10


@NEEDS_KERNELS
def test_guesses_are_the_layers_most_likely_tokens(make_model, tiny_tokenizer):
    """Depth 1 and 2 by hand: h of the last token, then the layers as in training (`further_hidden_states`)."""
    model = make_model(5, vocab_size=400, num_nextn_predict_layers=2)
    engine = Engine(model, tiny_tokenizer, runner=NativeRunner(model, "float32"))
    seen = []

    class Spy(MTPDrafter):
        def propose(self, step):
            guesses = super().propose(step)
            row = int(step.rows[0]) if len(step.rows) else None
            if row is not None:
                seen.append((step.tokens_RT[row, : step.length_R[row]].tolist(), guesses[0]))
            return guesses

    engine.drafter = Spy(engine.runner, Constant(2))
    engine.generate([PROMPTS[2]], [SamplingParams(6, 0.0, ignore_eos=True)])
    known, guesses = seen[0]  # after the prompt and its first token
    with torch.inference_mode():
        tokens = torch.tensor([known])
        h = model.hidden_states(tokens[:, :-1])
        first = int(
            model.logits(model.further_hidden_states(h, torch.cat((tokens, tokens[:, :1]), 1))[0])[0, -1].argmax()
        )
        second = model.further_hidden_states(h, torch.tensor([[*known, first]]))[1]
        assert guesses == [first, int(model.logits(second)[0, -1].argmax())]


@pytest.mark.parametrize(("share", "price", "best"), [(0.9, 0.1, 2), (0.1, 0.5, 0), (0.9, 2.0, 0)])
def test_the_pace_finds_what_pays(monkeypatch, share, price, best):
    """A clock that knows what a guess costs: `price` of a step each; each holds with probability `share`."""
    clock = [0.0]
    monkeypatch.setattr("kogia.engine.speculate.time.perf_counter", lambda: clock[0])
    random = np.random.default_rng(0)
    pace, tokens, chosen = Pace(2), 1, []
    for _ in range(2000):
        chosen.append(pace.choose(1, tokens, True))
        tokens = 1
        while tokens <= chosen[-1] and random.random() < share:
            tokens += 1
        clock[0] += 1.0 + price * chosen[-1]
    late = chosen[300:]
    assert late.count(best) > 0.85 * len(late) and {0, 1} <= set(chosen)


def test_the_pace_learns_nothing_from_steps_that_read_prompts(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("kogia.engine.speculate.time.perf_counter", lambda: clock[0])
    pace = Pace(2)
    for _ in range(50):
        assert pace.choose(1, 1, False) == 0  # so it has not begun to try
        clock[0] += 1.0


def test_make_drafter(make_model, tiny_tokenizer):
    with_layers = TorchRunner(make_model(1, vocab_size=400, num_nextn_predict_layers=1), one_by_one=True)
    without = TorchRunner(make_model(1, vocab_size=400, num_nextn_predict_layers=0), one_by_one=True)
    assert make_drafter(with_layers, "off") is None and make_drafter(with_layers, 0) is None
    assert isinstance(make_drafter(with_layers, "auto"), MTPDrafter)
    assert isinstance(make_drafter(without, "auto"), LookupDrafter)
    assert make_drafter(without, 3).pace.choose(1, 1, True) == 3
    with pytest.raises(UserError, match="draft is 'some'"):
        make_drafter(without, "some")
    with pytest.raises(UserError, match="draft is 99"):
        make_drafter(without, 99)
