"""``rackcast run``: simulate what the scenario describes and say how long, why, and from which sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import INFEASIBLE, Json, ScenarioFile, Seed, Set, load_scenario, print_json, refuse

Report = Annotated[
    Path | None, typer.Option("--report", help="Also write an HTML report that opens offline.")
]


def run(
    scenario: ScenarioFile, set_: Set = None, json: Json = False, seed: Seed = None, report: Report = None
) -> None:
    """Predict one training step: time, memory, breakdown, and measured beside predicted."""
    from app.report import html, terminal
    from sim import run as simulate
    from sim.results.step_tables import step_document
    from sim.spec.profile import ProfileError

    resolved = load_scenario(scenario, set_, seed)
    try:
        result = simulate(resolved)
    except ProfileError as error:
        refuse(str(error))
    document = step_document(result)
    if json:
        print_json(document)
    else:
        terminal.print_step(document)
    if report is not None:
        try:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(html.step_report(document, result.timeline), encoding="utf-8")
        except OSError as error:
            refuse(f"{report}: cannot be written: {error.strerror}")
        if not json:
            typer.echo(f"report: {report}")
    if not document["memory"]["fits"]:
        raise typer.Exit(INFEASIBLE)
