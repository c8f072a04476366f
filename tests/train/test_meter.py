"""The meter: what a kill threw away stays on the bill, and the rows of a run tell one story."""

import json
import math

import pytest

from kogia.plan.bill import BillEntry
from kogia.train.meter import Meter, Silent, read_rows


def meter(path, watcher=None) -> Meter:
    return Meter(path, BillEntry("pretrain", "cpu", 3600.0, "USD"), 10, watcher or Silent())


def row(step: int, seconds: float, lost: float = 0.0) -> dict:
    seconds_and_lost = {"chip_seconds": seconds, "lost_chip_seconds": lost}
    return {"step": step, **seconds_and_lost, "total_tokens": 10 * step, "flops": 5.0 * step}


def write(path, rows) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_rows_by_hand(tmp_path, monkeypatch):
    clock = iter([100.0, 101.5, 104.0])
    monkeypatch.setattr("kogia.train.meter.time.perf_counter", lambda: next(clock))
    m = meter(tmp_path / "deep" / "metrics.jsonl")
    m.log(1, tokens=32, flops=1e9, loss=2.5)
    m.log(2, tokens=32, flops=2e9, loss=2.0, samples=[{"text": "한국어"}])
    rows = read_rows(tmp_path / "deep" / "metrics.jsonl")
    assert rows[0] == {
        "step": 1, "seconds": 1.5, "tokens": 32, "loss": 2.5, "chip_seconds": 1.5, "lost_chip_seconds": 0.0,
        "total_tokens": 32, "flops": 1e9,
    }  # fmt: skip
    assert (rows[1]["seconds"], rows[1]["chip_seconds"], rows[1]["total_tokens"], rows[1]["flops"]) == (
        2.5,
        4.0,
        64,
        3e9,
    )
    assert m.bill.money == pytest.approx(4.0)  # 4 seconds at 3600 an hour
    assert "한국어" in (tmp_path / "deep" / "metrics.jsonl").read_text(encoding="utf-8")


def test_resume_counts_what_was_lost_and_drops_its_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(i, 2.0 * i) for i in range(1, 6)])
    m = meter(path)
    m.resume(3)
    assert (m.bill.chip_seconds, m.bill.lost_chip_seconds) == (10.0, 4.0)
    assert (m.bill.tokens, m.bill.flops) == (30, 15.0)
    m.log(4, tokens=10, flops=5.0)
    assert [r["step"] for r in read_rows(path)] == [1, 2, 3, 4]
    last = read_rows(path)[-1]
    assert last["lost_chip_seconds"] == 4.0 and last["chip_seconds"] >= 10.0
    assert (last["total_tokens"], last["flops"]) == (40, 20.0)


def test_losses_of_several_kills_are_not_counted_twice(tmp_path):
    """Steps 3 and 4 took 4 seconds and were lost, were done again until 8 seconds, and are lost again: of the 8
    seconds paid for, the 2 of steps 1 and 2 were of use and 6 were not."""
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1, 1.0), row(2, 2.0), row(3, 7.0, lost=4.0), row(4, 8.0, lost=4.0)])
    m = meter(path)
    m.resume(2)
    assert (m.bill.chip_seconds, m.bill.lost_chip_seconds) == (8.0, 6.0)


def test_resume_at_the_last_row_loses_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(i, 2.0 * i) for i in range(1, 4)])
    before = path.read_bytes()
    m = meter(path)
    m.resume(3)
    assert (m.bill.chip_seconds, m.bill.lost_chip_seconds) == (6.0, 0.0) and path.read_bytes() == before


def test_everything_is_lost_if_there_was_no_checkpoint_yet(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1, 3.0), row(2, 6.0)])
    m = meter(path)
    m.resume(0)
    assert (m.bill.chip_seconds, m.bill.lost_chip_seconds, m.bill.tokens) == (6.0, 6.0, 0)
    m.log(1, tokens=1, flops=1.0)
    assert [r["step"] for r in read_rows(path)] == [1]


@pytest.mark.parametrize("step", [0, 3])
def test_a_second_kill_before_the_next_row_forgets_nothing(tmp_path, step):
    """Killed, resumed, killed again at once, resumed: the seconds were paid for all the same."""
    path = tmp_path / "metrics.jsonl"
    write(path, [row(i, 2.0 * i) for i in range(1, 6)])
    meter(path).resume(step)
    again = meter(path)
    again.resume(step)
    assert again.bill.chip_seconds >= 10.0
    assert again.bill.lost_chip_seconds >= 10.0 - 2.0 * step


def test_a_last_line_cut_off_by_a_kill_spoils_no_later_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1, 1.0), row(2, 2.0)])
    with open(path, "a") as file:
        file.write('{"step": 3, "chip_sec')
    assert [r["step"] for r in read_rows(path)] == [1, 2]
    m = meter(path)
    m.resume(2)
    m.log(3, tokens=1, flops=1.0)
    m.log(4, tokens=1, flops=1.0)
    assert [r["step"] for r in read_rows(path)] == [1, 2, 3, 4]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_no_file_no_rows(tmp_path):
    assert read_rows(tmp_path / "none.jsonl") == []
    m = meter(tmp_path / "none.jsonl")
    m.resume(0)
    assert m.bill.chip_seconds == 0.0 and not (tmp_path / "none.jsonl").exists()


def test_the_watcher_sees_every_step(tmp_path):
    seen = []

    class Watch(Silent):
        def begin(self, stage, steps, done):
            seen.append(("begin", stage, steps, done))

        def step(self, stage, row, bill):
            seen.append(("step", row["step"], math.isfinite(bill.chip_seconds)))

    m = meter(tmp_path / "m.jsonl", Watch())
    m.resume(0)
    m.log(1, 1, 1.0)
    assert seen == [("begin", "pretrain", 10, 0), ("step", 1, True)]
