"""Work poured into capacity, month by month: the closed form of a plan.

Hours are treated as a liquid: whoever comes first by urgency takes what is there, what waits flows on into the next
month. It says nothing of queues inside a month; sim/cluster plays those for the options that survive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity.fleets import OWNED, PAID_FOR_USE, Fleet
from sim.planning.capacity.needs import Need
from sim.spec.demand import Programme
from sim.spec.hardware import System

Array = NDArray[np.float64]
Rate = Callable[[Programme, System, int], float]
"""Units of a programme's work that one device-hour of running time does on a system, where the programme may use up
to so many devices; 0 = cannot run there."""
ORDER = {"buy": 0, "lease": 0, "reserve": 1, "spot": 2, "rent": 3}
"""What is paid for anyway is used first, then the cheaper hour."""


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one programme's work."""

    need: Need
    done: Array
    """Work done in each month, shape (draws, months)."""
    short: Array
    """Work wanted and never done: given up in that month, or still open at the end; shape (draws, months)."""
    finished: Array
    """Months from the start until all of it was done (infinite = never), shape (draws,)."""
    hours: Array
    """Device-hours that did it, of whatever device, shape (draws,)."""

    @property
    def late_months(self) -> Array:
        """Months past the deadline, 0 = in time or none; what never finishes is late until the end of the plan."""
        if self.need.deadline is None:
            return np.zeros_like(self.finished)
        end = np.minimum(self.finished, self.done.shape[1])
        return np.asarray(np.maximum(end - (self.need.deadline + 1), 0.0))


@dataclass(frozen=True, slots=True)
class Flow:
    """All programmes on all fleets. ``used``: hours of each fleet in which work was done, shape (draws, months)."""

    served: tuple[Served, ...]
    used: tuple[Array, ...]


class _Queue:
    """Open work of one programme by age, the oldest first: what waited too long is given up."""

    def __init__(self, need: Need) -> None:
        self.need = need
        self.open: list[Array] = [] if need.wait_months is not None else [np.zeros(len(need.work))]
        self.done, self.short = np.zeros_like(need.work), np.zeros_like(need.work)
        self.finished = np.full(len(need.work), np.inf)
        self.hours = np.zeros(len(need.work))

    def arrive(self, month: int) -> Array:
        """Take in the month's work; all that is wanted now."""
        new = self.need.work[:, month]
        if self.need.wait_months is None:
            self.open[0] = self.open[0] + new
        else:
            self.open.append(new)
        return np.asarray(sum(self.open))

    def settle(self, month: int, want: Array, rest: Array, could: Array) -> None:
        """Book what was done of ``want``; ``could``: work that all the capacity it may use would have done."""
        rest = np.where(rest < 1e-9 * want, 0.0, rest)
        served = self.done[:, month] = want - rest
        for age, lot in enumerate(self.open):
            taken = np.minimum(lot, served)
            self.open[age], served = lot - taken, served - taken
        if self.need.wait_months is not None and len(self.open) > self.need.wait_months:
            self.short[:, month] = self.open.pop(0)
        part = np.divide(want, could, out=np.zeros_like(want), where=could > 0)
        through = (want > 0) & (rest == 0)
        self.finished = np.where(through, month + part, np.where(rest > 0, np.inf, self.finished))
        if month == self.need.work.shape[1] - 1:
            self.short[:, month] += sum(self.open)


def pour(needs: Sequence[Need], fleets: Sequence[Fleet], rate: Rate) -> Flow:
    """Serve ``needs`` in their order from ``fleets``, paid-for capacity first.

    A training run is one gang: in a month it works in one place, the first (in that order) that can still make its
    deadline, else the fastest. Everything else spreads over all that runs it.
    """
    length = needs[0].work.shape[1]
    order = sorted(range(len(fleets)), key=lambda i: ORDER[fleets[i].part.contract])
    places = _places(fleets, order)
    size = {f: sum(fleets[g].devices for g in place) for place in places for f in place}
    rates = [[rate(need.programme, f.part.wired, size[i]) for i, f in enumerate(fleets)] for need in needs]
    left = [f.running.copy() for f in fleets]
    queues = [_Queue(need) for need in needs]
    for month in range(length):
        for queue, speed in zip(queues, rates, strict=True):
            want = queue.arrive(month)
            rest, could = want.copy(), np.zeros_like(want)
            runs = [f for f in order if speed[f] > 0]
            gang = bool(places) and queue.need.programme.kind == "model"
            here = _one_place(queue.need, month, want, places, left, speed) if gang else {}
            for f in runs:
                may = left[f][:, month] * here.get(f, 1.0)
                take = np.minimum(may, rest / speed[f])
                could += may * speed[f]
                left[f][:, month] -= take
                queue.hours += take
                rest = np.maximum(rest - take * speed[f], 0.0)
            queue.settle(month, want, rest, could)
    used = tuple(f.running - rest for f, rest in zip(fleets, left, strict=True))
    return Flow(tuple(Served(q.need, q.done, q.short, q.finished, q.hours) for q in queues), used)


def _places(fleets: Sequence[Fleet], order: Sequence[int]) -> list[list[int]]:
    """Fleets that a gang may span: nodes of one kind on the site; everything hosted stands apart."""
    found: dict[tuple[str, int], list[int]] = {}
    for f in order:
        part = fleets[f].part
        found.setdefault((part.wired.key, -1 if part.contract in OWNED else f), []).append(f)
    return list(found.values())


def _one_place(
    need: Need, month: int, want: Array, places: list[list[int]], left: list[Array], speed: list[float]
) -> dict[int, Array]:
    """For each fleet 1 in the worlds in which the run works there this month, else 0; shape (draws,)."""
    last = need.work.shape[1] - 1 if need.deadline is None else need.deadline
    pace = want / max(last - month + 1, 1)
    reach = np.stack([np.asarray(sum(left[f][:, month] * speed[f] for f in place)) for place in places])
    enough = reach >= pace
    chosen = np.where(enough.any(axis=0), enough.argmax(axis=0), reach.argmax(axis=0))
    return {f: np.asarray(chosen == p, float) for p, place in enumerate(places) for f in place}


def paid_hours(fleet: Fleet, used: Array) -> Array:
    """Device-hours that are paid for: all of them, or those that the used hours take of what is paid for use."""
    if fleet.part.contract not in PAID_FOR_USE:
        return fleet.owned
    share = np.divide(used, fleet.running, out=np.zeros_like(used), where=fleet.running > 0)
    return fleet.owned * share
