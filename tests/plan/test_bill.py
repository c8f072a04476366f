"""The bill adds up."""

import json

import pytest

from kogia.plan.bill import BillEntry, total

PRETRAIN = BillEntry("pretrain", "cpu", 0.36, "USD", 1e15, 1_000_000, 5000.0, 500.0)
RL = BillEntry("rl", "cpu", 0.72, "USD", 2e15, 200_000, 2500.0)


def test_money_by_hand():
    assert PRETRAIN.money == pytest.approx(0.5)  # 5000 / 3600 hours at 0.36
    assert RL.money == pytest.approx(0.5)
    assert BillEntry("free", "cpu", 0.0, "USD", chip_seconds=1e9).money == 0.0


def test_total_by_hand():
    assert total([PRETRAIN, RL]) == pytest.approx(
        {"flops": 3e15, "tokens": 1_200_000, "chip_seconds": 7500.0, "lost_chip_seconds": 500.0, "money": 1.0,
         "currency": "USD"}
    )  # fmt: skip


def test_nothing_costs_nothing():
    assert total([]) == {
        "flops": 0, "tokens": 0, "chip_seconds": 0, "lost_chip_seconds": 0, "money": 0, "currency": "",
    }  # fmt: skip


@pytest.mark.parametrize("entry", [PRETRAIN, RL])
def test_round_trip(entry):
    values = json.loads(json.dumps(entry.to_json()))
    assert values["money"] == entry.money
    assert BillEntry.from_json(values) == entry


def test_the_total_survives_the_round_trip():
    entries = [PRETRAIN, RL, PRETRAIN]
    again = [BillEntry.from_json(json.loads(json.dumps(e.to_json()))) for e in entries]
    assert total(again) == total(entries)
