"""The counter where files are handed in: a word for the kind, files, and out comes one ``Imported``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.importers.imported import Imported, Parts, Tally
from sim.importers.job_table import read_jobs
from sim.importers.kubernetes import read_kubernetes
from sim.importers.making_jobs import from_origin
from sim.importers.moments import iso
from sim.importers.slurm_jobs import read_sacct, read_squeue
from sim.importers.slurm_keys import read_keys
from sim.importers.slurm_limits import read_sacctmgr
from sim.importers.slurm_nodes import read_sinfo
from sim.importers.slurm_rest import read_rest
from sim.importers.slurm_topology import read_topology
from sim.importers.sources import Source, open_sources
from sim.importers.swf import read_swf
from sim.importers.trace_pai import read_pai
from sim.importers.trace_philly import read_philly
from sim.importers.trace_requests import read_requests
from sim.importers.trace_tables import read_acme, read_helios, read_openb, read_schedule
from sim.spec.faults import Fault, ScenarioError


@dataclass(frozen=True, slots=True)
class Options:
    """What a file cannot say of itself."""

    columns: tuple[str, ...] = ()
    """Header of a table that has none."""
    assume_duration_s: float | None = None
    """Run time of jobs that only say what they ask for."""


Reader = Callable[[Sequence[Source], Tally, Options], Parts]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file."""

    meaning: str
    read: Reader


def _plain(read: Callable[[Sequence[Source], Tally], Parts]) -> Reader:
    return lambda sources, tally, _: read(sources, tally)


def _tabled(read: Callable[[Sequence[Source], Tally, Sequence[str]], Parts]) -> Reader:
    return lambda sources, tally, options: read(sources, tally, options.columns)


def _assumed(read: Callable[[Sequence[Source], Tally, float | None], Parts]) -> Reader:
    return lambda sources, tally, options: read(sources, tally, options.assume_duration_s)


KINDS: Mapping[str, Kind] = {
    "swf": Kind("Standard Workload Format log of a parallel machine", _plain(read_swf)),
    "sacct": Kind("Slurm accounting, sacct -P", _tabled(read_sacct)),
    "squeue": Kind("Slurm queue, squeue with a format", _tabled(read_squeue)),
    "sinfo": Kind("Slurm nodes, sinfo with a format", _tabled(read_sinfo)),
    "scontrol": Kind("scontrol show node, partition, job or config", _plain(read_keys)),
    "slurm-conf": Kind("slurm.conf and gres.conf", _plain(read_keys)),
    "slurm-json": Kind("slurmrestd answers and --json of Slurm's commands", _plain(read_rest)),
    "sacctmgr": Kind("sacctmgr -P show qos or assoc", _tabled(read_sacctmgr)),
    "topology": Kind("Slurm topology.conf or topology.yaml", _plain(read_topology)),
    "kubernetes": Kind(
        "kubectl get ... -o json or yaml: nodes, pods, jobs and queues", _assumed(read_kubernetes)
    ),
    "kueue": Kind("Kueue queues, flavors, cohorts and workloads", _assumed(read_kubernetes)),
    "volcano": Kind("Volcano queues and jobs", _assumed(read_kubernetes)),
    "kai": Kind("KAI-Scheduler queues and pods", _assumed(read_kubernetes)),
    "philly": Kind("Microsoft Philly cluster_job_log and cluster_machine_list", _plain(read_philly)),
    "helios": Kind("SenseTime Helios cluster_log.csv", _plain(read_helios)),
    "acme": Kind("Shanghai AI Lab trace_seren.csv, trace_kalos.csv", _plain(read_acme)),
    "pai": Kind("Alibaba PAI 2020: job, task and machine tables", _plain(read_pai)),
    "openb": Kind("Alibaba openb 2023: pod and node lists", _assumed(read_openb)),
    "schedule": Kind(
        "table of a simulator: job_id, user or vc, gpus, submit_s, duration_s", _plain(read_schedule)
    ),
    "requests": Kind("calls of served models: Azure LLM inference, Mooncake", _plain(read_requests)),
}


def import_files(
    kind: str, paths: Sequence[str | Path], options: Options | None = None, others: Sequence[str] = ()
) -> Imported:
    """Read files of one kind (a word of ``KINDS``, or ``jobs`` for our own table).

    ``others``: kinds that the caller reads by itself, named among those expected.

    Raises:
        ScenarioError: an unknown kind (with the nearest), files that cannot be read or are not of the kind.
    """
    tally = Tally()
    files = tuple(str(path) for path in paths)
    if kind == "jobs":
        return _own(files, tally)
    if kind not in KINDS:
        names = [*KINDS, "jobs", *others]
        near = difflib.get_close_matches(kind, names, n=1, cutoff=0.4)
        hint = f"; nearest: {near[0]}" if near else ""
        raise ScenarioError([Fault("KIND", "", kind, f"expected one of {', '.join(names)}{hint}")])
    sources = open_sources(paths, tally)
    parts = KINDS[kind].read(sources, tally, options or Options())
    jobs, origin = from_origin(parts.jobs, tally)
    dated = parts.dated and bool(jobs) and origin > 0
    return Imported(
        kind=kind,
        report=tally.report(files),
        jobs=tuple(jobs),
        nodes=tuple(parts.nodes),
        switches=tuple(parts.switches),
        quotas=tuple(parts.quotas),
        requests=tuple(parts.requests),
        origin=iso(origin) if dated else "",
        settings=parts.settings,
    )


def _own(files: tuple[str, ...], tally: Tally) -> Imported:
    jobs = [job for file in files for job in read_jobs(file)]
    tally.records = len(jobs)
    moved, _ = from_origin(jobs, tally)
    return Imported(kind="jobs", report=tally.report(files), jobs=tuple(moved))
