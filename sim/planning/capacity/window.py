"""The jobs of an option's busiest month: what the programmes ask for, cut into gangs.

A caterer's list: so many guests are expected, so the tables are laid for parties of the sizes that usually come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from heapq import merge

import numpy as np

from sim.mixes.generate import generate
from sim.planning.capacity import months
from sim.planning.capacity.evaluate import Evaluation
from sim.planning.capacity.fleets import Fleet
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.needs import Need
from sim.spec.demand import Programme
from sim.spec.job import Job
from sim.spec.mix import Arrivals, Mix, Portion, Size
from sim.statistics.streams import Streams

WINDOW_S = 14 * 86400.0
HOUR_S = 3600.0
STEADY = "steady"
"""Kind of a gang that stays for the whole window: a training run, a replica of a service."""
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


def busiest_month(found: Evaluation, fleets: Sequence[Fleet]) -> int:
    """Month in which the most hours are used, over the running hours of ``fleets``, at the median; hours on nodes that
    are rented beside them count too. Of the months in which all stands that the option adds, where there are any."""
    used = sum(found.flow.used if found.flow else (), start=np.zeros(1))
    have = sum((f.running for f in fleets), start=np.zeros(1))
    share = np.median(np.divide(used, have, out=np.zeros_like(used), where=have > 0), axis=0)
    new = [np.median(f.owned, axis=0) for f in found.fleets if not f.sunk]
    whole = np.min([owned >= owned.max() for owned in new], axis=0, initial=True)
    return int(np.argmax(np.where(whole, share, -1.0) if whole.any() else share))


def window_jobs(
    found: Evaluation,
    needs: Sequence[Need],
    fleets: Sequence[Fleet],
    rate: Rate,
    month: int,
    streams: Streams,
) -> list[Job]:
    """Jobs of :data:`WINDOW_S` in order of submission, from each programme's work in ``month`` (median world); their
    hours are those of the first fleet's devices."""
    system, devices = fleets[0].part.wired, fleets[0].devices
    largest = max(fleet.devices for fleet in fleets)
    parts = []
    for number, need in enumerate(needs):
        programme = need.programme
        speed = rate(programme, system, devices)
        done = found.served[number].done
        work = float(np.median(need.work[:, month] if not need.waits else done[:, month]))
        if speed <= 0 or work <= 0:
            continue
        hours = work / speed * WINDOW_S / (months.HOURS * HOUR_S)
        if programme.kind in SIZES:
            seed = int(streams.generator("jobs", programme.name).integers(2**31))
            parts.append(generate(_mix(programme, hours, largest), WINDOW_S, seed))
        else:
            parts.append(_steady(programme, hours, system.gpus_per_node, largest))
    return sorted(merge(*parts, key=lambda job: job.submit_s), key=lambda job: job.submit_s)


def _steady(programme: Programme, hours: float, node: int, largest: int) -> Iterator[Job]:
    """Gangs that stay for the window: one for a training run, one of a node's size for each replica of a service."""
    devices = max(round(hours * HOUR_S / WINDOW_S), 1)
    size = min(devices, largest if programme.kind == "model" else node)
    replicas = max(round(devices / size), 1) if programme.kind != "model" else 1
    held_s = hours * HOUR_S / (replicas * size)
    for number in range(replicas):
        name = f"{programme.name} {number}" if replicas > 1 else programme.name
        yield Job(
            name, 0.0, size, held_s, user=programme.name, queue=programme.name, priority=10.0, kind=STEADY
        )


def _mix(programme: Programme, hours: float, devices: int) -> Mix:
    """A mix whose jobs ask for ``hours`` device-hours in the window."""
    name = programme.name
    fitting = [row for row in SIZES[programme.kind] if row[0] <= devices] or [(1, 1.0, 1.0)]
    total = sum(share for _, share, _ in fitting)
    mean = sum(gpus * share / total * median * math.exp(SIGMA**2 / 2) for gpus, share, median in fitting)
    sizes = tuple(Size(gpus, share, median * HOUR_S, SIGMA) for gpus, share, median in fitting)
    return Mix(Arrivals(hours / mean / WINDOW_S, burst_cv=0.5), sizes, name=name, users=20, limit_share=1.0,
               queues=(Portion(name),), priority=programme.priority)  # fmt: skip
