"""``rackcast calibrate``: measure this machine, and fit what was measured into a profile.

A thin front of the ``calibrate`` package, which also runs by itself (``python -m calibrate``). What it adds
is the catalogue, whose datasheets take the place of stand-ins for devices it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import named_devices, refuse
from app.cli.known_devices import catalogue_devices, shipped_fits
from app.cli.verify import verify_here

app = typer.Typer(help="Measure this machine; fit calibration profiles.", no_args_is_help=True)

Budget = Annotated[str, typer.Option(help="Time for measuring, e.g. 45s, 5m, 1h.")]
Only = Annotated[
    str, typer.Option(metavar="PARTS", help="Parts to measure, by comma (see docs/models.md); default: all.")
]
Processes = Annotated[int, typer.Option(min=0, help="Ranks of the collectives; 0: one a GPU, or 2 on a CPU.")]
Seed = Annotated[int, typer.Option(min=0, help="Of shapes and of their order.")]
DeviceName = Annotated[str, typer.Option("--device", help="torch device; default: the first GPU, or cpu.")]
Raw = Annotated[bool, typer.Option("--raw", help="Keep the time of every block.")]
System = Annotated[str, typer.Option(help="Name of the node or cluster in the rows.")]
Fabric = Annotated[str, typer.Option(help="nvlink, pcie, infiniband, roce, ...; default: found out.")]
Hostname = Annotated[
    bool, typer.Option("--hostname", help="Record this host's name (not recorded otherwise).")
]
Name = Annotated[str, typer.Option(help="Of the profile.")]
Out = Annotated[Path, typer.Option(help="Measurement file.")]
ProfileOut = Annotated[Path | None, typer.Option(help="Profile; default: beside the measurement file.")]
Prior = Annotated[Path | None, typer.Option(help="Profile to lean on where the measurements are thin.")]
Measured = Annotated[Path | None, typer.Argument(help="Measurement file (JSON).", show_default=False)]


@app.command("run")
def run(
    budget: Budget = "1m",
    out: Out = Path("measurements.json"),
    only: Only = "",
    processes: Processes = 0,
    seed: Seed = 0,
    device: DeviceName = "",
    system: System = "",
    fabric: Fabric = "",
    hostname: Hostname = False,
    name: Name = "",
    profile_out: ProfileOut = None,
    raw: Raw = False,
) -> None:
    """Measure kernels, layers, messages and storage on this machine (needs torch), and fit a profile."""
    from calibrate.__main__ import run_here, tell

    given = {
        "budget": budget,
        "out": out,
        "only": only,
        "processes": processes,
        "seed": seed,
        "device": device,
        "system": system,
        "fabric": fabric,
        "hostname": hostname,
        "name": name,
        "profile_out": profile_out,
        "raw": raw,
    }
    raise typer.Exit(run_here(given, tell, catalogue_devices, shipped_fits))


@app.command("fit")
def fit(
    measurements: Measured = None,
    out: ProfileOut = None,
    name: Name = "",
    prior: Prior = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Fit the profiles that ship again, from scenarios/measurements.")
    ] = False,
) -> None:
    """Fit a profile to a measurement file, or the shipped profiles to the tables they come from."""
    from calibrate.__main__ import fit_file, tell

    if shipped == (measurements is not None):
        refuse("expected either a measurement file or --shipped")
    if shipped:
        fit_shipped_profiles(out, tell)
        return
    raise typer.Exit(fit_file(measurements, out, name, tell, catalogue_devices, prior, shipped_fits))


@app.command("verify")
def verify(
    profile: Annotated[
        Path | None, typer.Option(help="Profile of this node; default: calibrate now.")
    ] = None,
    budget: Budget = "2m",
    processes: Annotated[str, typer.Option(help="Ranks of the steps, by comma, e.g. 1,2,8.")] = "",
    suite: Annotated[str, typer.Option(help="smoke, quick or full.")] = "quick",
    out: Annotated[Path | None, typer.Option(help="Table of measured and predicted steps (CSV).")] = None,
    list_steps: Annotated[bool, typer.Option("--list", help="Only list the steps of the suite.")] = False,
    seed: Seed = 0,
    device: DeviceName = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Run real training and serving steps here, predict them from the profile, and compare (needs torch)."""
    raise typer.Exit(
        verify_here(
            profile=profile,
            budget=budget,
            processes=processes,
            suite=suite,
            out=out,
            only_list=list_steps,
            seed=seed,
            device=device,
            as_json=json,
        )
    )


def fit_shipped_profiles(out: Path | None, tell: Callable[[str], None]) -> None:
    """Fit every table under scenarios/measurements; one profile a generation goes to ``out`` or scenarios/profiles."""
    import scenarios
    from calibrate.fit.shipped import fit_shipped

    folder = Path(scenarios.__path__[0])
    target = out or folder / "profiles"
    target.mkdir(parents=True, exist_ok=True)
    for path in fit_shipped(folder / "measurements", target, named_devices(), tell):
        tell(f"wrote {path}")
    tell(f"wrote {fit_stack_profile(folder / 'measurements', target, tell)}")


def fit_stack_profile(tables: Path, profiles: Path, tell: Callable[[str], None]) -> Path:
    """Fit the overheads of software stacks to published training runs, on the kernel profiles in ``profiles``."""
    from pandas import read_csv

    from sim.spec.catalog import load_catalog
    from sim.spec.profile import Profile, load, to_json
    from sim.validation.stacks import fit_stacks, simulate

    path = profiles / "stacks.json"
    tell("fitting stacks from training_runs.csv.gz")
    kernels = [one for file in sorted(profiles.glob("*.json")) if file != path for one in load(file).fits]
    runs = simulate(read_csv(tables / "training_runs.csv.gz"), kernels, load_catalog())
    fits = fit_stacks(runs, "fitted to scenarios/measurements/training_runs.csv.gz")
    provenance = {
        "command": "rackcast calibrate fit --shipped",
        "data": "scenarios/measurements",
        "fits": len(fits),
    }
    path.write_text(to_json(Profile("stacks", tuple(fits), provenance)), encoding="utf-8")
    return path
