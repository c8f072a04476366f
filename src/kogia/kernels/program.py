"""Record a model's forward pass once, as a list of operations for the C++ kernels, and run it in one call a step.

Python decides what happens, in which buffers; C++ (kernels/cpu/program.cpp) only walks the list. Buffers are fixed,
so a step costs one call and no allocation. Shape suffixes: N tokens, W wanted rows, I inputs, O outputs.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kogia.kernels.native import library

FORMATS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}  # enum Format of kernels/cpu/weights.h
LANES = 16
KINDS = (  # OPERATIONS of kernels/cpu/program.cpp
    "embed", "prepare", "swiglu", "linear", "heads", "latent", "turn", "attend", "route", "experts", "combine", "join",
    "ahead", "guess",
)  # fmt: skip
ALL, WANTED = 0, 1  # which rows an operation has


class _Op(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32), ("rows", ctypes.c_int32), ("inner", ctypes.c_int32), ("n", ctypes.c_int32 * 13),
        ("f", ctypes.c_float * 2), ("p", ctypes.c_void_p * 8),
    ]  # fmt: skip


class _Run(ctypes.Structure):
    _fields_ = [
        ("tokens", ctypes.c_int32), ("wanted", ctypes.c_int32), ("table_width", ctypes.c_int32),
        ("threads", ctypes.c_int32), ("token", ctypes.c_void_p), ("position", ctypes.c_void_p),
        ("sequence", ctypes.c_void_p), ("table", ctypes.c_void_p), ("want", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p), ("scratch_size", ctypes.c_int64),
    ]  # fmt: skip


def padded(n: int, to: int = LANES) -> int:
    """The next multiple of `to`."""
    return -(-n // to) * to


@dataclass
class Panels:
    """One or several (`count`) matrices (outputs, inputs), packed for the kernels in one of `FORMATS`."""

    format: str
    outputs: int
    inputs: int
    count: int
    data: Tensor  # uint8

    @property
    def stride(self) -> int:
        """Floats from one row of this matrix's results to the next."""
        return padded(self.outputs)


def empty_panels(format: str, outputs: int, inputs: int, count: int = 1) -> Panels:
    """Memory for packed matrices."""
    size = library().kogia_panel_bytes(FORMATS[format], inputs) * (padded(outputs) // LANES)
    return Panels(format, outputs, inputs, count, torch.empty(count * size, dtype=torch.uint8))


def pack(panels: Panels, index: int, matrix_OI: Tensor) -> None:
    """Write a matrix (outputs, inputs) of any float dtype into its place, quantised where the format says so."""
    assert tuple(matrix_OI.shape) == (panels.outputs, panels.inputs), (matrix_OI.shape, panels)
    whole = matrix_OI.detach().to("cpu", torch.float32).contiguous()
    at = panels.data.data_ptr() + index * (panels.data.numel() // panels.count)
    library().kogia_pack(FORMATS[panels.format], whole.data_ptr(), panels.outputs, panels.inputs, at)


class Program:
    """A list of operations over buffers of at most `rows` tokens. The methods record; `run` runs.

    A buffer is a FP32 tensor (rows, width); a prepared one is int32 words as the kernels want their inputs.
    """

    def __init__(self, rows: int, threads: int, longest: int, widest: int) -> None:
        """longest: positions of a context; widest: inputs of the widest matrix (scratch memory)."""
        self.rows, self._ops, self._kept = rows, list[_Op](), list[Any]()
        size = max(
            4 * (padded(longest) + padded(widest)), 2 * padded(widest), 32 * (padded(widest, 32) * 4 // 3 + 64), 1 << 16
        )
        self._scratch = torch.empty(threads * size)
        self._run = _Run(scratch=self._scratch.data_ptr(), scratch_size=size)
        self._array: Any = None
        self._inputs = [np.zeros(rows, dtype=np.int32) for _ in range(4)]
        r = self._run
        r.token, r.position, r.sequence, r.want = (column.ctypes.data for column in self._inputs)
        self._tables = np.zeros(0, dtype=np.int32)

    def floats(self, width: int, times: int = 1) -> Tensor:
        """A buffer of results: (rows * times, width rounded up to whole panels)."""
        return self._keep(torch.zeros(self.rows * times * padded(width) + LANES)[:-LANES].view(-1, padded(width)))

    def words(self, format: str, inputs: int, times: int = 1) -> Tensor:
        """A buffer of prepared rows."""
        width = library().kogia_row_words(FORMATS[format], inputs)
        return self._keep(torch.zeros(self.rows * times, width, dtype=torch.int32))

    def integers(self, *shape: int) -> Tensor:
        """A buffer of int32."""
        return self._keep(torch.zeros(shape, dtype=torch.int32))

    def _keep(self, tensor: Tensor) -> Tensor:
        self._kept.append(tensor)
        return tensor

    def record(
        self, kind: str, numbers: list[int], tensors: list[Tensor | int | None], real: float = 0.0, rows: int = ALL,
        inner: int = 1,
    ) -> None:  # fmt: skip
        """Append an operation; kernels/cpu/program.cpp says at each one what its numbers and tensors are."""
        op = _Op(kind=KINDS.index(kind), rows=rows, inner=inner)
        op.n[: len(numbers)] = numbers
        op.f[0] = real
        for i, tensor in enumerate(tensors):
            if isinstance(tensor, Tensor):
                assert tensor.stride(-1) == 1
                self._kept.append(tensor)
                op.p[i] = tensor.data_ptr()
            else:
                op.p[i] = tensor
        self._ops.append(op)
        self._array = None

    def embed(self, table_VD: Tensor, out: Tensor) -> None:
        """out = table[token]; the table is FP32 or BF16."""
        self.record("embed", [table_VD.shape[1], table_VD.dtype == torch.bfloat16, out.stride(0)], [table_VD, out])

    def prepare(
        self, format: str, x: Tensor, inputs: int, out: Tensor | None, *, norm: Tensor | None = None, eps: float = 0.0,
        floats: Tensor | None = None, inner: int = 1, inner_stride: int = 0, rows: int = ALL, by_want: bool = False,
    ) -> None:  # fmt: skip
        """RMS-norm (if given) the first `inputs` numbers of each row of x and round them for a product; the FP32
        values go to `floats` too. inner: heads a row, `inner_stride` numbers apart. by_want: only the wanted rows."""
        stride = 0 if floats is None else floats.stride(0)
        numbers = [FORMATS[format], inputs, x.stride(0), inner_stride, norm is not None, by_want, stride]
        self.record("prepare", numbers, [x, norm, out, floats], eps, rows, inner)

    def linear(
        self, panels: Panels, prepared: Tensor, out: Tensor, *, adds: bool = False, bias: Tensor | None = None,
        rows: int = ALL,
    ) -> None:  # fmt: skip
        """out (+)= prepared x matrix^T (+ bias)."""
        assert out.stride(0) >= panels.outputs
        numbers = [FORMATS[panels.format], panels.inputs, panels.outputs, out.stride(0), adds]
        self.record("linear", numbers, [panels.data, prepared, out, bias], rows=rows)

    def heads(self, panels: Panels, prepared: Tensor, out: Tensor, stride: int) -> None:
        """Each head's rows (token, head) times its own matrix; `stride` floats from head to head in `out`."""
        numbers = [FORMATS[panels.format], panels.inputs, panels.outputs, stride, panels.count]
        self.record("heads", numbers, [panels.data, prepared, out])

    def experts(
        self, panels: Panels, prepared: Tensor, out: Tensor, start: Tensor, tokens: Tensor, pairs: Tensor, by_pair: bool
    ) -> None:  # fmt: skip
        """Each (token, choice) pair times its expert's matrix, into the pair's row; `route` has filled the lists.
        by_pair: the inputs are the pairs' rows, not the tokens'."""
        numbers = [FORMATS[panels.format], panels.inputs, panels.outputs, out.stride(0), panels.count, by_pair]
        self.record("experts", numbers, [panels.data, prepared, out, start, tokens, pairs])

    def swiglu(self, format: str, both: Tensor, width: int, out: Tensor, inner: int = 1) -> None:
        """silu(gate) * up of `both` (gate before up), prepared."""
        self.record("swiglu", [FORMATS[format], width, both.stride(0)], [both, out], inner=inner)

    def run(
        self, tokens: np.ndarray, positions: np.ndarray, sequence: np.ndarray, tables_SP: np.ndarray, want: np.ndarray,
        threads: int,
    ) -> None:  # fmt: skip
        """Walk the list for at most `rows` tokens, with at most as many threads as the program was made for."""
        if self._array is None:
            self._array = (_Op * len(self._ops))(*self._ops)
        run, count = self._run, len(tokens)
        run.tokens, run.wanted, run.table_width, run.threads = count, len(want), tables_SP.shape[1], threads
        for kept, given in zip(self._inputs, (tokens, positions, sequence, want), strict=True):
            kept[: len(given)] = given
        if tables_SP.size > self._tables.size:
            self._tables = np.zeros(2 * tables_SP.size, dtype=np.int32)
            run.table = self._tables.ctypes.data
        self._tables[: tables_SP.size] = tables_SP.reshape(-1)
        library().kogia_run(self._array, len(self._ops), ctypes.byref(run))
