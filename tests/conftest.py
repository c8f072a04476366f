"""Fixtures for every room: one thread, a small tokenizer, small random models."""

import pytest
import torch
from hypothesis import HealthCheck, settings

from kogia.models.config import preset
from kogia.models.decoder import Decoder
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
        model = Decoder(preset("tiny", **{"initializer_range": 0.05, **changes})).initialise(seed)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            for moe in model.experts():
                bias = moe.gate.e_score_correction_bias
                bias.copy_(0.05 * torch.randn(bias.shape, generator=generator))
        return model.eval()

    return make


@pytest.fixture
def tiny_model(make_model, tiny_tokenizer) -> Decoder:
    """A fresh random model that fits `tiny_tokenizer`, with two MTP layers."""
    return make_model(vocab_size=tiny_tokenizer.vocab_size)
