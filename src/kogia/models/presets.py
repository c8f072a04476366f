"""Named shapes, DeepSeek-V3's throughout."""

import dataclasses
from typing import Any

from kogia.errors import ShapeError
from kogia.models.config import ModelConfig
from kogia.models.rotary import RopeScaling

_NANO: dict[str, Any] = dict(
    vocab_size=1024, hidden_size=128, intermediate_size=320, moe_intermediate_size=64,
    num_hidden_layers=4, num_attention_heads=4, q_lora_rank=96, kv_lora_rank=64,
    qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
    n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=2, n_group=4, topk_group=2,
    first_k_dense_replace=1, num_nextn_predict_layers=2, max_position_embeddings=512,
    initializer_range=0.04,  # V3's 0.006 at width 7168, scaled to width 128
)  # fmt: skip

_LATENT = dict(kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
_YARN = RopeScaling("yarn", 40.0, 4096, mscale=1.0, mscale_all_dim=1.0)

PRESETS: dict[str, dict[str, Any]] = {
    "nano": _NANO,
    "tiny": _NANO | dict(
        hidden_size=64, intermediate_size=128, moe_intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
        n_routed_experts=8, vocab_size=512,
    ),
    "micro": dict(
        vocab_size=4096, hidden_size=256, intermediate_size=768, moe_intermediate_size=192,
        num_hidden_layers=6, num_attention_heads=4, q_lora_rank=128, kv_lora_rank=64,
        qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64,
        n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, n_group=4, topk_group=2,
        first_k_dense_replace=1, num_nextn_predict_layers=1, max_position_embeddings=2048, initializer_range=0.03,
    ),
    "mini": dict(
        vocab_size=8192, hidden_size=512, intermediate_size=1536, moe_intermediate_size=384,
        num_hidden_layers=8, num_attention_heads=8, q_lora_rank=384, kv_lora_rank=256,
        qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64,
        n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=2, n_group=1, topk_group=1,
        first_k_dense_replace=1, num_nextn_predict_layers=1, max_position_embeddings=4096, initializer_range=0.02,
    ),
    "lite": _LATENT | dict(
        vocab_size=102400, hidden_size=2048, intermediate_size=10944, moe_intermediate_size=1408,
        num_hidden_layers=27, num_attention_heads=16, q_lora_rank=None,
        n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, n_group=1, topk_group=1,
        first_k_dense_replace=1, num_nextn_predict_layers=1, max_position_embeddings=163840, rope_scaling=_YARN,
    ),
    "v3": _LATENT | dict(
        vocab_size=129280, hidden_size=7168, intermediate_size=18432, moe_intermediate_size=2048,
        num_hidden_layers=61, num_attention_heads=128, q_lora_rank=1536,
        n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, n_group=8, topk_group=4,
        first_k_dense_replace=3, num_nextn_predict_layers=1, max_position_embeddings=163840, rope_scaling=_YARN,
    ),
}  # fmt: skip


def preset(name: str, **changes: Any) -> ModelConfig:
    """A named configuration, with some fields changed.

    Raises:
        ShapeError: unknown preset or field (the nearest valid names are given), or numbers that do not fit.
    """
    if name not in PRESETS:
        raise ShapeError(f"unknown model preset {name!r}: there are {', '.join(sorted(PRESETS))}")
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown = sorted(set(changes) - fields)
    if unknown:
        raise ShapeError(f"unknown model field {unknown[0]!r}: the fields are {', '.join(sorted(fields))}")
    return ModelConfig(**(PRESETS[name] | changes))
