"""What would change the decision, and at which value one should look again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.plan import Plan, Swing, choice_where
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
    """Assumptions that, known to be at an end one chance in a hundred away, turn the choice; the likeliest first.

    The others stay uncertain, so a trigger is where one would decide otherwise, not where one happens to lose.
    """
    chosen = plan.chosen.candidate.name
    found = []
    for swing in swings[: 2 * most]:
        for z in (-WORST, WORST):
            name = swing.assumption.name
            there = choice_where(plan, name, z, prices, rate)
            if there == chosen or choice_where(plan, name, 0.0, prices, rate) != chosen:
                continue
            near, far = 0.0, z
            for _ in range(6):
                middle = (near + far) / 2
                at = choice_where(plan, name, middle, prices, rate)
                near, far, there = (middle, far, there) if at == chosen else (near, middle, at)
            value = float(swing.assumption.value.at(np.array(far)))
            found.append(Risk(swing.assumption, value, z > 0, there, float(ndtr(-abs(far)))))
    return tuple(sorted(found, key=lambda r: -r.chance)[:most])
