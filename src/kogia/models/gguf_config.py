"""A model's configuration in GGUF's metadata keys, read and written as llama.cpp's converter does."""

from typing import Any

from gguf import ExpertGatingFuncType, GGUFWriter

from kogia.errors import ShapeError
from kogia.formats.gguf import GGUF
from kogia.formats.untrusted import shown
from kogia.models.config import ModelConfig
from kogia.models.gguf_metadata import Metadata
from kogia.models.gguf_rope import read_rope_scaling, write_rope_scaling

ARCHITECTURES = ("deepseek2", "llama", "qwen2", "qwen3")
STOPS = ("eos", "eot", "eom")  # the ends that GGUF has names for: of a text, of a turn, of a message
FIRST_MTP_TENSOR = "blk.{}.nextn.eh_proj.weight"
GROUPS: dict[tuple[int, int], tuple[int, int]] = {
    # (layers, experts) -> (n_group, topk_group): files made before llama.cpp knew groups lack them
    (60, 160): (8, 3),  # DeepSeek-V2
    (61, 256): (8, 4),  # DeepSeek-V3, R1
}


def read_config(file: GGUF) -> ModelConfig:
    """The configuration of a GGUF file of architecture deepseek2 (V2, V3, R1 and Kogia's own), llama, qwen2 or qwen3.

    Raises:
        FolderError: another architecture, a missing or mistyped key, or one that cannot be computed exactly.
        ShapeError: numbers that do not fit together.
    """
    metadata = Metadata(file)
    if metadata.architecture not in ARCHITECTURES:
        metadata.fail(f"architecture {shown(metadata.architecture)} is not supported: {', '.join(ARCHITECTURES)} are")
    if "token_embd.weight" not in file.tensors:
        metadata.fail("tensor token_embd.weight is missing: this is not a language model")
    values = _common(metadata)
    values |= _deepseek(metadata) if metadata.architecture == "deepseek2" else _dense(metadata)
    values["rope_scaling"] = read_rope_scaling(metadata, values)
    try:
        return ModelConfig.from_json(values)
    except ShapeError as error:
        raise ShapeError(f"{file.path}: {error}") from None


def _common(metadata: Metadata) -> dict[str, Any]:
    file = metadata.file
    return {
        "model_type": metadata.architecture,
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "hidden_size": metadata.get(".embedding_length", int),
        "intermediate_size": metadata.get(".feed_forward_length", int),
        "num_hidden_layers": metadata.get(".block_count", int),
        "num_attention_heads": metadata.get(".attention.head_count", int),
        "max_position_embeddings": metadata.get(".context_length", int),
        "rms_norm_eps": metadata.get(".attention.layer_norm_rms_epsilon", float),
        "rope_theta": metadata.get(".rope.freq_base", float, 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **_token_ids(metadata),
    }


def _token_ids(metadata: Metadata) -> dict[str, Any]:
    """The ends of a turn and of a message end a reply just as the end of a text does; Kogia notes all of them."""
    ids = {name: f"tokenizer.ggml.{name}_token_id" for name in ("bos", *STOPS)}
    found = {name: metadata.get(key, int) for name, key in ids.items() if key in metadata.file.metadata}
    named = [found[name] for name in STOPS if name in found]
    stops = list(dict.fromkeys([*named, *metadata.file.stop_ids()]))
    if not named:
        metadata.fail("metadata key tokenizer.ggml.eos_token_id is missing: nothing would end a reply")
    return {"bos_token_id": found.get("bos"), "eos_token_id": stops if len(stops) > 1 else stops[0]}


def _dense(metadata: Metadata) -> dict[str, Any]:
    if metadata.get(".expert_count", int, 0):
        metadata.fail(f"architecture {metadata.architecture} with experts is not supported: only dense models are")
    heads, hidden = metadata.get(".attention.head_count", int), metadata.get(".embedding_length", int)
    head_dim = metadata.get(".attention.key_length", int, hidden // max(heads, 1))
    for key in (".attention.value_length", ".rope.dimension_count"):
        if metadata.get(key, int, head_dim) != head_dim:
            metadata.fail(f"{metadata.architecture}{key} differs from the head width {head_dim}: not supported")
    values = {"num_key_value_heads": metadata.get(".attention.head_count_kv", int, heads), "head_dim": head_dim}
    biased = "blk.0.attn_q.bias" in metadata.file.tensors
    return values | ({} if metadata.architecture == "qwen2" else {"attention_bias": biased})


def _deepseek(metadata: Metadata) -> dict[str, Any]:
    mtp = metadata.get(".nextn_predict_layers", int, 0)
    layers = metadata.get(".block_count", int) - mtp
    if mtp and FIRST_MTP_TENSOR.format(layers) not in metadata.file.tensors:
        mtp = 0  # announced, but left out of the file to save space, as llama.cpp allows
    rope = metadata.get(".rope.dimension_count", int)
    split = ".attention.key_length_mla" if metadata.has(".attention.key_length_mla") else ".attention.key_length"
    value = ".attention.value_length_mla" if metadata.has(".attention.value_length_mla") else ".attention.value_length"
    return {
        "num_hidden_layers": layers,
        "q_lora_rank": metadata.get(".attention.q_lora_rank", int) if _has_query_rank(metadata) else None,
        "kv_lora_rank": metadata.get(".attention.kv_lora_rank", int),
        "qk_nope_head_dim": metadata.get(split, int) - rope,
        "qk_rope_head_dim": rope,
        "v_head_dim": metadata.get(value, int),
        **_experts(metadata, layers),
        **_gating(metadata, mtp),
    }


def _has_query_rank(metadata: Metadata) -> bool:
    """Old files of V2-Lite name a rank that the model does not have; the tensors tell."""
    return "blk.0.attn_q_a.weight" in metadata.file.tensors


def _experts(metadata: Metadata, layers: int) -> dict[str, Any]:
    experts = metadata.get(".expert_count", int)
    groups, used = GROUPS.get((layers, experts), (1, 1))
    return {
        "moe_intermediate_size": metadata.get(".expert_feed_forward_length", int),
        "n_routed_experts": experts,
        "n_shared_experts": metadata.get(".expert_shared_count", int, 0),
        "num_experts_per_tok": metadata.get(".expert_used_count", int),
        "n_group": metadata.get(".expert_group_count", int, groups),
        "topk_group": metadata.get(".expert_group_used_count", int, used),
        "first_k_dense_replace": metadata.get(".leading_dense_block_count", int, 0),
        "norm_topk_prob": metadata.get(".expert_weights_norm", bool, False),
        "routed_scaling_factor": metadata.get(".expert_weights_scale", float, 1.0),
    }


def _gating(metadata: Metadata, mtp: int) -> dict[str, Any]:
    """V3 scores with sigmoids, V2 with softmax; files made before V3 do not say so."""
    gating = metadata.get(".expert_gating_func", int, int(ExpertGatingFuncType.SOFTMAX))
    if gating == ExpertGatingFuncType.SIGMOID:
        return {"model_type": "deepseek_v3", "scoring_func": "sigmoid", "topk_method": "noaux_tc",
                "num_nextn_predict_layers": mtp}  # fmt: skip
    if gating != ExpertGatingFuncType.SOFTMAX:
        metadata.fail(f"deepseek2.expert_gating_func is {gating}: it must be 1 (softmax) or 2 (sigmoid)")
    if mtp:
        metadata.fail("a deepseek2 model with softmax gating and MTP layers is not supported")
    grouped = _experts(metadata, metadata.get(".block_count", int))["n_group"] > 1
    return {"model_type": "deepseek_v2", "scoring_func": "softmax",
            "topk_method": "group_limited_greedy" if grouped else "greedy"}  # fmt: skip


def architecture(config: ModelConfig) -> str:
    """What GGUF calls the family."""
    return "deepseek2" if config.is_latent else config.model_type


def write_config(writer: GGUFWriter, config: ModelConfig, mtp_layers: int) -> None:
    """Add the configuration, with so many of its MTP layers, to a GGUF that is being written."""
    c = config
    writer.add_type("model")
    writer.add_block_count(c.num_hidden_layers + mtp_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(1 if c.is_latent else c.num_key_value_heads)  # MLA is stored as its absorbed form: MQA
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_rope_dimension_count(c.rotary_dim)
    writer.add_vocab_size(c.vocab_size)
    if c.is_latent:
        _write_latent(writer, c)
        _write_experts(writer, c)
    else:
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if mtp_layers:
        writer.add_nextn_predict_layers(mtp_layers)
    write_rope_scaling(writer, c)


def _write_latent(writer: GGUFWriter, c: ModelConfig) -> None:
    writer.add_q_lora_rank(c.q_lora_rank or 0)  # llama.cpp asks for the key
    writer.add_kv_lora_rank(c.kv_lora_rank)
    writer.add_key_length(c.kv_lora_rank + c.qk_rope_head_dim)
    writer.add_value_length(c.kv_lora_rank)
    writer.add_key_length_mla(c.qk_head_dim)
    writer.add_value_length_mla(c.v_head_dim)


def _write_experts(writer: GGUFWriter, c: ModelConfig) -> None:
    sigmoid = c.scoring_func == "sigmoid"
    writer.add_leading_dense_block_count(c.first_k_dense_replace)
    writer.add_expert_feed_forward_length(c.moe_intermediate_size)
    writer.add_expert_count(c.n_routed_experts)
    writer.add_expert_used_count(c.num_experts_per_tok)
    writer.add_expert_shared_count(c.n_shared_experts)
    if c.topk_group < c.n_group:  # else there is no limit, and llama.cpp aborts on saying so
        writer.add_expert_group_count(c.n_group)
        writer.add_expert_group_used_count(c.topk_group)
    writer.add_expert_weights_scale(c.routed_scaling_factor)
    writer.add_expert_weights_norm(c.norm_topk_prob)
    writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID if sigmoid else ExpertGatingFuncType.SOFTMAX)
