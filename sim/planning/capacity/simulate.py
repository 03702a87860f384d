"""The best few options, played job by job: how much of them can be scheduled, what makes progress, and who waits.

The closed form pours work like water; jobs are stones. What share of the devices stones can fill, and how long they
wait for a gap, is measured here for each option and put in the place of what the catalogue assumes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge

import numpy as np

from sim.cluster.failures.stream import outages
from sim.cluster.from_scenario import policy_of
from sim.cluster.nodes import Nodes, Pool
from sim.cluster.placement.whole import Packed
from sim.cluster.policy import Policy
from sim.cluster.recovery import Recovery
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.cost.goodput import optimal_interval_s
from sim.mixes.generate import generate
from sim.planning.capacity import months
from sim.planning.capacity.evaluate import Evaluation
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.needs import Need
from sim.results.cluster_log import ClusterLog, account
from sim.results.cluster_stats import job_table
from sim.spec.demand import Programme
from sim.spec.job import Job
from sim.spec.mix import Arrivals, Mix, Portion, Size
from sim.spec.reliability import Cause, Delay, Reliability
from sim.spec.scheduling import Scheduling
from sim.statistics.streams import Streams

WINDOW_S = 14 * 86400.0
MOST_JOBS, QUEUED_JOBS = 3000, 800
"""Jobs played at the planned load (a shorter window where there would be more), and handed in at once."""
HOUR_S = 3600.0
STEADY = "steady"
"""Kind of a gang that stays for the whole window: a training run, a service."""
SIZES = {
    "team": ((1, 0.52, 1.0), (2, 0.10, 1.5), (4, 0.13, 2.0), (8, 0.20, 4.0), (32, 0.05, 6.0)),
    "fine-tuning": ((8, 0.6, 4.0), (16, 0.25, 6.0), (32, 0.15, 8.0)),
    "search": ((1, 0.8, 1.0), (4, 0.2, 2.0)),
    "device-hours": ((1, 0.4, 1.0), (4, 0.2, 2.0), (8, 0.3, 4.0), (32, 0.1, 8.0)),
    "history": ((1, 0.4, 1.0), (4, 0.2, 2.0), (8, 0.3, 4.0), (32, 0.1, 8.0)),
}
"""(devices, share of the jobs, median hours) by kind of programme; assumed, of the order that Philly, Helios and Acme
show (many small jobs, most hours in large ones); durations log-normal with sigma 1.2."""
SIGMA = 1.2
WRITE_S = 60.0
"""Blocking time of a checkpoint; assumed."""
FAILURES_PER_NODE_DAY = 6.5e-3
"""RSC-1 (Kokolis et al. 2025); the repair time follows from the share of nodes out of service."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long the jobs of one programme wait at the planned load."""

    programme: str
    jobs: int
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Played:
    """What the simulation of an option's busiest month found."""

    scheduling_frac: float
    """Share of the working devices that jobs hold while others wait."""
    runtime_frac: float
    """Share of the held time that is progress which lasts."""
    busy_frac: float
    """Share of the devices held at the planned load."""
    waits: tuple[Wait, ...]


def play_option(found: Evaluation, needs: Sequence[Need], rate: Rate, seed: int) -> Played | None:
    """Play the busiest month of the median world; None where the option has no machines of its own."""
    own = [f for f in found.fleets if f.part.contract not in ("rent", "spot")]
    if not own or found.flow is None:
        return None
    month = _busiest(found, own)
    there = [f for f in own if float(np.median(f.owned[:, month])) > 0]
    if not there:
        return None
    first = there[0].part.wired
    pools = [
        Pool(f.nodes, f.part.system.gpus_per_node, f.part.system.accelerator,
             _speed(found, rate, f.part.wired.key, first.key))
        for f in there
    ]  # fmt: skip
    streams = Streams(seed).child("plan")
    jobs = sorted(
        _jobs(needs, there[0].devices, first.key, found, rate, month, streams), key=lambda j: j.submit_s
    )
    if not jobs:
        return None
    weather, policy = _reliability(found), policy_of(Scheduling(name=found.candidate.option.policy))
    until_s = jobs[MOST_JOBS].submit_s if len(jobs) > MOST_JOBS else WINDOW_S
    log = simulate(
        jobs[:MOST_JOBS], Nodes(pools, Packed()), policy, rules=_rules(), until_s=until_s,
        outages=outages(weather, sum(p.nodes for p in pools), streams.child("outages")),
    )  # fmt: skip
    mixed = [job for job in jobs if job.kind != STEADY][:QUEUED_JOBS]
    return Played(_held_while_waiting(mixed, pools, policy), _runtime(log), _busy(log), _waits(log, needs))


def _busiest(found: Evaluation, own: Sequence[object]) -> int:
    """Month in which the used share of the running hours is largest, at the median."""
    used = sum(u for f, u in zip(found.fleets, found.flow.used, strict=True) if f in own)  # type: ignore[union-attr]
    have = sum(f.running for f in found.fleets if f in own)
    share = np.divide(used, have, out=np.zeros_like(used), where=have > 0)
    return int(np.argmax(np.median(share, axis=0)))


def _speed(found: Evaluation, rate: Rate, system: str, first: str) -> float:
    """Speed of a system against the first one, on a programme of device-hours (or any other that both can do)."""
    by_key = {f.part.wired.key: f.part.wired for f in found.fleets}
    for served in found.flow.served if found.flow else ():
        programme = served.need.programme
        ours, theirs = (rate(programme, by_key[key], 8) for key in (system, first))
        if ours > 0 and theirs > 0:
            return ours / theirs
    return 1.0


def _jobs(
    needs: Sequence[Need],
    devices: int,
    first: str,
    found: Evaluation,
    rate: Rate,
    month: int,
    streams: Streams,
) -> Iterator[Job]:
    """Jobs of the window, from each programme's work in that month (median world) on the first fleet's devices."""
    system = next(f.part.wired for f in found.fleets if f.part.wired.key == first)
    parts = []
    for number, need in enumerate(needs):
        programme = need.programme
        speed = rate(programme, system, devices)
        done = found.flow.served[number].done  # type: ignore[union-attr]
        work = float(np.median(need.work[:, month] if not need.waits else done[:, month]))
        if speed <= 0 or work <= 0:
            continue
        hours = work / speed * WINDOW_S / (months.HOURS * HOUR_S)
        if programme.kind in SIZES:
            seed = int(streams.generator("jobs", programme.name).integers(2**31))
            parts.append(generate(_mix(programme, hours, devices), WINDOW_S, seed))
        else:
            gang = min(max(round(hours * HOUR_S / WINDOW_S), 1), devices)
            held = hours * HOUR_S / gang
            name = programme.name
            parts.append(
                iter([Job(name, 0.0, gang, held, user=name, queue=name, priority=10.0, kind=STEADY)])
            )
    return merge(*parts, key=lambda job: job.submit_s)


def _mix(programme: Programme, hours: float, devices: int) -> Mix:
    """A mix whose jobs ask for ``hours`` device-hours in the window."""
    name = programme.name
    fitting = [row for row in SIZES[programme.kind] if row[0] <= devices] or [(1, 1.0, 1.0)]
    total = sum(share for _, share, _ in fitting)
    mean = sum(gpus * share / total * median * math.exp(SIGMA**2 / 2) for gpus, share, median in fitting)
    sizes = tuple(Size(gpus, share, median * HOUR_S, SIGMA) for gpus, share, median in fitting)
    return Mix(Arrivals(hours / mean / WINDOW_S, burst_cv=0.5), sizes, name=name, users=20, limit_share=1.0,
               queues=(Portion(name),), priority=programme.priority)  # fmt: skip


def _reliability(found: Evaluation) -> Reliability:
    """Failures whose repairs keep the share of nodes out of service that the plan assumes."""
    own = [f for f in found.fleets if f.owned.sum() > 0]
    down = 1 - float(
        np.median(sum(f.available.sum(axis=1) for f in own) / sum(f.owned.sum(axis=1) for f in own))
    )
    repair_s = max(down, 1e-4) / (1 - min(down, 0.5)) / FAILURES_PER_NODE_DAY * 86400
    cause = Cause("node", repair=Delay(repair_s), detect=Delay(300.0))
    return Reliability((FAILURES_PER_NODE_DAY * 1000,), causes=(cause,))


def _rules() -> Rules:
    """Checkpoints at the interval that is best for the gang's size."""

    def recovery(job: Job) -> Recovery:
        nodes = max(job.gpus / 8, 1.0)
        mean_s = 86400 / (FAILURES_PER_NODE_DAY * nodes)
        return Recovery(float(optimal_interval_s(mean_s, WRITE_S)), WRITE_S, WRITE_S, 300.0)

    return Rules(recovery=recovery)


def _held_while_waiting(jobs: Sequence[Job], pools: Sequence[Pool], policy: Policy) -> float:
    """Share of the devices held until the last job starts, all handed in at once."""
    queued = [replace(job, submit_s=0.0) for job in jobs]
    log = simulate(queued, Nodes(pools, Packed()), policy)
    last = max((s.start_s for s in log.segments), default=0.0)
    if last <= 0:
        return 1.0
    held = sum(s.gpus * max(min(s.end_s, last) - s.start_s, 0.0) for s in log.segments)
    return min(held / (sum(p.nodes * p.gpus_per_node for p in pools) * last), 1.0)


def _runtime(log: ClusterLog) -> float:
    books = account(log).by_cause
    held = sum(books.values()) - books["down"] - books["idle_nobody_waits"] - books["idle_though_jobs_wait"]
    return books["useful"] / held if held else 1.0


def _busy(log: ClusterLog) -> float:
    books = account(log)
    idle = (
        books.by_cause["idle_nobody_waits"] + books.by_cause["idle_though_jobs_wait"] + books.by_cause["down"]
    )
    return 1 - idle / books.owned_gpu_s


def _waits(log: ClusterLog, needs: Sequence[Need]) -> tuple[Wait, ...]:
    found = []
    for need in needs:
        name = need.programme.name
        mine = job_table([r for r in log.records if r.queue == name])["wait_s"]
        if len(mine):
            p50, p95 = (float(np.quantile(mine, q, method="inverted_cdf")) for q in (0.5, 0.95))
            found.append(Wait(name, len(mine), p50, p95))
    return tuple(found)
