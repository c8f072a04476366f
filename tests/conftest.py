"""Fixtures for every room: one thread, a small tokenizer, small random models."""

import pytest
import torch
from hypothesis import HealthCheck, settings

from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.presets import preset
from kogia.text.tokenizer import Tokenizer, train_tokenizer

torch.set_num_threads(1)
settings.register_profile(
    "kogia", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kogia")

TEXTS = [
    "The quick brown fox jumps over the lazy dog. First, 3 + 4 = 7. The answer is \\boxed{7}.",
    "먼저 3 + 4 = 7입니다. 답은 \\boxed{7}입니다. 다람쥐 헌 쳇바퀴에 타고파. 안녕하세요, 세계!",
    "def add(left: int, right: int) -> int:\n    return left + right  # 12345\n\n\nfor i in range(10):\n    print(i)\n",
]


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Every test draws the same numbers, whichever tests run before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A byte-level tokenizer with a few hundred merges over English, Korean and Python."""
    return train_tokenizer(TEXTS * 4, 400)


@pytest.fixture(scope="session")
def make_model():
    """make_model(seed, **changes to the "tiny" preset): a model in which no weight, norm or bias is trivial."""

    def make(seed: int = 0, **changes) -> Decoder:
        return roughened(Decoder(preset("tiny", **{"initializer_range": 0.05, **changes})), seed)

    return make


@torch.no_grad()
def roughened(model: Decoder, seed: int) -> Decoder:
    """Random weights, and norms and biases that are not trivial."""
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    for moe in model.experts():
        bias = moe.gate.e_score_correction_bias
        if bias is not None:
            bias.copy_(0.05 * torch.randn(bias.shape, generator=generator))
    return model.eval()


DENSE = dict(
    vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=512, initializer_range=0.1,
)  # fmt: skip
V2 = dict(
    model_type="deepseek_v2", scoring_func="softmax", topk_method="group_limited_greedy", norm_topk_prob=False,
    num_nextn_predict_layers=0, vocab_size=400, initializer_range=0.1,
)  # fmt: skip


@pytest.fixture(scope="session")
def make_family():
    """make_family(model_type, seed, **changes): a small random model of any family."""

    def make(model_type: str, seed: int = 0, **changes) -> Decoder:
        if model_type == "deepseek_v2":
            config = preset("tiny", **(V2 | changes))
        elif model_type == "deepseek_v3":
            config = preset("tiny", **({"vocab_size": 400, "initializer_range": 0.1} | changes))
        else:
            config = ModelConfig(model_type=model_type, **(DENSE | changes))
        return roughened(Decoder(config), seed)

    return make


@pytest.fixture
def tiny_model(make_model, tiny_tokenizer) -> Decoder:
    """A fresh random model that fits `tiny_tokenizer`, with two MTP layers."""
    return make_model(vocab_size=tiny_tokenizer.vocab_size)
