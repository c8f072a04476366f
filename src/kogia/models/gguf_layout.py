"""Where GGUF orders numbers otherwise than Hugging Face: llama's queries and keys, and MLA's kv_b_proj.

Shape letters: H heads, N width of a head without position, V width of a value head, C latent (kv_lora_rank).
"""

import torch
from torch import Tensor

from kogia.models.config import ModelConfig


def interleaved_heads(stem: str, config: ModelConfig) -> int:
    """How many heads have their rows interleaved in this GGUF tensor; 0 for none.

    llama.cpp turns neighbouring pairs (2i, 2i+1) in family llama; Hugging Face turns i with i + width/2.
    """
    if config.model_type != "llama":
        return 0
    name = stem.rsplit(".", 1)[0]
    return {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name, 0)


def interleave(rows: Tensor, heads: int) -> Tensor:
    """HF's order of rows within each head -> GGUF's. rows: (heads x width, ...)."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def deinterleave(rows: Tensor, heads: int) -> Tensor:
    """GGUF's order of rows within each head -> HF's. rows: (heads x width, ...)."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def split_shapes(config: ModelConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the two halves of kv_b_proj in GGUF: (H, C, N) and (H, V, C)."""
    heads, latent = config.num_attention_heads, config.kv_lora_rank
    return (heads, latent, config.qk_nope_head_dim), (heads, config.v_head_dim, latent)


def split_kv(kv_b: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """kv_b_proj (H x (N + V), C) -> its keys, transposed in each head (H, C, N), and its values (H, V, C)."""
    heads = kv_b.unflatten(0, (config.num_attention_heads, -1))
    key, value = heads.split((config.qk_nope_head_dim, config.v_head_dim), dim=1)
    return key.transpose(1, 2).contiguous(), value.contiguous()


def join_kv(key: Tensor, value: Tensor) -> Tensor:
    """The inverse of `split_kv`."""
    return torch.cat((key.transpose(1, 2), value), dim=1).flatten(0, 1)
