"""From a scenario to a plan and its document: the one door that command line and app use."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from sim.planning.capacity.break_even import break_even
from sim.planning.capacity.draws import Draws
from sim.planning.capacity.money import NoPriceError
from sim.planning.capacity.plan import Plan, make_plan
from sim.planning.capacity.rates import rates
from sim.planning.capacity.tables import plan_document, spread
from sim.planning.capacity.trained import trained_by
from sim.planning.capacity.what_if import risks, tornado
from sim.spec.prices import general
from sim.spec.profiles import fits_for
from sim.spec.scenario import Scenario


def planned(
    scenario: Scenario, worlds: int, tell: Callable[[str], None] = lambda _: None
) -> tuple[Plan, dict[str, Any]]:
    """Make the plan, try what would change it, and write it down; ``tell`` hears what is being done.

    Raises:
        ValueError: the scenario has no demand or no supply.
    """
    if scenario.demand is None or scenario.supply is None:
        raise ValueError("the scenario has no [demand] and [supply]")
    rate = rates(trained_by(fits_for(scenario.profile)))
    made = make_plan(scenario.demand, scenario.supply, scenario.prices, rate, scenario.seed, worlds, tell)
    tell("one assumption at a time")
    swings = tornado(made)
    tell("where the decision turns")
    document = plan_document(made, swings, risks(made, swings.swings))
    head = {
        "rackcast": version("rackcast"),
        "scenario": {"name": scenario.name, "shows": scenario.shows, "hash": scenario.content_hash},
    }
    return made, head | document | {"break_even": _break_even(scenario, worlds)}


def _break_even(scenario: Scenario, worlds: int) -> list[dict[str, Any]]:
    """Owning against renting, for each system among the options that has both prices."""
    parts = [part for option in scenario.supply.options for part in option.parts] if scenario.supply else []
    systems = {part.system.key: part.system for part in parts}
    rows = []
    for system in systems.values():
        try:
            found = break_even(system, general(scenario.prices), Draws(worlds, scenario.seed))
        except NoPriceError:
            continue
        rows.append(
            {
                "system": system.name,
                "own": spread(found.own_usd_per_gpu_hour),
                "rent": spread(found.rent_usd_per_gpu_hour),
                "busy_frac": spread(found.busy_frac),
            }
        )
    return rows
