"""Which of several plans is best, at a stated risk of being wrong, with as few runs as that takes.

Like a knock-out race: all run lap by lap, and who is hopelessly behind leaves. Plans share their streams (replication k
of each has the same weather), which makes the gaps between them steadier than the times themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer of :func:`select_best`."""

    best: int
    """Number of the chosen plan."""
    runs: tuple[int, ...]
    """Replications that each plan got before it left."""
    means: tuple[float, ...]
    converged: bool
    """False = the cap came first and ``best`` is only the best mean so far."""


def select_best(
    run: Callable[[int, int], float],
    plans: int,
    indifference: float,
    *,
    risk_frac: float = 0.05,
    first: int = 10,
    most: int = 1000,
) -> Choice:
    """The plan with the largest mean, right with probability ``1 - risk_frac`` if it leads by ``indifference`` or more.

    Fully sequential procedure KN of Kim and Nelson 2001 (ACM TOMACS 11, 251), c = 1; allows common random numbers.
    ``run(plan, replication)`` gives one answer, close to normal.

    Raises:
        ValueError: fewer than two plans, fewer than two first runs, or an indifference of 0.
    """
    if plans < 2 or first < 2 or indifference <= 0:
        raise ValueError("expected at least two plans, two first runs and an indifference above 0")
    values = [[run(plan, k) for k in range(first)] for plan in range(plans)]
    start = np.array(values)
    gaps = start[:, None, :] - start[None, :, :]
    variance = gaps.var(axis=2, ddof=1)
    eta = 0.5 * ((2 * risk_frac / (plans - 1)) ** (-2 / (first - 1)) - 1)
    reach = 2 * eta * (first - 1) * variance / indifference**2
    alive, count = list(range(plans)), first
    while True:
        sums = np.array([sum(column[:count]) for column in values])
        slack = np.maximum(0.0, indifference / 2 * (reach - count))
        alive = [i for i in alive if all(sums[i] >= sums[j] - slack[i, j] for j in alive if j != i)]
        if len(alive) == 1 or count >= most:
            break
        for plan in alive:
            values[plan].append(run(plan, count))
        count += 1
    means = tuple(float(np.mean(column)) for column in values)
    best = max(alive, key=lambda plan: means[plan])
    return Choice(best, tuple(map(len, values)), means, len(alive) == 1)
