"""Stands where pycosat would be; any use of it says what is missing."""

from typing import NoReturn


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(f"pycosat.{name} is missing: no C compiler here; install one, then pip install pycosat")
