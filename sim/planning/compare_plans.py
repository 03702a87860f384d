"""Capacity plans side by side in the same worlds: what was changed, what would be chosen there, and how sure the
difference is.

Two households are asked what the same years would cost them: dear years are dear for both, so what differs between them
is known far better than what either will pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Evaluation
from sim.planning.capacity.plan import DRAWS
from sim.planning.capacity.tables import spread
from sim.planning.compare import change_frac, changed
from sim.planning.sweep.plan_points import PLAN_FIGURES, chosen_plan, figures_of
from sim.spec.scenario import Scenario
from sim.statistics.intervals import mean_interval

LEVEL_FRAC = 0.95
ANSWERS = {
    "cost_usd": ("cost", "USD"),
    "penalty_usd": ("short and late, priced", "USD"),
    "loss_usd": ("both together", "USD"),
    "useful_device_hours": ("useful device-hours", "device-hours"),
    "energy_kwh": ("energy", "kWh"),
    "carbon_kg": ("carbon", "kg CO2e"),
}
"""What is compared world by world: words and unit."""


def compare_plans(scenarios: Sequence[Scenario], folders: Sequence[Path]) -> dict[str, Any]:
    """Every plan against the first, ready for JSON.

    Each choice is tried in :data:`DRAWS` worlds. World k of all of them has the same value of every assumption that
    bears the same name (common random numbers), as far as the seeds are the same, so differences are taken world by
    world and have Student's interval (Law, Simulation Modeling and Analysis, 5th ed., 11.2).
    """
    plans = [chosen_plan(one, folder) for one, folder in zip(scenarios, folders, strict=True)]
    rows = [figures_of(plan) for plan in plans]
    values = {name: [row[name] for row in rows] for name in PLAN_FIGURES}
    found = [_by_world(plan.choice_in(Draws(DRAWS, plan.seed))) for plan in plans]
    return {
        "scenarios": [{"name": one.name, "hash": one.content_hash, "seed": one.seed} for one in scenarios],
        "outcomes": [{"outcome": row["outcome"], "reason": row["reason"]} for row in rows],
        "changed": changed(scenarios),
        "figures": [
            {"figure": name, "values": cells, "change_frac": change_frac(cells)}
            for name, cells in values.items()
        ],
        "level_frac": LEVEL_FRAC,
        "worlds": DRAWS,
        "paired": len({one.seed for one in scenarios}) == 1,
        "answers": [
            {
                "name": name,
                "words": words,
                "unit": unit,
                "values": [mean_and_spread(each[name]) for each in found],
                "differences": [None, *(difference(found[0][name], each[name]) for each in found[1:])],
            }
            for name, (words, unit) in ANSWERS.items()
        ],
    }


def _by_world(choice: Evaluation) -> Mapping[str, NDArray[np.float64]]:
    """Each answer in every world, shape (draws,)."""
    kwh = choice.kwh or {}
    none = np.zeros(len(choice.loss_usd))
    return {
        "cost_usd": choice.cost_usd,
        "penalty_usd": choice.penalty_usd,
        "loss_usd": choice.loss_usd,
        "useful_device_hours": choice.waterfall()["useful"],
        "energy_kwh": sum(kwh.values(), start=none),
        "carbon_kg": none if choice.carbon_kg is None else choice.carbon_kg,
    }


def mean_and_spread(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean with its interval, and P10, P50, P90 over the worlds.

    Worlds come in antithetic pairs (:meth:`Draws.z`), which are not independent: the interval is of the pairs' means.
    """
    half = len(values) // 2
    pairs = (values[:half] + values[half : 2 * half]) / 2
    found = mean_interval(pairs, LEVEL_FRAC)
    return {"mean": found.estimate, "low": found.low, "high": found.high} | spread(values)


def difference(first: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, Any]:
    """``other`` less ``first`` world by world; ``sure``: the interval of the mean does not hold 0; ``less_frac``: share
    of the worlds in which ``other`` is the smaller."""
    found = mean_and_spread(other - first)
    return found | {
        "sure": not found["low"] <= 0 <= found["high"],
        "less_frac": float((other < first).mean()),
    }
