"""Any checkpoint into one GGUF file, tensor by tensor, so that memory holds one tensor at a time."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import dequantize, quantize
from torch import Tensor

from kogia.errors import FolderError
from kogia.files import written_whole
from kogia.formats.gguf import MAX_STOPS, STOP_IDS
from kogia.models.checkpoint import Checkpoint
from kogia.models.config import ModelConfig
from kogia.models.gguf_config import STOPS, architecture, write_config
from kogia.models.gguf_layout import interleave, interleaved_heads, split_kv, split_shapes
from kogia.models.gguf_names import KEY_HALF, KV_B, MTP_COPIES, VALUE_HALF, gguf_name, split_gguf, split_hf
from kogia.models.gguf_rope import FACTORS, llama3_factors
from kogia.models.gguf_warnings import differences

Kind = GGMLQuantizationType
Piece = tuple[str, Callable[[], Tensor]]  # Hugging Face's name, and how to make it
TOKEN_ID = "tokenizer.ggml.{}_token_id"
# What these formats cost most in: the embedding and the head, which llama.cpp's own quantiser keeps finer as well.
# SmolLM2 (tied) has a perplexity of 16.12 with both in Q4_0 and of 15.04 with them in Q8_0, on the same text.
FINER, ENDS = {Kind.Q4_0: Kind.Q8_0, Kind.Q4_1: Kind.Q8_0}, ("token_embd.weight", "output.weight")
FP16_MOST = float(np.finfo(np.float16).max)  # no format's scales hold more
FILE_TYPES = {
    "f32": (Kind.F32, LlamaFileType.ALL_F32), "f16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, LlamaFileType.MOSTLY_BF16), "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q5_1": (Kind.Q5_1, LlamaFileType.MOSTLY_Q5_1), "q5_0": (Kind.Q5_0, LlamaFileType.MOSTLY_Q5_0),
    "q4_1": (Kind.Q4_1, LlamaFileType.MOSTLY_Q4_1), "q4_0": (Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}  # fmt: skip


@dataclass
class Planned:
    """One tensor of the GGUF: its shape and number format, and how to make its pieces one after another."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    pieces: list["Piece"] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Size in the file, before padding."""
        block, block_bytes = GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // block * block_bytes

    def tofile(self, file: IO[bytes]) -> None:
        """What GGUFWriter asks of an array; here each piece is read, written and forgotten."""
        for name, read in self.pieces:
            file.write(encode(read(), self.kind, name).data.cast("B"))


def write_gguf(
    path: Path,
    checkpoint: Checkpoint,
    vocabulary: dict[str, Any],
    dtype: str = "f32",
    *,
    name: str = "",
    mtp_layers: int | None = None,
) -> list[str]:
    """Write a model as one GGUF file that llama.cpp loads; whole or not at all.

    vocabulary: metadata as `kogia.text.gguf.vocabulary` makes it, or {} for a file without a tokenizer.
    dtype: a key of `FILE_TYPES`, for every matrix; norms, biases and routers stay FP32, embedding and head are Q8_0
        under q4_0 and q4_1, and a matrix whose rows do not divide into the format's blocks becomes FP16, as in
        llama.cpp's converter.
    mtp_layers: how many MTP layers to keep; all by default. llama.cpp loads any number and drafts with exactly one.
    Returns what a user should know: where llama.cpp computes otherwise than Kogia.

    Raises:
        FolderError: an unknown dtype, a tensor that GGUF has no name for, a value that is not finite or does not fit
            the format, a vocabulary of the wrong size, or a token id beyond it. DiskFullError: no space.
    """
    if dtype not in FILE_TYPES:
        raise FolderError(f"GGUF format {dtype!r} is not known: there are {', '.join(FILE_TYPES)}")
    config = checkpoint.config
    kept = config.num_nextn_predict_layers if mtp_layers is None else min(mtp_layers, config.num_nextn_predict_layers)
    tensors, metadata = _plan(checkpoint, FILE_TYPES[dtype][0], kept), _with_ends(config, vocabulary)
    with written_whole(path) as temporary, contextlib.closing(GGUFWriter(temporary, architecture(config))) as writer:
        if name:
            writer.add_name(name)
        write_config(writer, config, kept)
        writer.add_file_type(int(FILE_TYPES[dtype][1]))
        writer.add_quantization_version(2)
        _write_metadata(writer, metadata)
        _write_tensors(writer, tensors)
    return differences(config, kept) + _unnamed_stops(metadata) + _in_fp16(tensors, dtype)


def _in_fp16(tensors: dict[str, Planned], dtype: str) -> list[str]:
    wanted = FILE_TYPES[dtype][0]
    smaller = [n for n, t in tensors.items() if _is_matrix(n, t.shape) and t.kind == Kind.F16 != wanted]
    fallback = f"{len(smaller)} matrices do not divide into blocks of {dtype} and are in FP16, first {smaller[:1]}"
    return [fallback] if smaller else []


def _unnamed_stops(metadata: dict[str, Any]) -> list[str]:
    unnamed = set(metadata[STOP_IDS]) - {metadata.get(TOKEN_ID.format(end)) for end in STOPS}
    text = f"llama.cpp knows {len(STOPS)} ends of a reply only ({', '.join(STOPS)}): it may go on after token "
    return [text + ", ".join(map(str, sorted(unnamed)))] if unnamed else []


def encode(tensor: Tensor, kind: GGMLQuantizationType, name: str = "") -> np.ndarray[Any, Any]:
    """A tensor of floats in one of GGUF's number formats: an array whose bytes are what the file holds.

    Raises:
        FolderError: a value that is not finite, or too large for the format; `name` is the tensor's.
    """
    values = tensor.detach().float().contiguous().numpy()
    largest = float(np.maximum(values.max(), -values.min()))
    if not math.isfinite(largest):
        raise FolderError(f"{name} holds NaN or infinity: every weight must be a finite number")
    with np.errstate(over="ignore", invalid="ignore"):
        encoded = quantize(values, kind)
        fits = largest <= FP16_MOST or bool(np.isfinite(dequantize(encoded, kind)).all())
    if not fits:
        what = "FP16" if kind == Kind.F16 else kind.name
        raise FolderError(f"{name}: a weight of {largest:.3g} does not fit {what}: choose bf16 or f32")
    return np.ascontiguousarray(encoded)


def _with_ends(config: ModelConfig, vocabulary: dict[str, Any]) -> dict[str, Any]:
    """The vocabulary with the ids of the model's beginning and ends: what the tokenizer calls its end is eos (and eot),
    then come the configuration's ends and the tokenizer's others."""
    tokens = vocabulary.get("tokenizer.ggml.tokens")
    if tokens is not None and len(tokens) != config.vocab_size:
        raise FolderError(f"the tokenizer has {len(tokens)} tokens, the model {config.vocab_size} (vocab_size)")
    own = [vocabulary[key] for key in map(TOKEN_ID.format, STOPS) if key in vocabulary]
    stops = list(dict.fromkeys([*own, *config.stop_ids, *vocabulary.get(STOP_IDS, [])]))
    ids = {TOKEN_ID.format(end): id for end, id in zip(STOPS, stops, strict=False)}
    if config.bos_token_id is not None:
        ids[TOKEN_ID.format("bos")] = config.bos_token_id
    _refuse_ids(config, stops, vocabulary.get("tokenizer.ggml.token_type"))
    return {"tokenizer.ggml.model": "no_vocab"} | vocabulary | ids | {STOP_IDS: stops}


def _refuse_ids(config: ModelConfig, stops: list[int], types: list[int] | None) -> None:
    """Ids that could not be read back."""
    bos = config.bos_token_id
    for name, id in [*([] if bos is None else [("bos_token_id", bos)]), *(("eos_token_id", stop) for stop in stops)]:
        if id >= config.vocab_size:
            raise FolderError(f"{name} is {id}: it must be one of the model's {config.vocab_size} tokens (vocab_size)")
    if types and bos is not None and types[bos] == TokenType.UNUSED:
        raise FolderError(f"bos_token_id is {bos}, which is no token of the tokenizer")
    if len(stops) > MAX_STOPS:
        raise FolderError(f"{len(stops)} tokens end a reply (eos_token_id): at most {MAX_STOPS} can be written")


def _write_metadata(writer: GGUFWriter, metadata: dict[str, Any]) -> None:
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case str():
                writer.add_string(key, value)
            case _:
                writer.add_array(key, value)


def _write_tensors(writer: GGUFWriter, tensors: dict[str, Planned]) -> None:
    for name, planned in tensors.items():
        writer.add_tensor_info(name, planned.shape, np.dtype(np.float32), planned.nbytes, planned.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for planned in tensors.values():
        writer.write_tensor_data(cast("np.ndarray[Any, Any]", planned))


def _plan(checkpoint: Checkpoint, wanted: GGMLQuantizationType, mtp_layers: int) -> dict[str, Planned]:
    """Every tensor of the file in order, with nothing read yet."""
    config = checkpoint.config
    plan: dict[str, Planned] = {}
    experts: dict[str, dict[int, Piece]] = {}
    for hf in checkpoint.shapes:
        if _left_out(checkpoint, hf, mtp_layers):
            continue
        for name, shape, expert, read in _pieces(checkpoint, hf):
            whole = shape if expert is None else (config.n_routed_experts, *shape)
            planned = plan.setdefault(name, Planned(whole, _format(name, whole, wanted)))
            if expert is None:
                planned.pieces.append((hf, read))
            else:
                experts.setdefault(name, {})[expert] = (hf, read)
    for name, found in experts.items():
        if sorted(found) != list(range(config.n_routed_experts)):
            raise FolderError(f"{name}: {len(found)} of {config.n_routed_experts} experts are there")
        plan[name].pieces = [found[expert] for expert in range(config.n_routed_experts)]
    return plan | _rope_factors(config)


def _left_out(checkpoint: Checkpoint, hf: str, mtp_layers: int) -> bool:
    """MTP layers that are not wanted, and what follows from the rest: old Llama folders' frequencies, a tied head,
    the MTP layers' copies of embedding and head."""
    config, (layer, rest) = checkpoint.config, split_hf(hf)
    if layer is None:
        return hf == "lm_head.weight" and config.tie_word_embeddings
    if rest in MTP_COPIES and layer < config.num_hidden_layers + mtp_layers:
        head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
        original = head if rest == MTP_COPIES[1] else "model.embed_tokens.weight"
        return torch.equal(checkpoint.read(hf), checkpoint.read(original))
    return layer >= config.num_hidden_layers + mtp_layers or rest.endswith("rotary_emb.inv_freq")


def _pieces(checkpoint: Checkpoint, hf: str) -> Iterator[tuple[str, tuple[int, ...], int | None, Callable[[], Tensor]]]:
    """What becomes of one of HF's tensors: GGUF names, shapes, the expert if it is one, and how to make it."""
    config, shape = checkpoint.config, checkpoint.shapes[hf]
    found = gguf_name(hf)
    if found is None:
        raise FolderError(f"tensor {hf} has no name in GGUF: it cannot be converted")
    name, expert = found
    layer, stem = split_gguf(name)
    if hf.endswith(KV_B):
        key, value = split_shapes(config)
        yield f"blk.{layer}.{KEY_HALF}", key, None, lambda: split_kv(checkpoint.read(hf), config)[0]
        yield f"blk.{layer}.{VALUE_HALF}", value, None, lambda: split_kv(checkpoint.read(hf), config)[1]
    elif heads := interleaved_heads(stem, config):
        yield name, shape, None, lambda: interleave(checkpoint.read(hf), heads)
    else:
        yield name, shape, expert, lambda: checkpoint.read(hf)


def _rope_factors(config: ModelConfig) -> dict[str, Planned]:
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type != "llama3":
        return {}
    factors = llama3_factors(config.head_dim, config.rope_theta, scaling)
    return {FACTORS: Planned(tuple(factors.shape), Kind.F32, [(FACTORS, lambda: factors)])}


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and not name.endswith("ffn_gate_inp.weight")


def _format(name: str, shape: tuple[int, ...], wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    if not _is_matrix(name, shape):
        return Kind.F32
    wanted = FINER.get(wanted, wanted) if name in ENDS else wanted
    return wanted if shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else Kind.F16
