"""What microbenchmarks share: points in, rows out, and how many points a budget affords.

Like the clerk at a test track: every car gets the same stopwatch, the same form, and a fair share of the day.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from calibrate.blocks import device_block
from calibrate.environment import Machine
from calibrate.measure import Point, StopRule, Warn, sweep

ENGINE = "torch eager"
MOST_IN_TURN = 16
DEVICE_RULE = StopRule(block_s=0.02, max_calls=200)
"""On an accelerator: blocks of 20 ms are some 20,000 times the resolution of its events."""
REFUSALS = (RuntimeError, TypeError, AttributeError, NotImplementedError, ValueError)
"""How torch says that a device lacks something."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an interrupted sitting at the same part left: readings, and by which rates it chose its sizes.

    With the same budget, seed and rates a part lays out the same points again, so that those already read can be left.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    rates: dict[str, float] = field(default_factory=dict)
    """By name; a part that chooses sizes by what it finds out writes it here before its first row."""

    def rate(self, name: str, find: Callable[[], float]) -> float:
        """The rate of the earlier sitting, or else what ``find`` tells now, kept for the next."""
        if name not in self.rates:
            self.rates[name] = find()
        return self.rates[name]

    def has(self, one: Point) -> bool:
        """Whether the point has been read."""
        return any(all(row.get(name) == value for name, value in one.columns.items()) for row in self.rows)

    def left(
        self, points: Sequence[Point], budget_s: float, least: int
    ) -> tuple[Sequence[Point], float, int]:
        """Points still to be read, their share of the budget, and how many of them must be however short it is."""
        to_read = [one for one in points if not self.has(one)]
        share = len(to_read) / len(points) if points else 0.0
        return to_read, budget_s * share, max(0, least - (len(points) - len(to_read)))


def rule_of(machine: Machine) -> StopRule:
    """When a point on ``machine`` is measured well enough."""
    return DEVICE_RULE if machine.is_cuda else StopRule()


def plain_format(machine: Machine) -> tuple[str, int]:
    """Number format that work on ``machine`` is done in, and its bytes a value."""
    return ("bfloat16", 2) if machine.is_cuda else ("float32", 4)


def point(machine: Machine, columns: Mapping[str, Any], call: Callable[[], Callable[[], Any]]) -> Point:
    """A point whose operands ``call`` sets up; timed on the device, from memory and not from its cache."""
    return Point(columns, lambda: device_block(call(), machine.device, 4 * machine.cache_bytes))


def in_turn(
    machine: Machine, make: Callable[[], Any], each_bytes: float, most: int = MOST_IN_TURN
) -> Callable[[], Any]:
    """Gives a different operand at each call, so many that a CPU's cache holds none of them at its next turn.

    What a step streams once (weights and caches in serving) must not be found in the cache by the next repeat. On
    an accelerator the flush before every call sees to that, and there is one operand.
    """
    enough = 1 if machine.is_cuda else math.ceil(2 * machine.cache_bytes / max(each_bytes, 1.0))
    made = [make() for _ in range(min(max(enough, 1), most))]
    turn = itertools.cycle(made)
    return lambda: next(turn)


def affordable(points: Sequence[Point], budget_s: float, each_s: float, fewest: int) -> list[Point]:
    """As many of ``points`` as the budget holds at ``each_s``, the first ones first, at least ``fewest``."""
    return list(points[: max(fewest, int(budget_s / each_s))])


def rows_of(
    machine: Machine,
    points: Sequence[Point],
    budget_s: float,
    seed: int,
    warn: Warn,
    *,
    sentinel: Point | None = None,
    rule: StopRule | None = None,
    least: int = 1,
    earlier: Earlier | None = None,
) -> Iterator[dict[str, Any]]:
    """One row for every point the device can do; what it refuses is told through ``warn`` and left out.

    Points that an ``earlier`` sitting has read are left (:meth:`Earlier.left`).
    """
    if earlier is not None:
        points, budget_s, least = earlier.left(points, budget_s, least)
        if not points:
            return
    timed = sweep(
        points,
        budget_s,
        seed,
        warn,
        sentinel=sentinel,
        rule=rule or rule_of(machine),
        refusals=REFUSALS,
        least=least,
    )
    for one, timing in timed:
        yield {**machine.columns, **one.columns, **timing.columns(), "cache": machine.cache_state}
