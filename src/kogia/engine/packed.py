"""A model's weights as the C++ kernels want them: matrices that are used together side by side, packed, quantised."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kogia.errors import UserError
from kogia.kernels.program import Panels, empty_panels, pack, padded
from kogia.models.attention import LatentAttention
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder, MTPLayer
from kogia.models.grouped_attention import GroupedAttention
from kogia.models.layers import MLP, RMSNorm
from kogia.models.moe import MoE

QUANTISED = ("int8", "int4")


class PackedWeights:
    """Reads a live model's weights and packs them; `refresh` does it again after they have changed.

    format: of the layers' matrices: float32, bfloat16, int8 (groups of 32 with an FP16 scale) or int4 (a scale and a
    minimum). The head and MLA's per-head matrices have 8 bits where the rest has 4; the router is FP32 in any case.
    """

    def __init__(self, model: Decoder, format: str) -> None:
        self.format = format
        self.fine = "int8" if format == "int4" else format
        self._jobs: list[tuple[Panels, int, Callable[[], Tensor]]] = []
        self._copies: list[tuple[Tensor, Callable[[], Tensor]]] = []
        self.model = model

    @torch.no_grad()
    def refresh(self) -> None:
        """Pack the live weights (again).

        Raises:
            UserError: weights that are not finite, or too large for the format's FP16 scales.
        """
        for panels, index, read in self._jobs:
            matrix = read()
            if panels.format in QUANTISED:
                _refuse_what_scales_cannot_hold(matrix, panels.format)
            pack(panels, index, matrix)
        for kept, read in self._copies:
            source = read()
            kept.zero_()
            kept[..., : source.shape[-1]] = source

    def matrices(self, read: list[Callable[[], Tensor]], format: str | None = None) -> Panels:
        """Room for matrices of one shape, to be filled by `refresh`."""
        outputs, inputs = read[0]().shape
        panels = empty_panels(format or self.format, outputs, inputs, len(read))
        self._jobs += [(panels, i, one) for i, one in enumerate(read)]
        return panels

    def matrix(self, read: Callable[[], Tensor], format: str | None = None) -> Panels:
        """Room for one matrix."""
        return self.matrices([read], format)

    def vector(self, read: Callable[[], Tensor]) -> Tensor:
        """An FP32 copy of a norm's weight or a bias, padded with zeros to whole panels."""
        kept = torch.zeros(padded(read().shape[-1]))
        self._copies.append((kept, read))
        return kept

    def table(self, read: Callable[[], Tensor]) -> Tensor:
        """The embedding, in FP32 or BF16; not copied where nothing trains it and it is so already."""
        dtype = torch.float32 if self.format == "float32" else torch.bfloat16
        source = read()
        if source.dtype == dtype and not source.requires_grad and source.is_contiguous():
            return source.detach()
        kept = torch.zeros(source.shape, dtype=dtype)
        self._copies.append((kept, read))
        return kept


def side_by_side(*weights: Tensor) -> Callable[[], Tensor]:
    """Matrices with the same inputs as one with all their outputs."""
    return lambda: torch.cat([weight.detach().float() for weight in weights])


def absorbed(attention: LatentAttention, head: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """W_UK^T (latent, nope) and W_UV (value, latent) of a head: what turns its query into the latent space and the
    mixed latents into its output."""
    c = attention.config
    both = attention.kv_b_proj.weight.unflatten(0, (c.num_attention_heads, -1))
    return (
        lambda: both[head, : c.qk_nope_head_dim].t().float(),
        lambda: both[head, c.qk_nope_head_dim :].float(),
    )


def output_matrix(attention: LatentAttention | GroupedAttention, heads: int, width: int) -> Callable[[], Tensor]:
    """o_proj for heads that lie `padded(width)` apart: zeros where the padding is."""

    def read() -> Tensor:
        weight = attention.o_proj.weight.detach().float().unflatten(1, (heads, width))
        return torch.nn.functional.pad(weight, (0, padded(width) - width)).flatten(1)

    return read


def expert_matrices(moe: MoE) -> tuple[list[Callable[[], Tensor]], list[Callable[[], Tensor]]]:
    """Gate over up, and down, of every expert."""
    up, down = moe.experts.gate_up_proj, moe.experts.down_proj
    return ([lambda e=e: up[e] for e in range(len(up))], [lambda e=e: down[e] for e in range(len(down))])  # type: ignore[misc]


class PackedModel:
    """All packed weights, by module."""

    def __init__(self, weights: PackedWeights, model: Decoder) -> None:
        w, c = weights, model.config
        self.model = model
        self.table = w.table(lambda: model.embed_tokens.weight)
        self.head = w.matrix(lambda: model.lm_head.weight, w.fine)
        self.of: dict[Any, Any] = {}  # module -> its panels
        for module in model.modules():
            if isinstance(module, RMSNorm):
                self.of[module] = w.vector(lambda m=module: m.weight)  # type: ignore[misc]
            elif isinstance(module, MLP):
                self.of[module] = (
                    w.matrix(side_by_side(module.gate_proj.weight, module.up_proj.weight)),
                    w.matrix(lambda m=module: m.down_proj.weight),  # type: ignore[misc]
                )
            elif isinstance(module, LatentAttention):
                self.of[module] = self._latent(w, module, c)
            elif isinstance(module, GroupedAttention):
                self.of[module] = self._grouped(w, module, c)
            elif isinstance(module, MoE):
                up, down = expert_matrices(module)
                bias = module.gate.e_score_correction_bias
                self.of[module] = (
                    w.matrix(lambda m=module: m.gate.weight, "float32"),  # type: ignore[misc]
                    None if bias is None else w.vector(lambda m=module: m.gate.e_score_correction_bias),  # type: ignore[misc]
                    w.matrices(up),
                    w.matrices(down),
                )
            elif isinstance(module, MTPLayer):
                self.of[module] = w.matrix(lambda m=module: m.eh_proj.weight)  # type: ignore[misc]

    @staticmethod
    def _latent(w: PackedWeights, a: LatentAttention, c: ModelConfig) -> tuple[Panels | None, ...]:
        heads = [absorbed(a, h) for h in range(c.num_attention_heads)]
        first = a.q_proj if c.q_lora_rank is None else a.q_a_proj
        return (
            w.matrix(side_by_side(first.weight, a.kv_a_proj_with_mqa.weight)),
            None if c.q_lora_rank is None else w.matrix(lambda: a.q_b_proj.weight),
            w.matrices([uk for uk, _ in heads], w.fine),
            w.matrices([uv for _, uv in heads], w.fine),
            w.matrix(output_matrix(a, c.num_attention_heads, c.v_head_dim)),
        )

    @staticmethod
    def _grouped(w: PackedWeights, a: GroupedAttention, c: ModelConfig) -> tuple[Any, ...]:
        projections = (a.q_proj, a.k_proj, a.v_proj)
        bias = None if a.q_proj.bias is None else side_by_side(*(p.bias for p in projections if p.bias is not None))
        return (
            w.matrix(side_by_side(*(p.weight for p in projections))),
            None if bias is None else w.vector(bias),
            w.matrix(output_matrix(a, c.num_attention_heads, c.head_dim)),
            None if a.o_proj.bias is None else w.vector(lambda: a.o_proj.bias),  # type: ignore[arg-type, return-value]
        )


def _refuse_what_scales_cannot_hold(matrix: Tensor, format: str) -> None:
    largest = float(matrix.abs().max()) if matrix.numel() else 0.0
    limit = 65504.0 * (127 if format == "int8" else 1)
    if not largest <= limit:
        raise UserError(f"a weight of {largest:g} cannot be kept in {format} (at most {limit:g}): use bfloat16")
