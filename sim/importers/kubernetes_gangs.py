"""Gangs out of Kubernetes: the witnesses of one piece of work heard together, and each gang told once.

One piece of work may be in an export three times: as a Workload, as a Job and as its pods. Pods say when work ran,
Workloads when it was admitted and finished, Jobs only what they ask for; the best witness is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.importers.imported import Tally
from sim.importers.kubernetes_values import Needs
from sim.importers.making_jobs import Record, make_job, once_each
from sim.spec.job import Job


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one object says of one gang or of a member of it."""

    gang: str
    place: str
    rank: int
    """Witness: 3 pods, 2 Kueue workload, 1 what is asked for alone, 0 a PodGroup."""
    needs: tuple[tuple[int, Needs], ...]
    """(pods, what each holds)."""
    created_s: float | None
    started_s: float | None
    ended_s: float | None
    outcome: str
    limit_s: float | None = None
    queue: str = ""
    priority: float = 0.0
    kind: str = ""
    least_pods: int | None = None
    fault: str = ""
    """Why it is to be left out."""


def jobs_from(
    work: Sequence[Candidate], assume_duration_s: float | None, tally: Tally
) -> tuple[list[Job], bool]:
    """Gangs as jobs, and whether their times are of a wall clock."""
    gangs: dict[str, list[Candidate]] = {}
    for one in work:
        if one.fault:
            tally.skip(one.fault, one.place)
        else:
            gangs.setdefault(one.gang, []).append(one)
    times = [t for one in work for t in (one.created_s, one.started_s, one.ended_s) if t is not None]
    now = max(times, default=None)
    found = []
    for name, members in gangs.items():
        best = max(one.rank for one in members)
        for one in members:
            if one.rank < best:
                tally.skip("told better by another object of the same work", one.place)
        for number, wave in enumerate(_waves([one for one in members if one.rank == best]), 1):
            if number > 1:
                tally.note(
                    "pods made after others of their owner had ended: a job of their own", wave[0].place
                )
            called = name if number == 1 else f"{name}#{number}"
            job = _gang(called, wave, now, assume_duration_s, tally)
            if job is not None:
                found.append((wave[0].place, job))
    return once_each(found, tally), bool(times)


def _waves(members: Sequence[Candidate]) -> list[list[Candidate]]:
    """Members that ran side by side: a pod made after one of them had ended is a retry, or the next of a row."""
    if any(one.created_s is None for one in members):
        return [list(members)]
    waves: list[list[Candidate]] = []
    first_end = float("-inf")
    for one in sorted(members, key=lambda one: one.created_s or 0.0):
        if not waves or (one.created_s or 0.0) >= first_end:
            waves.append([])
            first_end = float("inf")
        waves[-1].append(one)
        first_end = min(first_end, float("inf") if one.ended_s is None else one.ended_s)
    return waves


def _gang(
    name: str, members: Sequence[Candidate], now: float | None, assume: float | None, tally: Tally
) -> Job | None:
    first = members[0]
    if len(members) > 1:
        tally.note("pod of a gang: counted in its first", first.place, len(members) - 1)
    outcomes = {one.outcome for one in members}
    outcome = next(o for o in ("failed", "running", "pending", "completed") if o in outcomes)
    starts = [one.started_s for one in members]
    start = max((s for s in starts if s is not None), default=None) if None not in starts else None
    ends = [one.ended_s for one in members if one.ended_s is not None]
    end = now if outcome == "running" else max(ends, default=None)
    needs = [(count, each) for one in members for count, each in one.needs]
    gpus = sum(count * each.gpus for count, each in needs)
    with_devices = [each for count, each in needs if each.gpus and count]
    duration = None if start is None or end is None else max(end - start, 0.0)
    if duration is None and first.limit_s is None and assume is not None:
        duration = assume
        tally.note("run time is not known: the assumed one is taken", first.place)
    if duration is None and first.limit_s is None:
        tally.skip("tells what it asks for, not how long it runs (--assume-duration gives that)", first.place)
        return None
    pods = sum(count for count, _ in needs)
    alike = len({each.gpus for count, each in needs if count}) == 1
    record = Record(
        name=name,
        place=first.place,
        gpus=gpus,
        submit_s=min((one.created_s for one in members if one.created_s is not None), default=None),
        start_s=start,
        duration_s=duration,
        outcome=outcome,
        limit_s=first.limit_s,
    )
    if record.submit_s is None and start is None:
        if now is not None:
            tally.note(
                "has no time of creation: taken as handed in at the newest time of the files", first.place
            )
        record.submit_s = now or 0.0
    least = first.least_pods
    return make_job(
        record,
        tally,
        queue=first.queue,
        priority=first.priority,
        kind=first.kind,
        accelerator=with_devices[0].kind if with_devices else "",
        gpu_share_frac=with_devices[0].share_frac if with_devices else 1.0,
        cpus=sum(count * each.cpus for count, each in needs),
        memory_bytes=sum(count * each.memory_bytes for count, each in needs),
        min_gpus=least * gpus // pods if least is not None and alike and 0 < least < pods and gpus else None,
    )
