"""``rackcast tune``: search the parallel plans of a training job; best, Pareto front, near misses, launch arguments."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.common import INFEASIBLE, Json, ScenarioFile, Seed, Set, load_scenario, print_json, refuse
from app.cli.run import Report

Objective = Annotated[
    str,
    typer.Option(
        "--objective", metavar="step_time|tokens_per_s_per_device|memory", help="What to make best."
    ),
]
Top = Annotated[int, typer.Option("--top", min=1, max=1000, help="Plans shown; each is simulated.")]
Nodes = Annotated[
    str | None, typer.Option("--nodes", metavar="A,B,C", help="Also search these cluster sizes.")
]
Batches = Annotated[
    str | None,
    typer.Option(
        "--global-batch", metavar="A,B,C", help="Also search these batches, at the same tokens in all."
    ),
]
Export = Annotated[
    str | None,
    typer.Option(
        "--export",
        metavar="megatron|torchrun|deepspeed",
        help="Print the best plan for a framework, alone on standard output.",
    ),
]


def tune(
    scenario: ScenarioFile,
    objective: Objective = "step_time",
    top: Top = 10,
    nodes: Nodes = None,
    global_batch: Batches = None,
    export: Export = None,
    set_: Set = None,
    seed: Seed = None,
    json: Json = False,
    report: Report = None,
) -> None:
    """Search every legal plan: timed by the closed form, the best simulated; the simulation stands."""
    from shlex import quote

    from app.cli.run import write_text
    from app.report import tune as faces
    from sim.planning.launch_arguments import FRAMEWORKS, launch
    from sim.planning.tune import OBJECTIVES, NoPlanError
    from sim.planning.tune import tune as search
    from sim.spec.faults import Fault, ScenarioError
    from sim.spec.profile import ProfileError
    from sim.spec.profiles import fits_for

    faults = []
    if objective not in OBJECTIVES:
        faults.append(Fault("--objective", "", objective, f"expected one of {', '.join(OBJECTIVES)}"))
    if export is not None and export not in FRAMEWORKS:
        faults.append(Fault("--export", "", export, f"expected one of {', '.join(FRAMEWORKS)}"))
    sizes, batches = (
        _whole(name, text, faults) for name, text in (("--nodes", nodes), ("--global-batch", global_batch))
    )
    if faults:
        refuse(f"{ScenarioError(faults)}\n{len(faults)} fault{'s' * (len(faults) > 1)}: nothing was run")
    resolved = load_scenario(scenario, set_, seed)
    try:
        found = search(resolved, fits_for(resolved.profile), objective, top, sizes, batches)
    except NoPlanError as error:
        refuse(f"{scenario}: {error}")
    except ProfileError as error:
        refuse(str(error))
    document: dict[str, Any] = {"scenario": resolved.name, "hash": resolved.content_hash, **found}
    best = [*(set_ or []), *found["plans"][0]["set"]] if found["plans"] else []
    if found["plans"]:
        document["command"] = " ".join(
            [
                "rackcast run",
                quote(str(scenario)),
                *(f"--set {quote(one)}" for one in best),
                *([] if seed is None else [f"--seed {seed}"]),
            ]
        )
    if found["plans"] and export is not None:
        content, missing = launch(load_scenario(scenario, best, seed), export)
        document["export"] = {"framework": export, "content": content, "missing": missing}
    if json:
        print_json(document)
    else:
        faces.print_tuning(document)
    if report is not None:
        write_text(report, faces.tuning_report(document), "" if json or export else "report")
    if not found["plans"]:
        raise typer.Exit(INFEASIBLE)


def _whole(name: str, text: str | None, faults: list[Any]) -> list[int]:
    """Whole numbers above 0 from ``A,B,C``."""
    from sim.spec.faults import Fault

    if text is None:
        return []
    numbers = [int(part) if part.strip().isdigit() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        faults.append(Fault(name, "", text, "expected whole numbers above 0 between commas"))
    return numbers
