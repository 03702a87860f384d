"""``rackcast sweep``: one scenario, some values varied, every point run; resumable, on one machine or a Ray cluster."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import Json, ScenarioFile, Seed, Set, load_scenario, print_json, refuse
from app.cli.run import Report

if TYPE_CHECKING:
    from sim.planning.sweep.axes import Axis, Settings
    from sim.planning.sweep.executors import Executor
    from sim.spec.scenario import Scenario

Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary", metavar="PATH=A,B,C|LO:HI:STEP", help="Values one path takes; repeatable: a grid."
    ),
]
Sample = Annotated[
    tuple[int, str] | None,
    typer.Option(
        "--sample",
        metavar="N METHOD",
        help="N points spread over all axes instead of the grid: latin-hypercube, sobol or random.",
    ),
]
Sensitivity = Annotated[
    str | None,
    typer.Option(
        "--sensitivity",
        metavar="tornado|rank|sobol-indices",
        help="Which inputs move the answer most; rank and sobol-indices go with --sample.",
    ),
]
ExecutorName = Annotated[
    str, typer.Option("--executor", metavar="local|ray", help="Who works the points out.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes; as many as cores by default.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for table.csv, table.parquet and the store.")]
StoreFile = Annotated[
    Path | None,
    typer.Option("--store", help="SQLite file of finished points; shared by any number of sweeps."),
]
Metric = Annotated[str, typer.Option("--metric", help="The figure that a sensitivity is of.")]

SENSITIVITIES = ("tornado", "rank", "sobol-indices")


def sweep(
    scenario: ScenarioFile,
    vary: Vary = None,
    sample: Sample = None,
    sensitivity: Sensitivity = None,
    metric: Metric = "step_time_s",
    executor: ExecutorName = "local",
    jobs: Jobs = None,
    out: Out = None,
    store: StoreFile = None,
    set_: Set = None,
    seed: Seed = None,
    json: Json = False,
    report: Report = None,
) -> None:
    """Run a scenario at many points; finished ones are kept and not run again."""
    from app.cli.run import write_text
    from app.report import sweep as faces
    from sim.planning.store import Store, StoreError
    from sim.planning.sweep.points import FUNCTION, point
    from sim.planning.sweep.run import run_points
    from sim.planning.sweep.tables import table, write

    base = load_scenario(scenario, set_, seed)
    axes, points = _points(base, vary or [], sample, sensitivity, metric)
    changes = [*(set_ or []), *([f"seed={seed}"] if seed is not None else [])]
    text, where = scenario.read_text(encoding="utf-8"), str(scenario)
    asked = [point(text, where, changes, settings) for settings in points]
    worker = _executor(executor, jobs, len(asked))
    file = store or (out or Path("out")) / "points.sqlite"
    try:
        with Store(file) as kept, _progress(file) as progress:
            answers = run_points(asked, FUNCTION, kept, worker, progress)
        rows = table(points, answers)
        written = write(rows, out) if out is not None else []
    except StoreError as fault:
        refuse(str(fault))
    except OSError as fault:
        refuse(
            f"{fault.filename or out}: cannot be written: {fault.strerror or fault}; the points are kept in {file}"
        )
    document: dict[str, Any] = {"scenario": base.name, "hash": base.content_hash, "rows": rows}
    if sensitivity is not None:
        document["sensitivity"] = _sensitivity(sensitivity, axes, rows, metric, base.seed)
    if json:
        print_json(document)
    else:
        faces.print_sweep(document)
        for path in [file, *written]:
            typer.echo(f"written: {path}", err=True)
    if report is not None:
        write_text(report, faces.sweep_report(document), "" if json else "report")


def _points(
    base: Scenario, vary: list[str], sample: tuple[int, str] | None, sensitivity: str | None, metric: str
) -> tuple[list[Axis], list[Settings]]:
    """The axes and the points, or one refusal with every fault of the options."""
    from sim.planning import sensitivity as study
    from sim.planning.sweep import axes as ax
    from sim.planning.sweep.points import FIGURES
    from sim.spec.faults import Fault, ScenarioError

    faults = []
    if not vary:
        faults.append(Fault("--vary", "", None, "is required: at least one PATH=A,B,C or PATH=LO:HI:STEP"))
    if sample is not None and (sample[1] not in ax.SAMPLERS or not 1 <= sample[0] <= ax.MAX_POINTS):
        wanted = f"1 to {ax.MAX_POINTS:,} points and one of {', '.join(ax.SAMPLERS)}"
        faults.append(Fault("--sample", "", f"{sample[0]} {sample[1]}", f"expected {wanted}"))
    if sensitivity is not None and sensitivity not in SENSITIVITIES:
        faults.append(Fault("--sensitivity", "", sensitivity, f"expected one of {', '.join(SENSITIVITIES)}"))
    if sensitivity is not None and metric not in FIGURES:
        faults.append(Fault("--metric", "", metric, f"expected one of {', '.join(FIGURES)}"))
    if sensitivity in ("rank", "sobol-indices") and sample is None:
        faults.append(Fault("--sensitivity", "", sensitivity, "needs --sample N METHOD"))
    try:
        found = ax.parse_axes(vary, ranges=sample is not None or sensitivity == "tornado")
    except ScenarioError as error:
        faults += error.faults
        found = []
    if faults:
        refuse(f"{ScenarioError(faults)}\n{len(faults)} fault{'s' * (len(faults) > 1)}: nothing was run")
    try:
        if sensitivity == "tornado":
            return found, study.tornado_points(found)
        if sensitivity == "sobol-indices" and sample is not None:
            return found, study.saltelli_points(found, sample[0], base.seed)
        if sample is not None:
            return found, ax.sample(found, sample[0], sample[1], base.seed)
        return found, ax.grid(found)
    except ScenarioError as error:
        refuse(f"{error}\n1 fault: nothing was run")


def _sensitivity(
    kind: str, axes: list[Axis], rows: list[dict[str, Any]], metric: str, seed: int
) -> dict[str, Any]:
    from sim.planning import sensitivity as study

    if kind == "tornado":
        return {"kind": kind, "metric": metric, "inputs": study.tornado(axes, rows, metric)}
    if kind == "rank":
        return {"kind": kind, "metric": metric, "inputs": study.rank_correlations(axes, rows, metric)}
    return {"kind": kind, "metric": metric} | study.sobol_indices(axes, rows, metric, seed)


def _executor(name: str, jobs: int | None, points: int) -> Executor:
    from sim.planning.sweep.executors import ExecutorError, local, ray_cluster

    if name == "local":
        return local(min(jobs or os.cpu_count() or 1, points))
    if name != "ray":
        refuse(f"--executor = {name!r}: expected local or ray")
    try:
        return ray_cluster(jobs)
    except ExecutorError as error:
        refuse(str(error))


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int, int, int], None] | None]:
    """Tell progress with the time left on standard error where that is a terminal; say what Ctrl-C leaves behind."""
    begin, shown, state = time.monotonic(), [0.0], [0, 0, 0]
    terminal = sys.stderr.isatty()

    def tell(known: int, now: int, total: int) -> None:
        state[:] = known, now, total
        since = time.monotonic() - begin
        if not terminal or since < 1 or (since - shown[0] < 0.2 and known + now < total):
            return
        shown[0] = since
        left = since / now * (total - known - now) if now else 0.0
        words = f"{known + now:,} of {total:,} points ({known:,} known before), about {left:,.0f} s left"
        sys.stderr.write(f"\r{words}\x1b[K" + ("\n" if known + now == total else ""))
        sys.stderr.flush()

    try:
        yield tell
    except KeyboardInterrupt:
        known, now, total = state
        sys.stderr.write(
            f"\n{known + now:,} of {total:,} points are in {file}: the same command goes on from there\n"
        )
        raise
