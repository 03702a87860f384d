"""A row of a measurement table, read as numbers and text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Cells:
    """Cells of a row as numbers or text, empty ones as a default."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = {
            key: None if value is None or value != value or value == "" else value
            for key, value in row.items()
        }

    def real(self, name: str, default: float) -> float:
        value = self._row.get(name)
        return default if value is None else float(value)

    def number(self, name: str, default: int = 0) -> int:
        return int(self.real(name, default))

    def text(self, name: str) -> str:
        value = self._row.get(name)
        return "" if value is None else str(value)
