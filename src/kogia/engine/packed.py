"""A model's weights as the C++ kernels want them: matrices that are used together side by side, packed, quantised."""

from collections.abc import Callable

import torch
from torch import Tensor

from kogia.errors import UserError
from kogia.kernels.program import Panels, empty_panels, pack, padded
from kogia.models.attention import LatentAttention
from kogia.models.decoder import Decoder
from kogia.models.grouped_attention import GroupedAttention
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


def _refuse_what_scales_cannot_hold(matrix: Tensor, format: str) -> None:
    largest = float(matrix.abs().max()) if matrix.numel() else 0.0
    limit = 65504.0 * (127 if format == "int8" else 1)
    if not largest <= limit:
        raise UserError(f"a weight of {largest:g} cannot be kept in {format} (at most {limit:g}): use bfloat16")
