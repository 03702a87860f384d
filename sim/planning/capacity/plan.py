"""A capacity plan: every option tried in every world, the least regretted one chosen, and why not the others.

The end of the line: demand in, decision out. Every number in the decision can be followed back to a need, a price or a
rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Evaluation, candidates, evaluate, over_budget, remembered
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.money import NoPriceError, price_of
from sim.planning.capacity.needs import Need, needs
from sim.planning.capacity.rates import reference_rates
from sim.planning.capacity.regret import Choice, least_regret
from sim.planning.capacity.simulate import Played, play_option
from sim.spec.demand import Demand
from sim.spec.prices import Assumption, Prices, general
from sim.spec.quantiles import Quantiles
from sim.spec.supply import Supply

DRAWS = 400
PLAYED = 4
"""Options that are also simulated: those of least regret in the closed form."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. ``choice`` ranks ``evaluations``, which holds only what can be had; ``refused`` holds the rest."""

    demand: Demand
    supply: Supply
    needs: tuple[Need, ...]
    evaluations: tuple[Evaluation, ...]
    refused: tuple[Evaluation, ...]
    choice: Choice
    closed_form: Choice
    """The ranking before any option was played job by job."""
    played: Mapping[str, Played]
    """What the simulation of the best few found, by name."""
    general: Mapping[str, Assumption]
    register: tuple[Assumption, ...]
    rate: Rate
    seed: int

    @property
    def chosen(self) -> Evaluation:
        """The option of least regret."""
        return self.evaluations[self.choice.chosen]

    def tried(self, draws: Draws) -> tuple[Evaluation, ...]:
        """Every option that can be had in other worlds, in the order of ``evaluations``; with the shares that the
        simulation measured."""
        wanted = needs(self.demand, draws)
        reference = reference_rates(self.demand.programmes, self.rate)
        return tuple(
            evaluate(
                e.candidate, self.demand, self.supply, wanted, self.world_for(e), draws, self.rate, reference
            )
            for e in self.evaluations
        )

    def again(self, found: Evaluation, supply: Supply) -> Evaluation:
        """One option under another supply (site, estate), in the same worlds."""
        draws = Draws(len(found.loss_usd), self.seed)
        reference = reference_rates(self.demand.programmes, self.rate)
        world = self.world_for(found)
        return evaluate(found.candidate, self.demand, supply, self.needs, world, draws, self.rate, reference)

    def world_for(self, found: Evaluation) -> Mapping[str, Assumption]:
        """The general assumptions as they hold for one option."""
        played = self.played.get(found.candidate.name)
        return self.general if played is None else {**self.general, **measured(self.general, played)}


def make_plan(
    demand: Demand,
    supply: Supply,
    prices: Prices | None,
    rate: Rate,
    seed: int = 0,
    count: int = DRAWS,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Choose among doing nothing and every option of ``supply`` in every size; ``tell`` hears what is being done."""
    general_, rate = general(prices), remembered(rate)
    draws = Draws(count, seed)
    tell("training rates of the systems")
    wanted = needs(demand, draws)
    reference = reference_rates(demand.programmes, rate)
    tried = []
    for candidate in candidates(supply):
        tell(f"trying {candidate.name}")
        found = evaluate(candidate, demand, supply, wanted, general_, draws, rate, reference)
        tried.append(over_budget(found, supply))
    possible = [e for e in tried if not e.refused]
    first = rank(possible, seed)
    played: dict[str, Played] = {}
    final = list(possible)
    for number in first.order[:PLAYED]:
        candidate = possible[number].candidate
        tell(f"simulating {candidate.name}")
        shown = play_option(possible[number], wanted, rate, seed)
        if shown is None:
            continue
        played[candidate.name] = shown
        world = general_ | measured(general_, shown)
        final[number] = evaluate(candidate, demand, supply, wanted, world, draws, rate, reference)
    return Plan(
        demand, supply, wanted, tuple(final), tuple(e for e in tried if e.refused), rank(final, seed), first, played,
        general_, _register(general_, demand, supply, wanted), rate, seed,
    )  # fmt: skip


def rank(possible: Sequence[Evaluation], seed: int) -> Choice:
    """Order by regret."""
    loss, penalty = np.stack([e.loss_usd for e in possible]), np.stack([e.penalty_usd for e in possible])
    return least_regret(loss, penalty, seed)


def measured(world: Mapping[str, Assumption], found: Played) -> dict[str, Assumption]:
    """The two shares that the simulation measured, with the doubt the catalogue has about them."""
    source = "simulated: the busiest month of the option, job by job"
    changed = {}
    for name in ("scheduling_frac", "runtime_frac"):
        old = world[name]
        factor = getattr(found, name) / old.value.mid
        low, high = (min(value * factor, 1.0) for value in (old.value.low, old.value.high))
        mid = min(max(getattr(found, name), low), high)
        changed[name] = replace(old, value=Quantiles(low, mid, high), source=source, kind="simulated")
    return changed


def _register(
    world: Mapping[str, Assumption], demand: Demand, supply: Supply, wanted: Sequence[Need]
) -> tuple[Assumption, ...]:
    """Every number that could be otherwise, once."""
    items = {item.name: item for need in wanted for item in need.implied}
    for programme in demand.programmes:
        said = {"tokens": "tokens", "people": "count", "device_hours": "device-hours", "runs_per_month": "runs/month",
                "tokens_per_s": "tokens/s", "growth_frac_per_year": "share/year", "failed_frac": "share"}  # fmt: skip
        for field, unit in said.items():
            if field == ("growth_frac_per_year" if programme.kind == "model" else "failed_frac"):
                continue  # a run is wanted once, and only a run is done again
            value = getattr(programme, field)
            name = f"{programme.name}.{field}"
            if value is not None and name not in items:
                items[name] = Assumption(name, value, unit, "the scenario file", "scenario")
    for name in ("value_usd_per_gpu_hour", "month_late_usd"):
        items[name] = Assumption(name, getattr(demand, name), "USD", "the scenario file", "scenario")
    for option in supply.options:
        for number, part in enumerate(option.parts):
            name = f"{option.name} {number}.delay_months"
            items[name] = Assumption(name, part.delay_months, "months", "the scenario file", "scenario")
            try:
                price = price_of(part)
            except NoPriceError:
                continue
            items[price.name] = price
    return (*items.values(), *world.values())
