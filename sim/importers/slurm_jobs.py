"""Jobs out of Slurm's books: ``sacct`` (what was) and ``squeue`` (what is).

Sources: Slurm's sacct and squeue manuals. A wait counts from Eligible, not from Submit: before that a job waits for
its own conditions, not for the cluster. The steps of a job (``12.batch``, ``12.0``) belong to it; the parts of a
heterogeneous job (``12+0``, ``12+1``) are one gang; a pending array (``12_[1-5%2]``) is as many jobs as it has tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sim.importers import hosts
from sim.importers.imported import Parts, Tally
from sim.importers.making_jobs import Record, make_job, once_each, outcome_of
from sim.importers.moments import amount, moment, span
from sim.importers.slurm_table import Row, objects, rows
from sim.importers.sources import Source
from sim.importers.tres import Ask, memory_bytes, mig_share_frac, parse_gres, parse_tres
from sim.spec.job import Job

MOST_TASKS = 100_000
_OBJECT = {"a": "ACCOUNT", "id": "JOBID", "p": "PARTITION", "cpu": "CPUS", "mem": "MIN_MEMORY", "r": "REASON"}
"""Keys of a format string that spells one JSON object a line, as exporters of metrics ask for it."""
_SACCT = ("JOBID", "JOBIDRAW", "STATE", "ELAPSEDRAW", "ALLOCTRES", "SUBMIT", "ELIGIBLE")
_SQUEUE = ("JOBID", "STATE", "ST", "TRES_ALLOC", "SUBMIT_TIME", "TRES", "TRES_PER_NODE")


def read_sacct(sources: Sequence[Source], tally: Tally, columns: Sequence[str] = ()) -> Parts:
    """Jobs of ``sacct -P`` output, any columns in any order: at best JobID, User, Account, Partition, Submit, Eligible,
    Start, End, ElapsedRaw, TimelimitRaw, State, AllocTRES, ReqTRES, NNodes, Priority.

    Raises:
        ScenarioError: a file without a header and no ``columns`` given.
    """
    return _read(sources, tally, columns, _SACCT)


def read_squeue(sources: Sequence[Source], tally: Tally, columns: Sequence[str] = ()) -> Parts:
    """Running and waiting jobs of ``squeue`` (``--format`` or ``-O``, any columns); see :func:`read_sacct`."""
    return _read(sources, tally, columns, _SQUEUE)


def _read(sources: Sequence[Source], tally: Tally, columns: Sequence[str], known: Sequence[str]) -> Parts:
    found: list[tuple[str, Job]] = []
    steps: dict[str, list[Row]] = {}
    for source in sources:
        lines = source.text.lstrip()[:1] == "{" and not columns
        for row in objects(source, tally, _OBJECT) if lines else rows(source, tally, known, columns):
            name = job_name(row)
            if not re.match(r"\d+", name):
                tally.skip("no job id", row.place)
            elif "." in name:
                steps.setdefault(name.partition(".")[0], []).append(row)
            else:
                found += [(row.place, job) for job in job_from(row, name, tally)]
    found += _orphans({job.name for _, job in found}, steps, tally)
    return Parts(jobs=gangs(once_each(found, tally), tally))


def job_name(row: Row) -> str:
    """The job's number as people write it (``12_3``), else the raw one."""
    return row.first("JOBID", "JOB_ID", "JOBIDRAW", "ID")


def job_from(row: Row, name: str, tally: Tally) -> list[Job]:
    """The jobs of one record: none (counted), one, or as many as a pending array has tasks."""
    ask = asked(row)
    start = moment(row.first("START", "START_TIME", "STARTTIME"))
    submit = moment(row.first("SUBMIT", "SUBMIT_TIME", "SUBMITTIME"))
    eligible = moment(row.first("ELIGIBLE", "ELIGIBLE_TIME", "ELIGIBLETIME"))
    if submit is not None and eligible is not None and eligible > submit + 1:
        tally.note("waited for its own conditions first: its wait counts from Eligible", row.place)
    state = row.first("STATE", "ST", "STATE_COMPACT", "JOBSTATE", "S")
    outcome = outcome_of(state) if state else "completed"
    end = moment(row.first("END", "END_TIME", "ENDTIME"))
    if outcome == "pending":
        start = end = None  # squeue shows when it is expected to start
    record = Record(
        name=name,
        place=row.place,
        gpus=ask.gpus if ask.stated else None,
        submit_s=eligible if eligible is not None else submit,
        start_s=start,
        end_s=None if outcome == "running" else end,  # squeue's end is the limit
        duration_s=_run_time(row),
        outcome=outcome,
        state=state,
        limit_s=_limit(row),
    )
    if outcome == "preempted":
        tally.note("was preempted or requeued: its work is the time it ran in this record", row.place)
    if not state:
        tally.note("no state in the file: taken as completed", row.place)
    job = make_job(
        record,
        tally,
        user=row.first("USER", "USERNAME", "USERID").partition("(")[0],
        queue=row.first("ACCOUNT", "PARTITION"),
        priority=amount(row.first("PRIORITY_LONG", "PRIORITY")) or 0.0,
        accelerator=ask.accelerator,
        gpu_share_frac=mig_share_frac(ask.accelerator),
        cpus=ask.cpus,
        memory_bytes=ask.memory_bytes,
    )
    return [] if job is None else _tasks(job, row.place, tally)


def asked(row: Row) -> Ask:
    """Devices, processors and memory: allocated before requested, TRES before the older GRES columns."""
    nodes = int(amount(row.first("NNODES", "ALLOCNODES", "REQNODES", "NODES", "NUMNODES")) or 0)
    ask = parse_tres(row.first("ALLOCTRES", "TRES_ALLOC", "TRES", "REQTRES"))
    if not ask.gpus and row["REQTRES"]:  # an allocation that was never made
        requested = parse_tres(row["REQTRES"])
        ask = requested if requested.gpus else ask
    devices = ask.devices
    gres = "" if devices else row.first("ALLOCGRES", "REQGRES", "TRES_PER_NODE", "TRESPERNODE", "GRES")
    if gres:
        times = 1 if row["ALLOCGRES"] == gres else max(nodes or ask.nodes, 1)
        devices = tuple((kind, count * times) for kind, count in parse_gres(gres.replace("=", ":")))
    cpus = ask.cpus or amount(row.first("ALLOCCPUS", "NCPUS", "REQCPUS", "CPUS", "NUMCPUS")) or 0.0
    memory = ask.memory_bytes or _memory(row.first("REQMEM", "MIN_MEMORY"), nodes, cpus)
    columns = ("ALLOCTRES", "TRES_ALLOC", "TRES", "REQTRES", "ALLOCGRES", "REQGRES", "TRES_PER_NODE")
    stated = ask.stated or bool(gres) or any(name in row.cells for name in columns)
    return Ask(devices, cpus, memory, ask.nodes, stated)


def _memory(text: str, nodes: int, cpus: float) -> float:
    """``64Gn`` is per node, ``4Gc`` per core, without a letter per job."""
    value = memory_bytes(text) or 0.0
    return value * (max(nodes, 1) if text.endswith("n") else max(cpus, 1) if text.endswith("c") else 1)


def _run_time(row: Row) -> float | None:
    raw = amount(row["ELAPSEDRAW"])
    elapsed = raw if raw is not None else span(row.first("ELAPSED", "TIME", "TIME_USED", "RUNTIME"))
    if elapsed is None:
        return None
    stopped = span(row["SUSPENDED"]) if row["SUSPENDED"] else None
    return max(elapsed - (stopped or 0.0), 0.0)


def _limit(row: Row) -> float | None:
    minutes = amount(row["TIMELIMITRAW"])
    return minutes * 60 if minutes else span(row.first("TIMELIMIT", "TIME_LIMIT", "TIMELIMIT_RAW"))


def _tasks(job: Job, place: str, tally: Tally) -> list[Job]:
    """``12_[1-5%2]`` is five jobs; the bound of tasks at once (%2) is not carried over."""
    found = re.fullmatch(r"(\d+)_\[(.*?)(%\d+)?\]", job.name)
    if not found:
        return [job]
    base, inside, bound = found.groups()
    if inside.endswith("..."):
        tally.note("array list is cut off (...): the tasks it shows are taken", place)
        inside = inside.removesuffix("...").rstrip(",")
    try:
        numbers = [number for item in inside.split(",") for number in _stepped(item)]
    except ValueError as fault:
        tally.skip(f"array is not readable: {fault}", place)
        return []
    if bound:
        tally.note("array bounds its tasks at once (%): the bound is not carried over", place)
    tally.note("pending array: one job per task", place)
    return [replace(job, name=f"{base}_{number}") for number in numbers]


def _stepped(item: str) -> list[str]:
    span_text, _, step = item.partition(":")
    numbers = hosts.expand(f"[{span_text}]")
    if len(numbers) > MOST_TASKS:
        raise ValueError(f"more than {MOST_TASKS:,} tasks")
    return numbers[:: int(step)] if step.isdigit() and int(step) else numbers


def _orphans(known: set[str], steps: dict[str, list[Row]], tally: Tally) -> Iterable[tuple[str, Job]]:
    """Jobs of which only steps are in the file: the step with the most devices and the longest run stands for it."""
    for name, its in steps.items():
        if name in known:
            for row in its:
                tally.skip("step of a job that is taken whole", row.place)
            continue
        widest = max(its, key=lambda row: (asked(row).gpus, _run_time(row) or 0.0))
        for row in its:
            if row is not widest:
                tally.skip("step of a job that is not in the file", row.place)
        tally.note("job is known by its steps alone: the largest stands for it", widest.place)
        for job in job_from(widest, name, tally):
            yield widest.place, job


def gangs(jobs: Sequence[Job], tally: Tally) -> list[Job]:
    """Parts of heterogeneous jobs joined: devices add up, the longest run counts."""
    merged: dict[str, Job] = {}
    for job in jobs:
        base, plus, _ = job.name.partition("+")
        if not plus or base not in merged:
            merged[base] = replace(job, name=base) if plus else job
            continue
        tally.skip("part of a heterogeneous job, counted in its first part")
        whole = merged[base]
        merged[base] = replace(
            whole,
            gpus=whole.gpus + job.gpus,
            cpus=whole.cpus + job.cpus,
            memory_bytes=whole.memory_bytes + job.memory_bytes,
            duration_s=max(whole.duration_s, job.duration_s),
            accelerator=whole.accelerator if job.accelerator in ("", whole.accelerator) else "",
        )
    return list(merged.values())
