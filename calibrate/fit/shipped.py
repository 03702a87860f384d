"""The profiles that ship: fitted from the tables in the repository by one command that anyone can run again.

Also the two ways in which a table's rows are predicted for a validation: by given fits, and by fits that have not
seen the row (its shape, or its whole system).
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.fit import collective_observations, collectives
from sim.spec.device import Device
from sim.spec.profile import Fit, Profile, to_json

KERNELS = ("gemm", "attention", "memory_bound", "moe")
TABLES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("gemm", "gemm_measured"),
    "attention": ("attention", "attention_measured"),
    "memory_bound": ("memory_measured",),
    "moe": ("moe_kernel",),
    "collectives": ("collectives",),
}
"""Kind of fit -> tables in scenarios/measurements it reads."""

Columns = dict[str, Any]


def predict_kernels(fits: Sequence[Fit]) -> Callable[[str, Columns, dict[str, Device]], Any]:
    """A predictor of kernel rows from given fits: (kind, columns, devices) -> seconds."""
    return lambda kind, columns, devices: _module(kind).predict(fits, columns, devices)


def cross_validate_kernels(folds: int) -> Callable[[str, Columns, dict[str, Device]], Any]:
    """A predictor whose fits have not seen the row's shape, in ``folds`` folds."""
    return lambda kind, columns, devices: _module(kind).cross_validate(columns, devices, folds)


def predict_collectives(
    fits: Sequence[Fit], devices: Mapping[str, Device]
) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """A predictor of collective rows from given fits: rows -> (seconds, reasons why not)."""
    return lambda rows: _collectives(rows, devices, lambda seen: collectives.predict(fits, seen))


def leave_out_collectives(devices: Mapping[str, Device]) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """A predictor whose fits have not seen the row's system."""
    return lambda rows: _collectives(
        rows, devices, lambda seen: collectives.cross_validate(seen, by="system")
    )


def fit_shipped(
    folder: Path, out: Path, devices: Mapping[str, Device], tell: Callable[[str], None]
) -> list[Path]:
    """Fit every table under ``folder`` and write one profile a generation (and one for what all share) to ``out``.

    ``devices`` maps every name used in a ``gpu`` column to its datasheet; ``tell`` hears about progress.
    """
    fits: list[Fit] = []
    for kind, names in TABLES.items():
        paths = [folder / f"{name}.csv.gz" for name in names]
        tell(f"fitting {kind} from {', '.join(path.name for path in paths)}")
        fits += _fit(kind, paths, devices)
    written = []
    for generation, part in _by_generation(fits, devices).items():
        profile = Profile(
            generation,
            tuple(part),
            {
                "command": "rackcast calibrate fit --shipped",
                "data": "scenarios/measurements",
                "fits": len(part),
            },
        )
        path = out / f"{generation}.json"
        path.write_text(to_json(profile), encoding="utf-8")
        written.append(path)
    return written


def read_columns(path: Path) -> Columns:
    """A CSV table (plain or .gz) as column arrays; columns of numbers are floats, empty cells NaN or ''."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: _column([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _column(cells: list[str]) -> Any:
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells, dtype=object)


def _module(kind: str) -> Any:
    return import_module(f"calibrate.fit.{kind}")


def join(tables: Sequence[Columns]) -> Columns:
    """Tables one below the other; a column that one lacks is '' or NaN there."""
    names = list(dict.fromkeys(name for table in tables for name in table))
    joined = {}
    for name in names:
        text = any(name in table and table[name].dtype == object for table in tables)
        empty: Any = "" if text else np.nan
        parts = [
            table.get(name, np.full(_length(table), empty, dtype=object if text else float))
            for table in tables
        ]
        joined[name] = np.concatenate([part.astype(object) for part in parts] if text else parts)
    return joined


def _length(table: Columns) -> int:
    return len(next(iter(table.values())))


def _fit(kind: str, paths: Sequence[Path], devices: Mapping[str, Device]) -> list[Fit]:
    source = f"fitted to scenarios/measurements/{', '.join(path.name for path in paths)}"
    columns = join([read_columns(path) for path in paths])
    if kind == "collectives":
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        found = [collective_observations.observation(row, devices) for row in rows]
        return collectives.fit_with_errors([item for item in found if not isinstance(item, str)], source)
    known = np.array([str(gpu) in devices for gpu in columns["gpu"]])
    columns = {name: values[known] for name, values in columns.items()}
    return list(_module(kind).fit(columns, devices, source))


def _collectives(
    rows: Sequence[Mapping[str, Any]], devices: Mapping[str, Device], predict: Callable[[Sequence[Any]], Any]
) -> tuple[Any, list[str]]:
    found = [collective_observations.observation(row, devices) for row in rows]
    usable = [place for place, item in enumerate(found) if not isinstance(item, str)]
    seconds = np.full(len(rows), np.nan)
    if usable:
        seconds[usable] = predict([found[place] for place in usable])
    return seconds, [item if isinstance(item, str) else "" for item in found]


def _by_generation(fits: Iterable[Fit], devices: Mapping[str, Device]) -> dict[str, list[Fit]]:
    generation_of = {device.key: device.generation for device in devices.values()}
    parts: dict[str, list[Fit]] = defaultdict(list)
    for fit in fits:
        own = fit.key.get("generation") or generation_of.get(fit.key.get("accelerator", ""), "shared")
        parts[own].append(fit)
    return dict(sorted(parts.items()))
