"""Nodes that come when jobs wait and go when they are done: what rented and spot capacity is like, played job by job.

A car that is hired for the trip: the bill runs from the key until it is back, and a spot car may be asked for on the
way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.failures.stream import outages
from sim.cluster.outage import Outage
from sim.results.cluster_log import Segment
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Cause, Delay, Reliability
from sim.statistics.streams import Streams

DAY_S = 86400.0
BOOT_S, KEEP_S = 300.0, 600.0
"""Paid before a job's first second on a node that was not there, and after its last until the node is given back:
start of the machine and its image; patience of an autoscaler (ten minutes is the default of Kubernetes' cluster
autoscaler, ``scale-down-unneeded-time``). The boot time is assumed."""
SPOT_INTERRUPTIONS_PER_NODE_DAY = 1.0
"""How often a spot node is taken back; assumed: published lives run from hours to days, by region and season."""
SPOT_AWAY_S = 2 * 3600.0
"""Mean time until its like can be had again; assumed."""


@dataclass(frozen=True, slots=True)
class Rented:
    """What the jobs of the window made of the nodes paid for by use."""

    fill_frac: float
    """Share of the paid device-hours in which jobs held the devices."""
    mean_nodes: float
    """Nodes' worth of devices paid for."""
    peak_nodes: int
    additions: int
    """Times a device was added."""


def spot_interruptions(nodes: int, first: int, streams: Streams) -> Iterator[Outage]:
    """Spot nodes being taken back, sorted, without end; ``first``: number of the first of them.

    Nobody is asked and nothing is saved: jobs there go back to their last checkpoint, and the node's like comes back
    after a while.
    """
    section = Reliability(
        Quantiles.exactly(SPOT_INTERRUPTIONS_PER_NODE_DAY * 1000),
        causes=(Cause("spot", repair=Delay(SPOT_AWAY_S)),),
    )
    for outage in outages(section, nodes, streams):
        yield outage._replace(nodes=tuple(first + node for node in outage.nodes))


def rented(
    segments: Sequence[Segment], first: int, last: int, gpus_per_node: int, span_s: float
) -> Rented | None:
    """What was paid for and held of the nodes ``first`` to ``last`` (not included), over ``span_s``; none = no job
    came.

    Devices are rented in any number up to a node, as price pages quote them. A device is there from :data:`BOOT_S`
    before a job needs it until :data:`KEEP_S` after the last has gone; a shorter gap is kept and paid for.
    """
    steps: dict[int, list[tuple[float, int]]] = {}
    for row in segments:
        for node, devices in row.placed.spots:
            if first <= node < last and devices:
                steps.setdefault(node, []).extend([(row.start_s, devices), (row.end_s, -devices)])
    if not steps:
        return None
    held_gpu_s = sum(-at * by for rows in steps.values() for at, by in rows)
    paid = [spell for rows in steps.values() for spell in _paid_spells(rows)]
    paid_gpu_s = sum(end - begin for begin, end in paid)
    edges = sorted([(begin, 1) for begin, _ in paid] + [(end, -1) for _, end in paid])
    peak = int(np.cumsum([by for _, by in edges]).max())
    mean_nodes = paid_gpu_s / span_s / gpus_per_node
    return Rented(min(held_gpu_s / paid_gpu_s, 1.0), mean_nodes, -(-peak // gpus_per_node), len(paid))


def _paid_spells(steps: Sequence[tuple[float, int]]) -> Iterator[tuple[float, float]]:
    """Spells in which the k-th device of a node is paid for, for every k: where at least k are held, with what comes
    before and after."""
    open_since: list[float] = []  # by device; the last taken is the first to be given back
    spells: dict[int, list[tuple[float, float]]] = {}
    for at, by in sorted(steps):  # gives back before it takes, where both fall together
        open_since += [at] * by
        for _ in range(-by):
            begin = open_since.pop()
            spells.setdefault(len(open_since), []).append((begin - BOOT_S, at + KEEP_S))
    for rows in spells.values():
        yield from _joined(rows)


def _joined(spells: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spells of one device with overlaps joined."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(spells):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def scaled(value: Quantiles, found: float) -> Quantiles:
    """The doubt of ``value`` about what was ``found`` in its place; shares, so never above 1."""
    factor = found / value.mid if value.mid > 0 else 1.0
    low, high = (min(end * factor, 1.0) for end in (value.low, value.high))
    return Quantiles(low, min(max(found, low), high), high)
