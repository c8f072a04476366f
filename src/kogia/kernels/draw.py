"""Draw tokens from logits in C++: what engine/sampler.py defines, without a dozen small operations a step."""

import ctypes

import numpy as np
from torch import Tensor

from kogia.kernels.native import library


class _Draws(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_int32), ("vocabulary", ctypes.c_int32), ("threads", ctypes.c_int32),
        ("logits", ctypes.c_void_p), ("stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("index", "top_k", "seed", "place", "temperature", "top_p", "min_p")),
        ("tokens", ctypes.c_void_p), ("logprobs", ctypes.c_void_p),
    ]  # fmt: skip


def draw_tokens(
    logits_WV: Tensor, index_B: np.ndarray, temperature_B: np.ndarray, top_p_B: np.ndarray, top_k_B: np.ndarray,
    min_p_B: np.ndarray, seed_B: np.ndarray, place_B: np.ndarray, threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A token for each of B requests, from row index_B[b] of the logits.

    logits_WV: FP32 on the CPU, rows contiguous. index, top_k (0: off), seed, place: int64; temperature (under 1e-5:
    greedy), top_p, min_p: FP32. Returns tokens int64 and their log-probabilities at the temperature (1 where greedy)
    before anything was cut off, FP32; NaN where the logits hold NaN or +inf.
    """
    count = len(index_B)
    tokens, logprobs = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
    columns = [np.ascontiguousarray(column, dtype=np.int64) for column in (index_B, top_k_B, seed_B, place_B)]
    columns += [np.ascontiguousarray(column, dtype=np.float32) for column in (temperature_B, top_p_B, min_p_B)]
    assert logits_WV.stride(-1) == 1 and all(len(column) == count for column in columns)
    draws = _Draws(count, logits_WV.shape[1], threads, logits_WV.data_ptr(), logits_WV.stride(0))
    draws.index, draws.top_k, draws.seed, draws.place = (column.ctypes.data for column in columns[:4])
    draws.temperature, draws.top_p, draws.min_p = (column.ctypes.data for column in columns[4:])
    draws.tokens, draws.logprobs = tokens.ctypes.data, logprobs.ctypes.data
    library().kogia_draw(ctypes.byref(draws))
    return tokens, logprobs
