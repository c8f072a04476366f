"""Tensor names: GGUF's and Hugging Face's. Layouts differ too, and the names tell which (gguf_layout)."""

import re

WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER = {  # within a layer: blk.N.* <-> model.layers.N.*
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_output.bias": "self_attn.o_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_q_a.weight": "self_attn.q_a_proj.weight",
    "attn_q_a_norm.weight": "self_attn.q_a_layernorm.weight",
    "attn_q_b.weight": "self_attn.q_b_proj.weight",
    "attn_kv_a_mqa.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attn_kv_a_norm.weight": "self_attn.kv_a_layernorm.weight",
    "attn_kv_b.weight": "self_attn.kv_b_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
    "ffn_gate_shexp.weight": "mlp.shared_experts.gate_proj.weight",
    "ffn_up_shexp.weight": "mlp.shared_experts.up_proj.weight",
    "ffn_down_shexp.weight": "mlp.shared_experts.down_proj.weight",
    "nextn.eh_proj.weight": "eh_proj.weight",
    "nextn.enorm.weight": "enorm.weight",
    "nextn.hnorm.weight": "hnorm.weight",
    "nextn.shared_head_norm.weight": "shared_head.norm.weight",
    "nextn.embed_tokens.weight": "embed_tokens.weight",
    "nextn.shared_head_head.weight": "shared_head.head.weight",
}
EXPERTS = {  # all experts of a layer in one tensor <-> mlp.experts.E.*
    "ffn_gate_exps.weight": "gate_proj.weight",
    "ffn_up_exps.weight": "up_proj.weight",
    "ffn_down_exps.weight": "down_proj.weight",
}
GATE_UP_EXPERTS = "ffn_gate_up_exps.weight"  # gate above up, as newer converters may store them
KEY_HALF, VALUE_HALF = "attn_k_b.weight", "attn_v_b.weight"  # the two halves of kv_b_proj
KV_B = "self_attn.kv_b_proj.weight"
MTP_COPIES = ("embed_tokens.weight", "shared_head.head.weight")

_NUMBER = r"(0|[1-9][0-9]{0,5})"
_GGUF_LAYER = re.compile(rf"blk\.{_NUMBER}\.(.+)")
_HF_LAYER = re.compile(rf"model\.layers\.{_NUMBER}\.(.+)")
_HF_EXPERT = re.compile(rf"mlp\.experts\.{_NUMBER}\.(.+)")
_TO_GGUF_WHOLE = {hf: gguf for gguf, hf in WHOLE.items()}
_TO_GGUF_LAYER = {hf: gguf for gguf, hf in LAYER.items()}
_TO_GGUF_EXPERTS = {hf: gguf for gguf, hf in EXPERTS.items()}


def split_gguf(name: str) -> tuple[int | None, str]:
    """`blk.3.attn_q.weight` -> (3, "attn_q.weight"); a tensor that belongs to no layer -> (None, its name)."""
    match = _GGUF_LAYER.fullmatch(name)
    return (int(match[1]), match[2]) if match else (None, name)


def split_hf(name: str) -> tuple[int | None, str]:
    """`model.layers.3.self_attn.q_proj.weight` -> (3, "self_attn.q_proj.weight"), like `split_gguf`."""
    match = _HF_LAYER.fullmatch(name)
    return (int(match[1]), match[2]) if match else (None, name)


def gguf_name(name: str) -> tuple[str, int | None] | None:
    """HF's name -> GGUF's, and which expert of the stack it is; None if GGUF has no name for it.

    `kv_b_proj`, which GGUF keeps in two halves, gets the name of the old, whole form.
    """
    layer, rest = split_hf(name)
    if layer is None:
        return (_TO_GGUF_WHOLE[rest], None) if rest in _TO_GGUF_WHOLE else None
    match = _HF_EXPERT.fullmatch(rest)
    stem = _TO_GGUF_EXPERTS.get(match[2]) if match else _TO_GGUF_LAYER.get(rest)
    return (f"blk.{layer}.{stem}", int(match[1]) if match else None) if stem else None
