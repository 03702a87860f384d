"""Max-min fair shares of links: water rises in all pipes alike until one is full, and goes on rising in the rest.

Progressive filling gives the one allocation in which no flow can gain but at the cost of one that has no more for its
weight (Bertsekas and Gallager, Data Networks, 2nd edition 1992, section 6.5.2). Strict levels come first: a lower level
shares what the higher ones leave (IEEE 802.1Q strict priority).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple


class Flow(NamedTuple):
    """What one sender asks for. Its rate is a number from 0 to ``most``; at rate x it loads a link with x times its
    load there."""

    loads: Mapping[Hashable, float]
    """Link -> bytes/s at rate 1; links with a load of 0 are left out."""
    weight: float = 1.0
    level: float = 0.0
    """Larger goes first."""
    most: float = 1.0


def max_min(flows: Mapping[int, Flow], capacity: Mapping[Hashable, float]) -> dict[int, float]:
    """Rate by flow; ``capacity`` in bytes/s by link (a link without one has no bound).

    Raises:
        ValueError: a weight or a load that is not above 0.
    """
    for name, flow in flows.items():
        if not flow.weight > 0 or any(not load > 0 for load in flow.loads.values()):
            raise ValueError(f"flow {name}: weight and loads must be above 0, found {flow}")
    left = dict(capacity)
    rates: dict[int, float] = {}
    for level in sorted({flow.level for flow in flows.values()}, reverse=True):
        here = {name: flow for name, flow in flows.items() if flow.level == level}
        found = _fill(here, left)
        for name, rate in found.items():
            for link, load in here[name].loads.items():
                if link in left:
                    left[link] = max(left[link] - rate * load, 0.0)
        rates.update(found)
    return rates


def _fill(flows: Mapping[int, Flow], capacity: Mapping[Hashable, float]) -> dict[int, float]:
    """Progressive filling within one level; the water stands at the same height (rate / weight) for all who rise."""
    rates: dict[int, float] = {}
    rising = dict(flows)
    fixed = dict.fromkeys(capacity, 0.0)
    """Load of flows that have stopped rising."""
    while rising:
        slope: dict[Hashable, float] = {}
        for flow in rising.values():
            for link, load in flow.loads.items():
                if link in fixed:
                    slope[link] = slope.get(link, 0.0) + load * flow.weight
        full = {link: max(capacity[link] - fixed[link], 0.0) / by for link, by in slope.items()}
        height = min(
            min(full.values(), default=float("inf")),
            min(flow.most / flow.weight for flow in rising.values()),
        )
        tight = {link for link, at in full.items() if at <= height}
        stopped = [
            name
            for name, flow in rising.items()
            if flow.most / flow.weight <= height or any(link in tight for link in flow.loads)
        ]
        for name in stopped:
            flow = rising.pop(name)
            rates[name] = min(flow.weight * height, flow.most)
            for link, load in flow.loads.items():
                if link in fixed:
                    fixed[link] += rates[name] * load
    return rates
