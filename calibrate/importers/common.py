"""What every importer of logs shares: what a person may add, what comes out, and how a log is refused.

Like the desk where foreign papers are received: stamped when they are in order, handed back with one sentence
when they are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.measurements import Measurements

Row = dict[str, Any]


class LogError(ValueError):
    """A log that cannot be used; the message is one line: file, what was found, what was expected."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the log may leave unsaid and a person knows; empty or 0 = take it from the log."""

    gpu: str = ""
    system: str = ""
    fabric: str = ""
    collective: str = ""
    gpus: int = 0
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """What one log held."""

    name: str
    """Of the node, system or run: a file name is made of it."""
    measurements: Measurements
    published: tuple[Mapping[str, Any], ...] = ()
    """Rows of the form of published training runs, where the log is of a whole run."""


def imported(
    name: str,
    path: Path,
    tool: str,
    tables: Mapping[str, Sequence[Row]],
    *,
    notes: Sequence[str] = (),
    environment: Mapping[str, Any] | None = None,
    published: Sequence[Row] = (),
) -> Imported:
    """Tables as a measurement file that says where they come from."""
    where = {"tool": tool, "file": path.name, **(environment or {})}
    kept = {table: tuple(rows) for table, rows in tables.items() if rows}
    return Imported(name, Measurements(where, {}, kept, tuple(notes), complete=not notes), tuple(published))


def single_timing(time_us: float, source: str, repeats: int = 1) -> Row:
    """Timing columns of a figure that came without an interval: bounds equal to it, at confidence 0."""
    return {
        "time_us": time_us,
        "low_us": time_us,
        "high_us": time_us,
        "confidence_frac": 0.0,
        "repeats": repeats,
        "source": source,
    }


def reading(gpu: str, quantity: str, value: float, unit: str, source: str, **more: Any) -> Row:
    """A row of table ``readings``: one figure that has no shape (a peak rate, a copy bandwidth, a step)."""
    return {"gpu": gpu, "quantity": quantity, "value": value, "unit": unit, **more, "source": source}
