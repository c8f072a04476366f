"""A GGUF file as a checkpoint: Hugging Face's names, shapes and orders over llama.cpp's."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, cast

from torch import Tensor

from kogia.errors import FolderError
from kogia.formats.gguf import GGUF
from kogia.models.config import ModelConfig
from kogia.models.gguf_config import read_config
from kogia.models.gguf_layout import deinterleave, interleaved_heads, join_kv, split_shapes
from kogia.models.gguf_names import (
    EXPERTS,
    GATE_UP_EXPERTS,
    KEY_HALF,
    KV_B,
    LAYER,
    VALUE_HALF,
    WHOLE,
    split_gguf,
)
from kogia.models.gguf_rope import FACTORS

MAX_TENSORS = 1 << 18  # with every expert counted; DeepSeek-V3 has 47 thousand
ALL = "*"  # stands for the number of the expert in the name of all of a layer's experts
_EXPERT = re.compile(r"(model\.layers\.[0-9]+\.mlp\.experts\.)(0|[1-9][0-9]{0,5})(\..+)")


@dataclass(frozen=True, slots=True)
class Held:
    """How the file holds one of Hugging Face's tensors."""

    shape: tuple[int, ...]
    name: str
    other: str | None = None  # the second half of a tensor that GGUF has split
    experts: int = 0  # so many of that shape in one stack
    rows: tuple[int, int] | None = None  # the rows of an expert's slice
    heads: int = 0  # so many heads have their rows interleaved


class GGUFCheckpoint:
    """A `Checkpoint` over a GGUF file of architecture deepseek2, llama, qwen2 or qwen3.

    `shapes` says what the file holds, and is made when first asked for; that nothing is missing or surplus is for the
    loader to check, as it does for a model folder.

    Raises:
        FolderError: not a sound GGUF file, another architecture, a tensor that is unknown or of impossible shape, or
            fewer layers than the metadata claim.
        ShapeError: a configuration whose numbers do not fit together.
    """

    def __init__(self, path: str | Path) -> None:
        self.file = GGUF(path)
        self.config: ModelConfig = read_config(self.file)
        self._refuse_missing_layers()
        self._held: dict[str, Held] = {}  # a stack of experts is one entry, with ALL for their number
        self._count = 0
        for name in self.file.tensors:
            if name != FACTORS:
                self._add(name)

    def _list_shapes(self) -> dict[str, tuple[int, ...]]:
        """What the file holds under Hugging Face's names, each expert on its own."""
        return {
            name.replace(ALL, str(expert)): held.shape
            for name, held in self._held.items()
            for expert in range(held.experts or 1)
        }

    # for mypy a cached_property cannot be set, which the protocol asks of a plain attribute
    shapes: dict[str, tuple[int, ...]] = cast("Any", cached_property(_list_shapes))

    def read(self, name: str) -> Tensor:
        """One tensor in Hugging Face's order, dequantised; FP32, or FP16 or BF16 where the file has them.

        Raises:
            FolderError: no such tensor, or a file that has changed since it was opened.
        """
        match = _EXPERT.fullmatch(name)
        expert = int(match[2]) if match else None
        held = self._held.get(f"{match[1]}{ALL}{match[3]}" if match else name)
        if held is None or bool(held.experts) != (expert is not None) or (expert or 0) >= (held.experts or 1):
            raise FolderError(f"{self.file.path} has no tensor for {name}")
        tensor = self.file.read(held.name, expert)
        if held.other is not None:
            return join_kv(tensor, self.file.read(held.other))
        if held.rows is not None:
            return tensor[slice(*held.rows)].contiguous()
        return deinterleave(tensor, held.heads) if held.heads else tensor

    def _refuse_missing_layers(self) -> None:
        """A model of as many layers as the metadata claim is not even described, unless the file has them."""
        layers = self.config.num_hidden_layers + self.config.num_nextn_predict_layers
        norms = (f"blk.{layer}.attn_norm.weight" for layer in range(layers))
        missing = next((name for name in norms if name not in self.file.tensors), None)
        if missing is not None:
            self._fail(f"tensor {missing} is missing, though the metadata claim {layers} layers (block_count)")

    def _add(self, name: str) -> None:
        layer, stem = split_gguf(name)
        if layer is None and stem in WHOLE:
            self._put(WHOLE[stem], Held(self._shape(name), name))
        elif layer is not None and stem in LAYER:
            self._put(f"model.layers.{layer}.{LAYER[stem]}", self._plain(name, stem))
        elif layer is not None and stem in (KEY_HALF, VALUE_HALF):
            self._add_halves(layer, stem)
        elif layer is not None and stem in (*EXPERTS, GATE_UP_EXPERTS):
            self._add_experts(name, layer, stem)
        else:
            self._fail(f"tensor {name} has no place in a model of family {self.config.model_type}")

    def _plain(self, name: str, stem: str) -> Held:
        shape, heads = self._shape(name), interleaved_heads(stem, self.config)
        if heads and shape[0] != heads * self.config.head_dim:
            self._fail(f"{name} has shape {shape}: it must have {heads} heads of {self.config.head_dim} rows")
        return Held(shape, name, heads=heads)

    def _add_halves(self, layer: int, stem: str) -> None:
        """kv_b_proj from its two halves; in files that hold it whole as well, the halves are copies."""
        key, value = f"blk.{layer}.{KEY_HALF}", f"blk.{layer}.{VALUE_HALF}"
        if f"blk.{layer}.attn_kv_b.weight" in self.file.tensors or (stem == VALUE_HALF and key in self.file.tensors):
            return
        for name, wanted in zip((key, value), split_shapes(self.config), strict=True):
            if name not in self.file.tensors:
                self._fail(f"tensor {name} is missing, and its other half is there")
            if self._shape(name) != wanted:
                self._fail(f"{name} has shape {self._shape(name)}, the metadata ask for {wanted}")
        c = self.config
        shape = (c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank)
        self._put(f"model.layers.{layer}.{KV_B}", Held(shape, key, other=value))

    def _add_experts(self, name: str, layer: int, stem: str) -> None:
        shape, count = self._shape(name), self.config.n_routed_experts
        if len(shape) != 3 or shape[0] != count or (stem == GATE_UP_EXPERTS and shape[1] % 2):
            self._fail(f"{name} has shape {shape}: it must be three-dimensional, with {count} experts (expert_count)")
        prefix = f"model.layers.{layer}.mlp.experts.{ALL}"
        if stem == GATE_UP_EXPERTS:
            half = shape[1] // 2
            for part, rows in (("gate_proj", (0, half)), ("up_proj", (half, 2 * half))):
                self._put(f"{prefix}.{part}.weight", Held((half, shape[2]), name, experts=count, rows=rows))
        else:
            self._put(f"{prefix}.{EXPERTS[stem]}", Held(shape[1:], name, experts=count))

    def _put(self, name: str, held: Held) -> None:
        self._count += held.experts or 1
        if self._count > MAX_TENSORS:
            self._fail(f"it holds over {MAX_TENSORS} tensors (each expert counts), more than any model")
        if name in self._held:
            self._fail(f"{held.name} and {self._held[name].name} are both {name}")
        self._held[name] = held

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.file.tensors[name].shape

    def _fail(self, reason: str) -> NoReturn:
        raise FolderError(f"{self.file.path}: {reason}")
