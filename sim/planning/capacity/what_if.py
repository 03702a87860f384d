"""What the answer hangs on: one assumption moved at a time, and the value at which one would decide otherwise.

All settings of an assumption are tried at once, as blocks of one long row of worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Evaluation
from sim.planning.capacity.plan import Plan
from sim.planning.capacity.regret import mean_regret
from sim.spec.prices import Assumption
from sim.spec.quantiles import Z90

WORST = 2.326
"""Standard normal quantile of 0.99: nothing beyond one chance in a hundred is called a risk."""
STEPS = 8
"""Settings of an assumption tried between its middle and one chance in a hundred, each way."""
WORLDS = 96
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Swing:
    """What one assumption does to the plan when it alone moves to its P10 and P90."""

    assumption: Assumption
    low_usd: float
    """Cost and penalty of the chosen option with the assumption at P10, others at their middle."""
    high_usd: float
    low_choice: str
    high_choice: str
    """Which option costs least there, shortage and delay priced in."""


@dataclass(frozen=True, slots=True)
class Tornado:
    """All swings, the widest first, and cost and penalty of the choice with everything at its middle."""

    middle_usd: float
    swings: tuple[Swing, ...]


@dataclass(frozen=True, slots=True)
class Risk:
    """One assumption that turns the decision. ``trigger``: the value from which ``instead`` is the better option."""

    assumption: Assumption
    trigger: float
    rises: bool
    """Whether values above the trigger are the bad ones."""
    instead: str
    chance: float
    """Probability that the assumption lies beyond the trigger."""


def tornado(plan: Plan) -> Tornado:
    """One assumption at a time at its P10 and P90, the others at their middle; those that move nothing are left out."""
    items = [item for item in plan.register if not item.value.certain]
    count = 2 * len(items) + 1  # the last world has everything at its middle
    pinned = {}
    for number, item in enumerate(items):
        z = np.zeros(count)
        z[2 * number], z[2 * number + 1] = -Z90, Z90
        pinned[item.name] = z
    tried = plan.tried(Draws(count, plan.seed, pinned, median=True))
    losses = np.stack([e.loss_usd for e in tried])
    names = [e.candidate.name for e in tried]
    chosen = losses[plan.choice.chosen]
    best = losses.argmin(axis=0)
    swings = [
        Swing(
            item, float(chosen[2 * n]), float(chosen[2 * n + 1]), names[best[2 * n]], names[best[2 * n + 1]]
        )
        for n, item in enumerate(items)
    ]
    middle = float(chosen[-1])
    moving = (s for s in swings if max(abs(s.low_usd - middle), abs(s.high_usd - middle)) >= LEAST_SWING_USD)
    return Tornado(middle, tuple(sorted(moving, key=lambda s: -abs(s.high_usd - s.low_usd))))


LEAST_SWING_USD = 1.0
"""What a plan's cost is told to, at the finest."""


def risks(plan: Plan, swings: Sequence[Swing], most: int = 6) -> tuple[Risk, ...]:
    """Assumptions that, known to be at an end one chance in a hundred away, turn the choice; the likeliest first.

    The others stay uncertain, so a trigger is where one would decide otherwise, not where one happens to lose.
    """
    found = []
    for swing in swings[: 2 * most]:
        z = np.linspace(-WORST, WORST, 2 * STEPS + 1)
        regret = _regret_along(plan, swing.assumption.name, z)
        for side in (range(STEPS + 1, 2 * STEPS + 1), range(STEPS - 1, -1, -1)):
            turned = _first_turn(regret, plan.choice.chosen, STEPS, side)
            if turned is None:
                continue
            near, far, other = turned
            gap = [regret[other, k] - regret[plan.choice.chosen, k] for k in (near, far)]
            at = float(z[near] + (z[far] - z[near]) * gap[0] / (gap[0] - gap[1]))
            value = float(swing.assumption.value.at(np.array(at)))
            name = plan.evaluations[other].candidate.name
            found.append(Risk(swing.assumption, value, at > 0, name, float(ndtr(-abs(at)))))
    return tuple(sorted(found, key=lambda r: -r.chance)[:most])


def _regret_along(plan: Plan, name: str, z: Array) -> Array:
    """Mean regret of each option with the assumption ``name`` known to be at each ``z``: shape (options, settings)."""
    pinned = {name: np.repeat(z, WORLDS)}
    tried = plan.tried(Draws(WORLDS * len(z), plan.seed, pinned, blocks=len(z)))
    shape = (len(tried), len(z), WORLDS)
    loss, penalty = (np.stack(rows).reshape(shape) for rows in zip(*map(_loss, tried), strict=True))
    return np.stack([mean_regret(loss[:, k], penalty[:, k]) for k in range(len(z))], axis=1)


def _loss(found: Evaluation) -> tuple[Array, Array]:
    return found.loss_usd, found.penalty_usd


def _first_turn(regret: Array, chosen: int, middle: int, side: range) -> tuple[int, int, int] | None:
    """The settings just before and after the choice turns on this side, and to which option; none = it does not."""
    before = middle
    if int(regret[:, middle].argmin()) != chosen:
        return None
    for k in side:
        best = int(regret[:, k].argmin())
        if best != chosen:
            return before, k, best
        before = k
    return None
