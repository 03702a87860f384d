"""``rackcast run``: simulate whatever the scenario describes and say how long, why, and from which sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import (
    INFEASIBLE,
    Json,
    ScenarioFile,
    Seed,
    Set,
    load_scenario,
    print_json,
    progress,
    refuse,
)

if TYPE_CHECKING:
    from sim.spec.scenario import Scenario

Report = Annotated[
    Path | None, typer.Option("--report", help="Also write an HTML report that opens offline.")
]

Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace", help="Also write the timeline as a trace for ui.perfetto.dev or chrome://tracing."
    ),
]

Suggestions = Annotated[
    bool,
    typer.Option(
        "--suggestions/--no-suggestions",
        help="Also run the step with other plans and better inputs: what gains, and what matters most.",
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Worker processes for replications of a cluster.")]
Log = Annotated[
    Path | None,
    typer.Option("--log", help="Also write the first replication's event log (.parquet or .csv), or .swf."),
]


def run(
    scenario: ScenarioFile,
    set_: Set = None,
    json: Json = False,
    seed: Seed = None,
    report: Report = None,
    trace: Trace = None,
    suggestions: Suggestions = True,
    jobs: Jobs = 1,
    log: Log = None,
) -> None:
    """Predict a training step ([training]) or simulate a cluster of many jobs ([jobs])."""
    resolved = load_scenario(scenario, set_, seed)
    if log is not None and log.suffix not in (".parquet", ".csv", ".swf"):
        refuse(f"--log {log}: expected a name that ends in .parquet, .csv, .swf")
    if resolved.jobs is not None:
        _cluster(resolved, scenario, json, report, trace, jobs, log)
    elif resolved.training is not None:
        if log is not None:
            refuse("--log: the event log is that of a cluster ([jobs]); a step has --trace")
        _step(resolved, json, report, trace, suggestions)
    else:
        refuse(f"{scenario}: has neither [training] nor [jobs]; rackcast plan answers [demand]")


def _step(resolved: Scenario, json: bool, report: Path | None, trace: Path | None, suggestions: bool) -> None:
    from json import dumps

    from app.report import html, terminal
    from sim import run as simulate
    from sim.collection import without_collection
    from sim.planning.plans.search import NoPlanError
    from sim.results.chrome_trace import chrome_trace
    from sim.results.step_tables import step_document
    from sim.spec.profile import ProfileError
    from sim.spec.profiles import fits_for
    from sim.training.explain import explain

    with without_collection():
        try:
            result = simulate(resolved)
        except (ProfileError, NoPlanError) as error:
            refuse(str(error))
        document = step_document(result) | explain(result, fits_for(resolved.profile), again=suggestions)
    if json:
        print_json(document)
    else:
        terminal.print_step(document)
    if report is not None:
        write_text(report, html.step_report(document, result.timeline), "" if json else "report")
    if trace is not None:
        write_text(trace, dumps(chrome_trace(result.timeline, resolved.name)), "" if json else "trace")
    if not document["memory"]["fits"]:
        raise typer.Exit(INFEASIBLE)


def _cluster(
    resolved: Scenario,
    file: Path,
    json: bool,
    report: Path | None,
    trace: Path | None,
    workers: int,
    log: Path | None,
) -> None:
    from json import dumps

    from app.report import cluster_html, cluster_terminal
    from sim import watch
    from sim.cluster.board import TraceError
    from sim.cluster.policy import PolicyError
    from sim.cluster.tables import cluster_document
    from sim.results.cluster_export import chrome_trace, event_log
    from sim.spec.faults import ScenarioError

    try:
        with progress("replications") as told:
            study = watch(resolved, file.parent, workers=workers, told=told)
    except (ScenarioError, PolicyError, TraceError) as error:
        refuse(str(error))
    document: dict[str, Any] = cluster_document(study)
    if json:
        print_json(document)
    else:
        cluster_terminal.print_cluster(document)
    if report is not None:
        write_text(report, cluster_html.cluster_report(document), "" if json else "report")
    if trace is not None:
        write_text(trace, dumps(chrome_trace(study.log, resolved.name)), "" if json else "trace")
    if log is not None:
        write_text(log, event_log(study.log, log.suffix), "" if json else "log")


def write_text(file: Path, content: str | bytes, label: str) -> None:
    """Write ``content`` whole or not at all, making folders as needed; say so under ``label`` if there is one."""
    from sim.results.files import write_files

    try:
        write_files({file: content.encode("utf-8") if isinstance(content, str) else content})
    except OSError as error:
        refuse(f"{file}: cannot be written: {error.strerror}")
    if label:
        typer.echo(f"{label}: {file}")
