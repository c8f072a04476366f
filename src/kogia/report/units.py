"""Numbers in the form in which people read them. What is missing (None, NaN) is a dash."""

import math
import re
from typing import TypeGuard

MISSING = "–"
_WORDS = ((1e12, " trillion"), (1e9, " billion"), (1e6, " million"))
_FLOPS = ((1e21, " ZFLOP"), (1e18, " EFLOP"), (1e15, " PFLOP"), (1e12, " TFLOP"), (1e9, " GFLOP"), (1e6, " MFLOP"))
_BYTES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"))


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to show: it was measured, and is finite."""
    return value is not None and math.isfinite(value)


def number(value: float | None) -> str:
    """Three digits that count: 0.0123, 12.3, 1,234."""
    if not known(value):
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def share(value: float | None) -> str:
    """0.634 -> 63.4%."""
    return f"{100 * value:.1f}%" if known(value) else MISSING


def interval(middle: float | None, low: float | None, high: float | None) -> str:
    """A share with its interval: 63.4% (59.1–67.8)."""
    if known(middle) and known(low) and known(high):
        return f"{share(middle)} ({100 * low:.1f}–{100 * high:.1f})"
    return share(middle)


def count(value: float | None) -> str:
    """12,345 as it is, 3,210,000 -> 3.21 million."""
    return f"{value:,.0f}" if known(value) and abs(value) < 1e6 else _scaled(value, _WORDS, "")


def flops(value: float | None) -> str:
    """4.1e13 -> 41 TFLOP."""
    return _scaled(value, _FLOPS, " FLOP")


def size(value: float | None) -> str:
    """1,234,567 -> 1.23 MB."""
    return _scaled(value, _BYTES, " bytes")


def _scaled(value: float | None, units: tuple[tuple[float, str], ...], small: str) -> str:
    if not known(value):
        return MISSING
    factor, word = next((unit for unit in units if value >= unit[0]), (1.0, small))
    return number(value / factor) + word


def seconds(value: float | None) -> str:
    """Seconds as seconds, so that the rows of a table compare: 12.3 s, 1,234 s."""
    return f"{number(value)} s" if known(value) else MISSING


def duration(value: float) -> str:
    """Seconds in the units that people use: 12.3 s, 6 min 52 s, 3 h 26 min, 2 d 5 h."""
    if value < 59.95:
        return seconds(value)
    if round(value) < 3600:
        return f"{round(value) // 60} min {round(value) % 60} s"
    minutes, hours = round(value / 60), round(value / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 1440 else f"{hours // 24:,} d {hours % 24} h"


def money(amount: float | None, currency: str) -> str:
    """Cents above one, and below it enough digits to see three that count: 12.30 USD, 0.00341 USD."""
    if not known(amount):
        return MISSING
    digits = 2 if amount >= 1 or amount <= 0 else max(2, 2 - math.floor(math.log10(amount)))
    whole, _, cents = f"{amount:,.{min(digits, 8)}f}".partition(".")
    return f"{whole}.{cents.rstrip('0').ljust(2, '0')} {currency}".strip()


def visible(text: str) -> str:
    """The text with control characters shown as pictures: a model may say anything, and a page may not hold it all."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}
    return re.sub("[\x80-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text.translate(pictures))
