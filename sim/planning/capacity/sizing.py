"""How many devices of one kind the demand needs, before any shopping.

The demand-bound test of real-time scheduling (Baruah, Rosier and Howell 1990): between any two dates, the work that
comes in and falls due must fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity import months
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.needs import Need
from sim.spec.hardware import System

Array = NDArray[np.float64]


def needed_devices(
    needs: Sequence[Need], system: System, rate: Rate, running_frac: Array, devices: int
) -> Array:
    """Devices of ``system``, there from the first month on, that meet every need in time; shape (draws,).

    ``devices``: how many a programme may use at once, for its speed. ``running_frac``: share of owned hours in which
    jobs make progress, shape (draws,). Work that cannot wait is due in its month; work that can is due at its deadline,
    or at the end of the plan. Infinite where the system cannot run a programme.
    """
    count, length = needs[0].work.shape
    hours = np.zeros((count, length, length))  # [draw, arrives, due]
    for need in needs:
        speed = rate(need.programme, system, devices)
        if speed <= 0:
            return np.full(count, np.inf)
        last = length - 1 if need.deadline is None else min(need.deadline, length - 1)
        for month in range(length):
            due = max(last, month) if need.wait_months is None else min(month + need.wait_months, length - 1)
            hours[:, month, due] += need.work[:, month] / speed
    most = np.zeros(count)
    for start in range(length):
        due_by = np.cumsum(hours[:, start:, :].sum(axis=1), axis=1)[:, start:]
        most = np.maximum(most, (due_by / np.arange(1, length - start + 1)).max(axis=1))
    return np.asarray(most / (months.HOURS * running_frac))
