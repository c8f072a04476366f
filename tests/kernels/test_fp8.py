"""Block-wise FP8 against a loop in exact arithmetic, against hand-computed values, and against damaged scales."""

import bisect
import math
import subprocess
import sys
import textwrap
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kogia.errors import DivergedError, FolderError, ShapeError
from kogia.kernels.fp8 import SMALLEST_AMAX, dequantise_blocks, quantise_blocks, quantise_tiles

SIZES = st.integers(0, 21)
BLOCKS = st.integers(1, 9)


def bits(codes):
    return codes.view(torch.uint8)


def weight(rows: int, columns: int, spread: float = 1.0, seed: int = 0):
    generator = torch.Generator().manual_seed(seed + 1000 * rows + columns)
    magnitude = torch.randn(rows, columns, generator=generator).mul(spread).exp()
    return magnitude * torch.randn(rows, columns, generator=generator)


def all_codes() -> list[float]:
    """Every finite E4M3 number, by the definition of its bits: sign, 4 bits of exponent (bias 7), 3 of mantissa."""
    values = []
    for byte in range(128):
        exponent, mantissa = byte >> 3, byte & 7
        if byte != 127:
            values.append(math.ldexp(mantissa, -9) if exponent == 0 else math.ldexp(8 + mantissa, exponent - 10))
    return values


CODES = all_codes()


def nearest_code(value: float) -> float:
    """The E4M3 number nearest to a value; of two equally near ones the even one, as IEEE rounding has it."""
    above = bisect.bisect(CODES, abs(value))
    near = range(max(above - 1, 0), min(above + 1, len(CODES)))
    best = min(near, key=lambda i: (abs(Fraction(CODES[i]) - Fraction(abs(value))), i % 2))
    return math.copysign(CODES[best], value)


def slow(w, block: int, ue8m0: bool):
    """quantise_blocks by hand: each number and each block on its own, scales in exact fractions."""
    rows, columns = w.shape
    codes = torch.zeros(w.shape)
    scales = torch.zeros(-(-rows // block), -(-columns // block))
    for r in range(scales.shape[0]):
        for c in range(scales.shape[1]):
            part = w[r * block : (r + 1) * block, c * block : (c + 1) * block]
            amax = Fraction(part.abs().max().item())
            if not amax:
                encode = torch.tensor(1.0)
            elif ue8m0:
                k = next(k for k in range(-140, 140) if 448 * Fraction(2) ** k >= amax)
                encode = torch.tensor(2.0**-k)
            else:
                encode = torch.tensor(float(448 / max(amax, Fraction(SMALLEST_AMAX))))
            scales[r, c] = 1 / encode
            for i in range(part.shape[0]):
                for j in range(part.shape[1]):
                    codes[r * block + i, c * block + j] = nearest_code(float(part[i, j] * encode))
    return codes, scales


def test_the_table_of_codes_is_e4m3():
    assert torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float().tolist() == CODES


@given(SIZES, SIZES, BLOCKS, st.booleans(), st.sampled_from([0.1, 1.0, 6.0]))
def test_equal_to_a_loop_in_exact_arithmetic(rows, columns, block, ue8m0, spread):
    w = weight(rows, columns, spread)
    codes, scales = quantise_blocks(w, block, ue8m0)
    slow_codes, slow_scales = slow(w, block, ue8m0)
    assert torch.equal(codes.float(), slow_codes)
    assert scales.dtype == torch.float32 and torch.equal(scales, slow_scales)


@given(SIZES, SIZES, BLOCKS, st.booleans())
def test_a_value_is_exactly_its_code_times_its_scale(rows, columns, block, ue8m0):
    codes, scales = quantise_blocks(weight(rows, columns), block, ue8m0)
    back = dequantise_blocks(codes, scales, block)
    assert back.dtype == torch.float32 and back.shape == (rows, columns)
    for i in range(rows):
        for j in range(columns):
            assert back[i, j] == codes[i, j].float() * scales[i // block, j // block]


@given(SIZES, SIZES, BLOCKS)
def test_quantising_again_changes_no_code(rows, columns, block):
    codes, scales = quantise_blocks(weight(rows, columns), block)
    again, again_scales = quantise_blocks(dequantise_blocks(codes, scales, block), block)
    assert torch.equal(bits(codes), bits(again))
    torch.testing.assert_close(scales, again_scales, rtol=3e-7, atol=0)  # at most two units in the last place


@given(SIZES, SIZES, BLOCKS)
def test_with_powers_of_two_quantising_again_changes_no_value(rows, columns, block):
    back = dequantise_blocks(*quantise_blocks(weight(rows, columns), block, ue8m0=True), block)
    assert torch.equal(back, dequantise_blocks(*quantise_blocks(back, block, ue8m0=True), block))


def test_with_powers_of_two_the_codes_may_double():
    """225 is rounded to the code 224, and 224 alone would have half the scale: the one case that is not the same."""
    codes, scales = quantise_blocks(torch.tensor([[225.0]]), ue8m0=True)
    again, again_scales = quantise_blocks(dequantise_blocks(codes, scales), ue8m0=True)
    assert (codes.float().item(), scales.item()) == (224.0, 1.0)
    assert (again.float().item(), again_scales.item()) == (448.0, 0.5)


def test_by_hand():
    """Two blocks of width 2. In the first 448/amax = 112: 4 -> 448, 1 -> 112. In the second it is 448/0.5 = 896."""
    codes, scales = quantise_blocks(torch.tensor([[4.0, 1.0, -0.5]]), block=2)
    assert codes.float().tolist() == [[448.0, 112.0, -448.0]]
    assert scales.tolist() == [[pytest.approx(4 / 448), pytest.approx(0.5 / 448)]]
    torch.testing.assert_close(dequantise_blocks(codes, scales, 2), torch.tensor([[4.0, 1.0, -0.5]]))


@pytest.mark.parametrize("k", [-40, -1, 0, 1, 100])
def test_powers_of_two_are_rounded_up_exactly(k):
    """At 448 * 2^k the scale is 2^k, and one FP32 step above it twice that; log2 in FP32 cannot tell the two apart."""
    edge = torch.tensor([[448.0 * 2.0**k]])
    above = torch.nextafter(edge, torch.tensor(math.inf))
    assert math.log2(above.item() / 448) - k < 2e-7
    assert quantise_blocks(edge, ue8m0=True)[1].item() == 2.0**k
    assert quantise_blocks(above, ue8m0=True)[1].item() == 2.0 ** (k + 1)


def test_edge_blocks_have_scales_of_their_own():
    """kv_a_proj of DeepSeek-V3 has 576 = 4 * 128 + 64 rows: five rows of blocks."""
    w = torch.ones(576, 200)
    w[512:] = 100.0
    w[:, 128:] *= 2.0
    codes, scales = quantise_blocks(w)
    assert scales.shape == (5, 2)
    torch.testing.assert_close(scales * 448, torch.tensor([[1.0, 2.0]] * 4 + [[100.0, 200.0]]))
    assert (codes.float() == 448).all()


@pytest.mark.parametrize("ue8m0", [False, True])
def test_blocks_of_zeros(ue8m0):
    w = torch.zeros(200, 130)
    w[150, 129] = -3.0
    codes, scales = quantise_blocks(w, ue8m0=ue8m0)
    assert scales[0].tolist() == [1.0, 1.0] and scales[1, 0] == 1.0
    assert codes.float().count_nonzero() == 1
    back = dequantise_blocks(codes, scales)
    assert back.isfinite().all() and back.count_nonzero() == 1


@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize("amax", [1e-45, 1e-38, 1e-13, 1e-12, 1.0, 3e38])
def test_the_whole_range_of_float32(amax, ue8m0):
    """Below 1e-12 a block is rounded with the scale of 1e-12: its numbers are lost, and none becomes NaN."""
    codes, scales = quantise_blocks(torch.tensor([[amax, -amax / 2, 0.0]]), ue8m0=ue8m0)
    back = dequantise_blocks(codes, scales)
    assert scales.isfinite().all() and (scales > 0).all() and back.isfinite().all()
    step = scales.item() * (32 if amax >= SMALLEST_AMAX else 2)  # between neighbouring codes
    assert (back - torch.tensor([[amax, -amax / 2, 0.0]])).abs().max() <= step / 2


@pytest.mark.parametrize("ue8m0", [False, True])
def test_noise_is_28_decibels_below_the_signal(ue8m0):
    w = torch.randn(640, 1024)
    error = w - dequantise_blocks(*quantise_blocks(w, ue8m0=ue8m0))
    assert 10 * torch.log10(w.square().mean() / error.square().mean()) > 28


def test_one_outlier_spoils_only_its_own_block():
    w = torch.randn(256, 256)
    w[3, 5] = 1e6
    error = (w - dequantise_blocks(*quantise_blocks(w))).abs()
    assert error[128:].max() < 0.2 and error[:128, 128:].max() < 0.2 < error[:128, :128].max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_formats_are_the_same_as_their_float32(dtype):
    w = weight(70, 50).to(dtype)
    codes, scales = quantise_blocks(w, 16)
    same, same_scales = quantise_blocks(w.float(), 16)
    assert torch.equal(bits(codes), bits(same)) and torch.equal(scales, same_scales)


@pytest.mark.parametrize("dtype", [torch.float8_e8m0fnu, torch.bfloat16])
def test_scales_may_be_stored_in_other_formats(dtype):
    codes, scales = quantise_blocks(weight(40, 40), 16, ue8m0=True)
    stored = scales.to(dtype)
    assert torch.equal(dequantise_blocks(codes, stored, 16), dequantise_blocks(codes, scales, 16))


@given(SIZES, st.integers(0, 300), st.booleans())
def test_tiles_are_blocks_of_one_row(rows, width, ue8m0):
    x = weight(rows, width)
    codes, scales = quantise_tiles(x, ue8m0=ue8m0)
    assert codes.shape == x.shape and scales.shape == (rows, -(-width // 128))
    for i in range(rows):
        row_codes, row_scales = quantise_blocks(x[i : i + 1], ue8m0=ue8m0)
        assert torch.equal(bits(codes[i : i + 1]), bits(row_codes)) and torch.equal(scales[i : i + 1], row_scales)


def test_tiles_of_more_dimensions():
    x = torch.randn(2, 3, 200)
    codes, scales = quantise_tiles(x)
    flat_codes, flat_scales = quantise_tiles(x.view(6, 200))
    assert scales.shape == (2, 3, 2) and torch.equal(scales.view(6, 2), flat_scales)
    assert codes.shape == (2, 3, 200) and torch.equal(bits(codes).view(6, 200), bits(flat_codes))


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("quantise", [quantise_blocks, quantise_tiles])
def test_numbers_that_are_not_finite(quantise, bad):
    x = torch.randn(140, 140)
    x[139, 139] = bad
    with pytest.raises(DivergedError, match="NaN or infinite"):
        quantise(x)


def test_only_matrices_have_blocks():
    with pytest.raises(ShapeError, match=r"model.norm.weight has shape \(3,\)"):
        quantise_blocks(torch.ones(3), name="model.norm.weight")


NAME = "model.layers.0.mlp.up_proj.weight"
DAMAGE = {
    "NaN scale": (lambda c, s: (c, s.fill_(math.nan)), "scales of .* NaN"),
    "infinite scale": (lambda c, s: (c, s.fill_(math.inf)), "scales of .* infinite"),
    "negative scale": (lambda c, s: (c, s.neg()), "scales of .* negative"),
    "E8M0's NaN": (lambda c, s: (c, torch.full((2, 2), 255, dtype=torch.uint8).view(torch.float8_e8m0fnu)), "NaN"),
    "NaN code": (lambda c, s: (c.view(torch.uint8).fill_(0x7F).view(c.dtype), s), "codes that are NaN"),
    "negative NaN code": (lambda c, s: (c.view(torch.uint8).fill_(0xFF).view(c.dtype), s), "codes that are NaN"),
    "overflow": (lambda c, s: (c, s.fill_(3e38)), "scales too large"),
    "grid transposed": (lambda c, s: (c[:100], s.t()[:2, :1]), r"are \(2, 1\) .*makes \(1, 2\)"),
    "grid too large": (lambda c, s: (c[:128], s), r"are \(2, 2\) .*makes \(1, 2\)"),
    "scale of no dimension": (lambda c, s: (c, s[0, 0]), r"are \(\) "),
    "integer scales": (lambda c, s: (c, s.int()), "torch.int32"),
    "codes in another format": (lambda c, s: (c.float().to(torch.float8_e5m2), s), "float8_e5m2"),
    "codes in bytes": (lambda c, s: (c.view(torch.uint8), s), "uint8"),
    "codes of one dimension": (lambda c, s: (c[0], s), r"\(130,\)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_refused_by_name(damage):
    change, words = DAMAGE[damage]
    codes, scales = change(*quantise_blocks(torch.randn(140, 130)))
    with pytest.raises(FolderError, match=words) as caught:
        dequantise_blocks(codes, scales, name=NAME)
    assert NAME in str(caught.value)


def test_a_scale_of_zero_is_a_block_of_zeros():
    codes, scales = quantise_blocks(torch.randn(2, 2))
    assert not dequantise_blocks(codes, scales.zero_()).any()


MEMORY = textwrap.dedent("""
    import resource, torch
    from kogia.kernels.fp8 import dequantise_blocks, quantise_blocks
    torch.set_num_threads(1)
    dequantise_blocks(*quantise_blocks(torch.randn(300, 300)))
    w = torch.ones(4096, 8192)  # 128 MiB; its codes are 32
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes, scales = quantise_blocks(w)
    between = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del w
    w = dequantise_blocks(codes, scales)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((between - before) // 1024, (after - between) // 1024)
""")


def test_peak_memory_stays_near_the_result():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=120)
    quantising, dequantising = map(int, done.stdout.split())
    assert quantising < 32 + 32 and dequantising < 32, "MiB above the weight that is there before and after"
