"""Work poured into capacity, month by month: the closed form of a plan.

Hours are treated as a liquid: whoever comes first by urgency takes what is there, what waits flows on into the next
month. It says nothing of queues inside a month; sim/cluster plays those for the options that survive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity.fleets import PAID_FOR_USE, Fleet
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
    """Work wanted and never done: lost in its month, or still open at the end; shape (draws, months)."""
    finished: Array
    """Months from the start until all of it was done (infinite = never), shape (draws,)."""

    @property
    def late_months(self) -> Array:
        """Months past the deadline (0 = in time or none; up to the end of the plan where it never finished)."""
        if self.need.deadline is None:
            return np.zeros_like(self.finished)
        end = np.minimum(self.finished, self.done.shape[1] + 12.0)  # open at the end counts as a year late
        return np.asarray(np.maximum(end - (self.need.deadline + 1), 0.0))


@dataclass(frozen=True, slots=True)
class Flow:
    """All programmes on all fleets. ``used``: hours of each fleet in which work was done, shape (draws, months)."""

    served: tuple[Served, ...]
    used: tuple[Array, ...]


def pour(needs: Sequence[Need], fleets: Sequence[Fleet], rate: Rate) -> Flow:
    """Serve ``needs`` in their order from ``fleets``, paid-for capacity first."""
    shape = needs[0].work.shape if needs else fleets[0].running.shape
    order = sorted(range(len(fleets)), key=lambda i: ORDER[fleets[i].part.contract])
    rates = [[rate(need.programme, f.part.system, f.devices) for f in fleets] for need in needs]
    left = [f.running.copy() for f in fleets]
    done = [np.zeros(shape) for _ in needs]
    short = [np.zeros(shape) for _ in needs]
    finished = [np.full(shape[0], np.inf) for _ in needs]
    open_work = [np.zeros(shape[0]) for _ in needs]
    for month in range(shape[1]):
        for n, need in enumerate(needs):
            want = need.work[:, month] + open_work[n]
            before = want.copy()
            could = np.zeros(shape[0])
            for f in order:
                if rates[n][f] <= 0:
                    continue
                could += left[f][:, month] * rates[n][f]
                take = np.minimum(left[f][:, month], want / rates[n][f])
                left[f][:, month] -= take
                want = np.maximum(want - take * rates[n][f], 0.0)
            want[want < 1e-9 * before] = 0.0
            done[n][:, month] = before - want
            if need.waits:
                open_work[n] = want
                through = (before > 0) & (want == 0)
                part = np.divide(before, could, out=np.zeros(shape[0]), where=could > 0)
                finished[n] = np.where(through, month + part, np.where(want > 0, np.inf, finished[n]))
                if month == shape[1] - 1:
                    short[n][:, month] = want
            else:
                short[n][:, month] = want
    used = tuple(f.running - rest for f, rest in zip(fleets, left, strict=True))
    served = tuple(Served(*row) for row in zip(needs, done, short, finished, strict=True))
    return Flow(served, used)


def paid_hours(fleet: Fleet, used: Array) -> Array:
    """Device-hours that are paid for: all of them, or those that the used hours take of what is paid for use."""
    if fleet.part.contract not in PAID_FOR_USE:
        return fleet.owned
    share = np.divide(used, fleet.running, out=np.zeros_like(used), where=fleet.running > 0)
    return fleet.owned * share
