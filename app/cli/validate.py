"""``rackcast validate``: predicted against measured, on the tables that ship or on a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import Json, named_devices, print_json, refuse

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    no_args_is_help=True, help="Compare predictions with measurements, row by row.", rich_markup_mode=None
)

Files = Annotated[
    list[Path],
    typer.Argument(
        help="CSV tables (also .gz) of one kind; with --folds fitted together.", show_default=False
    ),
]
File = Annotated[Path, typer.Argument(help="CSV table (also .gz) of measurements.", show_default=False)]
Out = Annotated[
    Path | None, typer.Option("--out", help="Write the rows with predicted, error_pct and skipped here.")
]
ProfileName = Annotated[str, typer.Option("--profile", help="Profile file in front of the shipped ones.")]


@app.command()
def kernels(
    files: Files,
    profile: ProfileName = "shipped",
    folds: Annotated[
        int,
        typer.Option(
            "--folds", min=0, max=20, help="Predict each shape by fits that never saw it, in so many folds."
        ),
    ] = 0,
    json: Json = False,
    out: Out = None,
) -> None:
    """Matrix products, attention, memory-bound kernels and experts: the kind follows from the columns."""
    from pandas import concat

    from calibrate.fit.shipped import cross_validate_kernels, predict_kernels
    from sim.spec.catalog import load_catalog
    from sim.spec.profile import ProfileError
    from sim.spec.profiles import fits_for
    from sim.validation.kernels import kind_of, validate_kernels
    from sim.validation.outcome import ValidationError, read_rows

    try:
        rows = concat([read_rows(file) for file in files], ignore_index=True)
        where = ", ".join(str(file) for file in files)
        kind = kind_of(rows, where)
        predict = cross_validate_kernels(folds) if folds else predict_kernels(fits_for(profile))
        table = validate_kernels(rows, predict, load_catalog(), where)
    except (ValidationError, ProfileError) as error:
        refuse(str(error))
    _answer(
        table, kind.group, json, out, f"{kind.name}, {'held out by shape' if folds else f'profile {profile}'}"
    )


@app.command()
def collectives(
    file: File,
    profile: ProfileName = "shipped",
    leave_out: Annotated[
        str,
        typer.Option(
            "--leave-out", help="Predict each system by fits that never saw it: system.", metavar="system"
        ),
    ] = "",
    json: Json = False,
    out: Out = None,
) -> None:
    """Collectives, by kind of link and size of message."""
    from calibrate.fit.shipped import leave_out_collectives, predict_collectives
    from sim.spec.profile import ProfileError
    from sim.spec.profiles import fits_for
    from sim.validation.collectives import validate_collectives
    from sim.validation.outcome import ValidationError, read_rows

    if leave_out not in ("", "system"):
        refuse(f"--leave-out = {leave_out!r}: expected system")
    try:
        rows = read_rows(file)
        devices = named_devices()
        given = predict_collectives(fits_for(profile), devices)
        predict = leave_out_collectives(devices) if leave_out else given
        table = validate_collectives(rows, predict, str(file))
    except (ValidationError, ProfileError) as error:
        refuse(str(error))
    _answer(
        table, "class", json, out, "each system left out of the fit" if leave_out else f"profile {profile}"
    )


@app.command()
def training(
    file: File,
    profile: ProfileName = "shipped",
    leave_out: Annotated[
        str,
        typer.Option(
            "--leave-out",
            help="Predict each source by constants that never saw it: source.",
            metavar="source",
        ),
    ] = "",
    json: Json = False,
    out: Out = None,
) -> None:
    """Published or own training steps; what a row leaves unsaid is assumed and named in the column ``assumed``.

    Beside the errors stand the share of rows inside their 80 % interval and the errors of one constant utilisation.
    """
    from sim.spec.catalog import load_catalog
    from sim.spec.profile import ProfileError
    from sim.spec.profiles import fits_for
    from sim.validation.outcome import ValidationError, read_rows, require
    from sim.validation.stacks import validate_left_out
    from sim.validation.training import NEEDED, validate_training

    if leave_out not in ("", "source"):
        refuse(f"--leave-out = {leave_out!r}: expected source")
    try:
        rows, fits, catalog = read_rows(file), fits_for(profile), load_catalog()
        if leave_out:
            require(rows, (*NEEDED, "group"), str(file))
            table = validate_left_out(rows, fits, catalog)
        else:
            table = validate_training(rows, fits, catalog, str(file))
    except (ValidationError, ProfileError) as error:
        refuse(str(error))
    title = "each source left out of the stacks' constants" if leave_out else f"profile {profile}"
    _answer(table, "stack", json, out, f"training steps, {title}")


@app.command()
def memory(file: File, json: Json = False, out: Out = None) -> None:
    """Peak memory of a device (column memory_gib), for rows of the form that training takes."""
    from sim.spec.catalog import load_catalog
    from sim.validation.memory import validate_memory
    from sim.validation.outcome import ValidationError, read_rows

    try:
        table = validate_memory(read_rows(file), load_catalog(), str(file))
    except ValidationError as error:
        refuse(str(error))
    _answer(table, "stack", json, out, "peak memory of a device")


@app.command()
def scheduling(
    folder: Annotated[Path, typer.Argument(help="Folder with cases.csv and job tables.", show_default=False)],
    json: Json = False,
) -> None:
    """Schedules of other programs, job by job: with their event rules, and mean waits with our own."""
    from sim.cluster.policy import PolicyError
    from sim.validation.outcome import ValidationError
    from sim.validation.scheduling import validate_scheduling

    try:
        document = validate_scheduling(folder)
    except (ValidationError, PolicyError, ValueError) as error:
        refuse(str(error))
    if json:
        print_json(document)
        return
    _print_schedules(document)


def _print_schedules(document: dict[str, Any]) -> None:
    from app.report.console import plain_table, screen

    console = screen()
    if document["cases"]:
        console.print(
            f"[bold]reference cases[/bold]: {document['identical_cases']:,} of {document['cases']:,} identical"
        )
    table = plain_table("file", "jobs", "identical", "mean wait, own rules")
    for name, row in document["files"].items():
        error = row["mean_wait_error_pct"]
        cells = (f"{row['jobs']:,}", f"{row['identical_jobs']:,}", "" if error is None else f"{error:+.2f} %")
        table.add_row(name, *cells)
    console.print(table)
    for name, reason in document["skipped"].items():
        console.print(f"  skipped {name}: {reason}", style="dim")


def _answer(table: pd.DataFrame, group: str, json: bool, out: Path | None, title: str) -> None:
    from sim.results.files import write_files
    from sim.validation.outcome import summary

    document = summary(table, group)
    if out is not None:
        try:
            write_files({out: table.to_csv(index=False).encode()})
        except OSError as error:
            refuse(f"{out}: cannot be written: {error.strerror}")
    if json:
        print_json(document)
    else:
        _print(document, group, title)


def _print(document: dict[str, Any], group: str, title: str) -> None:
    from app.report.console import plain_table, screen

    console = screen()
    console.print(f"[bold]{title}[/bold]: {document['predicted']:,} of {document['rows']:,} rows predicted")
    for reason, count in document["skipped"].items():
        console.print(f"  {count:,} skipped: {reason}", style="dim")
    steps = "constant_median_ape" in document
    more = ("in 80 % interval", "constant: median", "p90") if steps else ()
    table = plain_table("absolute error, %", "points", "median", "p90", "max", "bias", *more)
    everything = {"all": document, **document["by_gpu"]} | {
        f"{group} {k}": v for k, v in document["by_group"].items()
    }
    for name, row in everything.items():
        if row["median_ape"] is None:
            continue
        cells = (row["median_ape"], row["p90_ape"], row["max_ape"])
        told = [f"{row['points']:,}", *(f"{cell:.1f}" for cell in cells), f"{row['bias_pct']:+.1f}"]
        if steps:
            rival = (row["constant_median_ape"], row["constant_p90_ape"])
            told += [f"{row['inside_80_pct']:.0f}", *(f"{cell:.1f}" for cell in rival)]
        table.add_row(name, *told)
    console.print(table)
