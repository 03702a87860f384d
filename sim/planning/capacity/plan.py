"""A capacity plan: every option tried in every world, the least regretted one chosen, and why not the others.

The end of the line: demand in, decision out. Every number in the decision can be followed back to a need, a price or a
rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Evaluation, candidates, over_budget, remembered
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.money import NoPriceError, price_of
from sim.planning.capacity.needs import Need
from sim.planning.capacity.race import Course, rank, run_race
from sim.planning.capacity.regret import Choice
from sim.planning.capacity.simulate import Played
from sim.spec.demand import Demand
from sim.spec.prices import Assumption, Prices, general
from sim.spec.supply import Supply

DRAWS = 400


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
    replications: int
    """Simulated months of each option that raced to the end."""
    general: Mapping[str, Assumption]
    register: tuple[Assumption, ...]
    rate: Rate
    seed: int

    @property
    def chosen(self) -> Evaluation:
        """The option of least regret."""
        return self.evaluations[self.choice.chosen]

    @property
    def worlds(self) -> int:
        """Worlds that the options were ranked in at last."""
        return len(self.chosen.loss_usd)

    def tried(self, draws: Draws) -> tuple[Evaluation, ...]:
        """Every option that can be had in other worlds, in the order of ``evaluations``; with the shares that the
        simulation measured."""
        candidates = [e.candidate for e in self.evaluations]
        return tuple(self._course(self.supply).tried(candidates, draws, self.played)[1])

    def choice_in(self, draws: Draws) -> Evaluation:
        """The chosen option in other worlds."""
        return self._course(self.supply).tried([self.chosen.candidate], draws, self.played)[1][0]

    def again(self, found: Evaluation, supply: Supply) -> Evaluation:
        """One option under another supply (site, estate), in the same worlds."""
        draws = Draws(self.worlds, self.seed)
        return self._course(supply).tried([found.candidate], draws, self.played)[1][0]

    def _course(self, supply: Supply) -> Course:
        return Course(self.demand, supply, self.general, self.rate)


def make_plan(
    demand: Demand,
    supply: Supply,
    prices: Prices | None,
    rate: Rate,
    seed: int = 0,
    count: int = DRAWS,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Choose among doing nothing and every option of ``supply`` in every size; ``tell`` hears what is being done.

    ``count``: worlds at first; a close race is run in more.
    """
    course = Course(demand, supply, general(prices), remembered(rate))
    draws = Draws(count, seed)
    tell("training rates of the systems, and every option in the closed form")
    wanted, all_tried = course.tried(candidates(supply), draws, {})
    tried = [over_budget(found, supply) for found in all_tried]
    possible = [e for e in tried if not e.refused]
    first = rank(possible, seed)
    end = run_race(course, wanted, possible, first, seed, tell)
    return Plan(
        demand, supply, end.needs, end.evaluations, tuple(e for e in tried if e.refused), end.choice, first,
        end.played, end.replications, course.general, _register(course.general, demand, supply, wanted),
        course.rate, seed,
    )  # fmt: skip


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
