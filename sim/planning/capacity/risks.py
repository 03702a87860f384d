"""What would change the decision, and at which value one should look again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.plan import Plan, Swing, best_alone
from sim.spec.prices import Assumption, Prices

WORST = 2.326
"""Standard normal quantile of 0.99: nothing beyond one chance in a hundred is called a risk."""


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


def risks(
    plan: Plan, swings: Sequence[Swing], prices: Prices | None, rate: Rate, most: int = 6
) -> tuple[Risk, ...]:
    """Assumptions that alone, up to one chance in a hundred, make another option the best; the likeliest first."""
    from scipy.special import ndtr

    found = []
    here = best_alone(plan, Draws(1, plan.seed, {}), prices, rate)
    for swing in swings[: 2 * most]:
        for sign in (-1.0, 1.0):
            z = sign * WORST
            there = best_alone(plan, Draws(1, plan.seed, {swing.assumption.name: z}), prices, rate)
            if there == here:
                continue
            near, far = 0.0, z
            for _ in range(12):
                middle = (near + far) / 2
                at = best_alone(plan, Draws(1, plan.seed, {swing.assumption.name: middle}), prices, rate)
                near, far, there = (middle, far, there) if at == here else (near, middle, at)
            value = float(swing.assumption.value.at(np.array(far)))
            found.append(Risk(swing.assumption, value, sign > 0, there, float(ndtr(-abs(far)))))
    return tuple(sorted(found, key=lambda r: -r.chance)[:most])
