"""Matrices in 8 or 4 bits in a model folder: a layout of Kogia's own, holding what kernels/integer.py computes with.

A matrix NAME (O, I) is stored as

    NAME        I8 (O, G, 32): codes in -127..127; or U8 (O, G, 16): two codes in 0..15 a byte, low half first
    NAME_scale  F16 (O, G)
    NAME_min    F16 (O, G), beside U8 only

and its value in FP32 is scale * code, plus the minimum. The embedding, the head and MLA's kv_b_proj have 8 bits in
either format, as in the engine; norms, biases, the router, and a matrix whose inputs do not divide into groups of 32
are FP32; copies (a tied head, the MTP layers' embedding and head) are not stored. config.json has
`quantization_config` {"quant_method": "kogia", "bits": 8 or 4, "group_size": 32}.

Codes have three dimensions on purpose: transformers passes over a quant_method that it does not know, and would take
codes of the weight's own shape for the weight. Shape suffixes: O outputs, I inputs, G groups, S inputs of a group.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kogia.errors import FolderError, ShapeError
from kogia.formats.header import Entry, Size
from kogia.kernels.integer import GROUP, Quantised, dequantise, quantise
from kogia.models.names import is_matrix_of_a_layer

METHOD = "kogia"
BITS = {"int8": 8, "int4": 4}
SCALE, MINIMUM = "_scale", "_min"
FINE = ("embed_tokens.weight", "lm_head.weight", "kv_b_proj.weight")  # in int8 whatever the rest is in
CODES = {torch.int8: ("int8", GROUP), torch.uint8: ("int4", GROUP // 2)}  # dtype -> format, bytes a group
PIECE = 1 << 17  # weights that are rounded or read at a time


def stored_format(name: str, shape: tuple[int, ...], wanted: str) -> str | None:
    """What a tensor (HF's name) has in a folder of `wanted` (int8 or int4): "int8", "int4", or None for FP32."""
    if len(shape) != 2 or shape[1] % GROUP or 0 in shape:
        return None
    if name.endswith(FINE):
        return "int8"
    return wanted if is_matrix_of_a_layer(name) or name.endswith("eh_proj.weight") else None


def stored_parts(name: str, shape: tuple[int, ...], wanted: str) -> list[Size]:
    """The tensors on disk that make up one tensor, in the order in which `pack` returns them."""
    format = stored_format(name, shape, wanted)
    if format is None:
        return [(name, torch.float32, shape)]
    grid = shape[0], shape[1] // GROUP
    if format == "int8":
        return [(name, torch.int8, (*grid, GROUP)), (name + SCALE, torch.float16, grid)]
    codes = (name, torch.uint8, (*grid, GROUP // 2))
    return [codes, (name + SCALE, torch.float16, grid), (name + MINIMUM, torch.float16, grid)]


def quantised_bits(config: Mapping[str, Any]) -> int | None:
    """The bits that a config.json with our quant_method gives; None with another or none.

    Raises:
        ShapeError: other bits or groups than there are.
    """
    found = config.get("quantization_config")
    if not isinstance(found, dict) or found.get("quant_method") != METHOD:
        return None
    bits, group = found.get("bits"), found.get("group_size")
    if type(bits) is not int or bits not in BITS.values() or type(group) is not int or group != GROUP:
        raise ShapeError(
            f"quantization_config has bits {bits!r}, group_size {group!r}: there are 8 and 4 bits in groups of {GROUP}"
        )
    return bits


def pack(w_OI: Tensor, format: str, name: str) -> list[Tensor]:
    """Round a FP32 matrix: codes, scales and, in int4, minima, as they are stored.

    Raises:
        FolderError: weights that are not finite, or too large for FP16 scales.
    """
    parts = [_pack_rows(rows, format) for rows in w_OI.split(_rows(w_OI.shape[1]))]
    packed = [torch.cat(column) for column in zip(*parts, strict=True)]
    if not all(part.isfinite().all() for part in packed[1:]):
        largest = float(w_OI.abs().max())
        raise FolderError(f"{name}: a weight of {largest:.3g} does not fit {format}, whose scales are FP16")
    return packed


def _pack_rows(w_OI: Tensor, format: str) -> list[Tensor]:
    """Rounded twice, so that whoever reads the values and rounds them again finds these codes: the first time, a scale
    may fall below FP16's smallest number and leave codes that stand for nothing."""
    q = quantise(dequantise(quantise(w_OI, format)), format)
    if q.minimum_OG is None:
        return [q.codes_OGS, q.scale_OG]
    return [q.codes_OGS[..., ::2] | q.codes_OGS[..., 1::2] << 4, q.scale_OG, q.minimum_OG]


def _rows(inputs: int) -> int:
    return max(1, PIECE // inputs)


def unpack_into(out_OI: Tensor, parts: list[Tensor], name: str) -> Tensor:
    """The values of what `pack` returned, rounded to the dtype of `out_OI`, which is returned.

    Apart from it, only some rows are in memory at a time. `name` is what errors call the matrix.

    Raises:
        FolderError: scales that are NaN, infinite or negative, minima that are NaN or infinite, or a code of -128.
    """
    if not (parts[1].isfinite() & (parts[1] >= 0)).all():
        raise FolderError(f"the scales of {name} hold NaN, infinite or negative numbers: copy the file again")
    if not all(minimum.isfinite().all() for minimum in parts[2:]):
        raise FolderError(f"the minima of {name} hold NaN or infinite numbers: copy the file again")
    rows = _rows(out_OI.shape[1])
    for out, codes, scale, *minimum in zip(*(part.split(rows) for part in (out_OI, *parts)), strict=True):
        if minimum:
            codes = torch.stack([codes & 15, codes >> 4], -1).flatten(-2)
        elif (codes == -128).any():
            raise FolderError(f"{name} holds the code -128, which no weight is rounded to: copy the file again")
        out.copy_(dequantise(Quantised(codes, scale, minimum[0] if minimum else None, out.shape[1])))
    return out_OI


def packed_matrices(folder: Path, entries: Mapping[str, Entry], bits: int) -> dict[str, list[str]]:
    """Which tensors of a folder are codes, each with the names of all its parts; from the headers alone.

    Raises:
        FolderError: scales or minima that are missing, or a shape or dtype that is not of this layout; named.
    """
    packed = {name: [name] for name, entry in entries.items() if entry.dtype in CODES}
    for name, parts in packed.items():
        codes = entries[name]
        format, width = CODES[codes.dtype]
        if BITS[format] < bits:
            raise FolderError(
                f"{folder}: {name} has {BITS[format]} bits; config.json says that none has less than {bits}"
            )
        if len(codes.shape) != 3 or codes.shape[2] != width or 0 in codes.shape:
            raise FolderError(
                f"{folder}: {name} has shape {codes.shape}: codes of {format} are (outputs, groups, {width})"
            )
        parts += [name + SCALE] + [name + MINIMUM] * (format == "int4")
        for part in parts[1:]:
            _refuse_wrong_part(folder, entries, part, codes.shape[:2])
    return packed


def _refuse_wrong_part(folder: Path, entries: Mapping[str, Entry], name: str, grid: tuple[int, ...]) -> None:
    if name not in entries:
        raise FolderError(f"{folder} lacks {name}, without which the codes beside it mean nothing")
    entry = entries[name]
    if entry.dtype != torch.float16 or entry.shape != grid:
        raise FolderError(
            f"{folder}: {name} is {entry.shape} of {entry.dtype}; one float16 for each group of {GROUP} makes {grid}"
        )


def packed_shape(entry: Entry) -> tuple[int, ...]:
    """(outputs, inputs) of the matrix that these codes stand for."""
    return entry.shape[0], entry.shape[1] * GROUP
