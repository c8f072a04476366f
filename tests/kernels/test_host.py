"""The decisions about number format and threads."""

import os

import pytest
import torch

from kogia.kernels.host import compute_dtype, has_fast_bfloat16, set_threads


@pytest.fixture
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_named_formats():
    assert compute_dtype("float32") is torch.float32
    assert compute_dtype("bfloat16") is torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({}, False),
        ({"avx512_vnni": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False}, False),
    ],
)
def test_auto_follows_the_chip(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_fast_bfloat16() is fast
    assert compute_dtype("auto") is (torch.bfloat16 if fast else torch.float32)


def test_threads(keep_threads):
    assert set_threads(1) == 1 and torch.get_num_threads() == 1
    assert set_threads(0) == len(os.sched_getaffinity(0)) == torch.get_num_threads()
