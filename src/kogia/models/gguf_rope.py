"""Stretched RoPE in GGUF: linear and YaRN as metadata, Llama 3's as a tensor of factors."""

from typing import Any

import torch
from gguf import GGUFWriter, RopeScalingType
from torch import Tensor

from kogia.errors import FolderError, ShapeError
from kogia.formats.untrusted import shown
from kogia.models.config import ModelConfig
from kogia.models.gguf_metadata import Metadata
from kogia.models.rotary import RopeScaling, frequencies

FACTORS = "rope_freqs.weight"
LLAMA3 = "kogia.rope.llama3."  # our own keys for the settings behind the factors; llama.cpp needs the factors only
LLAMA3_SETS = tuple(  # what Meta published: Llama 3.1 and 3.3, then Llama 3.2
    RopeScaling("llama3", factor, 8192, low_freq_factor=1.0, high_freq_factor=4.0) for factor in (8.0, 32.0)
)


def read_rope_scaling(metadata: Metadata, values: dict[str, Any]) -> dict[str, Any] | None:
    """HF's `rope_scaling` object; None for plain RoPE.

    Raises:
        FolderError: a kind that is not known, or factors that none of Llama 3's published settings produces.
    """
    if FACTORS in metadata.file.tensors:
        return _recognise_llama3(metadata, values)
    kind = metadata.get(".rope.scaling.type", str, "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        metadata.fail(
            f"{metadata.architecture}.rope.scaling.type is {shown(kind)}: none, linear and yarn are supported"
        )
    scaling: dict[str, Any] = {"rope_type": kind, "factor": metadata.get(".rope.scaling.factor", float)}
    return scaling if kind == "linear" else scaling | _read_yarn(metadata)


def _read_yarn(metadata: Metadata) -> dict[str, Any]:
    length = metadata.get(".rope.scaling.original_context_length", int)
    found: dict[str, Any] = {"original_max_position_embeddings": length}
    for key in (".rope.scaling.attn_factor", ".rope.scaling.yarn_attn_factor", ".rope.scaling.yarn_ext_factor"):
        if metadata.has(key) and metadata.get(key, float) != 1.0:
            metadata.fail(f"{metadata.architecture}{key} is {metadata.get(key, float)}: only 1 is supported")
    for name in ("beta_fast", "beta_slow"):
        if metadata.has(f".rope.scaling.yarn_{name}"):
            found[name] = metadata.get(f".rope.scaling.yarn_{name}", float)
    if metadata.has(".rope.scaling.yarn_log_multiplier"):
        if metadata.architecture != "deepseek2":
            metadata.fail(f"{metadata.architecture}.rope.scaling.yarn_log_multiplier is supported for deepseek2 only")
        # llama.cpp stores a tenth of mscale_all_dim and takes mscale to be the same
        mscale = round(10 * metadata.get(".rope.scaling.yarn_log_multiplier", float), 6)
        found |= {"mscale": mscale, "mscale_all_dim": mscale}
    return found


def _recognise_llama3(metadata: Metadata, values: dict[str, Any]) -> dict[str, Any]:
    if metadata.architecture != "llama":
        metadata.fail(f"{FACTORS} in architecture {metadata.architecture} is not supported: only in llama")
    sound = metadata.file.tensors[FACTORS].shape == (values["head_dim"] // 2,)
    for scaling in (*_read_llama3(metadata), *LLAMA3_SETS) if sound else ():
        wanted = llama3_factors(values["head_dim"], values["rope_theta"], scaling)
        if torch.allclose(metadata.file.read(FACTORS).float(), wanted, rtol=1e-4, atol=0):
            return scaling.to_json()
    metadata.fail(
        f"{FACTORS} holds factors that none of Llama 3's settings produces (factor 8 or 32, low 1, high 4, 8192 "
        f"positions) nor what Kogia itself notes under {LLAMA3}*: convert from the safetensors folder instead"
    )


def _read_llama3(metadata: Metadata) -> list[RopeScaling]:
    """The settings that Kogia has noted, if it wrote the file."""
    if f"{LLAMA3}factor" not in metadata.file.metadata:
        return []
    factor, low, high = (metadata.get(LLAMA3 + key, float) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = metadata.get(f"{LLAMA3}original_context_length", int)
    try:
        return [RopeScaling("llama3", factor, length, low_freq_factor=low, high_freq_factor=high)]
    except ShapeError as error:
        metadata.fail(f"metadata keys {LLAMA3}*: {error}")


def llama3_factors(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """By how much each of the head_dim/2 rotations is slowed down; (head_dim/2,) FP32."""
    plain, stretched = frequencies(head_dim, theta), frequencies(head_dim, theta, scaling)
    return torch.tensor(plain) / torch.tensor(stretched)


def write_rope_scaling(writer: GGUFWriter, config: ModelConfig) -> None:
    """Add the metadata; Llama 3's factors are a tensor, and only what they were made of is among it.

    Raises:
        FolderError: settings that GGUF has no keys for.
    """
    scaling = config.rope_scaling
    if scaling is None:
        return
    if scaling.rope_type == "llama3":
        return _write_llama3(writer, config, scaling)
    writer.add_rope_scaling_type(RopeScalingType(scaling.rope_type))
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.rope_type == "yarn":
        _write_yarn(writer, config, scaling)


def _write_llama3(writer: GGUFWriter, config: ModelConfig, scaling: RopeScaling) -> None:
    if config.model_type != "llama":
        raise FolderError(
            f"rope_scaling of type llama3 in family {config.model_type}: GGUF has it in family llama only"
        )
    writer.add_float32(f"{LLAMA3}factor", scaling.factor)
    writer.add_uint32(f"{LLAMA3}original_context_length", _positions(scaling))
    writer.add_float32(f"{LLAMA3}low_freq_factor", scaling.low_freq_factor)
    writer.add_float32(f"{LLAMA3}high_freq_factor", scaling.high_freq_factor)


def _positions(scaling: RopeScaling) -> int:
    length = scaling.original_max_position_embeddings
    if length != int(length):
        raise FolderError(f"rope_scaling.original_max_position_embeddings is {length}: GGUF holds whole numbers only")
    return int(length)


def _write_yarn(writer: GGUFWriter, config: ModelConfig, scaling: RopeScaling) -> None:
    if scaling.mscale != scaling.mscale_all_dim or (scaling.mscale and not config.is_latent):
        raise FolderError(
            f"rope_scaling has mscale {scaling.mscale} and mscale_all_dim {scaling.mscale_all_dim}: GGUF can hold "
            "them for the DeepSeek families only, and only when they are equal"
        )
    if scaling.attention_factor is not None or not scaling.truncate:
        raise FolderError("rope_scaling has attention_factor or truncate: false, for which GGUF has no place")
    writer.add_rope_scaling_orig_ctx_len(_positions(scaling))
    writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
    writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
    if scaling.mscale_all_dim:
        writer.add_rope_scaling_yarn_log_mul(0.1 * scaling.mscale_all_dim)
