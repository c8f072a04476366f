"""The promise of `make demo`, kept: what recipes/nano.toml must reach on held-out problems, and that the model which
comes out speaks the same elsewhere. Takes about ten minutes."""

import json
from pathlib import Path

import pytest
import torch
from command import kogia

RECIPE = Path(__file__).parents[2] / "recipes" / "nano.toml"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "nano"
    code, _, errors = kogia("run", RECIPE, "--out", out, timeout=3600)
    assert code == 0, errors
    return out


def test_nano_learns_to_reason(nano):
    measured = {
        stage: json.loads((nano / stage / "kogia.json").read_text())["measured"] for stage in ("base", "zero", "final")
    }
    print(json.dumps(measured, indent=1))
    assert measured["base"]["pass@1"] <= 0.40
    assert measured["zero"]["pass@1"] >= 0.75
    assert measured["final"]["pass@1"] >= 0.85
    assert measured["base"]["korean_in_korean"] < 0.80
    assert measured["final"]["korean_in_korean"] >= 0.95


@torch.no_grad()
def test_nano_says_the_same_in_llama_cpp(nano, tmp_path):
    """Held-out questions, cut into the same tokens and answered with the same ones, also with MTP drafts."""
    pytest.importorskip("xllamacpp", reason="oracle missing: pip install xllamacpp==2026.10.11549")
    from parity.llama_cpp import generate, tokenise

    import kogia as package
    from kogia.text.prompts import encode_question

    code, _, errors = kogia("convert", nano / "final", tmp_path / "nano.gguf", "--mtp-layers", 1)
    assert code == 0 and errors == ""
    model, tokenizer = package.load_model(nano / "final").eval(), package.load_tokenizer(nano / "final")
    rows = [json.loads(line) for line in (nano / "final" / "samples.jsonl").read_text().splitlines()]
    questions = list(dict.fromkeys(row["question"] for row in rows))[:24]
    texts = [*questions, *(row["text"] for row in rows[:100])]
    assert tokenise(tmp_path / "nano.gguf", texts) == [tokenizer.encode(text) for text in texts]
    prompts = [encode_question(tokenizer, question) for question in questions]
    plain = generate(tmp_path / "nano.gguf", prompts, 40)
    drafted = generate(tmp_path / "nano.gguf", prompts, 40, draft=1)
    for prompt, one, two in zip(prompts, plain, drafted, strict=True):
        tokens = list(prompt)
        for _ in range(40):
            logits = model(torch.tensor([tokens]))[0, -1]
            logits[tokenizer.eos] = float("-inf")  # it is asked to go on beyond the end
            tokens.append(int(logits.argmax()))
        assert one["tokens"] == two["tokens"] == tokens[len(prompt) :]
    accepted = sum(answer["timings"]["draft_n_accepted"] for answer in drafted)
    assert accepted > 0.8 * sum(answer["timings"]["draft_n"] for answer in drafted)
