"""Microsoft Philly 2017: jobs with every attempt, as JSON (cluster_job_log), and the list of machines.

Source: msr-fiddle/philly-traces README (Jeon et al., ATC 2019). A job's run time is the sum of its attempts: that is
how long it held devices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sim.importers.imported import Node, Parts, Tally
from sim.importers.making_jobs import Record, make_job, once_each, outcome_of
from sim.importers.moments import moment
from sim.importers.sources import Source, refuse, table
from sim.spec.job import Job


def read_philly(sources: Sequence[Source], tally: Tally) -> Parts:
    """Jobs of cluster_job_log and nodes of cluster_machine_list.

    Raises:
        ScenarioError: a file that is neither.
    """
    parts = Parts()
    found: list[tuple[str, Job]] = []
    for source in sources:
        if source.text.lstrip()[:1] == "[":
            found += _jobs(source, tally)
        else:
            parts.nodes += _machines(source, tally)
    parts.jobs = once_each(found, tally)
    return parts


def _jobs(source: Source, tally: Tally) -> list[tuple[str, Job]]:
    try:
        entries = json.loads(source.text)
    except (json.JSONDecodeError, RecursionError) as fault:
        raise refuse(source.name, f"is not JSON ({fault})") from None
    if not any(isinstance(entry, Mapping) and "attempts" in entry for entry in entries):
        raise refuse(source.name, "is no cluster_job_log: expected a list of jobs with attempts")
    found = []
    for index, entry in enumerate(entries):
        tally.records += 1
        place = f"{source.name}: {index}"
        if not isinstance(entry, Mapping) or not entry.get("jobid"):
            tally.skip("entry is no job", place)
            continue
        job = _job(entry, place, tally)
        if job is not None:
            found.append((place, job))
    return found


def _job(entry: Mapping[str, Any], place: str, tally: Tally) -> Job | None:
    attempts = [attempt for attempt in entry.get("attempts") or [] if isinstance(attempt, Mapping)]
    if not attempts:
        tally.skip("no attempt is recorded", place)
        return None
    runs = [(moment(a.get("start_time")), moment(a.get("end_time"))) for a in attempts]
    whole = [end - start for start, end in runs if start is not None and end is not None]
    if len(whole) < len(runs):
        tally.note("attempt without a start or an end: not counted in the run time", place)
    if len(whole) > 1:
        tally.note("several attempts: their run times are added up", place)
    if not whole:
        tally.skip("run time is not known", place)
        return None
    sizes = {
        sum(len(machine.get("gpus") or []) for machine in attempt.get("detail") or []) for attempt in attempts
    }
    if len(sizes) > 1:
        tally.note("attempts on different numbers of devices: the largest is taken", place)
    record = Record(
        name=str(entry["jobid"]),
        place=place,
        gpus=max(sizes),
        submit_s=moment(entry.get("submitted_time")),
        start_s=next((start for start, _ in runs if start is not None), None),
        duration_s=sum(whole),
        outcome=outcome_of(str(entry.get("status", ""))),
        state=str(entry.get("status", "")),
    )
    return make_job(record, tally, user=str(entry.get("user") or ""), queue=str(entry.get("vc") or ""))


def _machines(source: Source, tally: Tally) -> list[Node]:
    header, rows = table(source)
    if "machineId" not in header or "number of GPUs" not in header:
        raise refuse(
            source.name, "is neither cluster_job_log (JSON) nor cluster_machine_list", ",".join(header)[:60]
        )
    nodes = []
    for line, cells in rows:
        tally.records += 1
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        count = row.get("number of GPUs", "")
        if not count.isdigit():
            tally.skip("number of devices is not a number", source.place(line))
            continue
        memory = re.sub(r"\s", "", row.get("single GPU mem", ""))
        nodes.append(Node(row["machineId"], ((memory, int(count)),)))
    return nodes
