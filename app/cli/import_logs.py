"""Logs of other measuring tools become measurement files: the half of ``rackcast import`` that feeds calibration.

A kind is a line in :data:`KINDS`; the readers themselves are in ``calibrate.importers``.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.cli.common import BAD_INPUT, print_json, refuse

if TYPE_CHECKING:
    from calibrate.importers.common import Hints, Imported
    from calibrate.measurements import Measurements

KINDS: Mapping[str, str] = {
    "nccl-tests": "nccl_tests",
    "rccl-tests": "nccl_tests",
    "superbench": "superbench",
    "mlperf-log": "mlperf_log",
    "torch-profiler": "torch_profiler",
}
"""Kind -> module of ``calibrate.importers`` with ``read(text, path, hints)``."""

HINTS = ("gpu", "gpus", "nodes", "system", "fabric", "collective")
"""Options that say what a log leaves unsaid, as in :class:`calibrate.importers.common.Hints`."""


def import_logs(kind: str, files: Sequence[Path], out: Path | None, hints: Hints, *, as_json: bool) -> None:
    """Turn logs into measurement files; a log that cannot be used is named with its reason, the others are kept.

    ``out``: a .json file that takes everything, or a folder for one file a node or run; None = only report.
    """
    from calibrate.measurements import MeasurementsError

    found, refused = read_logs(kind, files, hints)
    try:
        written = write_imports(found, out) if out is not None else []
    except (MeasurementsError, OSError) as fault:
        refuse(f"cannot write {out}: {fault}")
    for one in found:
        for note in one.measurements.warnings:
            sys.stderr.write(f"note: {one.name}: {note}\n")
    for reason in refused:
        sys.stderr.write(f"{reason}\n")
    rows = [{"name": one.name, **{t: len(r) for t, r in one.measurements.tables.items()}} for one in found]
    if as_json:
        names = [str(path) for path in written]
        print_json({"kind": kind, "imported": rows, "refused": refused, "written": names})
    else:
        for row in rows:
            counts = ", ".join(f"{count} rows of {table}" for table, count in row.items() if table != "name")
            sys.stdout.write(f"{row['name']}: {counts or 'no rows'}\n")
        for path in written:
            sys.stdout.write(f"wrote {path}\n")
    if refused:
        raise typer.Exit(BAD_INPUT)


def read_logs(kind: str, files: Sequence[Path], hints: Hints) -> tuple[list[Imported], list[str]]:
    """What the logs held, and one line for each that cannot be used."""
    from calibrate.importers.common import LogError

    read: Callable[..., Imported | list[Imported]] = importlib.import_module(
        f"calibrate.importers.{KINDS[kind]}"
    ).read
    found: list[Imported] = []
    refused: list[str] = []
    for path in files:
        try:
            answer = read(_text(path), path, hints)
        except LogError as fault:
            refused.append(str(fault))
        except (OSError, EOFError, zlib.error) as fault:
            refused.append(f"{path}: cannot be read ({getattr(fault, 'strerror', '') or fault})")
        else:
            found += answer if isinstance(answer, list) else [answer]
    return found, refused


def _text(path: Path) -> str:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8", errors="replace")


def write_imports(found: Sequence[Imported], out: Path) -> list[Path]:
    """Write measurement files (and published.csv where there are such rows); the paths written."""
    from calibrate.measurements import save, write_text
    from calibrate.merge import merged

    parts = _named(found)
    written = []
    if out.suffix == ".json":
        if parts:
            save(merged(parts, must_agree=(), where=str(out)), out)
            written.append(out)
    else:
        for name, measurements in parts.items():
            path = out / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.json"
            save(measurements, path)
            written.append(path)
    published = [row for one in found for row in one.published]
    if published:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(published[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(published)
        path = (out.parent if out.suffix == ".json" else out) / "published.csv"
        write_text(path, text.getvalue())
        written.append(path)
    return written


def _named(found: Sequence[Imported]) -> dict[str, Measurements]:
    """Measurements by name; a name that comes twice gets a number."""
    parts: dict[str, Measurements] = {}
    for one in found:
        name, number = one.name, 2
        while name in parts:
            name, number = f"{one.name}-{number}", number + 1
        if any(one.measurements.tables.values()):
            parts[name] = one.measurements
    return parts
