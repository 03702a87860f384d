"""``rackcast compare``: scenarios side by side, with paired intervals of their differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import INFEASIBLE, Json, Seed, Set, load_scenario, print_json, progress, refuse
from app.cli.run import Jobs, Report

if TYPE_CHECKING:
    from sim.spec.scenario import Scenario

Files = Annotated[
    list[Path],
    typer.Argument(
        help="Scenario files; a single one is compared with itself as --set-b changes it.", show_default=False
    ),
]
SetA = Annotated[
    list[str] | None, typer.Option("--set-a", metavar="PATH=VALUE", help="Change the first; repeatable.")
]
SetB = Annotated[
    list[str] | None, typer.Option("--set-b", metavar="PATH=VALUE", help="Change the second; repeatable.")
]


MOST = 9
"""Columns that a reader still compares."""


def compare(
    scenarios: Files,
    set_a: SetA = None,
    set_b: SetB = None,
    set_: Set = None,
    seed: Seed = None,
    json: Json = False,
    report: Report = None,
    jobs: Jobs = 1,
) -> None:
    """Run two or more scenarios and tell every one against the first."""
    from app.cli.run import write_text
    from app.report import compare as faces
    from sim import run as simulate
    from sim.planning.compare import compare as side_by_side
    from sim.planning.tune import NoPlanError
    from sim.spec.profile import ProfileError
    from sim.spec.profiles import fits_for
    from sim.training.interval import step_interval

    if len(scenarios) > MOST:
        refuse(
            f"compare: {len(scenarios)} scenarios: expected at most {MOST} side by side; a sweep takes more"
        )
    files = [scenarios[0], scenarios[0]] if len(scenarios) == 1 else scenarios
    if len(scenarios) == 1 and not (set_a or set_b):
        refuse("compare: one scenario and nothing changed: expected a second file, --set-a or --set-b")
    own = [set_a or [], set_b or [], *([] for _ in files[2:])]
    loaded = [
        load_scenario(file, [*(set_ or []), *mine], seed) for file, mine in zip(files, own, strict=True)
    ]
    clusters = [one.jobs is not None for one in loaded]
    if all(clusters):
        _clusters(loaded, files, json, report, jobs)
        return
    if any(clusters):
        refuse(
            "compare: some scenarios have [jobs] and some do not: a cluster and a step have no answer in common"
        )
    plans = [one.demand is not None for one in loaded]
    if all(plans):
        _plans(loaded, files, json, report)
        return
    if any(plans):
        refuse("compare: some scenarios have [demand] and some do not: there is no answer in common")
    try:
        results = [simulate(one) for one in loaded]
        intervals = [step_interval(one, fits_for(one.scenario.profile)) for one in results]
    except (ProfileError, NoPlanError) as error:
        refuse(str(error))
    document: dict[str, Any] = side_by_side(results, intervals)
    if json:
        print_json(document)
    else:
        faces.print_comparison(document)
    if report is not None:
        write_text(report, faces.comparison_report(document), "" if json else "report")
    if all(one["outcome"] == "does not fit" for one in document["outcomes"]):
        raise typer.Exit(INFEASIBLE)


def _clusters(
    loaded: list[Scenario], files: list[Path], json: bool, report: Path | None, workers: int
) -> None:
    from app.cli.run import write_text
    from app.report import cluster_compare as faces
    from app.report.compare import letters
    from sim import watch
    from sim.cluster.engine import TraceError
    from sim.cluster.policy import PolicyError
    from sim.planning.compare_clusters import compare_clusters
    from sim.spec.faults import ScenarioError

    studies = []
    try:
        for letter, one, file in zip(letters(len(loaded)), loaded, files, strict=True):
            with progress(f"{letter}, replications") as told:
                studies.append(watch(one, file.parent, workers=workers, told=told))
    except (ScenarioError, PolicyError, TraceError) as error:
        refuse(str(error))
    document = compare_clusters(studies)
    if json:
        print_json(document)
    else:
        faces.print_cluster_comparison(document)
    if report is not None:
        write_text(report, faces.cluster_comparison_report(document), "" if json else "report")


def _plans(loaded: list[Scenario], files: list[Path], json: bool, report: Path | None) -> None:
    from app.cli.run import write_text
    from app.report.plan_compare import plan_comparison_report, print_plans
    from sim.planning.compare_plans import compare_plans
    from sim.spec.faults import ScenarioError

    try:
        document = compare_plans(loaded, [file.parent for file in files])
    except ScenarioError as error:
        refuse(str(error))
    if json:
        print_json(document)
    else:
        print_plans(document)
    if report is not None:
        write_text(report, plan_comparison_report(document), "" if json else "report")
    if all(one["outcome"] == "does not fit" for one in document["outcomes"]):
        raise typer.Exit(INFEASIBLE)
