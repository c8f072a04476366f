"""DeepSeek's block-wise FP8: E4M3 codes, and one scale for each 128 x 128 block of a weight or 1 x 128 tile of rows.

A scale multiplies: value = code * scale_inv (DeepSeek-V3, arXiv 2412.19437, section 3.3.2; the checkpoints call it
`weight_scale_inv`, [ceil(O/128), ceil(I/128)], float32, or powers of two stored as E8M0 from V3.1 on). Blocks at the
edge are smaller. Shape suffixes: O outputs, I inputs, R and C rows and columns of blocks, K the last axis.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kogia.errors import DivergedError, FolderError, ShapeError

BLOCK = 128
LARGEST = 448.0  # of E4M3: 1.75 * 2^8
SMALLEST_AMAX = 1e-12  # as torchao; DeepSeek's own activation kernel uses 1e-4. Keeps 448 / amax finite in FP32
FLOAT32_BIAS, FLOAT32_MANTISSA_BITS = 127, 23
SCALE_DTYPES = (torch.float32, torch.float8_e8m0fnu, torch.bfloat16, torch.float16, torch.float64)


def quantise_blocks(
    w_OI: Tensor, block: int = BLOCK, ue8m0: bool = False, name: str = "the weight"
) -> tuple[Tensor, Tensor]:
    """Round a weight (O, I), any float dtype, to codes (O, I) float8_e4m3fn and scale_inv (R, C) float32.

    scale_inv = amax / 448 of its block, so that the largest magnitude has code 448. It is formed as torchao forms it:
    448 / amax rounded to FP32 multiplies the weight, and the reciprocal of that is stored. With `ue8m0` it is
    2^ceil(log2(amax / 448)), exactly (DeepSeek-V3.1's `scale_fmt`). A block of zeros has scale 1 and codes 0.

    Quantising what these codes stand for gives the same codes again, and scales that may differ in the last bits; with
    `ue8m0` the same values, but a block whose largest code was rounded down to 224 moves to codes twice as large.

    Raises:
        ShapeError: not a matrix. DivergedError: NaN or infinite numbers.
    """
    if w_OI.dim() != 2:
        raise ShapeError(f"{name} has shape {tuple(w_OI.shape)}: blocks are cut from matrices")
    amax_RC = _block_amax(w_OI, block)
    encode_RC, scale_RC = _scales(amax_RC, ue8m0, name)
    codes_OI = torch.empty(w_OI.shape, dtype=torch.float8_e4m3fn, device=w_OI.device)
    for rows, out, encode_C in zip(w_OI.split(block), codes_OI.split(block), encode_RC, strict=False):
        out.copy_((rows.float() * _stretch(encode_C, block, w_OI.shape[1])).clamp_(-LARGEST, LARGEST))
    return codes_OI, scale_RC


def dequantise_blocks(codes_OI: Tensor, scale_RC: Tensor, block: int = BLOCK, name: str = "the weight") -> Tensor:
    """Codes (O, I) float8_e4m3fn and scales (R, C), FP32 or E8M0 or any other float, to the FP32 weight (O, I).

    Every value is the FP32 product of its code and its block's scale. Apart from the result, only one row of blocks
    is in memory at a time. `name` is what the errors call the tensor.

    Raises:
        FolderError: codes of another dtype, a scale grid of another shape or dtype, scales that are NaN, infinite or
            negative, codes that are NaN, products that overflow.
    """
    _check(codes_OI, scale_RC, block, name)
    w_OI = torch.empty(codes_OI.shape, dtype=torch.float32, device=codes_OI.device)
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().to(codes_OI.device)
    for codes, out, scale_C in zip(codes_OI.split(block), w_OI.split(block), scale_RC.float(), strict=False):
        # looked up: PyTorch's own conversion takes four times as long on a CPU (bench/load_model.py)
        plain = values.index_select(0, codes.contiguous().view(torch.uint8).flatten().int()).view(codes.shape)
        torch.mul(plain, _stretch(scale_C, block, w_OI.shape[1]), out=out)
        if out.numel() and not torch.stack(out.aminmax()).isfinite().all():
            raise FolderError(f"{name} holds FP8 codes that are NaN, or scales too large for its codes: copy it again")
    return w_OI


def quantise_tiles(x: Tensor, tile: int = BLOCK, ue8m0: bool = False) -> tuple[Tensor, Tensor]:
    """Round activations (..., K) to codes (..., K) float8_e4m3fn and scales (..., ceil(K / tile)) float32.

    One scale for each run of `tile` numbers of a row, by the rules of `quantise_blocks` (DeepSeek-V3, figure 7a).

    Raises:
        DivergedError: NaN or infinite numbers.
    """
    tiles = F.pad(x.float(), (0, -x.shape[-1] % tile)).unflatten(-1, (-1, tile))
    encode, scale = _scales(tiles.abs().amax(-1), ue8m0, "the activations")
    codes = (tiles * encode.unsqueeze(-1)).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return codes.flatten(-2)[..., : x.shape[-1]].contiguous(), scale


def _scales(amax: Tensor, ue8m0: bool, name: str) -> tuple[Tensor, Tensor]:
    """What to multiply with before rounding, and its reciprocal, which is stored. Both FP32, shaped like `amax`."""
    if not amax.isfinite().all():
        raise DivergedError(f"{name} cannot be rounded to FP8: it holds NaN or infinite numbers")
    clamped = amax.clamp(min=SMALLEST_AMAX)
    # a tensor of 448s, for `448 / tensor` is reciprocal times 448 in PyTorch: rounded twice
    encode = _power_of_two_encode(clamped) if ue8m0 else torch.full_like(clamped, LARGEST) / clamped
    encode = encode.masked_fill(amax == 0, 1.0)
    return encode, 1.0 / encode


def _power_of_two_encode(amax: Tensor) -> Tensor:
    """2^-k with the smallest k for which 448 * 2^k >= amax, from the bits: log2 would round."""
    mantissa, exponent = torch.frexp(amax)  # amax = mantissa * 2^exponent, and 448 = 0.875 * 2^9
    k = exponent - 9 + (mantissa > 0.875).int()
    return ((FLOAT32_BIAS - k) << FLOAT32_MANTISSA_BITS).int().view(torch.float32)


def _block_amax(w_OI: Tensor, block: int) -> Tensor:
    """The largest magnitude of each block: (R, C) FP32."""
    grid = _grid(w_OI, block)
    amax_RC = torch.zeros(grid, dtype=torch.float32, device=w_OI.device)
    if w_OI.numel():
        for rows, out in zip(w_OI.split(block), amax_RC, strict=True):
            amax_I = rows.abs().amax(0).float()
            torch.amax(F.pad(amax_I, (0, -len(amax_I) % block)).view(-1, block), 1, out=out)
    return amax_RC


def _grid(matrix: Tensor, block: int) -> tuple[int, int]:
    return -(-matrix.shape[0] // block), -(-matrix.shape[1] // block)


def _stretch(scale_C: Tensor, block: int, width: int) -> Tensor:
    """One scale a block (C,) -> one a column (width,)."""
    return scale_C.repeat_interleave(block)[:width]


def _check(codes_OI: Tensor, scale_RC: Tensor, block: int, name: str) -> None:
    if codes_OI.dim() != 2 or codes_OI.dtype != torch.float8_e4m3fn:
        raise FolderError(
            f"{name} is {tuple(codes_OI.shape)} of {codes_OI.dtype}: FP8 weights are matrices of float8_e4m3fn"
        )
    if tuple(scale_RC.shape) != _grid(codes_OI, block) or scale_RC.dtype not in SCALE_DTYPES:
        raise FolderError(
            f"the scales of {name} are {tuple(scale_RC.shape)} of {scale_RC.dtype}; "
            f"one float for each {block} x {block} block makes {_grid(codes_OI, block)}"
        )
    scales = scale_RC.float()
    if not (scales.isfinite() & (scales >= 0)).all():
        raise FolderError(f"the scales of {name} hold NaN, infinite or negative numbers: copy the file again")
