"""``rackcast plan``: choose among supplies for a demand, and write the report that goes before a board."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import INFEASIBLE, Json, ScenarioFile, Seed, Set, load_scenario, print_json, refuse

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for report.html, report.md, tables.xlsx, results.parquet, scenario.lock.toml."
    ),
]
Worlds = Annotated[int, typer.Option("--worlds", min=20, max=100_000, help="Draws of everything uncertain.")]


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being done, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading") as status:
        yield lambda words: status.update(words)


def plan(
    scenario: ScenarioFile,
    out: Out = None,
    set_: Set = None,
    json: Json = False,
    seed: Seed = None,
    worlds: Worlds = 400,
) -> None:
    """Choose what to buy, lease, reserve or rent: cost, dates, risks, and why not the others."""
    from app.report import plan_terminal
    from sim import plan as make
    from sim.spec.faults import ScenarioError

    resolved = load_scenario(scenario, set_, seed)
    if resolved.demand is None:
        refuse(f"{scenario}: has no [demand]: nothing to plan for (rackcast run answers its other sections)")
    try:
        with progress() as tell:
            made, document = make(resolved, worlds, scenario.parent, tell)
    except ScenarioError as error:
        refuse(str(error))
    if json:
        print_json(document)
    else:
        plan_terminal.print_plan(document)
    if out is not None:
        from app.report.plan_files import write
        from sim.spec.loader import document_of

        try:
            for path in write(
                out, document, made, document_of(scenario, set_ or []) | {"seed": resolved.seed}
            ):
                if not json:
                    typer.echo(f"wrote {path}")
        except OSError as error:
            refuse(f"{out}: cannot be written: {error.strerror or error}; nothing was changed there")
    if made.refused and len(made.evaluations) == 1:  # all that can be had is nothing
        raise typer.Exit(INFEASIBLE)
