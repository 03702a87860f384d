"""A sweep's rows as one table: the same points give the same bytes, whoever worked them out."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from sim.planning.sweep.axes import Settings
from sim.planning.sweep.points import FIGURES
from sim.results.files import write_files

Row = dict[str, Any]


def table(points: Sequence[Settings], answers: Sequence[Row]) -> list[Row]:
    """One row a point: its number, the varied values, outcome, reason, figures; columns nobody has are left out."""
    filled = [name for name in FIGURES if any(answer.get(name) is not None for answer in answers)]
    rows = []
    for number, (settings, answer) in enumerate(zip(points, answers, strict=True)):
        row: Row = {"point": number}
        row |= {path: _value(text) for path, text in settings}
        row |= {name: answer.get(name) for name in ("outcome", "reason", *filled)}
        rows.append(row)
    return rows


def _value(text: str) -> Any:
    """A varied value as a cell: what TOML makes of it where that is a number, a truth value or text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float | str) else text


def csv_text(rows: Sequence[Row]) -> str:
    """The table as CSV; numbers in full, nothing where a value is missing."""
    out = StringIO()
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``table.csv`` and ``table.parquet`` into ``folder``.

    Raises:
        OSError: the folder cannot be written; what was there before is whole.
    """
    import pyarrow
    from pyarrow import parquet

    columns = BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(_one_type_a_column(rows)), columns)
    contents = {folder / "table.csv": csv_text(rows).encode(), folder / "table.parquet": columns.getvalue()}
    write_files(contents)
    return list(contents)


def _one_type_a_column(rows: Sequence[Row]) -> list[Row]:
    """Rows in which a column of mixed kinds is text: Parquet columns have one type."""
    mixed = set()
    for name in rows[0] if rows else ():
        kinds = {type(row[name]) for row in rows if row[name] is not None}
        if len(kinds) > 1 and kinds != {int, float}:
            mixed.add(name)
    return [
        {name: str(value) if name in mixed and value is not None else value for name, value in row.items()}
        for row in rows
    ]
