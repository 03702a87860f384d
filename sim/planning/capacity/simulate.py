"""The best few options, played job by job: how much of them can be scheduled, what makes progress, and who waits.

The closed form pours work like water; jobs are stones. What share of the devices stones can fill, and how long they
wait for a gap, is measured here for each option and put in the place of what the catalogue assumes. Rented and spot
nodes stand behind the owned ones and are added as jobs wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge

import numpy as np

from sim.cluster.failures.stream import outages
from sim.cluster.from_scenario import policy_of
from sim.cluster.nodes import Nodes, Pool
from sim.cluster.outage import Outage
from sim.cluster.placement.whole import Packed
from sim.cluster.policy import Policy
from sim.cluster.recovery import Recovery
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.cost.goodput import optimal_interval_s
from sim.planning.capacity.evaluate import Evaluation
from sim.planning.capacity.fleets import PAID_FOR_USE, Fleet
from sim.planning.capacity.fluid import ORDER, Rate
from sim.planning.capacity.needs import Need
from sim.planning.capacity.rented import (
    DAY_S,
    SPOT_INTERRUPTIONS_PER_NODE_DAY,
    Rented,
    rented,
    scaled,
    spot_interruptions,
)
from sim.planning.capacity.window import STEADY, WINDOW_S, busiest_month, window_jobs
from sim.results.cluster_log import ClusterLog, Segment
from sim.results.cluster_stats import job_table
from sim.spec.job import Job
from sim.spec.prices import Assumption
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Cause, Delay, Reliability
from sim.spec.scheduling import Scheduling
from sim.statistics.streams import Streams

MOST_JOBS, QUEUED_JOBS = 3000, 800
"""Jobs played at the planned load (a shorter window where there would be more), and handed in at once."""
STARTED_FRAC = 0.9
"""Of the jobs handed in at once, those that must have started before the rest counts as the tail."""
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
    """What the simulation of an option's busiest month found; none = the option has nothing to measure it on."""

    scheduling_frac: float | None
    """Share of the working devices of its own nodes that jobs hold while others wait."""
    runtime_frac: float | None
    """Share of the held time that is progress which lasts, spot nodes apart."""
    spot_loss_frac: float | None
    """What less of the held time on spot nodes is progress."""
    rented: Rented | None
    """The nodes paid for by use."""
    busy_frac: float
    """Share of its own devices (of the rented ones, where it has no others) held at the planned load."""
    waits: tuple[Wait, ...]

    def shares(self) -> dict[str, float]:
        """What it found, by the names of the general assumptions."""
        found = {
            "scheduling_frac": self.scheduling_frac,
            "runtime_frac": self.runtime_frac,
            "spot_loss_frac": self.spot_loss_frac,
            "rented_scheduling_frac": None if self.rented is None else self.rented.fill_frac,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Floor:
    """The nodes of one option, own ones first: jobs go to the first pool that has room."""

    fleets: tuple[Fleet, ...]
    pools: tuple[Pool, ...]

    def nodes(self, *contracts: str) -> list[tuple[int, int, int]]:
        """(pool, first node, nodes) of every pool under one of these contracts."""
        found, first = [], 0
        for number, (fleet, pool) in enumerate(zip(self.fleets, self.pools, strict=True)):
            if fleet.part.contract in contracts:
                found.append((number, first, pool.nodes))
            first += pool.nodes
        return found

    @property
    def own(self) -> list[Pool]:
        """Pools that are there whether used or not."""
        pairs = zip(self.fleets, self.pools, strict=True)
        return [p for f, p in pairs if f.part.contract not in PAID_FOR_USE]


def play_option(found: Evaluation, needs: Sequence[Need], rate: Rate, streams: Streams) -> Played | None:
    """Play the busiest month of the median world; None where there are no machines or no work for them.

    ``streams``: of one replication. Two options meet the same jobs and the same weather under the same streams.
    """
    if found.flow is None or not found.fleets:
        return None
    own = [f for f in found.fleets if f.part.contract not in PAID_FOR_USE]
    month = busiest_month(found, own or found.fleets)
    there = [f for f in found.fleets if float(np.median(f.owned[:, month])) > 0]
    there.sort(key=lambda f: ORDER[f.part.contract])  # stable: in the order in which work is poured into them
    if not there:
        return None
    jobs = window_jobs(found, needs, there, rate, month, streams)
    if not jobs:
        return None
    floor = _Floor(tuple(there), tuple(_pool(found, f, there[0], rate) for f in there))
    policy = policy_of(Scheduling(name=found.candidate.option.policy))
    until_s = jobs[MOST_JOBS].submit_s if len(jobs) > MOST_JOBS else WINDOW_S
    log = simulate(
        jobs[:MOST_JOBS], Nodes(floor.pools, Packed()), policy, rules=_rules(bool(floor.nodes("spot"))),
        until_s=until_s, outages=_weather(found, floor, streams),
    )  # fmt: skip
    mixed = [job for job in jobs if job.kind != STEADY][:QUEUED_JOBS]
    return _measured(log, floor, _held_while_waiting(mixed, floor.own, policy), needs)


def _pool(found: Evaluation, fleet: Fleet, first: Fleet, rate: Rate) -> Pool:
    system = fleet.part.system
    speed = _speed(found, rate, fleet.part.wired.key, first.part.wired.key)
    return Pool(fleet.nodes, system.gpus_per_node, system.accelerator, speed)


def _speed(found: Evaluation, rate: Rate, system: str, first: str) -> float:
    """Speed of a system against the first one, on a programme of device-hours (or any other that both can do)."""
    by_key = {f.part.wired.key: f.part.wired for f in found.fleets}
    for served in found.served:
        programme = served.need.programme
        ours, theirs = (rate(programme, by_key[key], 8) for key in (system, first))
        if ours > 0 and theirs > 0:
            return ours / theirs
    return 1.0


def _weather(found: Evaluation, floor: _Floor, streams: Streams) -> Iterator[Outage]:
    """Failures of the nodes of one's own (rented ones are replaced by the lessor at once) and spot nodes taken back."""
    own = sum(pool.nodes for pool in floor.own)
    parts = [outages(_reliability(found), own, streams.child("outages"))] if own else []
    parts += [
        spot_interruptions(nodes, first, streams.child("spot", number))
        for number, first, nodes in floor.nodes("spot")
    ]
    return merge(*parts, key=lambda outage: outage.at_s)


def _reliability(found: Evaluation) -> Reliability:
    """Failures whose repairs keep the share of nodes out of service that the plan assumes."""
    own = [f for f in found.fleets if f.part.contract not in PAID_FOR_USE and f.owned.sum() > 0]
    down = 1 - float(
        np.median(sum(f.available.sum(axis=1) for f in own) / sum(f.owned.sum(axis=1) for f in own))
    )
    repair_s = max(down, 1e-4) / (1 - min(down, 0.5)) / FAILURES_PER_NODE_DAY * DAY_S
    cause = Cause("node", repair=Delay(repair_s), detect=Delay(300.0))
    return Reliability(Quantiles.exactly(FAILURES_PER_NODE_DAY * 1000), causes=(cause,))


def _rules(spot: bool) -> Rules:
    """Checkpoints at the interval that is best for the gang's size; who may land on spot nodes saves as for those."""
    per_node_day = SPOT_INTERRUPTIONS_PER_NODE_DAY if spot else FAILURES_PER_NODE_DAY
    known: dict[int, Recovery] = {}

    def recovery(job: Job) -> Recovery:
        if job.gpus not in known:
            mean_s = DAY_S / (per_node_day * max(job.gpus / 8, 1.0))
            known[job.gpus] = Recovery(float(optimal_interval_s(mean_s, WRITE_S)), WRITE_S, WRITE_S, 300.0)
        return known[job.gpus]

    return Rules(recovery=recovery)


def _held_while_waiting(jobs: Sequence[Job], pools: Sequence[Pool], policy: Policy) -> float | None:
    """Share of the devices held while jobs wait, all handed in at once: until :data:`STARTED_FRAC` have started.

    The last few say more about which gang happens to come last than about the policy.
    """
    if not pools:
        return None
    queued = [replace(job, submit_s=0.0) for job in jobs]
    log = simulate(queued, Nodes(pools, Packed()), policy)
    starts = sorted(s.start_s for s in log.segments)
    last = starts[int(STARTED_FRAC * (len(starts) - 1))] if starts else 0.0
    if last <= 0:
        return 1.0
    held = sum(s.gpus * max(min(s.end_s, last) - s.start_s, 0.0) for s in log.segments)
    return min(held / (sum(p.nodes * p.gpus_per_node for p in pools) * last), 1.0)


def _measured(log: ClusterLog, floor: _Floor, scheduling_frac: float | None, needs: Sequence[Need]) -> Played:
    spot_pools = {number for number, _, _ in floor.nodes("spot")}
    runtime = _runtime([s for s in log.segments if s.placed.pool not in spot_pools])
    on_spot = _runtime([s for s in log.segments if s.placed.pool in spot_pools])
    loss = None if on_spot is None else max(1 - on_spot / (runtime or 1.0), 0.0)
    hired = floor.nodes(*PAID_FOR_USE)
    by_use = None
    if hired:
        first, last = hired[0][1], hired[-1][1] + hired[-1][2]  # they stand behind all others
        by_use = rented(log.segments, first, last, floor.pools[-1].gpus_per_node, log.span_s)
    own = {number for number, _, _ in floor.nodes(*(c for c in ORDER if c not in PAID_FOR_USE))}
    counted = own or {number for number, _, _ in hired}
    devices = sum(floor.pools[number].nodes * floor.pools[number].gpus_per_node for number in counted)
    held = sum(s.gpus * (s.end_s - s.start_s) for s in log.segments if s.placed.pool in counted)
    busy = held / (devices * log.span_s) if devices and log.span_s else 0.0
    return Played(scheduling_frac, runtime, loss, by_use, busy, _waits(log, needs))


def _runtime(segments: Sequence[Segment]) -> float | None:
    """Share of the time that jobs held devices which was of use in the end; none = nothing was held."""
    held = sum(s.gpus * (s.end_s - s.start_s) for s in segments)
    return sum(s.gpus * s.useful_s for s in segments) / held if held else None


def _waits(log: ClusterLog, needs: Sequence[Need]) -> tuple[Wait, ...]:
    found = []
    for need in needs:
        name = need.programme.name
        mine = job_table([r for r in log.records if r.queue == name])["wait_s"]
        if len(mine):
            p50, p95 = (float(np.quantile(mine, q, method="inverted_cdf")) for q in (0.5, 0.95))
            found.append(Wait(name, len(mine), p50, p95))
    return tuple(found)


def mean_of(plays: Sequence[Played]) -> Played:
    """Several replications as one: shares and waits averaged, nodes at their largest."""
    hired = [play.rented for play in plays if play.rented is not None]
    by_use = None
    if hired:
        by_use = Rented(
            _mean([r.fill_frac for r in hired]) or 0.0,
            _mean([r.mean_nodes for r in hired]) or 0.0,
            max(r.peak_nodes for r in hired),
            round(sum(r.additions for r in hired) / len(hired)),
        )
    waits = []
    for name in dict.fromkeys(wait.programme for play in plays for wait in play.waits):
        rows = [wait for play in plays for wait in play.waits if wait.programme == name]
        p50, p95 = (sum(getattr(row, q) for row in rows) / len(rows) for q in ("p50_s", "p95_s"))
        waits.append(Wait(name, sum(row.jobs for row in rows), p50, p95))
    shares = (
        _mean([getattr(play, name) for play in plays])
        for name in ("scheduling_frac", "runtime_frac", "spot_loss_frac")
    )
    scheduling, runtime, loss = shares
    return Played(scheduling, runtime, loss, by_use, _mean([p.busy_frac for p in plays]) or 0.0, tuple(waits))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def measured(world: Mapping[str, Assumption], found: Played) -> dict[str, Assumption]:
    """The shares that the simulation measured, with the doubt that the catalogue has about them."""
    source = "simulated: the busiest month of the option, job by job"
    return {
        name: replace(world[name], value=scaled(world[name].value, value), source=source, kind="simulated")
        for name, value in found.shares().items()
    }
