"""What this machine is good at: number format, threads, allocator."""

import ctypes
import os
import sys

import torch

from kogia.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory instead of handing it back to the kernel after every operation.

    A training step frees and takes back the same few hundred buffers. By default glibc maps each one over 32 MB
    (and trims the heap below it) anew, and the page faults cost more than the arithmetic: cross entropy over
    8192 x 1024 logits ran 2.4 times faster here with this setting (docs/LOG.md). Returns whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    return bool(libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))


def has_fast_bfloat16() -> bool:
    """Whether matrix products in BF16 are faster than in FP32 on this CPU (AVX512-BF16 or AMX)."""
    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capability.get("avx512_bf16") or capability.get("amx_bf16") or capability.get("amx_tile"))


def compute_dtype(name: str) -> torch.dtype:
    """Resolve a `dtype` setting: "auto" is BF16 where the chip multiplies it fast, FP32 elsewhere.

    Raises:
        UserError: another name than auto, bfloat16 or float32.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    if name not in ("bfloat16", "float32"):
        raise UserError(f"dtype is {name!r}: it must be auto, bfloat16 or float32")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def set_threads(count: int) -> int:
    """Use `count` threads for arithmetic (0: all cores this process may use). Returns the number set."""
    count = count or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    torch.set_num_threads(count)
    return count
