"""What is wrong with an input, said so that a person can mend it: file, key, value seen, what was expected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong."""

    file: str
    path: str
    """Key path such as ``cluster.pools.0.nodes``; empty for the file as a whole."""
    value: Any
    """The value seen; None when a key is missing."""
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.path}" if self.path else self.file
        shown = "" if self.value is None else f" = {_shorten(self.value)}"
        return f"{place}{shown}: {self.expected}"


class ScenarioError(ValueError):
    """An input that cannot be used, with every fault found in it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def key_path(parts: Sequence[Any]) -> str:
    """``cluster.pools.0.nodes``; a key that would not read well is quoted."""
    return ".".join(
        str(part) if re.fullmatch(r"[\w-]+", str(part)) else _shorten(str(part), 40) for part in parts
    )


def _shorten(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
