"""Operations counted from the shape against those PyTorch counts while it runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.presets import preset
from kogia.plan.flops import attention_flops, forward_flops, mlp_flops, training_flops
from kogia.train.loop import train_on_batch
from kogia.train.losses import next_token_losses

B, T = 4, 64

SHAPES = [
    {},
    {"q_lora_rank": None, "first_k_dense_replace": 0},
    {"first_k_dense_replace": 4, "num_attention_heads": 8, "v_head_dim": 48},
    {"n_shared_experts": 0, "num_experts_per_tok": 4},
    {"n_shared_experts": 2, "tie_word_embeddings": True, "num_nextn_predict_layers": 1},
]


@pytest.fixture
def batch():
    return torch.randint(0, 1024, (B, T + 3), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_rounding(monkeypatch):
    """Experts pad their rows to whole blocks; that is work, but not the model's."""
    monkeypatch.setattr("kogia.models.moe.ROUND_TO", 1)


def counted(work) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_forward(batch, changes):
    """Attention is one dense product over all T positions here, so the context is T."""
    model = Decoder(preset("nano", **changes)).initialise(0).eval()
    with torch.no_grad():
        found = counted(lambda: model(batch[:, :T]))
    assert forward_flops(model.config, T) * B * T == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_forward_with_mtp(batch, changes):
    model = Decoder(preset("nano", **changes)).initialise(0).eval()
    tokens = batch[:, : T + 1 + len(model.mtp)]
    with torch.no_grad():
        found = counted(lambda: next_token_losses(model, tokens, tokens, T))
    assert forward_flops(model.config, T, mtp=True) * B * T == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_training(batch, changes):
    model = Decoder(preset("nano", **changes)).initialise(0).train()
    tokens = batch[:, : T + 1 + len(model.mtp)]
    found = counted(lambda: train_on_batch(model, tokens, tokens, 2, 0.3, 1e-4))
    assert training_flops(model.config, T, mtp=True) * B * T == pytest.approx(found, rel=0.01)


def test_one_layer_by_hand():
    config = ModelConfig(
        vocab_size=100, hidden_size=10, intermediate_size=30, moe_intermediate_size=5, num_hidden_layers=2,
        num_attention_heads=2, q_lora_rank=6, kv_lora_rank=4, qk_nope_head_dim=3, qk_rope_head_dim=2, v_head_dim=7,
        n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, n_group=1, topk_group=1,
        first_k_dense_replace=1, num_nextn_predict_layers=1,
    )  # fmt: skip
    query, latent, output = 10 * 6 + 6 * 10, 10 * 6 + 4 * 2 * 10, 2 * 7 * 10
    scores_and_values = 2 * 50 * (5 + 7)
    attention = 2 * (query + latent + output + scores_and_values)
    assert attention_flops(config, 50) == attention
    dense, experts = 2 * 3 * 10 * 30, 2 * (3 * 10 * 5 * 3 + 10 * 8)
    assert (mlp_flops(config, 0), mlp_flops(config, 1)) == (dense, experts)
    head = 2 * 10 * 100
    assert forward_flops(config, 50) == 2 * attention + dense + experts + head
    one_more = attention + experts + 2 * 20 * 10 + head
    assert forward_flops(config, 50, mtp=True) == 2 * attention + dense + experts + head + one_more
    assert training_flops(config, 50) == 3 * forward_flops(config, 50)


def test_deepseek_v3_takes_two_operations_for_each_active_parameter():
    """37 B active parameters, the embedding's look-up aside: about 73 GFLOPs a token, 6 times that to train."""
    v3 = ModelConfig(
        vocab_size=129280, hidden_size=7168, intermediate_size=18432, moe_intermediate_size=2048,
        num_hidden_layers=61, num_attention_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128,
        qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8,
        n_group=8, topk_group=4, first_k_dense_replace=3,
    )  # fmt: skip
    assert forward_flops(v3, 0) == pytest.approx(2 * 36.63e9, rel=2e-3)
    assert training_flops(v3, 2048) == pytest.approx(250e9, rel=0.05)  # DeepSeek's own figure at 4K
