"""The engine against transformers' `generate` in FP32, token for token; and against itself on larger models."""

import pytest
import torch
from oracles import foreign

from kogia.engine.engine import Engine
from kogia.engine.request import SamplingParams
from kogia.engine.runners import choose, make_runner
from kogia.engine.torch_runner import TorchRunner
from kogia.errors import UserError
from kogia.kernels.native import why_not
from kogia.models.decoder import Decoder
from kogia.models.folder import load_model, save_model
from kogia.models.presets import preset
from kogia.places import locate
from kogia.text.tokenizer import load_tokenizer

NEEDS_KERNELS = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
TEXTS = [
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "안녕하세요. 오늘은 날씨가",
    "Water boils at 100 degrees. Water boils at 100",
    "Once upon a time there was a small whale who lived in",
]


def theirs(folder, prompts, count):
    """Greedy continuations by transformers, one prompt at a time."""
    model = foreign(folder)
    settings = dict(max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
    with torch.inference_mode():
        return [model.generate(torch.tensor([p]), **settings)[0, len(p) :].tolist() for p in prompts]


@pytest.mark.parametrize("family", ["deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "torch"])
def test_greedy_tokens_are_transformers(make_family, tiny_tokenizer, tmp_path, family, kernels):
    if kernels and why_not() is not None:
        pytest.skip(str(why_not()))
    model = make_family(family, 41)
    save_model(tmp_path, model)
    prompts = [torch.randint(6, 400, (n,)).tolist() for n in (1, 5, 17, 33, 60)]
    runner = None if kernels else TorchRunner(model, one_by_one=True)
    engine = Engine(model, tiny_tokenizer, runner=runner, max_batch_tokens=24)
    outputs = engine.generate(prompts, [SamplingParams(30, temperature=0.0, ignore_eos=True)] * 5)
    assert [o.token_ids for o in outputs] == theirs(tmp_path, prompts, 30)


@pytest.fixture(scope="module")
def smollm2():
    path = locate("smollm2")
    return load_model(path).eval().requires_grad_(False), load_tokenizer(path)


def shuffled_equals_alone(model, tokenizer, prompts, format, **settings):
    """Greedy and seeded replies in one crowd (small steps, cached prefixes, guesses) against each one alone."""
    params = [
        SamplingParams(24, temperature=0.8 * (i % 2), seed=i, top_p=0.9, ignore_eos=True) for i in range(len(prompts))
    ]
    quantize = format if format.startswith("int") else None
    crowd = Engine(model, tokenizer, quantize=quantize, max_batch_tokens=37, draft=2, threads=2, **settings)
    crowd.generate(prompts[:2], params[:2])  # so that some prefixes are in the cache
    together = crowd.generate(prompts, params)
    for prompt, p, output in zip(prompts, params, together, strict=True):
        alone = Engine(model, tokenizer, 1, quantize=quantize, draft="off", prefix_cache=False, runner=crowd.runner)
        (single,) = alone.generate([prompt], [p])
        assert (output.token_ids, output.logprobs) == (single.token_ids, single.logprobs)
    assert crowd.stats()["prefix_cache_hits"] > 0 and crowd.stats()["draft_tokens"] > 0


@NEEDS_KERNELS
@pytest.mark.parametrize("format", ["bfloat16", "int8", "int4"])
def test_smollm2_says_the_same_in_any_crowd(smollm2, format):
    model, tokenizer = smollm2
    prompts = [tokenizer.encode(text * n) for text, n in zip(TEXTS, (1, 9, 2, 8, 1), strict=True)]
    shuffled_equals_alone(model.compute_in(torch.bfloat16), tokenizer, prompts, format)


@NEEDS_KERNELS
@pytest.mark.parametrize("format", ["bfloat16", "int8", "int4"])
def test_mini_says_the_same_in_any_crowd(tiny_tokenizer, format):
    model = Decoder(preset("mini")).initialise(0).eval().requires_grad_(False).compute_in(torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(0, 8192, (n,), generator=generator).tolist() for n in (40, 70, 3, 18, 33)]
    shuffled_equals_alone(model, tiny_tokenizer, prompts, format)


def test_what_can_be_promised_is_said(monkeypatch):
    assert choose(torch.bfloat16, "cuda", None, None).exact is False
    with pytest.raises(UserError, match="exact=True is for the CPU"):
        choose(torch.bfloat16, "cuda", None, True)
    with pytest.raises(UserError, match="quantize is 'int3'"):
        choose(torch.bfloat16, "cpu", "int3", None)
    monkeypatch.setattr("kogia.engine.runners.why_not", lambda: "no C++ compiler (c++) was found")
    slow, quick = choose(torch.bfloat16, "cpu", None, None), choose(torch.bfloat16, "cpu", None, False)
    assert slow.exact and "computed alone" in slow.why and not quick.exact and "depend on the batch" in quick.why


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_without_a_compiler_integers_are_still_integers(make_family, tiny_tokenizer, monkeypatch, format):
    """The stock fallback says nearly what the kernels say: the same codes, other roundings of norms and softmax."""
    model = make_family("deepseek_v3", 42, initializer_range=0.15)
    prompts = [torch.randint(6, 400, (n,)).tolist() for n in (5, 30)]
    params = [SamplingParams(8, temperature=0.0, ignore_eos=True)] * 2
    if why_not() is None:
        native = Engine(model, tiny_tokenizer, quantize=format).generate(prompts, params)
    monkeypatch.setattr("kogia.engine.runners.why_not", lambda: "no C++ compiler (c++) was found")
    fallback = Engine(model, tiny_tokenizer, runner=make_runner(model, format))
    assert fallback.exact
    outputs = fallback.generate(prompts, params)
    for prompt, output in zip(prompts, outputs, strict=True):
        single = Engine(model, tiny_tokenizer, 1, draft="off", runner=make_runner(model, format)).generate(
            [prompt], params[:1]
        )
        assert (single[0].token_ids, single[0].logprobs) == (output.token_ids, output.logprobs)
    if why_not() is None:
        first = [abs(a.logprobs[0] - b.logprobs[0]) for a, b in zip(native, outputs, strict=True)]
        assert max(first) < 0.1
