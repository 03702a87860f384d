"""A cluster watched often enough to be believed: replications, intervals, and the verdict.

One month of a cluster is an anecdote. The same month is played again with other dice until the answers hold still.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from sim.cluster.contention import contention_of
from sim.cluster.from_scenario import Stage, ground, jobs, policy_of, rules_of, stage, weather
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.results.cluster_log import ClusterLog
from sim.results.cluster_stats import answers
from sim.spec.job import Job
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.statistics.replications import Replications, Rule, replicate
from sim.statistics.streams import Streams

FLOORS = {
    "mean_wait_s": 60.0,
    "p50_wait_s": 60.0,
    "p95_wait_s": 300.0,
    "spent_on_failures_frac": 0.005,
    "down_frac": 0.005,
    "idle_though_jobs_wait_frac": 0.01,
    "interruptions_per_day": 0.5,
    "left_waiting": 5.0,
    "p95_completion_s": 600.0,
}
"""Half-widths that are good enough, whatever the mean: nobody plans by less."""
SATURATED_JOBS = 4000
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
class ClusterStudy:
    """All replications, the log of the first, and the verdict."""

    scenario: Scenario
    replications: Replications
    log: ClusterLog
    verdict: Verdict


def play(staged: Stage, number: int = 0, span_s: float | None = None) -> ClusterLog:
    """Replication ``number``: its own dice for jobs, faults and repairs; the same for every policy."""
    scenario = staged.scenario
    streams = Streams(scenario.seed).child("replication", number)
    return simulate(
        jobs(staged, streams),
        ground(scenario),
        policy_of(scenario.policy),
        rules=rules_of(staged, streams),
        outages=weather(scenario, streams),
        until_s=scenario.study.span_s if span_s is None else span_s,
    )


def study(
    scenario: Scenario, trace: Sequence[Job] = (), fits: Sequence[Fit] = (), workers: int = 1
) -> ClusterStudy:
    """Play ``scenario`` until its answers are sure enough."""
    staged = stage(scenario, trace, fits)
    asked = scenario.study
    rule = Rule(
        asked.precision_frac, least=asked.least, most=max(asked.most, asked.least), ahead=1, floors=FLOORS
    )
    found = replicate(partial(_answers, staged), rule, workers=workers)
    return ClusterStudy(scenario, found, play(staged), verdict(staged, found.interval("p95_wait_s").estimate))


def _answers(staged: Stage, number: int) -> dict[str, float]:
    return answers(play(staged, number), staged.scenario.study.warm_up_s)


def verdict(staged: Stage, p95_wait_s: float) -> Verdict:
    """Offered load against what policy and placement can carry; where hardly anybody waits it is stable anyway."""
    scenario = staged.scenario
    span = scenario.study.span_s
    asked = list(jobs(staged, Streams(scenario.seed).child("replication", 0)))
    owned = ground(scenario).total_gpus * span
    offered = sum(
        job.gpus * job.gpu_share_frac * min(job.duration_s, job.limit_s or math.inf, span - job.submit_s)
        for job in asked
    )
    offered_frac = offered / owned if owned else 0.0
    turns = saturation(staged, asked[:SATURATED_JOBS])
    if p95_wait_s < NOBODY_MINDS_S or offered_frac < SPARE * turns:
        word = "stable"
    else:
        word = "backlogged" if offered_frac < turns else "overloaded"
    return Verdict(word, offered_frac, turns)


def saturation(staged: Stage, asked: Sequence[Job]) -> float:
    """Share of the devices that is held while jobs wait without end: the most that policy and placement carry; where
    jobs slow each other down, times the work that they get done in that time.

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
