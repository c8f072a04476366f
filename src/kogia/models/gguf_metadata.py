"""Questions to a GGUF's metadata, by key and type."""

from typing import NoReturn, TypeVar

import numpy as np

from kogia.errors import FolderError
from kogia.formats.gguf import GGUF
from kogia.formats.untrusted import shown

Kind = TypeVar("Kind", int, float, str, bool)


class Metadata:
    """The metadata of one architecture, asked for by key and type; a wrong type or a missing key is named."""

    def __init__(self, file: GGUF) -> None:
        self.file = file
        self.architecture = self.get("general.architecture", str)

    def fail(self, reason: str) -> NoReturn:
        """Raise a FolderError that names the file."""
        raise FolderError(f"{self.file.path}: {reason}")

    def get(self, key: str, kind: type[Kind], default: Kind | None = None) -> Kind:
        """The value under `key`; a key that begins with a dot belongs to the architecture."""
        key = f"{self.architecture}{key}" if key.startswith(".") else key
        value = self.file.metadata.get(key, default)
        if value is None:
            self.fail(f"metadata key {shown(key)} is missing")
        wanted = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            what = f"{type(value).__name__}: it must be one {kind.__name__} for the whole model"
            self.fail(f"metadata key {shown(key)} is a {what}")
        return kind(shortest(value)) if isinstance(value, float) else kind(value)

    def has(self, key: str) -> bool:
        """Whether the architecture's key is there."""
        return f"{self.architecture}{key}" in self.file.metadata


def shortest(value: float) -> float:
    """The shortest decimal number that FP32 stores as this one: 1e-06 instead of 9.999999974752427e-07."""
    return float(str(np.float32(value)))
