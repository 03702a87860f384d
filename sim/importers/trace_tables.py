"""Public traces in comma-separated tables: a dictionary per trace, one translator for all.

| trace | source of the columns |
|---|---|
| Helios cluster_log.csv | S-Lab-System-Group/HeliosData README (Hu et al., SC 2021) |
| Acme trace_seren.csv, trace_kalos.csv | InternLM/AcmeTrace README (Hu et al., NSDI 2024) |
| openb (pods and nodes) | alibaba/clusterdata cluster-trace-gpu-v2023 README (Weng et al., ATC 2023) |
| Philly as a table, schedules of other simulators | columns of Lucid's and Helios' simulators and pyss |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sim.importers.imported import Node, Parts, Tally
from sim.importers.making_jobs import Record, make_job, once_each, outcome_of
from sim.importers.moments import amount, moment
from sim.importers.sources import Source, refuse, table
from sim.spec.job import Job

_MIB = 2.0**20
EARLIEST_DATE_S = 1e8
"""March 1973: no trace of GPUs is older."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column means what; several names are tried in turn."""

    needed: tuple[str, ...]
    """Columns by which the table is told."""
    names: Mapping[str, tuple[str, ...]] = field(hash=False)
    clock: bool = True
    """Times are dates or Unix time, not seconds from the trace's own start."""


_HELIOS = Columns(
    ("job_id", "gpu_num", "submit_time", "duration"),
    {
        "name": ("job_id",),
        "user": ("user",),
        "queue": ("vc",),
        "gpus": ("gpu_num",),
        "cpus": ("cpu_num",),
        "state": ("state",),
        "submit": ("submit_time",),
        "start": ("start_time",),
        "end": ("end_time",),
        "duration": ("duration",),
        "kind": ("type",),
        "memory_gb_per_node": ("mem_per_pod_GB",),
        "nodes": ("node_num",),
    },
)
_SCHEDULE = Columns(
    ("gpus", "submit_s", "duration_s"),
    {
        "name": ("job_id", "name"),
        "user": ("user",),
        "queue": ("vc", "queue"),
        "gpus": ("gpus",),
        "submit": ("submit_s",),
        "start": ("start_s",),
        "duration": ("duration_s",),
        "limit": ("limit_s",),
    },
    clock=False,
)
_OPENB = Columns(
    ("name", "num_gpu", "gpu_milli"),
    {
        "name": ("name",),
        "gpus": ("num_gpu",),
        "share_milli": ("gpu_milli",),
        "cpu_milli": ("cpu_milli",),
        "memory_mib": ("memory_mib",),
        "accelerator": ("gpu_spec",),
        "queue": ("qos",),
        "state": ("pod_phase",),
        "submit": ("creation_time",),
        "end": ("deletion_time",),
        "start": ("scheduled_time",),
    },
    clock=False,
)


def read_helios(sources: Sequence[Source], tally: Tally) -> Parts:
    """Helios' cluster_log.csv. Its duration counts for the run time; ``vc`` is the queue."""
    return _dated(_jobs(sources, _HELIOS, tally, "Helios cluster_log.csv"))


def read_acme(sources: Sequence[Source], tally: Tally) -> Parts:
    """Acme's trace_seren.csv and trace_kalos.csv: Helios' columns with a type of workload and memory per pod."""
    return _dated(_jobs(sources, _HELIOS, tally, "Acme trace_seren.csv or trace_kalos.csv"))


def _dated(jobs: list[Job]) -> Parts:
    """Times in the first years after 1970 are no dates: a simulator's copy of the trace counts from its own start."""
    return Parts(jobs=jobs, dated=min((job.submit_s for job in jobs), default=0.0) > EARLIEST_DATE_S)


def _when(text: str | None) -> float | None:
    """Seconds, or a date."""
    number = amount(text)
    return moment(text) if number is None or number < 0 else number


def read_schedule(sources: Sequence[Source], tally: Tally) -> Parts:
    """Tables of job_id, user or vc, gpus, submit_s, duration_s and at will limit_s, start_s: simulators print them."""
    return Parts(
        jobs=_jobs(sources, _SCHEDULE, tally, "table of jobs (gpus, submit_s, duration_s)"), dated=False
    )


def read_openb(sources: Sequence[Source], tally: Tally, assume_duration_s: float | None = None) -> Parts:
    """openb's pod lists and node lists, told apart by their columns.

    A list without times (an order of placement) becomes one pod a second where ``assume_duration_s`` is given, else its
    pods are left out.
    """
    parts = Parts(dated=False)
    pods = []
    for source in sources:
        header, rows = table(source)
        if {"sn", "gpu", "model"} <= set(header):
            parts.nodes += list(_openb_nodes(source, header, rows, tally))
        else:
            pods.append(source)
    parts.jobs = _jobs(pods, _OPENB, tally, "openb pod or node list", assume_duration_s) if pods else []
    return parts


def _openb_nodes(
    source: Source, header: Sequence[str], rows: Iterator[tuple[int, list[str]]], tally: Tally
) -> Iterator[Node]:
    for line, cells in rows:
        tally.records += 1
        row = dict(zip(header, cells, strict=False))
        gpus, cpus, memory = (amount(row.get(name)) for name in ("gpu", "cpu_milli", "memory_mib"))
        if gpus is None or not row.get("sn"):
            tally.skip("node without a name or a number of devices", source.place(line))
            continue
        model = row.get("model", "")
        devices = ((model if model != "nan" else "", int(gpus)),) if gpus else ()
        yield Node(row["sn"], devices, (cpus or 0.0) / 1000, (memory or 0.0) * _MIB)


def _jobs(
    sources: Sequence[Source],
    columns: Columns,
    tally: Tally,
    kind: str,
    assume_duration_s: float | None = None,
) -> list[Job]:
    found: list[tuple[str, Job]] = []
    for source in sources:
        header, rows = table(source)
        missing = [name for name in columns.needed if name not in header]
        if missing:
            raise refuse(
                source.name, f"is no {kind}: missing columns {', '.join(missing)}", ",".join(header)[:60]
            )
        at = {
            what: header.index(name)
            for what, names in columns.names.items()
            for name in [next((one for one in names if one in header), "")]
            if name
        }
        for line, cells in rows:
            tally.records += 1
            place = source.place(line)
            if len(cells) != len(header):
                tally.skip("row has another number of cells than the header", place)
                continue
            row = {what: cells[position].strip() for what, position in at.items()}
            if "submit" not in at and assume_duration_s is not None:
                tally.note("no times: one a second in the order of the list, for the assumed run time", place)
                row |= {"submit": str(len(found)), "duration": str(assume_duration_s)}
            job = _job(row, columns, place, tally)
            if job is not None:
                found.append((place, job))
    return once_each(found, tally)


def _job(row: Mapping[str, str], columns: Columns, place: str, tally: Tally) -> Job | None:
    time = _when if columns.clock else amount
    gpus, state = amount(row.get("gpus")), row.get("state", "completed")
    outcome = outcome_of(state)
    share, cpus = amount(row.get("share_milli")), amount(row.get("cpus"))
    if gpus is None:
        tally.skip("number of devices is not a number", place)
        return None
    start, end = time(row.get("start")), time(row.get("end"))
    if (
        outcome == "running" and start is not None and end is not None
    ):  # the last phase seen, not the state at the end
        tally.note("last seen running: its deletion is its end", place)
        outcome = "completed"
    memory_gb = amount(row.get("memory_gb_per_node"))
    record = Record(
        name=row.get("name") or place,
        place=place,
        gpus=int(gpus),
        submit_s=time(row.get("submit")),
        start_s=start,
        end_s=end,
        duration_s=amount(row.get("duration")),
        outcome=outcome,
        state=state,
        limit_s=amount(row.get("limit")),
    )
    accelerator = row.get("accelerator", "")
    return make_job(
        record,
        tally,
        user=row.get("user", ""),
        queue=row.get("queue", ""),
        kind=row.get("kind", ""),
        accelerator="" if accelerator == "nan" else accelerator,
        gpu_share_frac=share / 1000 if share and gpus == 1 and share < 1000 else 1.0,
        cpus=cpus if cpus is not None else (amount(row.get("cpu_milli")) or 0.0) / 1000,
        memory_bytes=(amount(row.get("memory_mib")) or 0.0) * _MIB
        if memory_gb is None
        else memory_gb * 1e9 * (amount(row.get("nodes")) or 1.0),
    )
