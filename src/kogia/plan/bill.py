"""The bill: what each stage of a model's life used, and what that costs. Kept in `kogia.json`, summed over all
ancestors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class BillEntry:
    """One stage. chip_seconds: wall seconds times chips; lost_chip_seconds: part of it spent on work that a kill
    threw away; price_per_chip_hour in `currency`."""

    stage: str
    chip: str
    price_per_chip_hour: float
    currency: str
    flops: float = 0.0
    tokens: int = 0
    chip_seconds: float = 0.0
    lost_chip_seconds: float = 0.0

    @property
    def money(self) -> float:
        """Cost of the stage in `currency`."""
        return self.chip_seconds / 3600.0 * self.price_per_chip_hour

    def to_json(self) -> dict[str, Any]:
        """The entry with its cost worked out."""
        return asdict(self) | {"money": self.money}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "BillEntry":
        """Read back what `to_json` wrote."""
        return cls(**{name: value for name, value in values.items() if name != "money"})


def total(entries: Sequence[BillEntry]) -> dict[str, Any]:
    """Sum of a life's entries."""
    return {
        "flops": sum(e.flops for e in entries),
        "tokens": sum(e.tokens for e in entries),
        "chip_seconds": sum(e.chip_seconds for e in entries),
        "lost_chip_seconds": sum(e.lost_chip_seconds for e in entries),
        "money": sum(e.money for e in entries),
        "currency": entries[0].currency if entries else "",
    }
