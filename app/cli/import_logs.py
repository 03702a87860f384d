"""``rackcast calibrate import``: logs of other measuring tools become measurement files.

A kind is a line in :data:`KINDS`; the readers themselves are in ``calibrate.importers``.
"""

from __future__ import annotations

import csv
import importlib
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import BAD_INPUT, Json, print_json, refuse

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

Kind = Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.", show_default=False)]
Files = Annotated[list[Path], typer.Argument(help="Logs of that kind.", show_default=False)]
Out = Annotated[
    Path, typer.Option(help="A .json file that takes everything, or a folder for one file a node or run.")
]
Gpu = Annotated[str, typer.Option(help="Device, where the log does not name it.")]
Gpus = Annotated[
    int, typer.Option(min=0, help="Ranks or devices, where the log does not tell; 0: from the log.")
]
Nodes = Annotated[int, typer.Option(min=0, help="Nodes, where the log does not tell; 0: from the log.")]
System = Annotated[str, typer.Option(help="Name of the node or cluster in the rows.")]
Fabric = Annotated[str, typer.Option(help="nvlink, pcie, infiniband, roce, efa, ...")]
Collective = Annotated[str, typer.Option(help="Which collective a table is of, where it does not tell.")]


def import_logs(
    kind: Kind,
    files: Files,
    out: Out = Path(),
    gpu: Gpu = "",
    gpus: Gpus = 0,
    nodes: Nodes = 0,
    system: System = "",
    fabric: Fabric = "",
    collective: Collective = "",
    json_: Json = False,
) -> None:
    """Turn logs into measurement files; a log that cannot be used is named with its reason, the others are kept."""
    from calibrate.importers.common import Hints
    from calibrate.measurements import MeasurementsError

    if kind not in KINDS:
        refuse(f"kind = {kind!r}: expected one of {', '.join(KINDS)}{_nearest(kind)}")
    hints = Hints(gpu=gpu, system=system, fabric=fabric, collective=collective, gpus=gpus, nodes=nodes)
    found, refused = read_logs(kind, files, hints)
    try:
        written = write_imports(found, out)
    except (MeasurementsError, OSError) as fault:
        refuse(f"cannot write {out}: {fault}")
    for one in found:
        for note in one.measurements.warnings:
            sys.stderr.write(f"note: {one.name}: {note}\n")
    for reason in refused:
        sys.stderr.write(f"{reason}\n")
    if json_:
        rows = [
            {"name": one.name, **{t: len(r) for t, r in one.measurements.tables.items()}} for one in found
        ]
        print_json(
            {"kind": kind, "imported": rows, "refused": refused, "written": [str(path) for path in written]}
        )
    else:
        for path in written:
            sys.stdout.write(f"{path}\n")
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
            answer = read(path.read_text(encoding="utf-8", errors="replace"), path, hints)
        except LogError as fault:
            refused.append(str(fault))
        except OSError as fault:
            refused.append(f"{path}: cannot be read ({fault.strerror or fault})")
        else:
            found += answer if isinstance(answer, list) else [answer]
    return found, refused


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


def _nearest(kind: str) -> str:
    import difflib

    near = difflib.get_close_matches(kind, KINDS, 1)
    return f"; nearest is {near[0]!r}" if near else ""
