"""The stages that learn from text: they learn, they log, and a kill changes nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kogia.data.shards import Shard
from kogia.plan.bill import BillEntry
from kogia.plan.flops import training_flops
from kogia.text.prompts import encode_question, encode_reply
from kogia.train.checkpoint import NAME
from kogia.train.loop import Job, fine_tune, pretrain
from kogia.train.meter import Meter, Silent, read_rows


class Kill(Silent):
    """Raises after a step, as ctrl-C would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, stage, row, bill):
        if row["step"] == self.after:
            raise KeyboardInterrupt


def job(model, folder, watcher=None, **changes) -> Job:
    entry = BillEntry("stage", "cpu", 0.0, "USD")
    return Job(model, folder, Meter(folder / "metrics.jsonl", entry, 0, watcher or Silent()), **changes)


def settings(**changes):
    values = SimpleNamespace(
        steps=4, batch_rows=4, micro_rows=2, batch_size=4, learning_rate=3e-3, warmup=1, mtp_weight=0.3,
        balance_weight=1e-4, bias_speed=1e-3, weight_decay=0.1, optimizer="adamw", clip=1.0, epochs=2,
    )  # fmt: skip
    vars(values).update(changes)
    return values


@pytest.fixture
def shard(tmp_path) -> Shard:
    """A language that counts: token n is followed by n + 1, around a circle of 50."""
    np.save(tmp_path / "shard.npy", (np.arange(2000) % 50 + 6).astype(np.int32))
    return Shard(tmp_path / "shard.npy", 16, 3, seed=1)


def stage(kind: str, tiny_tokenizer, shard):
    """A function that runs one stage on a job."""
    if kind == "pretrain":
        return lambda work: pretrain(work, shard, settings())
    prompts = [encode_question(tiny_tokenizer, f"{i} + {i}?") for i in range(7)]
    replies = [encode_reply(tiny_tokenizer, f"<think>\n{i} + {i} = {2 * i}\n</think>\n\n{2 * i}") for i in range(7)]
    return lambda work: fine_tune(work, prompts, replies, settings(), tiny_tokenizer.eos, seed=1)


@pytest.mark.parametrize("kind", ["pretrain", "fine_tune"])
@pytest.mark.parametrize(("killed_after", "checkpoint_seconds"), [(2, 0.0), (3, 0.0), (2, 1e9)])
def test_a_killed_stage_goes_on_as_if_nothing_had_happened(
    make_model, tiny_tokenizer, tmp_path, shard, kind, killed_after, checkpoint_seconds
):
    run = stage(kind, tiny_tokenizer, shard)

    def fresh():
        return make_model(41, vocab_size=400, num_nextn_predict_layers=2)

    straight = fresh()
    run(job(straight, tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        run(job(fresh(), tmp_path / "killed", Kill(killed_after), checkpoint_seconds=checkpoint_seconds))
    resumed = fresh()
    run(job(resumed, tmp_path / "killed"))
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    rows, expected = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("killed", "straight"))
    for key in ("step", "loss", "mtp_loss", "gradient_norm", "learning_rate", "flops", "total_tokens"):
        assert [row[key] for row in rows] == [row[key] for row in expected], key
    assert rows[-1]["lost_chip_seconds"] > 0.0 or killed_after == 1


def test_a_finished_stage_is_not_done_again(make_model, tiny_tokenizer, tmp_path, shard):
    model = make_model(41, vocab_size=400)
    pretrain(job(model, tmp_path), shard, settings())
    assert (tmp_path / NAME).is_file()
    again = make_model(42, vocab_size=400)
    pretrain(job(again, tmp_path), shard, settings())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_pretraining_learns_to_count_and_its_mtp_layers_to_count_ahead(make_model, tmp_path, shard):
    model = make_model(41, vocab_size=400, num_nextn_predict_layers=2, initializer_range=0.02)
    pretrain(job(model, tmp_path), shard, settings(steps=60, batch_rows=8, micro_rows=8, learning_rate=1e-2))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[0]["loss"] > 5.0 and rows[-1]["loss"] < 0.3
    assert max(rows[-1]["mtp_loss"]) < 0.5
    model.eval()
    with torch.no_grad():
        tokens = torch.arange(10, 22).unsqueeze(0)
        h = model.hidden_states(tokens[:, :10])
        assert torch.equal(model.logits(h).argmax(-1), tokens[:, :10] + 1)
        for k, state in enumerate(model.further_hidden_states(h, tokens), start=1):
            assert torch.equal(model.logits(state).argmax(-1), tokens[:, :10] + 1 + k)


def test_the_bill_of_a_step(make_model, tmp_path, shard):
    model = make_model(41, vocab_size=400)
    work = job(model, tmp_path)
    pretrain(work, shard, settings(steps=3))
    tokens = 3 * 4 * 16
    assert work.meter.bill.tokens == tokens
    assert work.meter.bill.flops == pytest.approx(tokens * training_flops(model.config, 8.0, mtp=True))
    assert work.meter.bill.chip_seconds > 0.0


def test_fine_tuning_reads_every_conversation_once_an_epoch(make_model, tiny_tokenizer, tmp_path):
    """Seven conversations in batches of four: two steps an epoch, the second one smaller."""
    prompts = [[6 + i] * (i + 1) for i in range(7)]
    replies = [[50 + i, 1] for i in range(7)]
    work = job(make_model(41, vocab_size=400), tmp_path)
    fine_tune(work, prompts, replies, settings(epochs=3), tiny_tokenizer.eos, seed=1)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert len(rows) == work.meter.steps == 6
    per_epoch = sum(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
    assert [rows[i]["tokens"] + rows[i + 1]["tokens"] for i in (0, 2, 4)] == [per_epoch] * 3
    assert len({row["tokens"] for row in rows[::2]}) > 1  # another order each time


def test_fine_tuning_learns_replies_and_nothing_else(make_model, tiny_tokenizer, tmp_path):
    model = make_model(41, vocab_size=400)
    prompts, replies = [[10, 11, 12], [20, 21]], [[30, 31, 1], [40, 1]]
    fine_tune(job(model, tmp_path), prompts, replies, settings(epochs=40, learning_rate=1e-2), 1, seed=1)
    model.eval()
    with torch.no_grad():
        for prompt, reply in zip(prompts, replies, strict=True):
            guesses = model(torch.tensor([[*prompt, *reply[:-1]]]))[0].argmax(-1).tolist()
            assert guesses[len(prompt) - 1 :] == reply
            assert guesses[: len(prompt) - 1] != prompt[1:]
