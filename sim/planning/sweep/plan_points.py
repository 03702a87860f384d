"""A capacity plan as one row of a sweep: what would be chosen there, what it costs, and how surely.

The headline of the report without the report: neither tornado nor risks are worked out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sim.planning.capacity.history import with_histories
from sim.planning.capacity.plan import Plan, make_plan
from sim.planning.capacity.rates import rates
from sim.planning.capacity.tables import decision
from sim.planning.capacity.trained import trained_by
from sim.spec.profiles import fits_for
from sim.spec.scenario import Scenario

PLAN_FIGURES = (
    "option",
    "confidence_frac",
    "cost_usd",
    "cost_low_usd",
    "cost_high_usd",
    "short_and_late_usd",
    "usd_per_useful_hour",
    "regret",
    "runner_up",
    "too_close",
)
"""Columns of a capacity plan: medians, with P10 and P90 of the cost."""
WORLDS = 200


def chosen_plan(scenario: Scenario, folder: Path, worlds: int = WORLDS) -> Plan:
    """The plan of a scenario with demand and supply.

    Raises:
        ValueError: it has none.
    """
    known = with_histories(scenario, folder)
    if known.demand is None or known.supply is None:
        raise ValueError("the scenario has no [demand] and [supply]")
    rate = rates(trained_by(fits_for(known.profile)))
    return make_plan(known.demand, known.supply, known.prices, rate, known.seed, worlds)


def plan_figures(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """The row of a scenario; ``does not fit`` where nothing but doing nothing can be had."""
    return figures_of(chosen_plan(scenario, folder))


def figures_of(made: Plan) -> dict[str, Any]:
    """The row of a plan."""
    found, order = decision(made), made.choice.order
    first = made.evaluations[order[0]]
    nothing = len(made.evaluations) == 1 and bool(made.refused)
    told = "; ".join(refusal.words for e in made.refused for refusal in e.refused) if nothing else ""
    return {
        "outcome": "does not fit" if nothing else "done",
        "reason": told,
        "option": found["option"],
        "confidence_frac": found["confidence"],
        "cost_usd": found["cost_usd"]["p50"],
        "cost_low_usd": found["cost_usd"]["p10"],
        "cost_high_usd": found["cost_usd"]["p90"],
        "short_and_late_usd": float(sorted(first.penalty_usd)[(len(first.penalty_usd) - 1) // 2]),
        "usd_per_useful_hour": found["usd_per_useful_hour"]["p50"],
        "regret": float(made.choice.regret[order[0]]),
        "runner_up": made.evaluations[order[1]].candidate.name if len(order) > 1 else None,
        "too_close": found["too_close"],
    }
