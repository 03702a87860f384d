"""A cluster watched often enough to be believed: replications, intervals, and the verdict.

One month of a cluster is an anecdote. The same month is played again with other dice until the answers hold still.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sim.cluster.contention import contention_of
from sim.cluster.from_scenario import Stage, ground, jobs, policy_of, rules_of, stage, weather
from sim.cluster.idle import IdleSplit, idle_split
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.results.cluster_log import CAUSES, ClusterLog, account
from sim.results.cluster_stats import answers, in_system, queue_series
from sim.spec.job import Job
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.statistics.replications import Replications, Rule, Told, replicate
from sim.statistics.steady import mser_truncation
from sim.statistics.streams import Streams

FLOORS = {
    "mean_wait_s": 60.0,
    "p50_wait_s": 60.0,
    "p95_wait_s": 300.0,
    "spent_on_failures_frac": 0.005,
    "down_frac": 0.005,
    "idle_though_jobs_wait_frac": 0.01,
    "interruptions": 3.0,
    "interruptions_per_day": 0.5,
    "effective_frac": 0.005,
    "left_waiting": 5.0,
    "p95_completion_s": 600.0,
}
"""Half-widths that are good enough, whatever the mean: nobody plans by less."""
COLUMNS, POINTS = ("held", "waiting_jobs"), 120
"""The course of a replication that is kept, for bands over time."""
PILOTS, PILOT_POINTS = 3, 1000
SATURATED_JOBS, WEIGHED_JOBS = 4000, 500
"""Jobs that are handed in at once to find what can be carried; fewer where the policy weighs every one of them anew in
each pass."""
WEIGHING = ("multifactor", "conservative", "conservative-compress", "tiresias", "srtf", "priority-preempt")
SPARE = 0.9
"""Offered load over what can be carried, up to which a cluster counts as stable: waits grow like 1/(1 - load)."""
NOBODY_MINDS_S = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the cluster keeps up. ``offered_frac``: device-time asked for over device-time owned; ``turns_frac``: the
    offered share from which the queue grows without end under this policy, from a run with all jobs waiting at once."""

    word: str
    """``stable``, ``backlogged`` (it keeps up, but with little to spare) or ``overloaded``."""
    offered_frac: float
    turns_frac: float


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Time at the start that the statistics of jobs leave out."""

    span_s: float
    found: bool
    """By MSER-5 (``study.warm_up`` = auto), not given."""
    too_short: bool
    """The best cut lay at the end of the first half: the run never settled."""


@dataclass(frozen=True, slots=True)
class ClusterStudy:
    """All replications, jobs and log of the first, and the verdict."""

    scenario: Scenario
    replications: Replications
    jobs: tuple[Job, ...]
    log: ClusterLog
    verdict: Verdict
    warm_up: WarmUp
    idle: IdleSplit


def play(staged: Stage, number: int = 0, span_s: float | None = None) -> ClusterLog:
    """Replication ``number``: its own dice for jobs, faults and repairs; the same for every policy."""
    return _play(staged, number, jobs(staged, _streams(staged, number)), span_s)


def _streams(staged: Stage, number: int) -> Streams:
    return Streams(staged.scenario.seed).child("replication", number)


def _play(staged: Stage, number: int, asked: Iterable[Job], span_s: float | None = None) -> ClusterLog:
    scenario = staged.scenario
    sky = weather(scenario, _streams(staged, number))
    return simulate(
        asked,
        ground(scenario),
        policy_of(scenario.policy),
        rules=rules_of(staged, sky),
        outages=sky.outages() if sky else (),
        until_s=scenario.study.span_s if span_s is None else span_s,
    )


def study(
    scenario: Scenario,
    trace: Sequence[Job] = (),
    fits: Sequence[Fit] = (),
    workers: int = 1,
    told: Told | None = None,
) -> ClusterStudy:
    """Play ``scenario`` until its answers are sure enough; ``told`` hears how many replications are done of at most
    how many."""
    staged = stage(scenario, trace, fits)
    scenario, asked = staged.scenario, staged.scenario.study
    warm = warm_up(staged)
    carried = [f"{column}@{i}" for column in COLUMNS for i in range(POINTS)] + [
        *map(book, CAUSES),
        "offered_frac",
    ]
    floors = FLOORS | dict.fromkeys(carried, math.inf)  # told, but nothing waits for their precision
    most = max(asked.most, asked.least)
    rule = Rule(asked.precision_frac, least=asked.least, most=most, ahead=1, floors=floors)
    first = tuple(jobs(staged, _streams(staged, 0)))
    log = _play(staged, 0, first)
    zero = _told(staged, warm.span_s, first, log)
    if left_to_chance(scenario):
        found = replicate(partial(_answers, staged, warm.span_s, zero), rule, workers=workers, told=told)
    else:
        found = replicate(lambda _: zero, replace(rule, least=2, most=2))
    split = idle_split(log, ground(scenario), first)
    return ClusterStudy(scenario, found, first, log, verdict(staged, first, found), warm, split)


def left_to_chance(scenario: Scenario) -> bool:
    """Whether two replications can differ; a recorded trace without failures is the same every time."""
    asked = scenario.jobs
    drawn = asked is not None and any((asked.mixes, asked.searches, asked.cycles))
    return drawn or scenario.reliability is not None


def _answers(staged: Stage, warm_up_s: float, zero: dict[str, float], number: int) -> dict[str, float]:
    """Answers of replication ``number``; of the first they are known: ``zero``."""
    if number == 0:
        return zero
    asked = list(jobs(staged, _streams(staged, number)))
    return _told(staged, warm_up_s, asked, _play(staged, number, asked))


def _told(staged: Stage, warm_up_s: float, asked: Sequence[Job], log: ClusterLog) -> dict[str, float]:
    """Answers of one replication, with the load it was offered, its books and the course of :data:`COLUMNS`."""
    course = queue_series(log, POINTS)
    books = account(log)
    return (
        answers(log, warm_up_s)
        | {book(cause): seconds / books.owned_gpu_s for cause, seconds in books.by_cause.items()}
        | {"offered_frac": offered_frac(asked, log.devices, staged.scenario.study.span_s)}
        | {f"{column}@{i}": row[column] for column in COLUMNS for i, row in enumerate(course)}
    )


def book(cause: str) -> str:
    """Name of the answer that is a cause's share of the device-time owned."""
    return f"book@{cause}"


def warm_up(staged: Stage) -> WarmUp:
    """The warm-up as given, or found by MSER-5 on the jobs in the system over time, mean of three replications."""
    asked = staged.scenario.study
    if asked.warm_up == "given":
        return WarmUp(asked.warm_up_s, found=False, too_short=False)
    series = np.mean([in_system(play(staged, number), PILOT_POINTS) for number in range(PILOTS)], axis=0)
    cut = mser_truncation(series)
    return WarmUp(cut / PILOT_POINTS * asked.span_s, found=True, too_short=cut >= PILOT_POINTS // 2 - 5)


def offered_frac(asked: Iterable[Job], devices: float, span_s: float) -> float:
    """Device-time that the jobs ask for within the span, over the device-time owned."""
    wanted = sum(
        job.gpus * job.gpu_share_frac * min(job.duration_s, job.limit_s or math.inf, span_s - job.submit_s)
        for job in asked
        if job.submit_s < span_s
    )
    return wanted / (devices * span_s) if devices * span_s else 0.0


def verdict(staged: Stage, first: Sequence[Job], found: Replications) -> Verdict:
    """Offered load against what policy and placement can carry; where hardly anybody waits it is stable anyway."""
    offered = found.interval("offered_frac").estimate
    weighs = staged.scenario.policy.name in WEIGHING
    drained = saturation(staged, first[: WEIGHED_JOBS if weighs else SATURATED_JOBS])
    # What was done in the run can be carried: a floor for the backlog's answer, which its tail pulls down.
    turns = max(drained, found.interval("goodput_frac").estimate)
    if found.interval("p95_wait_s").estimate < NOBODY_MINDS_S or offered < SPARE * turns:
        word = "stable"
    else:
        word = "backlogged" if offered < turns else "overloaded"
    return Verdict(word, offered, turns)


def saturation(staged: Stage, asked: Sequence[Job]) -> float:
    """Share of the devices that is held while jobs wait without end: the most that policy and placement can carry;
    where jobs slow each other down, times the work that they get done in that time.

    All of ``asked`` are handed in at once and the devices are watched until the last of them starts.
    """
    scenario = staged.scenario
    queued = [replace(job, submit_s=0.0) for job in asked if job.gpus and job.duration_s > 0]
    if not queued:
        return 1.0
    nodes = ground(scenario)
    contention = contention_of(scenario)
    work = sum(job.gpus * job.duration_s for job in queued)
    log = simulate(
        queued,
        nodes,
        policy_of(scenario.policy),
        rules=Rules(kill_at_limit=scenario.policy.kill_at_limit, contention=contention),
        until_s=10 * work / nodes.total_gpus + 10 * max(job.duration_s for job in queued),
    )
    last = max((row.start_s for row in log.segments), default=0.0)
    if last <= 0:
        return 1.0
    held = sum(row.gpus * max(min(row.end_s, last) - row.start_s, 0.0) for row in log.segments)
    if contention is not None:
        done = [row for row in log.segments if row.why == "completed" and row.end_s > row.start_s]
        worked = sum(row.gpus * queued[row.number].duration_s for row in done)
        held *= worked / sum(row.gpus * (row.end_s - row.start_s) for row in done)
    return min(held / (nodes.total_gpus * last), 1.0)
