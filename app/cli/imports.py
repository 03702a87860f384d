"""``rackcast import``: a site's own histories, clusters and measuring logs, read with a report of what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import import_logs
from app.cli.common import Json, print_json, refuse

if TYPE_CHECKING:
    from sim.importers.imported import Finding, Imported

SHOWN = 12
"""Lines of pools and quotas that the terminal shows; --json and --out have all."""


def import_command(
    kind: Annotated[
        str,
        typer.Argument(
            help="What the files are: swf, sacct, squeue, sinfo, scontrol, slurm-conf, slurm-json, sacctmgr, topology, "
            "kubernetes, kueue, volcano, kai, philly, helios, acme, pai, openb, schedule, requests, jobs; "
            "measuring logs: nccl-tests, rccl-tests, superbench, mlperf-log, torch-profiler.",
            show_default=False,
        ),
    ],
    files: Annotated[list[Path], typer.Argument(help="Files of that kind (also .gz).", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write here: .csv or .parquet = the jobs, .toml = the cluster, .swf = the log; of measuring logs: "
            ".json = one measurement file, a folder = one a node or run.",
        ),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            "--columns", metavar="A,B,C", help="Columns of a Slurm table printed without its header."
        ),
    ] = "",
    assume_duration: Annotated[
        str,
        typer.Option(
            "--assume-duration", metavar="TIME", help="Run time of jobs that only say what they ask for."
        ),
    ] = "",
    fit: Annotated[
        bool,
        typer.Option(
            "--fit", help="With --out FILE.toml: a mix of jobs fitted to the history, not the history itself."
        ),
    ] = False,
    gpu: Annotated[str, typer.Option(help="Of measuring logs: the device, where they do not name it.")] = "",
    gpus: Annotated[int, typer.Option(min=0, help="The same: ranks or devices; 0: from the log.")] = 0,
    nodes: Annotated[int, typer.Option(min=0, help="The same: nodes; 0: from the log.")] = 0,
    system: Annotated[str, typer.Option(help="The same: name of the node or cluster in the rows.")] = "",
    fabric: Annotated[str, typer.Option(help="The same: nvlink, pcie, infiniband, roce, efa, ...")] = "",
    collective: Annotated[str, typer.Option(help="The same: which collective a table is of.")] = "",
    json: Json = False,
) -> None:
    """Read files of one kind and report what was read, left out and assumed."""
    hints = dict(zip(import_logs.HINTS, (gpu, gpus, nodes, system, fabric, collective), strict=True))
    histories = {"columns": columns, "assume-duration": assume_duration, "fit": fit}
    if kind in import_logs.KINDS:
        from calibrate.importers.common import Hints

        _need_unset(kind, histories)
        import_logs.import_logs(kind, files, out, Hints(**hints), as_json=json)
        return
    _need_unset(kind, hints)
    imported = _history(kind, files, columns, assume_duration)
    if fit and (out is None or out.suffix != ".toml"):
        refuse("--fit writes a scenario: give --out with a name that ends in .toml")
    written = _write(imported, out, fit) if out else ""
    if json:
        print_json(_document(imported) | ({"out": written} if written else {}))
    else:
        _print(imported, written)


def _history(kind: str, files: list[Path], columns: str, assume_duration: str) -> Imported:
    """What the files say; ends with exit code 2 and every fault where they cannot be read."""
    from sim import units
    from sim.importers.kinds import Options, import_files
    from sim.spec.faults import ScenarioError

    try:
        assumed = units.parse(assume_duration, units.SECONDS) if assume_duration else None
        if assumed is not None and assumed <= 0:
            raise ValueError("expected more than 0 s")
    except ValueError as fault:
        refuse(f"--assume-duration = {assume_duration!r}: {fault}")
    given = tuple(name.strip() for name in columns.split(",") if name.strip())
    try:
        return import_files(kind, files, Options(given, assumed), others=tuple(import_logs.KINDS))
    except ScenarioError as error:
        refuse(str(error))


def _need_unset(kind: str, options: Mapping[str, object]) -> None:
    """Refuse options that mean nothing for files of this kind, all at once."""
    told = [f"--{name} = {value!r}: not for files of kind {kind}" for name, value in options.items() if value]
    if told:
        refuse("\n".join(told))


def _write(imported: Imported, out: Path, fit: bool) -> str:
    from sim.importers.as_scenario import to_scenario
    from sim.importers.job_table import write_csv, write_parquet
    from sim.importers.swf import write_swf
    from sim.results.files import write_files
    from sim.spec.catalog import load_catalog

    jobs = imported.jobs
    files: dict[Path, bytes] = {}
    try:
        if out.suffix == ".csv":
            text = _requests_csv(imported) if imported.requests and not jobs else write_csv(jobs)
        elif out.suffix == ".parquet":
            write_parquet(jobs, out)
            return str(out)
        elif out.suffix == ".swf":
            starts = [job.recorded_start_s for job in jobs]
            ends = [
                None if start is None else start + job.duration_s
                for start, job in zip(starts, jobs, strict=True)
            ]
            text = write_swf(jobs, starts, ends)
        elif out.suffix == ".toml":
            beside = out.with_suffix(".csv")
            if jobs and not fit:
                files[beside] = write_csv(jobs).encode()
            recipe = _fitted(imported) if fit else ""
            known = load_catalog().accelerator_names()
            text = to_scenario(imported, known, beside.name if jobs and not fit else "") + recipe
        else:
            refuse(f"--out = {str(out)!r}: expected a name that ends in .csv, .parquet, .swf or .toml")
        write_files(files | {out: text.encode()})
    except OSError as fault:
        refuse(f"{out}: cannot be written: {fault.strerror}")
    return str(out)


def _fitted(imported: Imported) -> str:
    from sim.mixes.as_scenario import to_toml
    from sim.mixes.fit import NotFittable, fit

    try:
        return "\n" + to_toml(fit(imported.jobs, "history", imported.origin))
    except NotFittable as fault:
        refuse(f"{', '.join(imported.report.files)}: no mix can be fitted: {fault}")


def _requests_csv(imported: Imported) -> str:
    rows = [f"{r.arrival_s!r},{r.input_tokens},{r.output_tokens}" for r in imported.requests]
    return "\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n"


def _document(imported: Imported) -> dict[str, Any]:
    """Everything but the jobs one by one: those are a table (``--out``)."""
    from dataclasses import asdict

    from sim.importers.as_scenario import network_tiers, node_pools

    report = imported.report

    def told(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
        return [{"reason": f.reason, "count": f.count, "places": list(f.places)} for f in findings]

    return {
        "kind": imported.kind,
        "files": list(report.files),
        "records": report.records,
        "jobs": _jobs_summary(imported),
        "requests": len(imported.requests),
        "origin": imported.origin or None,
        "nodes": len(imported.nodes),
        "gpus": sum(node.gpus for node in imported.nodes),
        "pools": [asdict(pool) for pool in node_pools(imported.nodes)],
        "tiers": [asdict(tier) for tier in network_tiers(imported.switches, imported.nodes)],
        "switches": len(imported.switches),
        "quotas": [asdict(quota) for quota in imported.quotas],
        "settings": dict(imported.settings),
        "skipped": told(report.skipped),
        "notes": told(report.notes),
    }


def _jobs_summary(imported: Imported) -> dict[str, Any]:
    from collections import Counter

    jobs = imported.jobs
    return {
        "count": len(jobs),
        "gpu_s": sum(job.gpus * job.gpu_share_frac * job.duration_s for job in jobs),
        "span_s": jobs[-1].submit_s - jobs[0].submit_s if jobs else 0.0,
        "by_gpus": {str(n): count for n, count in sorted(Counter(job.gpus for job in jobs).items())},
        "by_outcome": dict(sorted(Counter(job.outcome for job in jobs).items())),
        "users": len({job.user for job in jobs}),
        "queues": sorted({job.queue for job in jobs}),
    }


def _print(imported: Imported, written: str) -> None:
    from rich.console import Console

    from sim.importers.as_scenario import network_tiers, node_pools
    from sim.units import format_seconds

    console = Console(highlight=False, soft_wrap=True, markup=False)
    report, jobs = imported.report, _jobs_summary(imported)
    console.print(f"{imported.kind}: {report.records:,} records in {len(report.files)} file(s)")
    if imported.jobs:
        since = f" from {imported.origin}" if imported.origin else ""
        console.print(
            f"  {jobs['count']:,} jobs over {format_seconds(jobs['span_s'])}{since}, {jobs['users']:,} users"
        )
        console.print(f"  GPUs: {', '.join(f'{n} x {count:,}' for n, count in jobs['by_gpus'].items())}")
        console.print(
            f"  ends: {', '.join(f'{name} {count:,}' for name, count in jobs['by_outcome'].items())}"
        )
    if imported.requests:
        console.print(
            f"  {len(imported.requests):,} requests over {format_seconds(imported.requests[-1].arrival_s)}"
        )
    for pool in node_pools(imported.nodes)[:SHOWN]:
        console.print(
            f"  pool: {pool.nodes:,} nodes of {pool.gpus} x {pool.kind or 'GPU'}, {pool.in_service:,} in service"
        )
    plain = sum(not node.gpus for node in imported.nodes)
    if plain:
        console.print(f"  {plain:,} nodes without accelerators")
    for tier in network_tiers(imported.switches, imported.nodes):
        console.print(f"  tier: {tier.switches:,} x {tier.name} of {tier.nodes:,} nodes")
    for quota in imported.quotas[:SHOWN]:
        own = "" if quota.nominal_gpus is None else f", own {quota.nominal_gpus:g}"
        most = "" if quota.ceiling_gpus is None else f", at most {quota.ceiling_gpus:g}"
        console.print(f"  {quota.kind}: {quota.name} {quota.flavor}{own}{most}, weight {quota.weight:g}")
    if len(imported.quotas) > SHOWN:
        console.print(f"  and {len(imported.quotas) - SHOWN:,} more quotas")
    for heading, findings in (("left out", report.skipped), ("noted", report.notes)):
        for finding in findings:
            places = f" ({', '.join(finding.places)})" if finding.places else ""
            console.print(f"  {heading}: {finding.count:,} x {finding.reason}{places}")
    if written:
        console.print(f"wrote {written}")
