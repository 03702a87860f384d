"""Places on the floor, and the nodes that stand in them: a spare takes the place of a node that fails.

Like a pit lane: the car is back as soon as a new wheel is on; the old one is mended meanwhile and lies ready next time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from itertools import groupby

from sim.cluster.outage import Outage
from sim.spec.reliability import Spares


def of_the_floor(
    failing: Iterable[Outage], slow: Iterable[Outage], nodes: int, spares: Spares, crews: int = 0
) -> Iterator[Outage]:
    """Both streams as one, without outages of places that are still empty, and with spares put in.

    Spares stand beside the ``nodes`` of the floor and no job runs on them. A place whose node fails is filled after
    the swap (hot spares first) if that is sooner than its repair, while a spare is there; the mended node is then
    the spare. Nobody swaps for a planned window. Hot spares do not fail here, as too few to matter.

    ``crews``: so many nodes are mended at once, in the order in which they failed, and others wait (machine repair,
    Kleinrock, Queueing Systems I, 3.9); 0 = all at once. Planned windows need no crew.
    """
    free_s = [-math.inf] * crews  # a heap: when each crew is done with what it has
    back_s = [-math.inf] * nodes
    ready = [(-math.inf, swap, i) for i, swap in enumerate(_swaps(spares))]
    heapq.heapify(ready)
    for event in heapq.merge(failing, slow, key=lambda outage: outage.at_s):
        hit = [node for node in event.nodes if back_s[node] <= event.at_s]
        found_s = event.at_s + event.detect_s
        away = []
        for node in hit:
            broken = event
            if crews and event.cause != "maintenance":
                begins_s = max(found_s, free_s[0])
                heapq.heapreplace(free_s, begins_s + event.down_s)
                broken = event._replace(down_s=begins_s + event.down_s - found_s)
            away.append((_away_s(broken, found_s, ready), node))
        for down_s, node in away:
            back_s[node] = found_s + down_s
        for down_s, group in groupby(sorted(away), key=lambda pair: pair[0]):
            yield event._replace(nodes=tuple(node for _, node in group), down_s=down_s)


def _swaps(spares: Spares) -> list[float]:
    return [spares.hot_swap_s] * spares.hot + [spares.cold_swap_s] * spares.cold


def _away_s(event: Outage, found_s: float, ready: list[tuple[float, float, int]]) -> float:
    """Time a place stays empty: until its node is mended, or a spare that is ready by then has joined."""
    if event.cause == "maintenance":
        return event.down_s
    there = [spare for spare in ready if spare[0] <= found_s and spare[1] < event.down_s]
    if not there:
        return event.down_s
    spare = min(there, key=lambda one: (one[1], one[2]))
    ready.remove(spare)
    ready.append((found_s + event.down_s, spare[1], spare[2]))
    return spare[1]
