"""The weather of failures: a lazy, endless, time-sorted stream of outages.

Like a lightning detector: one dice throw for each flash, not one for each field and second. Causes that do not age are
one Poisson process together (superposition), whose flashes are dealt out to causes and nodes; parts that age keep a
heap of next deaths. The cost is per outage and does not grow with the span, and only logarithmically with the nodes.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.cluster.failures.laws import draw_s, next_failure_s
from sim.cluster.outage import Outage
from sim.cost.goodput import DAY_S, weibull_scale_s
from sim.spec.reliability import Cause, Maintenance, Reliability
from sim.statistics.streams import Streams

BLOCK = 1024
"""Events drawn together; part of what a seed means."""


@dataclass(frozen=True, slots=True)
class CauseRate:
    """One cause on this cluster."""

    cause: Cause
    per_node_s: float
    """Failures of one node for this cause."""


class Slowdown(NamedTuple):
    """A node that runs slow for a while and is then found and swapped."""

    at_s: float
    node: int
    speed_frac: float
    until_s: float


def cause_rates(reliability: Reliability, level: str = "mid") -> tuple[CauseRate, ...]:
    """The rate shared out to the causes; one cause ``node`` that costs no time where none is given."""
    causes = reliability.causes or (Cause(name="node"),)
    rate, total = reliability.node_failures_per_s(level), sum(cause.share_frac for cause in causes)
    return tuple(CauseRate(cause, rate * cause.share_frac / total) for cause in causes)


def job_failures_per_s(reliability: Reliability, nodes: int, level: str = "mid") -> float:
    """Hazard of one job on ``nodes`` that takes no node down: its own, and the causes whose scope is the job."""
    return sum(rate for _, rate in _job_causes(reliability, nodes, level))


def job_fault_s(
    reliability: Reliability, nodes: int, random: np.random.Generator, level: str = "mid"
) -> tuple[float, float]:
    """When a stretch of a job on ``nodes`` that starts now will fail by itself, and how long nobody will know.

    Both from now, in seconds; (infinite, 0) where jobs do not fail by themselves. For many jobs at a time, each with a
    generator of its own.
    """
    known = _job_causes(reliability, nodes, level)
    total = sum(rate for _, rate in known)
    if total == 0:
        return math.inf, 0.0
    after = float(random.exponential(1 / total))
    i = _pick(np.array([rate for _, rate in known]), random)
    return after, float(draw_s(known[i][0].detect, random, 1)[0])


def node_factors(reliability: Reliability, nodes: int, streams: Streams) -> NDArray[np.float64]:
    """Hazard of each node over the rate, ``[nodes]``: 1, or more for lemons and bad batches.

    Batches take nodes that no batch has yet. ``within_rate`` batches leave the fleet's mean as it was.
    """
    factor, free = np.ones(nodes), np.arange(nodes)
    random = streams.generator("batches")
    for batch in reliability.batches:
        size = min(math.ceil(batch.nodes_frac * nodes - 1e-9), free.size)
        order = np.arange(free.size) if batch.together else random.permutation(free.size)
        chosen = order[:size]
        factor[free[chosen]] = batch.factor
        free = np.delete(free, chosen)
        if batch.within_rate:
            factor = factor / factor.mean()
    return factor


def outages(
    reliability: Reliability, nodes: int, streams: Streams, *, level: str = "mid", job_nodes: int = 0
) -> Iterator[Outage]:
    """All outages of ``nodes`` from time 0 on, sorted, without end (empty where nothing ever fails).

    Causes whose scope is the job, and the job's own failures, come as outages without nodes if ``job_nodes`` says how
    large the one job is; for many jobs use :func:`job_failures_per_s`. The stream does not know which nodes work: an
    outage of a node that is down or powered off says nothing, and who plays the stream leaves it out there (exact where
    nothing ages, since such a process has no memory); :func:`of_nodes_that_are_up` does so where all nodes always work.
    """
    factor = node_factors(reliability, nodes, streams)
    ours = [h for h in cause_rates(reliability, level) if h.per_node_s > 0 and h.cause.scope != "job"]
    steady = [hazard for hazard in ours if hazard.cause.weibull_shape == 1]
    parts = [_steady(reliability, steady, factor, streams.child("steady"))]
    parts += [
        _ageing(reliability, hazard, factor, streams.child("ageing", hazard.cause.name))
        for hazard in ours
        if hazard.cause.weibull_shape != 1
    ]
    if reliability.maintenance is not None:
        parts.append(_maintenance(reliability.maintenance, nodes))
    if job_nodes:
        parts.append(_of_the_job(_job_causes(reliability, job_nodes, level), streams.child("job")))
    return heapq.merge(*parts, key=lambda outage: outage.at_s)


def slowdowns(reliability: Reliability, nodes: int, streams: Streams) -> Iterator[Slowdown]:
    """Nodes turning slow, sorted by onset, without end."""
    slow = reliability.stragglers
    if slow is None or slow.onsets_per_1000_node_days == 0:
        return
    random = streams.generator("slow")
    now, mean_s = 0.0, 1000 * DAY_S / (slow.onsets_per_1000_node_days * nodes)
    while True:
        gaps, who = random.exponential(mean_s, BLOCK), random.integers(nodes, size=BLOCK)
        stays = draw_s(slow.detect, random, BLOCK)
        for gap, node, stay in zip(gaps.tolist(), who.tolist(), stays.tolist(), strict=True):
            now += gap
            yield Slowdown(now, node, slow.slow_speed_frac, now + stay)


def slow_as_outages(slow: Iterable[Slowdown], reliability: Reliability) -> Iterator[Outage]:
    """Slow spells for players whose jobs keep their speed: sorted, lazily.

    A node at speed v for d seconds does the work of d v seconds; so it works in full for d v and then stands still for
    d (1 - v), undetected, until it is found: the same work at the same end, if one job holds it throughout.
    """
    law = None if reliability.stragglers is None else reliability.stragglers.repair
    heap: list[Outage] = []
    for spell in slow:
        while heap and heap[0].at_s <= spell.at_s:
            yield heapq.heappop(heap)
        lasts = spell.until_s - spell.at_s
        still = lasts * (1 - spell.speed_frac)
        down = 0.0 if law is None else law.mean_s
        heapq.heappush(heap, Outage(spell.until_s - still, (spell.node,), "slow", still, down))
    while heap:
        yield heapq.heappop(heap)


def of_nodes_that_are_up(events: Iterable[Outage], nodes: int) -> Iterator[Outage]:
    """The stream without outages of nodes that are still down from an earlier one; outages without nodes are kept."""
    back_s = [-math.inf] * nodes
    for event in events:
        if not event.nodes:
            yield event
            continue
        hit = tuple(node for node in event.nodes if back_s[node] <= event.at_s)
        if not hit:
            continue
        for node in hit:
            back_s[node] = event.at_s + event.detect_s + event.down_s
        yield event if len(hit) == len(event.nodes) else event._replace(nodes=hit)


def _times_s(
    cause: Cause, random: np.random.Generator, count: int
) -> tuple[list[float], list[float], list[bool]]:
    """Detection and down time of ``count`` failures, and whether a part was replaced."""
    detect = draw_s(cause.detect, random, count)
    replaced = random.random(count) < cause.replace_frac
    down = np.where(replaced, draw_s(cause.replace, random, count), draw_s(cause.repair, random, count))
    return detect.tolist(), down.tolist(), replaced.tolist()


def _name(cause: Cause) -> str:
    return "silent" if cause.silent else cause.name


def _group(reliability: Reliability, scope: str, node: int, nodes: int) -> tuple[int, ...]:
    """The nodes that stop together with ``node``."""
    size = {"node": 1, "switch": reliability.nodes_per_switch, "rack": reliability.nodes_per_rack}[scope]
    first = node // size * size
    return tuple(range(first, min(first + size, nodes)))


def _steady(
    reliability: Reliability, ours: Sequence[CauseRate], factor: NDArray[np.float64], streams: Streams
) -> Iterator[Outage]:
    """All causes that do not age, as one Poisson process."""
    rates = np.array([hazard.per_node_s for hazard in ours])
    if not ours or factor.sum() == 0:
        return
    gaps, which, where = (streams.generator(name) for name in ("gap", "cause", "node"))
    times = [streams.generator("times", hazard.cause.name) for hazard in ours]
    shares, weights = np.cumsum(rates) / rates.sum(), np.cumsum(factor) / factor.sum()
    mean_s, now, nodes = 1 / (rates.sum() * factor.sum()), 0.0, factor.size
    while True:
        at = now + np.cumsum(gaps.exponential(mean_s, BLOCK))
        now = float(at[-1])
        cause = np.minimum(np.searchsorted(shares, which.random(BLOCK), side="right"), len(ours) - 1)
        node = np.minimum(np.searchsorted(weights, where.random(BLOCK), side="right"), nodes - 1)
        columns = [
            iter(zip(*_times_s(hazard.cause, random, int((cause == i).sum())), strict=True))
            for i, (hazard, random) in enumerate(zip(ours, times, strict=True))
        ]
        for moment, i, hit in zip(at.tolist(), cause.tolist(), node.tolist(), strict=True):
            detect, down, _ = next(columns[i])
            struck = ours[i].cause
            group = (hit,) if struck.scope == "node" else _group(reliability, struck.scope, hit, nodes)
            yield Outage(moment, group, _name(struck), detect, down)


def _ageing(
    reliability: Reliability, hazard: CauseRate, factor: NDArray[np.float64], streams: Streams
) -> Iterator[Outage]:
    """One cause whose parts age: a part a node (a switch, a rack), each with an age of its own.

    The mean life of a new part is one over its rate. A part that is replaced starts at age 0, a mended one goes on at
    the age it had; ages stand still while the part is down.
    """
    cause, nodes = hazard.cause, factor.size
    first_of = sorted({_group(reliability, cause.scope, node, nodes)[0] for node in range(nodes)})
    groups = [_group(reliability, cause.scope, node, nodes) for node in first_of]
    hazard_x = [max(float(factor[list(group)].mean()), 1e-300) for group in groups]
    scale = [
        float(weibull_scale_s(1 / (hazard.per_node_s * len(group)), cause.weibull_shape)) for group in groups
    ]
    age, since = [reliability.age_s] * len(groups), [0.0] * len(groups)
    lives, times = streams.generator("lives"), streams.generator("times")
    luck = itertools.chain.from_iterable(iter(lambda: lives.exponential(1.0, BLOCK).tolist(), None))
    clock = [
        (next_failure_s(age[i], scale[i], cause.weibull_shape, hazard_x[i], next(luck)), i)
        for i in range(len(groups))
    ]
    heapq.heapify(clock)
    columns: Iterator[tuple[float, float, bool]] = itertools.chain.from_iterable(
        iter(lambda: list(zip(*_times_s(cause, times, BLOCK), strict=True)), None)
    )
    while clock:
        now, i = clock[0]
        detect, down, replaced = next(columns)
        yield Outage(now, groups[i], _name(cause), detect, down)
        age[i] = 0.0 if replaced else age[i] + now - since[i]
        since[i] = now + detect + down
        wait = next_failure_s(age[i], scale[i], cause.weibull_shape, hazard_x[i], next(luck))
        heapq.heapreplace(clock, (since[i] + wait, i))


def _maintenance(window: Maintenance, nodes: int) -> Iterator[Outage]:
    size = window.nodes_at_once or nodes
    groups = [tuple(range(first, min(first + size, nodes))) for first in range(0, nodes, size)]
    step_s = min(window.lasts_s, window.every_s / len(groups))  # groups overlap where a round would not fit
    for turn in itertools.count(1):
        for place, group in enumerate(groups):
            yield Outage(turn * window.every_s + place * step_s, group, "maintenance", 0.0, window.lasts_s)


def _job_causes(reliability: Reliability, nodes: int, level: str) -> list[tuple[Cause, float]]:
    """Causes that stop a job and no node, with failures per second."""
    known = [
        (hazard.cause, hazard.per_node_s * nodes)
        for hazard in cause_rates(reliability, level)
        if hazard.cause.scope == "job" and hazard.per_node_s > 0
    ]
    if reliability.job_failures_per_day > 0:
        known.append((Cause(name="job"), reliability.job_failures_per_day / DAY_S))
    return known


def _pick(rates: NDArray[np.float64], random: np.random.Generator) -> int:
    shares = np.cumsum(rates) / rates.sum()
    return min(int(np.searchsorted(shares, random.random(), side="right")), rates.size - 1)


def _of_the_job(known: Sequence[tuple[Cause, float]], streams: Streams) -> Iterator[Outage]:
    """Failures of the one job that take no node with them."""
    if not known:
        return
    rates = np.array([rate for _, rate in known])
    gaps, which = streams.generator("gap"), streams.generator("cause")
    times = [streams.generator("times", cause.name) for cause, _ in known]
    now = 0.0
    while True:
        now += float(gaps.exponential(1 / rates.sum()))
        i = _pick(rates, which)
        (detect,), (down,), _ = _times_s(known[i][0], times[i], 1)
        yield Outage(now, (), _name(known[i][0]), detect, down)
