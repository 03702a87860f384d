"""Our own table of jobs: the fields of ``Job`` as columns, the ledger that every history can be copied into.

A column may be left out if the field has a default; an empty cell is the default. ``name``, ``submit_s``, ``gpus`` and
``duration_s`` are needed. Quantities are SI numbers, or text with a unit as in scenarios.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import typing
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sim import units
from sim.importers.imported import Tally
from sim.importers.sources import Source, open_sources, table
from sim.spec.faults import Fault, ScenarioError
from sim.spec.job import Job

COLUMNS = tuple(field.name for field in fields(Job))
_REQUIRED = tuple(field.name for field in fields(Job) if field.default is MISSING)
_KINDS = {
    name: next(kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None))
    for name, hint in typing.get_type_hints(Job).items()
}
"""Column -> str, bool, int or float."""
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
MOST_FAULTS = 200
"""Faults told of one file; the rest are counted."""


def read_jobs(path: str | Path) -> list[Job]:
    """Jobs of a CSV (also .gz) or Parquet table, in order of submission.

    Raises:
        ScenarioError: every fault of the table at once, with line and column.
    """
    where = str(path)
    if where.endswith(".parquet"):
        header, rows = _parquet(path)
    else:
        (source,) = open_sources([path], Tally())
        header, rows = _csv(Source(where, source.text))
    faults = _header_faults(where, header)
    if faults:
        raise ScenarioError(faults)
    jobs: list[Job] = []
    seen: dict[str, int] = {}
    for line, cells in rows:
        if not any(str(cell).strip() for cell in cells):
            continue
        if len(cells) != len(header):
            faults.append(
                Fault(where, f"line {line}", len(cells), f"expected {len(header)} cells as in the header")
            )
            continue
        values, wrong = _values(dict(zip(header, cells, strict=True)), where, line)
        faults += wrong
        if wrong:
            continue
        job = Job(**values)
        if job.name in seen:
            faults.append(
                Fault(where, f"line {line}: name", job.name, f"is the name of line {seen[job.name]} too")
            )
        seen.setdefault(job.name, line)
        jobs.append(job)
    if faults:
        more = len(faults) - MOST_FAULTS
        rest = [Fault(where, "", None, f"and {more:,} more faults")] if more > 0 else []
        raise ScenarioError(faults[:MOST_FAULTS] + rest)
    return sorted(jobs, key=lambda job: job.submit_s)


def write_csv(jobs: Iterable[Job]) -> str:
    """The table as text; reading it back gives the same jobs to the last bit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for job in jobs:
        writer.writerow([_cell(getattr(job, name)) for name in COLUMNS])
    return out.getvalue()


def write_parquet(jobs: Sequence[Job], path: str | Path) -> None:
    """The table as a Parquet file."""
    import pandas as pd

    columns = {name: [getattr(job, name) for job in jobs] for name in COLUMNS}
    pd.DataFrame(columns).to_parquet(path, index=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _csv(source: Source) -> tuple[list[str], Iterable[tuple[int, list[str]]]]:
    return table(source)


def _parquet(path: str | Path) -> tuple[list[str], Iterable[tuple[int, list[str]]]]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as fault:
        raise ScenarioError([Fault(str(path), "", None, f"cannot be read as Parquet: {fault}")]) from None
    cells = [
        ["" if item is None or item != item else _cell(item) for item in row]
        for row in frame.itertuples(index=False)
    ]
    return [str(name) for name in frame.columns], enumerate(cells, 1)


def _header_faults(where: str, header: Sequence[str]) -> list[Fault]:
    faults = [Fault(where, name, None, "is a required column") for name in _REQUIRED if name not in header]
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"columns are {', '.join(COLUMNS)}"
            faults.append(Fault(where, name or "(empty)", None, f"is not a column of jobs; {hint}"))
        elif header.count(name) > 1:
            faults.append(Fault(where, name, None, "stands twice in the header"))
    return faults


def _values(row: dict[str, str], where: str, line: int) -> tuple[dict[str, Any], list[Fault]]:
    values: dict[str, Any] = {}
    faults = []
    for name, cell in row.items():
        text = cell.strip()
        if not text and name not in _REQUIRED:
            continue
        try:
            values[name] = _value(name, text)
        except ValueError as fault:
            faults.append(Fault(where, f"line {line}: {name}", cell, str(fault)))
    return values, faults


def _value(name: str, text: str) -> Any:
    kind = _KINDS[name]
    if kind is str:
        if name == "name" and not text:
            raise ValueError("expected a name")
        return text
    if kind is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError("expected true or false")
        return text.lower() in _TRUE
    number = _number(name, text)
    if number < 0 and name not in ("priority", "recorded_start_s"):
        raise ValueError("expected at least 0")
    if name == "gpu_share_frac" and not 0 < number <= 1:
        raise ValueError("expected more than 0 and at most 1")
    if kind is int:
        if number != int(number):
            raise ValueError("expected a whole number")
        return int(number)
    return number


def _number(name: str, text: str) -> float:
    """A plain SI number, else text with a unit."""
    try:
        number = float(text)
    except ValueError:
        return units.parse(text, units.dimension_of(name) or units.COUNT)
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number
