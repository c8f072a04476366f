"""The runner in plain PyTorch: what the model says over whole sequences, from pages, chunk by chunk."""

import numpy as np
import pytest
import torch

from kogia.engine.batch import BLOCK, Batch
from kogia.engine.torch_runner import TorchRunner, inference_copy, is_ready


@pytest.fixture(scope="module", params=["deepseek_v3", "qwen3"])
def model(request, make_family):
    return make_family(request.param, 3).eval().requires_grad_(False)


@pytest.fixture(params=[True, False], ids=["one by one", "together"])
def runner(request, model) -> TorchRunner:
    runner = TorchRunner(model, request.param)
    runner.allocate(12)
    return runner


# Two sequences of 40 and 21 tokens, their pages in no order.
TOKENS = [np.arange(7, 47) * 7 % 390 + 6, np.arange(21) * 5 % 390 + 6]
TABLES = np.array([[5, 2, 9], [7, 1, 0]], dtype=np.int32)


def batch(*chunks: tuple[int, int, int], tokens=TOKENS) -> Batch:
    """Of (sequence, start, end)."""
    s = np.concatenate([np.full(end - start, i, dtype=np.int32) for i, start, end in chunks])
    p = np.concatenate([np.arange(start, end, dtype=np.int32) for _, start, end in chunks])
    t = np.array([tokens[i][at] for i, at in zip(s, p, strict=True)], dtype=np.int32)
    return Batch(t, p, s, TABLES, np.arange(len(t)))


STEPS = [[(0, 0, 17)], [(0, 17, 20), (1, 0, 20)], [(0, 20, 21), (1, 20, 21)], [(0, 21, 40)]]


@torch.no_grad()
def test_logits_and_hidden_states_are_the_models(model, runner):
    expected = [model.hidden_states(torch.from_numpy(t)[None])[0] for t in TOKENS]
    for step in STEPS:
        result = runner.forward(batch(*step))
        hidden = torch.cat([expected[i][start:end] for i, start, end in step])
        torch.testing.assert_close(result.hidden_ND, hidden, rtol=0, atol=2e-5)
        torch.testing.assert_close(result.logits_WV, model.logits(hidden), rtol=0, atol=1e-4)


@torch.no_grad()
def test_drafts_are_the_models_further_predictions(make_family):
    model = make_family("deepseek_v3", 3, num_nextn_predict_layers=2).requires_grad_(False)
    for one_by_one in (True, False):
        runner = TorchRunner(model, one_by_one)
        runner.allocate(12)
        expected = []
        for t in TOKENS:
            tokens = torch.from_numpy(t)[None]
            expected.append(model.further_hidden_states(model.hidden_states(tokens)[:, :-2], tokens))
        for step in [[(0, 0, 17)], [(0, 17, 30), (1, 0, 18)], [(0, 30, 31), (1, 18, 19)]]:
            h = runner.forward(batch(*step)).hidden_ND.clone()
            for k in (0, 1):
                shifted = batch(*step, tokens=[t[k + 1 :] for t in TOKENS])
                result = runner.draft(k, shifted, h)
                wanted = torch.cat([expected[i][k][0, start:end] for i, start, end in step])
                torch.testing.assert_close(result.hidden_ND, wanted, rtol=0, atol=2e-5)
                torch.testing.assert_close(result.logits_WV, model.logits(wanted), rtol=0, atol=1e-4)
                h = result.hidden_ND.clone()


def test_one_by_one_does_not_care_how_the_rows_come(model):
    found = []
    for steps in (STEPS, [[(0, 0, 40)], [(1, 0, 21)]], [[(0, i, i + 1)] for i in range(40)] + [[(1, 0, 21)]]):
        runner = TorchRunner(model, one_by_one=True)
        runner.allocate(12)
        rows = {}
        for step in steps:
            b = batch(*step)
            for s, p, row in zip(b.sequence_N, b.positions_N, runner.forward(b).logits_WV, strict=True):
                rows[int(s), int(p)] = row
        found.append(torch.stack([rows[key] for key in sorted(rows)]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_only_wanted_rows_have_logits(runner):
    b = batch((0, 0, 17), (1, 0, 3))
    every = runner.forward(b).logits_WV.clone()
    b.wanted_W = np.array([16, 19])
    torch.testing.assert_close(runner.forward(b).logits_WV, every[[16, 19]], rtol=0, atol=1e-5)
    b.wanted_W = np.array([], dtype=np.int64)
    assert runner.forward(b).logits_WV.shape == (0, every.shape[1])


def test_what_others_left_in_a_block_is_not_seen(model, runner):
    expected = runner.forward(batch((1, 0, 21))).logits_WV.clone()
    runner.cache[:, :-1] = float("nan")
    assert torch.equal(runner.forward(batch((1, 0, 5))).logits_WV.isnan().any(), torch.tensor(False))
    torch.testing.assert_close(runner.forward(batch((1, 5, 21))).logits_WV, expected[5:], rtol=0, atol=1e-5)
    assert runner.cache[:, -1].eq(0).all() and runner.cache.shape[1:3] == (13, BLOCK)


def test_a_trained_model_is_copied_and_a_ready_one_is_not(make_model):
    live = make_model(1).train()
    assert not is_ready(live) and TorchRunner(live, False).model is not live
    ready = inference_copy(live)
    assert is_ready(ready) and TorchRunner(ready, False).model is ready
