"""The C++ kernels: against plain PyTorch, bit for bit where integers are added, and row by row whatever the batch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kogia.kernels import native
from kogia.kernels.integer import dequantise, integer_linear, quantise

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=str(native.why_not()))
FORMATS = ["float32", "bfloat16", "int8", "int4"]
SIZES = [(16, 32), (48, 64), (40, 96), (7, 33), (200, 130), (1, 1)]


def product(x, w, format, rows=None, threads=1, bias=None):
    """x W^T by the kernels; `rows` picks which rows of x are computed together."""
    from kogia.kernels.program import Program, empty_panels, pack, padded

    panels = empty_panels(format, *w.shape)
    pack(panels, 0, w)
    program = Program(len(x), threads, 64, w.shape[1])
    source, out = program.floats(w.shape[1]), program.floats(w.shape[0])
    prepared = program.words(format, w.shape[1])
    program.prepare(format, source, w.shape[1], prepared)
    if bias is not None:
        bias = torch.nn.functional.pad(bias, (0, padded(len(bias)) - len(bias)))
    program.linear(panels, prepared, out, bias=bias)
    source[: len(x), : x.shape[1]] = x
    nothing = np.zeros(len(x), dtype=np.int32)
    program.run(nothing, nothing, nothing, np.zeros((1, 1), dtype=np.int32), nothing[:0], threads)
    return out[: len(x), : w.shape[0]].clone()


@pytest.fixture
def random():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 40])
def test_float32_is_torch(size, rows, random):
    x, w = torch.randn(rows, size[1], generator=random), torch.randn(*size, generator=random)
    torch.testing.assert_close(product(x, w, "float32"), x @ w.t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bfloat16_is_torch_on_rounded_numbers(size, random):
    x, w = torch.randn(9, size[1], generator=random), torch.randn(*size, generator=random)
    exact = x.bfloat16().double() @ w.bfloat16().double().t()
    torch.testing.assert_close(product(x, w, "bfloat16").double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_integers_are_the_reference_bit_for_bit(format, size, random):
    x, w = torch.randn(9, size[1], generator=random) * 3, torch.randn(*size, generator=random)
    x[0] = 0.0
    assert torch.equal(product(x, w, format), integer_linear(x, quantise(w, format)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_does_not_depend_on_its_neighbours(format, threads, random):
    """Nor on how many there are, nor on the threads: batch invariance, on which every other promise stands."""
    x, w = torch.randn(45, 96, generator=random), torch.randn(72, 96, generator=random)
    whole = product(x, w, format, threads=threads)
    for first, last in [(0, 1), (3, 5), (7, 10), (11, 15), (15, 20), (20, 26), (26, 33), (33, 45)]:
        assert torch.equal(product(x[first:last], w, format), whole[first:last])


@pytest.mark.parametrize("format", FORMATS)
def test_bias(format, random):
    x, w, bias = (torch.randn(*s, generator=random) for s in [(3, 64), (24, 64), (24,)])
    assert torch.equal(product(x, w, format, bias=bias), product(x, w, format) + bias)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows(format, bad, random):
    """Rounding to integers must not turn NaN into a number."""
    x, w = torch.randn(4, 64, generator=random), torch.randn(24, 64, generator=random)
    clean = product(x, w, format)
    x[2, 40] = bad
    dirty = product(x, w, format)
    assert not dirty[2].isfinite().any()
    assert torch.equal(dirty[[0, 1, 3]], clean[[0, 1, 3]])


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_rounding_twice_is_rounding_once(format, random):
    """So a quantised checkpoint, read and packed again, keeps its codes."""
    w = torch.randn(64, 96, generator=random)
    once = dequantise(quantise(w, format))
    twice = dequantise(quantise(once, format))
    assert torch.equal(once, twice)
    step = (w.unflatten(1, (-1, 32)).amax(-1) - w.unflatten(1, (-1, 32)).amin(-1)) / (15 if format == "int4" else 127)
    assert ((once - w).unflatten(1, (-1, 32)).abs().amax(-1) <= step).all()


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CXX", raising=False)
    native.library.cache_clear()
    try:
        assert "no C++ compiler" in native.why_not()
    finally:
        native.library.cache_clear()


def test_a_cache_that_others_can_write_to_is_not_run(monkeypatch, tmp_path):
    (tmp_path / "kogia" / "native").mkdir(parents=True)
    (tmp_path / "kogia" / "native").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    try:
        assert "somebody else" in native.why_not()
    finally:
        native.library.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["-mno-avx512f", "-march=x86-64"])
def test_other_processors_give_the_same_integers(instructions, tmp_path):
    """The AVX2 path and the portable one, compiled here and run through this very file."""
    if "x86" not in os.uname().machine:
        pytest.skip("needs an x86 processor")
    wrapper = tmp_path / "c++"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("c++")} "$@" {instructions}\n')
    wrapper.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if k != "CXX"}
    told = kept | {"CXX": str(wrapper), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", str(Path(__file__)), "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    assert done.returncode == 0 and " skipped" not in done.stdout, done.stdout[-3000:]
