"""Standard Workload Format: the common tongue of parallel-machine logs, 18 numbers a job.

Source: D. G. Feitelson et al., "The Standard Workload Format", version 2.2, Parallel Workloads Archive
(cs.huji.ac.il/labs/parallel/workload/swf.html). The processors of a log become the devices of a gang: that is what
schedulers of such logs hand out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sim.importers.imported import Node, Parts, Tally
from sim.importers.making_jobs import Record, make_job, once_each
from sim.importers.moments import amount
from sim.importers.sources import Source, refuse
from sim.spec.job import Job

FIELDS = 18
_OUTCOMES = {0: "failed", 1: "completed", 5: "cancelled", -1: "completed"}
_PARTIAL = (2, 3, 4)
_CODES = {"completed": 1, "cancelled": 5}


def read_swf(sources: Sequence[Source], tally: Tally) -> Parts:
    """Jobs and, where the header says so, the machine.

    A job asks for its requested processors (field 8), or the allocated ones (5) where none are stated; its limit is the
    requested time (9), its user, queue and group their numbers as text. Bursts of checkpointed jobs (status 2 to 4) are
    left out beside the line that sums them up.

    Raises:
        ScenarioError: no line looks like SWF.
    """
    parts, found = Parts(), []
    for source in sources:
        header, rows, strange = _parse(source)
        if not rows:
            raise refuse(
                source.name, f"is no SWF log: expected lines of {FIELDS} numbers and comments after ';'"
            )
        for place in strange:
            tally.records += 1
            tally.skip(f"line is not {FIELDS} numbers", place)
        start = amount(header.get("unixstarttime", "")) or 0.0
        zone = amount(header.get("timezone", "")) or 0.0
        parts.dated = start > 0
        for place, row in rows:
            tally.records += 1
            job = _job(place, row, start + zone if start > 0 else 0.0, tally)
            if job is not None:
                found.append((place, job))
        parts.settings |= {key: value for key, value in header.items() if value}
        parts.nodes += _machine(header)
    parts.jobs = once_each(found, tally)
    return parts


def _parse(source: Source) -> tuple[dict[str, str], list[tuple[str, list[float]]], list[str]]:
    header: dict[str, str] = {}
    rows: list[tuple[str, list[float]]] = []
    strange: list[str] = []
    for number, line in source.lines():
        text = line.strip()
        if text.startswith(";"):
            if label := re.match(r";\s*([A-Za-z]+):\s*(.*)", text):
                header[label[1].lower()] = label[2].strip()
        elif text:
            numbers = [amount(word) for word in text.split()]
            whole = [value for value in numbers if value is not None]
            if len(whole) == FIELDS == len(numbers):
                rows.append((source.place(number), whole))
            else:
                strange.append(source.place(number))
    return header, rows, strange


def _job(place: str, row: Sequence[float], base: float, tally: Tally) -> Job | None:
    _, submit, wait, run, allocated, _, _, asked, limit, asked_memory, status, user, group, _, queue = row[
        :15
    ]
    if int(status) in _PARTIAL:
        tally.skip("a burst of a checkpointed job, which has a line of its own", place)
        return None
    if int(status) not in _OUTCOMES:
        tally.note(f"status {status:g} is not known: taken as completed", place)
    if status in (0, 5) and run <= 0:
        tally.skip("never ran (failed or cancelled)", place)
        return None
    gpus = asked if asked > 0 else allocated
    if asked > 0 and allocated > 0 and asked != allocated:
        tally.note("got another number of processors than it asked for: the asked is taken", place)
    if gpus <= 0:
        tally.skip("number of processors is not known", place)
        return None
    if row[16] > 0:
        tally.note("waits for another job: its submission is taken as recorded", place)
    started = base + submit + wait if wait >= 0 else None
    record = Record(
        name=f"{row[0]:.0f}",
        place=place,
        gpus=int(gpus),
        submit_s=base + submit if submit >= 0 else None,
        start_s=started,
        duration_s=run if run >= 0 else None,
        outcome=_OUTCOMES.get(int(status), "completed"),
        limit_s=limit if limit > 0 else None,
    )
    return make_job(
        record,
        tally,
        user=f"u{user:.0f}" if user >= 0 else "",
        queue=f"q{queue:.0f}" if queue >= 0 else (f"g{group:.0f}" if group >= 0 else ""),
        memory_bytes=max(asked_memory, 0.0) * 1024 * gpus,  # kilobytes per processor
    )


def _machine(header: dict[str, str]) -> list[Node]:
    """``MaxNodes`` equal nodes that hold ``MaxProcs`` processors."""
    processors, nodes = amount(header.get("maxprocs", "")), amount(header.get("maxnodes", ""))
    if not processors or processors < 1:
        return []
    count = int(nodes) if nodes and 1 <= nodes <= processors and processors % nodes == 0 else 1
    name = header.get("computer", "machine").split()[0] if header.get("computer") else "machine"
    each = int(processors) // count
    return [Node(f"{name}-{number}", (("", each),)) for number in range(1, count + 1)]


def write_swf(jobs: Iterable[Job], starts_s: Iterable[float | None], ends_s: Iterable[float | None]) -> str:
    """A schedule as SWF text: jobs with the times they started and ended (None: never); seconds are rounded.

    Users and queues become numbers in order of appearance, named in the header's notes.
    """
    users: dict[str, int] = {}
    queues: dict[str, int] = {}
    lines = []
    for number, (job, start, end) in enumerate(zip(jobs, starts_s, ends_s, strict=True), 1):
        ran = -1 if start is None or end is None else round(end - start)
        wait = -1 if start is None else round(start - job.submit_s)
        status = (
            _CODES.get(job.outcome, 0)
            if ran >= 0
            else (5 if job.outcome not in ("completed", "failed") else 0)
        )
        who = users.setdefault(job.user, len(users) + 1) if job.user else -1
        where = queues.setdefault(job.queue, len(queues) + 1) if job.queue else -1
        limit = -1 if job.limit_s is None else round(job.limit_s)
        memory = round(job.memory_bytes / 1024 / job.gpus) if job.gpus and job.memory_bytes else -1
        got = job.gpus if ran >= 0 else -1
        lines.append(
            f"{number} {round(job.submit_s)} {wait} {ran} {got} -1 -1 {job.gpus} {limit} {memory} "
            f"{status} {who} -1 -1 {where} -1 -1 -1"
        )
    header = ["; Version: 2.2", f"; MaxJobs: {len(lines)}", f"; MaxRecords: {len(lines)}"]
    header += [f"; Note: user {number} is {name}" for name, number in users.items()]
    header += [f"; Queue: {number} {name}" for name, number in queues.items()]
    return "\n".join([*header, *lines]) + "\n"
