"""The verbs of ``rackcast calibrate`` beside measuring and fitting: a belt of tools hung on the same hook."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli import calibrate_report
from app.cli.common import Json, print_json, refuse


def add_to(app: typer.Typer) -> None:
    """Hang the verbs on ``rackcast calibrate``."""
    app.command("report")(calibrate_report.report)
    app.command("screen")(screen)
    app.command("bundle")(bundle)
    app.command("trace")(trace)


def screen(
    out: Annotated[Path, typer.Option(help="Measurement file of the node.")] = Path("node.json"),
    devices: Annotated[str, typer.Option(help="torch devices, e.g. cuda:0,cuda:3; default: every GPU.")] = "",
    budget: Annotated[str, typer.Option(help="Time for measuring each device.")] = "20s",
    timeout: Annotated[str, typer.Option(help="A device that takes longer is killed.")] = "2m",
    hostname: Annotated[bool, typer.Option("--hostname", help="Record this host's name.")] = False,
) -> None:
    """Probe each device of this node in a process of its own that can be killed; exit code 1 where one fails."""
    from calibrate.tools import screen_here

    raise typer.Exit(screen_here(out, devices, budget, timeout, hostname=hostname))


def bundle(
    out: Annotated[Path, typer.Option(help="The one file.")] = Path("rackcast-calibrate.pyz"),
) -> None:
    """Pack the measuring tool into one file for nodes with Python, torch and numpy alone."""
    from calibrate.bundle import bundle as pack

    try:
        modules = pack(out)
    except OSError as fault:
        refuse(f"cannot write {out}: {fault.strerror or fault}")
    typer.echo(f"{out}: {len(modules)} modules, {out.stat().st_size / 1e3:.0f} kB", err=True)


def trace(
    target: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", show_default=False)],
    out: Annotated[Path, typer.Option(help="Workload file (TOML).")] = Path("workload.toml"),
    json_: Json = False,
) -> None:
    """Record the kernels of a torch model on the meta device; FUNCTION returns (module, example inputs)."""
    import sys

    from calibrate.environment import TorchMissingError
    from calibrate.measurements import write_text
    from calibrate.trace import TraceError, load_target, summary, to_toml
    from calibrate.trace import trace as record

    sys.path.insert(0, str(Path.cwd()))  # a model's own file lies where the command is called
    try:
        traced = record(load_target(target), target)
        write_text(out, to_toml(traced, target))
    except (TraceError, TorchMissingError) as fault:
        refuse(str(fault))
    except OSError as fault:
        refuse(f"cannot write {out}: {fault.strerror or fault}")
    finally:
        sys.path.remove(str(Path.cwd()))
    if json_:
        print_json({**summary(traced), "written": str(out)})
    else:
        typer.echo(f"{out}: {traced.parameters:,} parameters, {traced.flop:.4g} FLOP a forward pass")
