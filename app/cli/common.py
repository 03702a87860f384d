"""What the verbs share: options, exit codes, and how a refusal is told."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from sim.spec.device import Device
    from sim.spec.scenario import Scenario

BAD_INPUT, INFEASIBLE = 2, 3

ScenarioFile = Annotated[Path, typer.Argument(help="Scenario file (TOML).", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value, e.g. cluster.pools.0.nodes=64; repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Root of every random stream.")]


def refuse(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Tell on standard error what is wrong and leave."""
    sys.stderr.write(message.rstrip("\n") + "\n")
    raise typer.Exit(code)


def load_scenario(path: Path, overrides: list[str] | None, seed: int | None) -> Scenario:
    """Read a scenario, or refuse with every fault in it."""
    from sim.spec.faults import ScenarioError
    from sim.spec.loader import load

    changes = list(overrides or [])
    if seed is not None:
        changes.append(f"seed={seed}")
    try:
        return load(path, changes)
    except ScenarioError as error:
        count = len(error.faults)
        refuse(f"{error}\n{count} fault{'s' if count != 1 else ''}: nothing was run")


def named_devices() -> dict[str, Device]:
    """Datasheets of all accelerators by every name they go by."""
    from sim.spec.catalog import load_catalog

    return {name: entry.device() for name, entry in load_catalog().accelerator_names().items()}


def print_json(document: Any) -> None:
    """One document on standard output, keys in a fixed order."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


@contextmanager
def progress(noun: str) -> Iterator[Callable[[int, int], None]]:
    """A line on standard error with what is done of at most how much, where that is a terminal and the work has taken
    longer than a second; wiped at the end."""
    begin, terminal, shown = time.monotonic(), sys.stderr.isatty(), [False]

    def tell(done: int, most: int) -> None:
        if terminal and time.monotonic() - begin >= 1:
            shown[0] = True
            sys.stderr.write(f"\r{noun}: {done:,} done, {most:,} at most\x1b[K")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if shown[0]:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
