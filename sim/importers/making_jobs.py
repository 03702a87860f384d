"""The one gate through which every history's jobs pass: what is missing is filled or told, what cannot be is left out.

Formats differ in words, not in what can be wrong with a record: no times, times in the wrong order, no devices, twice
the same. Those rules stand here once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from sim.importers.imported import Tally
from sim.spec.job import Job

OUTCOMES = {
    "completed": "completed success succeeded pass passed terminated cd complete done 1",
    "failed": "failed fail failure error f oom out_of_memory boot_fail bf launch_failed reconfig_fail",
    "cancelled": "cancelled canceled killed revoked ca stopped deadline dl",
    "timeout": "timeout to",
    "node-fail": "node_fail nf nodefail",
    "preempted": "preempted pr requeued requeue rq requeue_hold special_exit evicted",
    "running": "running r completing cg suspended s stopped_running resizing signaling stage_out configuring cf",
    "pending": "pending pd waiting requeue_fed resv_del_hold submitted queued",
}
_WORDS = {word: outcome for outcome, words in OUTCOMES.items() for word in words.split()}


def outcome_of(state: str) -> str | None:
    """Our word for a state: its first word counts (``CANCELLED by 1001``), a ``+`` that cuts it off not; else None."""
    first = state.strip().lower().partition(" ")[0].rstrip("+")
    return _WORDS.get(first)


@dataclass(slots=True)
class Record:
    """What a history says of one job, before it is judged. Times in seconds on the file's own dial."""

    name: str
    place: str
    gpus: int | None
    submit_s: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    duration_s: float | None = None
    outcome: str | None = "completed"
    state: str = ""
    """The word the file used."""
    limit_s: float | None = None


def make_job(record: Record, tally: Tally, **more: Any) -> Job | None:
    """The job, or None after its reason was counted; ``more`` are further fields of :class:`Job`."""
    place = record.place
    outcome = record.outcome
    if outcome is None:
        tally.note(f"state {record.state[:30]!r} is not known: taken as completed", place)
        outcome = "completed"
    duration = record.duration_s
    if duration is None and record.start_s is not None and record.end_s is not None:
        duration = record.end_s - record.start_s
    never = outcome in ("failed", "timeout", "cancelled") and record.submit_s is not None
    if never and record.start_s is None and not duration:
        tally.skip(f"never ran ({outcome})", place)
        return None
    waits = outcome == "pending" and record.start_s is None
    if waits and not duration:  # sacct says that it ran 0 s
        duration = record.limit_s
    submit = record.submit_s
    if submit is None and record.start_s is not None:
        tally.note("no time of submission: the start stands for it (its wait is not known)", place)
        submit = record.start_s
    if submit is None:
        tally.skip("neither a time of submission nor of start", place)
        return None
    if duration is None:
        tally.skip("run time is not known", place)
        return None
    if duration < 0:
        tally.skip("ends before it starts", place)
        return None
    gpus = record.gpus
    if gpus is None:
        tally.note("number of devices is not stated: taken as 0 (a job of processors alone)", place)
        gpus = 0
    if gpus < 0:
        tally.skip("number of devices is negative", place)
        return None
    if waits and duration == record.limit_s:
        tally.note("waiting when the file was written: its time limit stands for its duration", place)
    _tell_oddities(record, submit, duration, outcome, tally)
    return Job(
        name=record.name,
        submit_s=submit,
        gpus=gpus,
        duration_s=duration,
        limit_s=record.limit_s,
        outcome=outcome,
        recorded_start_s=record.start_s,
        **more,
    )


def _tell_oddities(record: Record, submit: float, duration: float, outcome: str, tally: Tally) -> None:
    if record.start_s is not None and record.start_s < submit:
        tally.note("started before it was submitted: both times are kept", record.place)
    if record.limit_s is not None and duration > record.limit_s > 0:
        tally.note("ran past its time limit (ended late): both are kept", record.place)
    if outcome == "running":
        tally.note("still running when the file was written: its duration is the time so far", record.place)
    if record.start_s is not None and record.end_s is not None and outcome != "running":
        apart = abs(record.end_s - record.start_s - duration)
        if apart > 1 + 0.01 * duration:
            tally.note(
                "end less start is not the stated run time (suspended or several runs): the stated is kept",
                record.place,
            )


def once_each(jobs: list[tuple[str, Job]], tally: Tally) -> list[Job]:
    """(place, job) with each name once: of several runs under one name (requeued) the last stays."""
    kept: dict[str, Job] = {}
    for place, job in jobs:
        before = kept.get(job.name)
        if before is None:
            kept[job.name] = job
            continue
        if before == job:
            tally.skip("the same record again", place)
            continue
        tally.skip("another run of a job under the same name: the last run is kept", place)
        if (job.recorded_start_s or job.submit_s) >= (before.recorded_start_s or before.submit_s):
            kept[job.name] = job
    return list(kept.values())


def from_origin(jobs: list[Job], tally: Tally) -> tuple[list[Job], float]:
    """Jobs in order of submission with times from the first submission on, and that moment."""
    if not jobs:
        return [], 0.0
    late = sum(after.submit_s < before.submit_s for before, after in pairwise(jobs))
    if late:
        tally.note("out of order of submission: sorted", count=late)
    origin = min(job.submit_s for job in jobs)
    moved = [_moved(job, origin) for job in sorted(jobs, key=lambda job: (job.submit_s, job.name))]
    return moved, origin


def _moved(job: Job, origin: float) -> Job:
    start, deadline = job.recorded_start_s, job.deadline_s
    return replace(
        job,
        submit_s=job.submit_s - origin,
        recorded_start_s=None if start is None else start - origin,
        deadline_s=None if deadline is None else deadline - origin,
    )
