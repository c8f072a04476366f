"""Against the inference code that DeepSeek published, if it lies beside this repository.

To get it: `git clone https://github.com/deepseek-ai/DeepSeek-V3` next to this repository (or anywhere, with
KOGIA_DEEPSEEK_V3 naming the clone). Its `kernel` module needs Triton and a GPU; nothing of it is called in FP32.
"""

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from oracles import text

from kogia.models.names import select, stored_tensors
from kogia.models.rotary import RopeScaling

CLONE = Path(os.environ.get("KOGIA_DEEPSEEK_V3") or Path(__file__).parents[3] / "DeepSeek-V3")
SOURCE = CLONE / "inference" / "model.py"
pytestmark = pytest.mark.skipif(
    not SOURCE.is_file(),
    reason="oracle missing: git clone https://github.com/deepseek-ai/DeepSeek-V3 beside this folder",
)
RENAMED = {
    "embed_tokens": "embed", "lm_head": "head", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn": "attn", "mlp": "ffn", "q_proj": "wq", "q_a_proj": "wq_a", "q_a_layernorm": "q_norm",
    "q_b_proj": "wq_b", "kv_a_proj_with_mqa": "wkv_a", "kv_a_layernorm": "kv_norm", "kv_b_proj": "wkv_b",
    "o_proj": "wo", "gate_proj": "w1", "down_proj": "w2", "up_proj": "w3", "e_score_correction_bias": "bias",
}  # fmt: skip


@pytest.fixture
def reference(monkeypatch):
    """DeepSeek's module, with a stand-in for the GPU kernels, which must never be called."""
    kernels = types.ModuleType("kernel")
    for name in ("act_quant", "weight_dequant", "fp8_gemm"):
        setattr(kernels, name, None)
    monkeypatch.setitem(sys.modules, "kernel", kernels)
    spec = importlib.util.spec_from_file_location("deepseek_reference", SOURCE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def built(reference, model, attention: str):
    """Their Transformer with our numbers and weights, in FP32."""
    c = model.config
    scaling = c.rope_scaling
    arguments = reference.ModelArgs(
        max_batch_size=2, max_seq_len=64, vocab_size=c.vocab_size, dim=c.hidden_size, inter_dim=c.intermediate_size,
        moe_inter_dim=c.moe_intermediate_size, n_layers=c.num_hidden_layers, n_dense_layers=c.first_k_dense_replace,
        n_heads=c.num_attention_heads, n_routed_experts=c.n_routed_experts, n_shared_experts=c.n_shared_experts,
        n_activated_experts=c.num_experts_per_tok, n_expert_groups=c.n_group, n_limited_groups=c.topk_group,
        score_func=c.scoring_func, route_scale=c.routed_scaling_factor, q_lora_rank=c.q_lora_rank or 0,
        kv_lora_rank=c.kv_lora_rank, qk_nope_head_dim=c.qk_nope_head_dim, qk_rope_head_dim=c.qk_rope_head_dim,
        v_head_dim=c.v_head_dim, rope_theta=c.rope_theta,
        original_seq_len=scaling.original_max_position_embeddings if scaling else 64,
        rope_factor=scaling.factor if scaling else 1.0, mscale=scaling.mscale_all_dim if scaling else 1.0,
    )  # fmt: skip
    reference.attn_impl = attention
    other = reference.Transformer(arguments).float().eval()
    for layer in other.layers[c.first_k_dense_replace :]:
        if c.scoring_func == "sigmoid":  # they have the bias at the width of V3 only
            layer.ffn.gate.bias = torch.nn.Parameter(torch.zeros(c.n_routed_experts))
    parameters = model.state_dict()
    names = [s for s in stored_tensors(c, parameters) if not s.copy]
    theirs = {translated(s.name): select(parameters[s.parameter], s) for s in names}
    other.load_state_dict(theirs, strict=True)
    return other


def translated(name: str) -> str:
    return ".".join(RENAMED.get(part, part) for part in name.removeprefix("model.").split("."))


YARN = RopeScaling("yarn", 40.0, 16, mscale=1.0, mscale_all_dim=1.0)
MODELS = [
    ("deepseek_v3", {}),
    ("deepseek_v3", {"rope_scaling": YARN, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 3}),
    ("deepseek_v3", {"rope_scaling": YARN, "q_lora_rank": None, "first_k_dense_replace": 0}),
    ("deepseek_v2", {"rope_scaling": YARN}),
]


@pytest.mark.parametrize("attention", ["naive", "absorb"])
@pytest.mark.parametrize(("family", "changes"), MODELS, ids=str)
@torch.no_grad()
def test_every_prefix(reference, make_family, family, changes, attention):
    """Prefill of 5 tokens, then one at a time: their logits after each are ours, over whole sequences and decoding."""
    model = make_family(family, 41, num_nextn_predict_layers=0, **changes)
    other, tokens, c = built(reference, model, attention), text(model, length=20), model.config
    whole = model(tokens)
    cache = torch.zeros(c.num_hidden_layers, 2, 20, c.cache_width)
    for start, end in [(0, 5), *((i, i + 1) for i in range(5, 20))]:
        theirs = other(tokens[:, start:end], start)
        at = torch.arange(start, end).expand(2, -1)
        mine = model.logits(model.decode(tokens[:, start:end], cache, at))[:, -1]
        torch.testing.assert_close(whole[:, end - 1], theirs, rtol=0, atol=2e-5)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)
