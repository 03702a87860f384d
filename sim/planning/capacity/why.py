"""Why not the others: the reason that binds for each option, how near it came, and what it lacks.

As in Netflix' service-capacity-modeling, every rejected shape leaves with an excuse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.planning.capacity.evaluate import Evaluation
from sim.planning.capacity.plan import Plan
from sim.planning.capacity.regret import mean_regret
from sim.spec.supply import Supply
from sim.units import format_percent

NEAR_FRAC = 0.25
"""What breaks a limit by no more than this, or would come first at a price lower by no more than this, is near."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """An option that almost was the choice."""

    name: str
    lacks: str


@dataclass(frozen=True, slots=True)
class Cut:
    """What the utility's power cuts cost the chosen option; arrays of shape (draws,)."""

    off_frac: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Share of its nodes on the site that is switched off in a cut."""
    lost_hours: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Useful device-hours over the plan that the cuts take."""
    lost_usd: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Cost and penalty with the cuts less the same without them."""


def why_not(plan: Plan, other: Evaluation) -> str:
    """The reason that binds: why ``other`` is not the choice, in one sentence."""
    if other.refused:
        return "; ".join(refusal.words for refusal in other.refused)
    chosen = plan.chosen
    if other is chosen:
        return ""
    names = [s.need.programme.name for s in chosen.served if s.need.deadline is not None]
    late = [(name, chosen.met(name), other.met(name)) for name in names]
    worst = max(late, key=lambda row: row[1] - row[2], default=None)
    more = float(np.median(other.cost_usd - chosen.cost_usd))
    lacks = float(np.median(other.penalty_usd - chosen.penalty_usd))
    if worst is not None and worst[1] - worst[2] >= 0.05:
        return f"{worst[0]} in time in {format_percent(worst[2])} of the worlds against {format_percent(worst[1])}"
    if lacks > max(more, 0):
        return f"leaves work worth {_usd(lacks)} more undone"
    if more > 0:
        return f"costs {_usd(more)} more"
    p90 = float(np.quantile(other.loss_usd - chosen.loss_usd, 0.9))
    if np.array_equal(other.loss_usd, chosen.loss_usd):
        return "comes to the same in every world"
    return f"regretted more when demand is high: {_usd(p90)} worse in one world of ten"


def first_if_cheaper_usd(plan: Plan, other: Evaluation) -> float | None:
    """How much less ``other`` would have to cost, the same in every world, to be the least regretted; none = even
    free it would not be."""
    if other.refused or other is plan.chosen or not other.candidate.option.parts:
        return None
    loss = np.stack([e.loss_usd for e in plan.evaluations])
    penalty = np.stack([e.penalty_usd for e in plan.evaluations])
    mine = next(i for i, e in enumerate(plan.evaluations) if e is other)

    def wins(less_usd: float) -> bool:
        changed = loss.copy()
        changed[mine] -= less_usd
        return int(mean_regret(changed, penalty).argmin()) == mine

    low, high = 0.0, float(np.median(other.cost_usd))
    if not wins(high):
        return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if wins(middle) else (middle, high)
    return high


def near_misses(plan: Plan) -> tuple[NearMiss, ...]:
    """Options within :data:`NEAR_FRAC` of being possible, or of being the choice, with what they lack."""
    found = []
    for other in plan.refused:
        if max(refusal.over_frac for refusal in other.refused) <= NEAR_FRAC:
            lacks = "; ".join(f"{r.words} ({format_percent(r.over_frac)} over)" for r in other.refused)
            found.append(NearMiss(other.candidate.name, lacks))
    for number in plan.choice.order[1:]:
        other = plan.evaluations[number]
        less = first_if_cheaper_usd(plan, other)
        cost = float(np.median(other.cost_usd))
        if less is not None and less <= NEAR_FRAC * cost:
            lacks = f"would be the choice at {_usd(less)} ({format_percent(less / cost, 1)}) less"
            found.append(NearMiss(other.candidate.name, lacks))
    return tuple(found)


def power_cut(plan: Plan) -> Cut | None:
    """What the site's power cuts cost the choice; none where the site has none."""
    site = plan.supply.site
    if not site.curtail_hours_per_year or not site.curtail_frac:
        return None
    whole: Supply = replace(plan.supply, site=replace(site, curtail_hours_per_year=0.0))
    uncut = plan.again(plan.chosen, whole)
    per_hour = site.curtail_hours_per_year / 8766
    off = np.max([f.cut_frac for f in plan.chosen.fleets], axis=0, initial=0.0) / per_hour
    lost = uncut.waterfall()["useful"] - plan.chosen.waterfall()["useful"]
    return Cut(off, lost, plan.chosen.loss_usd - uncut.loss_usd)


def _usd(value: float) -> str:
    """``$1.23M`` or ``$45k``."""
    return f"${value / 1e6:,.2f}M" if abs(value) >= 1e6 else f"${value / 1e3:,.3g}k"
