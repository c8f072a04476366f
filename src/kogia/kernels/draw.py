"""Draw tokens from logits in C++: what engine/sampler.py defines, without a dozen small operations a step."""

import ctypes

import numpy as np
from torch import Tensor

from kogia.kernels.native import library

_INTS, _FLOATS = ("top_k", "seed"), ("temperature", "top_p", "min_p")


class Settings(ctypes.Structure):
    """Where the columns of requests' settings are."""

    _fields_ = [(name, ctypes.c_void_p) for name in (*_FLOATS, *_INTS)]


class _Draws(ctypes.Structure):
    _fields_ = [
        ("places", ctypes.c_int32), ("vocabulary", ctypes.c_int32), ("threads", ctypes.c_int32),
        ("logits", ctypes.c_void_p), ("stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("at", "owner", "place")),
        ("settings", Settings), ("tokens", ctypes.c_void_p), ("logprobs", ctypes.c_void_p),
    ]  # fmt: skip


class Drawer:
    """Draws for requests whose settings lie in columns; the columns may change between calls, but not move."""

    def __init__(
        self, temperature_R: np.ndarray, top_p_R: np.ndarray, min_p_R: np.ndarray, top_k_R: np.ndarray,
        seed_R: np.ndarray,
    ) -> None:  # fmt: skip
        """temperature (under 1e-5: greedy), top_p, min_p: FP32; top_k (0: off), seed: int64."""
        columns = dict(temperature=temperature_R, top_p=top_p_R, min_p=min_p_R, top_k=top_k_R, seed=seed_R)
        self.settings, self._draws, self._columns = Settings(), _Draws(), columns
        for name, column in columns.items():
            assert column.dtype == (np.float32 if name in _FLOATS else np.int64) and column.flags.c_contiguous
            setattr(self.settings, name, column.ctypes.data)
        self._draws.settings = self.settings
        self._room(len(seed_R))

    def _room(self, places: int) -> None:
        self._given = np.zeros((3, places), dtype=np.int64)
        self._tokens, self._logprobs = np.zeros(places, dtype=np.int64), np.zeros(places, dtype=np.float32)
        d = self._draws
        d.at, d.owner, d.place = (row.ctypes.data for row in self._given)
        d.tokens, d.logprobs = self._tokens.ctypes.data, self._logprobs.ctypes.data

    def draw(
        self, logits_WV: Tensor, at_P: np.ndarray, owner_P: np.ndarray, place_P: np.ndarray, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """A token for each of P places: by row at[p] of the logits (FP32, on the CPU), the settings of owner[p], and
        number place[p] of its seed. Returns tokens int64 and their log-probabilities at the temperature (1 where
        greedy) before anything was cut off, FP32, NaN where the logits hold NaN or +inf; new arrays.
        """
        count, d = len(at_P), self._draws
        assert logits_WV.stride(-1) == 1
        if count > len(self._tokens):
            self._room(2 * count)
        for kept, given in zip(self._given, (at_P, owner_P, place_P), strict=True):
            kept[:count] = given
        d.places, d.vocabulary, d.threads = count, logits_WV.shape[1], threads
        d.logits, d.stride = logits_WV.data_ptr(), logits_WV.stride(0)
        library().kogia_draw(ctypes.byref(d))
        return self._tokens[:count].copy(), self._logprobs[:count].copy()
