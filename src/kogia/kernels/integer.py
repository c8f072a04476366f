"""Weights in 8 or 4 bits, activations in 8: the definition in plain PyTorch, and the fallback without a compiler.

Groups of 32 inputs share a scale, as in llama.cpp's Q8_0 and Q4_1 (the bits are the same: 8.5 and 5 a weight):
int8: weight = scale * code, code in -127..127; int4: weight = scale * code + minimum, code in 0..15; scales and minima
in FP16. A row of activations is rounded to int8 with one FP32 scale a group. Sums of products of integers are exact,
so only the order in which the groups are added matters, and it is fixed: a row's result depends on that row alone.

Shape suffixes: N rows, I inputs, O outputs, G groups, S inputs of a group (32).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 32


@dataclass
class Quantised:
    """A matrix (outputs, inputs). codes_OGS: uint8 (int4) or int8; scale_OG, minimum_OG: FP16 (no minimum in int8)."""

    codes_OGS: Tensor
    scale_OG: Tensor
    minimum_OG: Tensor | None
    inputs: int


def quantise(w_OI: Tensor, format: str) -> Quantised:
    """Round a matrix to "int8" or "int4". Rounding what is rounded already gives the same codes and scales."""
    w = _groups(w_OI.float())
    if format == "int8":
        scale = w.abs().amax(-1) / 127.0
        codes = (w * _inverse(scale)).round().clamp(-127, 127)
        return Quantised(codes.to(torch.int8), scale.half(), None, w_OI.shape[1])
    low = w.amin(-1)
    scale = (w.amax(-1) - low) / 15.0
    codes = ((w - low.unsqueeze(-1)) * _inverse(scale)).round().clamp(0, 15)
    return Quantised(codes.to(torch.uint8), scale.half(), low.half(), w_OI.shape[1])


def dequantise(q: Quantised) -> Tensor:
    """(O, I) FP32."""
    w = q.codes_OGS.float() * q.scale_OG.float().unsqueeze(-1)
    if q.minimum_OG is not None:
        w = w + q.minimum_OG.float().unsqueeze(-1)
    return w.flatten(1)[:, : q.inputs]


def quantise_rows(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """Activations -> codes (N, G, 32) in -127..127 and scales (N, G), FP32; NaN and infinity make the scale NaN."""
    x = _groups(x_NI.float())
    top = x.abs().amax(-1)
    codes = (x * torch.where(top > 0, 127.0 / top, 0.0).unsqueeze(-1)).round()
    return codes, top / 127.0 + (x - x).sum(-1)


def integer_linear(x_NI: Tensor, q: Quantised) -> Tensor:
    """x W^T with exact sums of integers: (N, I) -> (N, O) FP32, each row by itself."""
    codes_NGS, scale_NG = quantise_rows(x_NI)
    products_GNO = torch.bmm(codes_NGS.transpose(0, 1), q.codes_OGS.float().permute(1, 2, 0))  # integers below 2^24
    sums_NG = scale_NG * codes_NGS.sum(-1)
    out = torch.zeros(len(x_NI), len(q.codes_OGS), dtype=torch.float64)  # rounded after each step, as an FMA does
    for g, products_NO in enumerate(products_GNO):
        scaled = products_NO * scale_NG[:, g, None]
        out = (out + q.scale_OG[:, g].double() * scaled.double()).float().double()
        if q.minimum_OG is not None:
            out = (out + q.minimum_OG[:, g].double() * sums_NG[:, g, None].double()).float().double()
    return out.float()


def _groups(x: Tensor) -> Tensor:
    """(..., I) -> (..., G, 32), padded with zeros."""
    return F.pad(x, (0, -x.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, 1.0 / scale, 0.0).unsqueeze(-1)
