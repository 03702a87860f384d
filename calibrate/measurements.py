"""The measurement file: a surveyor's field book, the site on its first page and one line for every reading.

JSON with a schema number, the environment, the settings of the run, warnings, the stand-in for the device's
name plate, and tables of rows. Rows have the columns of rackcast's own measurement CSVs, so that every fit
and every validation reads both alike; times in files are microseconds, as in those CSVs. Reading reports
every fault at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrate.tables import TABLES, Column
from sim.spec.device import Device

SCHEMA = 1
Row = Mapping[str, Any]


class MeasurementsError(ValueError):
    """A measurement file that cannot be used; the message lists every fault found."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything one run found."""

    environment: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options of the run: seed, budget, parts."""
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    """Stand-ins for datasheets, by ``gpu`` name: the best rates seen."""
    complete: bool = False
    """False when the run was stopped before its end."""

    def columns(self, table: str) -> dict[str, NDArray[Any]]:
        """Rows of a table as column arrays, the form that fits take; empty when the table has no rows."""
        return columns(self.tables.get(table, ()))


def columns(rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """Rows as column arrays: numbers as float with NaN where absent, text with ``""`` where absent."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    result: dict[str, NDArray[Any]] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, (int, float)) for value in values):
            result[name] = np.array([math.nan if value is None else float(value) for value in values])
        else:
            result[name] = np.array(["" if value is None else str(value) for value in values])
    return result


def to_json(measurements: Measurements) -> str:
    """The measurement document, one row a line so that it reads and diffs well."""
    head = {
        "schema": SCHEMA,
        "environment": dict(measurements.environment),
        "settings": dict(measurements.settings),
        "complete": measurements.complete,
        "warnings": list(measurements.warnings),
        "devices": {
            name: dataclasses.asdict(device) | {"flop_per_s": dict(device.flop_per_s), "kind": "measured"}
            for name, device in measurements.devices.items()
        },
    }
    lines = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)[:-2]
    tables = []
    for name, rows in measurements.tables.items():
        body = ",\n".join("   " + json.dumps(dict(row), ensure_ascii=False, allow_nan=False) for row in rows)
        tables.append(f"  {json.dumps(name)}: [\n{body}\n  ]" if rows else f"  {json.dumps(name)}: []")
    return lines + ',\n "tables": {\n' + ",\n".join(tables) + "\n }\n}\n"


def save(measurements: Measurements, path: Path) -> None:
    """Write the file; see :func:`write_text`."""
    write_text(path, to_json(measurements))


def write_text(path: Path, text: str) -> None:
    """Write a file in one step: a reader, or a crash, never meets half of it."""
    with _draft(path, text) as draft:
        draft.replace(path)


def write_new(path: Path, measurements: Measurements) -> bool:
    """Write a file in one step unless one is there; whether it was written.

    Exclusive between nodes that share the folder; without hard links the place is first taken by an empty file.
    """
    with _draft(path, to_json(measurements)) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                return False
            draft.replace(path)
    return True


@contextmanager
def _draft(path: Path, text: str) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(
        f".{path.name}.{platform.node()}.{os.getpid()}.draft"
    )  # two nodes may share a folder
    try:
        draft.write_text(text, encoding="utf-8")
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def load(path: Path) -> Measurements:
    """Read a measurement file.

    Raises:
        MeasurementsError: absent, not JSON, another schema, or bad rows; every fault is listed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise MeasurementsError(f"{path}: cannot be read ({fault})") from None
    return from_json(text, str(path))


def from_json(text: str, where: str = "measurements") -> Measurements:
    """Read a measurement document; see :func:`load`."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as fault:
        raise MeasurementsError(f"{where}: not JSON ({fault})") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        seen = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise MeasurementsError(f"{where}: expected measurements of schema {SCHEMA}, found {seen!r}")
    faults = [
        f"{where}: {name}: expected {expected}, found {type(document.get(name)).__name__}"
        for name, kind, expected in (
            ("environment", dict, "an object"),
            ("tables", dict, "an object of tables"),
            ("settings", (dict, type(None)), "an object"),
            ("warnings", (list, type(None)), "a list"),
            ("devices", (dict, type(None)), "an object"),
        )
        if not isinstance(document.get(name), kind)
    ]
    tables = _object(document.get("tables"))
    faults += [f"{where}: {fault}" for fault in table_faults(tables)]
    devices: dict[str, Device] = {}
    for name, entry in _object(document.get("devices")).items():
        try:
            devices[name] = _device(entry)
        except (TypeError, ValueError, AttributeError) as fault:
            faults.append(f"{where}: devices.{name}: {fault}")
    if faults:
        raise MeasurementsError("\n".join(faults))
    return Measurements(
        environment=document["environment"],
        settings=document.get("settings") or {},
        tables={name: tuple(rows) for name, rows in tables.items()},
        warnings=tuple(document.get("warnings") or ()),
        devices=devices,
        complete=bool(document.get("complete")),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _device(entry: Mapping[str, Any]) -> Device:
    """A stand-in from its JSON object; numbers must be numbers, because a fit divides by them."""
    words = {name: str(entry[name]) for name in ("key", "generation", "vendor") if name in entry}
    rates = {str(dtype): float(rate) for dtype, rate in entry.get("flop_per_s", {}).items()}
    known = {"flop_per_s", "kind", *words}
    return Device(**words, flop_per_s=rates, **{n: float(v) for n, v in entry.items() if n not in known})


def table_faults(tables: Mapping[str, Any]) -> list[str]:
    """Every fault in the rows of ``tables``: table, row, column, the value seen and what was expected."""
    faults: list[str] = []
    for name, rows in tables.items():
        if name not in TABLES:
            near = difflib.get_close_matches(name, TABLES, 1)
            hint = f"; nearest is {near[0]!r}" if near else ""
            faults.append(f"tables.{name}: not one of {', '.join(TABLES)}{hint}")
        elif not isinstance(rows, list):
            faults.append(f"tables.{name}: expected a list of rows, found {type(rows).__name__}")
        else:
            for number, row in enumerate(rows):
                faults += [f"tables.{name}[{number}]{fault}" for fault in _row_faults(row, TABLES[name])]
    return faults


def _row_faults(row: Any, expected: Iterable[Column]) -> list[str]:
    if not isinstance(row, dict):
        return [f": expected an object, found {type(row).__name__}"]
    faults = []
    for column in expected:
        value = row.get(column.name)
        if column.kind == "optional":
            continue
        if value is None:
            faults.append(f".{column.name}: missing ({column.meaning})")
        elif column.kind == "text":
            if not isinstance(value, str) or not value:
                faults.append(f".{column.name}: expected text ({column.meaning}), found {value!r}")
        elif not _is_positive(value) or (column.kind == "count" and value != int(value)):
            what = "a positive whole number" if column.kind == "count" else "a positive number"
            faults.append(f".{column.name}: expected {what} ({column.meaning}), found {value!r}")
    bounds: list[Any] = [row.get(name) for name in ("low_us", "time_us", "high_us")]
    if all(map(_is_positive, bounds)) and bounds != sorted(bounds):
        faults.append(f": expected low_us <= time_us <= high_us, found {bounds}")
    return faults


def _is_positive(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
