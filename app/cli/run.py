"""``rackcast run``: simulate what the scenario describes and say how long, why, and from which sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import INFEASIBLE, Json, ScenarioFile, Seed, Set, load_scenario, print_json, refuse

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


def run(
    scenario: ScenarioFile,
    set_: Set = None,
    json: Json = False,
    seed: Seed = None,
    report: Report = None,
    trace: Trace = None,
    suggestions: Suggestions = True,
) -> None:
    """Predict one training step: time, memory, breakdown, and measured beside predicted."""
    from json import dumps

    from app.report import html, terminal
    from sim import run as simulate
    from sim.planning.plans.search import NoPlanError
    from sim.results.chrome_trace import chrome_trace
    from sim.results.step_tables import step_document
    from sim.spec.profile import ProfileError
    from sim.spec.profiles import fits_for
    from sim.training.explain import explain

    resolved = load_scenario(scenario, set_, seed)
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


def write_text(file: Path, text: str, label: str) -> None:
    """Write ``text``, making folders as needed, and say so under ``label`` if there is one."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        refuse(f"{file}: cannot be written: {error.strerror}")
    if label:
        typer.echo(f"{label}: {file}")
