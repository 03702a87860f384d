"""CSV tables read with a red pen: every fault is collected and told at once."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

from sim.validation.outcome import ValidationError

Row = dict[str, str]


class Table:
    """Rows of a CSV file as text, and the faults found while they were read as numbers."""

    def __init__(self, path: Path, columns: list[str], rows: list[Row]) -> None:
        self.path = path
        self.columns = columns
        self.rows = rows
        self._faults: list[str] = []

    def need(self, *names: str) -> None:
        """Refuse a table without these columns."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise ValidationError(
                f"{self.path}: no column {', '.join(missing)}; it has {', '.join(self.columns) or 'none'}"
            )

    def number(self, row: Row, name: str, default: float | None = None) -> float:
        """A finite number of at least 0; what is empty or missing is the default, where there is one."""
        text = row.get(name) or ""
        if not text.strip() and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            fault = f"{self.path}: row {self.rows.index(row) + 1}: {name} = {text!r}: expected a number of at least 0"
            if fault not in self._faults:
                self._faults.append(fault)
            return 0.0
        return value

    def refuse(self) -> None:
        """Raise when faults have been found, with all of them (the first twenty in full)."""
        if self._faults:
            more = len(self._faults) - 20
            lines = self._faults[:20] + ([f"... and {more} more faults"] if more > 0 else [])
            raise ValidationError("\n".join(lines))


def read_table(path: Path) -> Table:
    """Read a CSV file (also .gz); refuses one that is no text or has no header."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as file
        ):
            reader = csv.DictReader(file)
            rows = [dict(row) for row in reader]
            columns = list(reader.fieldnames or [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ValidationError(f"{path}: cannot be read: {error}") from None
    if not columns:
        raise ValidationError(f"{path}: is empty")
    return Table(path, columns, rows)
