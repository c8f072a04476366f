"""Models in from disk and out to a Hugging Face folder, tensor by tensor."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kogia.errors import FolderError
from kogia.files import write_json
from kogia.formats.header import Size, count_bytes
from kogia.formats.safetensors import write_shards
from kogia.kernels.fp8 import BLOCK, quantise_blocks
from kogia.kernels.integer import GROUP
from kogia.models.checkpoint import (
    SCALES,
    Checkpoint,
    FolderCheckpoint,
    LiveCheckpoint,
    open_checkpoint,
    refuse_not_finite,
)
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.names import Stored, is_matrix_of_a_layer, select, stays_float32, stored_tensors
from kogia.models.quantised import BITS, METHOD, pack, stored_format, stored_parts

SHARD_BYTES = 4 << 30


def skeleton(config: ModelConfig) -> Decoder:
    """The model without memory for its weights: what random initialisation, loading and `kogia info` share."""
    with torch.device("meta"):
        return Decoder(config)


def load_model(path: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Decoder:
    """Read a model folder or a .gguf file into a `Decoder`.

    dtype: of the matrices and of the computation; norms, biases and the router are FP32 in memory whatever it is.
    Every tensor's name and shape is checked before anything is allocated. Needs the model's memory and that of its
    largest tensor on disk.

    Raises:
        FolderError: truncated or foreign file, missing or surplus tensor, wrong shape, a value that is not finite;
            the tensor is named.
    """
    path = Path(path)
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    refuse_missing_layers(path, checkpoint)
    model = skeleton(config)
    expected = model.state_dict()
    stored = list(stored_tensors(config, expected))
    refuse_wrong_tensors(path, checkpoint, stored, expected)
    model.load_state_dict(_read(path, checkpoint, stored, expected, dtype, device), strict=True, assign=True)
    for moe in model.experts():
        moe.load = torch.zeros(config.n_routed_experts, device=device)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight  # type: ignore[assignment]
    return model.compute_in(dtype)


def refuse_missing_layers(path: Path, checkpoint: Checkpoint) -> None:
    """Whether the last layer and the last expert are there, before a model of that many is built."""
    c = checkpoint.config
    layers = c.num_hidden_layers + c.num_nextn_predict_layers
    needed = [f"model.layers.{c.num_hidden_layers - 1}.input_layernorm.weight"]
    needed += [f"model.layers.{layers - 1}.input_layernorm.weight"]
    if not c.is_dense(layers - 1):
        needed.append(f"model.layers.{layers - 1}.mlp.experts.{c.n_routed_experts - 1}.up_proj.weight")
    for name in ["model.embed_tokens.weight", *needed]:
        if name not in checkpoint.shapes:
            raise FolderError(f"{path} lacks {name}{_dropped_mtp(name, c)}")
    most = 16 * layers + 3 * c.n_routed_experts * layers + 8
    if most > 64 * len(checkpoint.shapes):  # far from what config.json asks for: do not even list it
        raise FolderError(f"{path} lacks most of the tensors that config.json asks for")


def _dropped_mtp(name: str, config: ModelConfig) -> str:
    """A hint for folders written by programs that silently drop the MTP layers."""
    parts = name.split(".")
    if parts[1] == "layers" and int(parts[2]) >= config.num_hidden_layers:
        return (
            ", a layer that predicts further tokens (MTP): the program that wrote the folder dropped it. To go on "
            "without it, set num_nextn_predict_layers to 0 in config.json"
        )
    return ", which config.json asks for"


def refuse_wrong_tensors(path: Path, checkpoint: Checkpoint, stored: list[Stored], expected: dict[str, Tensor]) -> None:
    """Compare names and shapes with what the configuration asks for.

    Raises:
        FolderError: the first tensor that is missing, too many or of the wrong shape.
    """
    present = checkpoint.shapes
    missing = [s.name for s in stored if s.name not in present and not s.copy]
    if missing:
        raise FolderError(
            f"{path} lacks {missing[0]}{_dropped_mtp(missing[0], checkpoint.config)} ({len(missing)} such tensors)"
        )
    surplus = sorted(name for name in present.keys() - {s.name for s in stored} if not _is_derived(name))
    if surplus:
        raise FolderError(f"{path} holds {surplus[0]}, which config.json has no place for ({len(surplus)} such)")
    for s in stored:
        wanted = tuple(select(expected[s.parameter], s).shape)
        if present.get(s.name, wanted) != wanted:
            raise FolderError(f"{path}: {s.name} has shape {present[s.name]}, config.json asks for {wanted}")


def _is_derived(name: str) -> bool:
    """Old Llama folders carry RoPE's frequencies, which follow from config.json."""
    return name.endswith("rotary_emb.inv_freq")


def _read(
    path: Path, checkpoint: Checkpoint, stored: list[Stored], expected: dict[str, Tensor], dtype: torch.dtype,
    device: str,
) -> dict[str, Tensor]:  # fmt: skip
    weights = {
        name: torch.empty(tensor.shape, dtype=torch.float32 if stays_float32(name, tensor) else dtype, device=device)
        for name, tensor in expected.items()
    }
    if checkpoint.config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["embed_tokens.weight"]
    for s in stored:
        if s.name not in checkpoint.shapes:
            continue
        place = select(weights[s.parameter], s)
        if s.copy:
            refuse_other_copy(path, s, checkpoint.read(s.name).to(place.dtype), place.cpu())
        elif isinstance(checkpoint, FolderCheckpoint) and device == "cpu":
            checkpoint.read_into(s.name, place)
        else:
            place.copy_(checkpoint.read(s.name))
        refuse_not_finite(path, s.name, place)
    return weights


def refuse_other_copy(path: Path, s: Stored, copy: Tensor, original: Tensor) -> None:
    """Whether what is stored again for other programs' sake is the same again.

    Raises:
        FolderError: an MTP layer with an embedding or head of its own, or a tied head that is not the embedding.
    """
    if not torch.equal(copy, original):
        raise FolderError(
            f"{path}: {s.name} differs from {s.parameter}, which it should repeat: heads and embeddings of their own "
            "for single layers are not supported"
        )


def refuse_other_copies(path: Path, checkpoint: Checkpoint) -> None:
    """`refuse_other_copy` for all of a checkpoint, before it is converted."""
    stored = list(stored_tensors(checkpoint.config, skeleton(checkpoint.config).state_dict()))
    originals = originals_of(stored)
    for s in stored:
        if s.copy and s.name in checkpoint.shapes:
            refuse_other_copy(path, s, checkpoint.read(s.name), checkpoint.read(originals[s.parameter]))


def originals_of(stored: list[Stored]) -> dict[str, str]:
    """The name on disk of each whole parameter."""
    return {s.parameter: s.name for s in reversed(stored) if not s.copy}


def save_model(folder: Path, model: Decoder, generation: dict[str, Any] | None = None) -> None:
    """Write config.json, generation_config.json and model.safetensors (FP32) to `folder`."""
    write_folder(folder, LiveCheckpoint(model), torch.float32, generation)


def write_folder(
    folder: Path, checkpoint: Checkpoint, dtype: torch.dtype, generation: dict[str, Any] | None = None,
    ue8m0: bool = False, shard_bytes: int = SHARD_BYTES, resume: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None, quantise: str | None = None,
) -> None:  # fmt: skip
    """Write a Hugging Face folder, holding one tensor at a time.

    dtype: float32, bfloat16, float16, or float8_e4m3fn: the layers' matrices in blocks as DeepSeek publishes them,
    the rest in BF16. ue8m0: FP8 scales are powers of two (DeepSeek-V3.1). The balancing bias stays FP32.
    resume: shards that an earlier, killed call wrote to this folder from the same checkpoint are kept.
    progress: told the bytes written so far and those of the whole, after each tensor.
    quantise: "int8" or "int4": the matrices in Kogia's own layout (models/quantised.py), the rest in FP32.

    Raises:
        FolderError: the checkpoint lacks a tensor, or a weight does not fit the format. DiskFullError.
    """
    config = checkpoint.config
    expected = skeleton(config).state_dict()
    stored = list(stored_tensors(config, expected))
    refuse_wrong_tensors(folder, checkpoint, stored, expected)
    # a tied head is not written, and a folder that only Kogia reads has no copies
    stored = [s for s in stored if not (s.copy and (quantise or s.name == "lm_head.weight"))]
    values = config.to_json() | {"torch_dtype": str(_plain(dtype)).removeprefix("torch.")}
    values |= _inherited(getattr(checkpoint, "source", {}), values)
    if dtype == torch.float8_e4m3fn:
        values["quantization_config"] = {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [BLOCK, BLOCK], **({"scale_fmt": "ue8m0"} if ue8m0 else {}),
        }  # fmt: skip
    if quantise:
        values["quantization_config"] = {"quant_method": METHOD, "bits": BITS[quantise], "group_size": GROUP}
    write_json(folder / "config.json", values)
    defaults = {"bos_token_id": config.bos_token_id, "eos_token_id": values["eos_token_id"], "do_sample": True}
    write_json(folder / "generation_config.json", defaults | (generation or {}))
    shapes = {s.name: tuple(select(expected[s.parameter], s).shape) for s in stored}
    if quantise:
        sizes = [size for s in stored for size in stored_parts(s.name, shapes[s.name], quantise)]
        tensors = _packed(folder, checkpoint, shapes, quantise)
    else:
        sizes = [size for s in stored for size in _sizes(s, shapes[s.name], dtype)]
        tensors = _tensors(folder, checkpoint, stored, dtype, ue8m0)
    total, done = sum(count_bytes(size) for size in sizes), 0

    def wrote(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    write_shards(folder, tensors, sizes, shard_bytes, resume, wrote)


def _inherited(source: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """What a source's config.json says beyond what we compute with (its padding token, remarks of its makers), but
    nothing that we write under another name and no pointers to code."""
    renamed = ("rope_parameters", "num_mtp_layers", "dtype", "quantization_config", "auto_map", "transformers_version")
    return {
        key: value for key, value in source.items() if key == "pad_token_id" or key not in (*renamed, *written)
    }  # fmt: skip


def _plain(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.float8_e4m3fn else dtype


def _sizes(s: Stored, shape: tuple[int, ...], dtype: torch.dtype) -> list[Size]:
    if s.name.endswith("e_score_correction_bias"):
        return [(s.name, torch.float32, shape)]
    if dtype != torch.float8_e4m3fn or not is_matrix_of_a_layer(s.name):
        return [(s.name, _plain(dtype), shape)]
    blocks = tuple(-(-n // BLOCK) for n in shape)
    return [(s.name, dtype, shape), (s.name + SCALES, torch.float32, blocks)]


def _tensors(
    folder: Path, checkpoint: Checkpoint, stored: list[Stored], dtype: torch.dtype, ue8m0: bool
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Names and how to make the tensors, in the order of `_sizes`; a tensor that nobody asks for is not read."""
    originals = originals_of(stored)

    def read(s: Stored, wanted: torch.dtype) -> Tensor:
        tensor = checkpoint.read(originals[s.parameter] if s.copy else s.name)
        return refuse_not_finite(folder, s.name, tensor.to(wanted))

    for s in stored:
        if s.name.endswith("e_score_correction_bias"):
            yield s.name, partial(read, s, torch.float32)
        elif dtype != torch.float8_e4m3fn or not is_matrix_of_a_layer(s.name):
            yield s.name, partial(read, s, _plain(dtype))
        else:
            pair = cache(lambda s=s: quantise_blocks(read(s, torch.float32), BLOCK, ue8m0, s.name))
            yield s.name, lambda pair=pair: pair()[0]  # type: ignore[misc]
            yield s.name + SCALES, lambda pair=pair: pair()[1]  # type: ignore[misc]


def _packed(
    folder: Path, checkpoint: Checkpoint, shapes: dict[str, tuple[int, ...]], wanted: str
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """As `_tensors`, in the order of `stored_parts`."""

    def read(name: str) -> Tensor:
        return refuse_not_finite(folder, name, checkpoint.read(name).float())

    for name, shape in shapes.items():
        format = stored_format(name, shape, wanted)
        if format is None:
            yield name, partial(read, name)
            continue
        parts = cache(lambda name=name, format=format: pack(read(name), format, name))
        for i, (part, _, _) in enumerate(stored_parts(name, shape, wanted)):
            yield part, lambda parts=parts, i=i: parts()[i]  # type: ignore[misc]
