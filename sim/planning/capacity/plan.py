"""A capacity plan: every option tried in every world, the least regretted one chosen, and why not the others.

The end of the line: demand in, decision out. Every number in the decision can be followed back to a need, a price or a
rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity.draws import Draws
from sim.planning.capacity.evaluate import Candidate, Evaluation, candidates, evaluate, remembered
from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.money import NoPriceError, price_of
from sim.planning.capacity.needs import Need, needs
from sim.planning.capacity.rates import reference_rates
from sim.planning.capacity.regret import Choice, least_regret, mean_regret
from sim.planning.capacity.simulate import Played, play_option
from sim.spec.demand import Demand
from sim.spec.interval import Z90, Interval
from sim.spec.prices import Assumption, Prices, general
from sim.spec.supply import Supply

DRAWS = 400
PLAYED = 4
"""Options that are also simulated: those of least regret in the closed form."""
Array = NDArray[np.float64]


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
    register: tuple[Assumption, ...]
    seed: int

    @property
    def chosen(self) -> Evaluation:
        """The option of least regret."""
        return self.evaluations[self.choice.chosen]


@dataclass(frozen=True, slots=True)
class Swing:
    """What one assumption does to the plan when it alone moves to its P10 and P90."""

    assumption: Assumption
    low_usd: float
    """Cost and penalty of the chosen option with the assumption at P10, others at their middle."""
    high_usd: float
    low_choice: str
    high_choice: str
    """Which option is best there."""


def make_plan(
    demand: Demand, supply: Supply, prices: Prices | None, rate: Rate, seed: int = 0, count: int = DRAWS
) -> Plan:
    """Choose among doing nothing and every option of ``supply`` in every size."""
    world, rate = general(prices), remembered(rate)
    draws = Draws(count, seed)
    wanted, tried = _try_all(demand, supply, world, draws, rate)
    possible = tuple(e for e in tried if not e.refused)
    refused = tuple(e for e in tried if e.refused)
    first = _rank(possible, seed)
    played: dict[str, Played] = {}
    final = list(possible)
    reference = reference_rates(demand.programmes, rate)
    for number in first.order[:PLAYED]:
        found = play_option(possible[number], wanted, rate, seed)
        if found is None:
            continue
        candidate = possible[number].candidate
        played[candidate.name] = found
        measured = world | _measured(world, found)
        final[number] = evaluate(candidate, demand, supply, wanted, measured, draws, rate, reference)
    register = _register(world, demand, supply, wanted)
    return Plan(
        demand, supply, wanted, tuple(final), refused, _rank(final, seed), first, played, register, seed
    )


def _rank(possible: Sequence[Evaluation], seed: int) -> Choice:
    loss, penalty = np.stack([e.loss_usd for e in possible]), np.stack([e.penalty_usd for e in possible])
    return least_regret(loss, penalty, seed)


def _measured(world: Mapping[str, Assumption], found: Played) -> dict[str, Assumption]:
    """The two shares that the simulation measured, with the doubt the catalogue has about them."""
    source = "simulated: the busiest month of the option, job by job"
    changed = {}
    for name in ("scheduling_frac", "runtime_frac"):
        old = world[name]
        factor = getattr(found, name) / old.value.mid
        low, high = (min(value * factor, 1.0) for value in (old.value.low, old.value.high))
        mid = min(max(getattr(found, name), low), high)
        changed[name] = replace(old, value=Interval(low, mid, high), source=source, kind="simulated")
    return changed


def tornado(plan: Plan, prices: Prices | None, rate: Rate) -> tuple[Swing, ...]:
    """One assumption at a time at its P10 and P90, the others at their middle; the widest swing first."""
    world = general(prices)
    found = []
    for item in plan.register:
        if item.value.certain:
            continue
        ends = []
        for z in (-Z90, Z90):
            draws = Draws(1, plan.seed, {item.name: z}, median=True)
            _, tried = _try_all(plan.demand, plan.supply, world, draws, rate)
            possible = [e for e in tried if not e.refused]
            best = min(possible, key=lambda e: float(e.loss_usd[0]))
            chosen = next(e for e in possible if e.candidate == plan.chosen.candidate)
            ends.append((float(chosen.loss_usd[0]), best.candidate.name))
        found.append(Swing(item, ends[0][0], ends[1][0], ends[0][1], ends[1][1]))
    return tuple(sorted(found, key=lambda s: -abs(s.high_usd - s.low_usd)))


def choice_where(plan: Plan, name: str, z: float, prices: Prices | None, rate: Rate, count: int = 96) -> str:
    """The least regretted option where the assumption ``name`` is known to be at ``z`` and the others are drawn."""
    draws = Draws(count, plan.seed, {name: z})
    _, tried = _try_all(plan.demand, plan.supply, general(prices), draws, rate)
    possible = [e for e in tried if not e.refused]
    loss, penalty = np.stack([e.loss_usd for e in possible]), np.stack([e.penalty_usd for e in possible])
    return possible[int(np.argmin(mean_regret(loss, penalty)))].candidate.name


def why_not(plan: Plan, other: Evaluation) -> str:
    """The reason that binds: why ``other`` is not the choice, in one sentence."""
    if other.refused:
        return "; ".join(other.refused)
    chosen = plan.chosen
    if other is chosen or chosen.flow is None:
        return ""
    late = [
        (
            served.need.programme.name,
            chosen.met(served.need.programme.name),
            other.met(served.need.programme.name),
        )
        for served in chosen.flow.served
        if served.need.deadline is not None
    ]
    worst = max(late, key=lambda row: row[1] - row[2], default=None)
    more = float(np.median(other.cost_usd - chosen.cost_usd))
    lacks = float(np.median(other.penalty_usd - chosen.penalty_usd))
    if worst is not None and worst[1] - worst[2] >= 0.05:
        return f"{worst[0]} in time in {worst[2]:.0%} of the worlds against {worst[1]:.0%}"
    if lacks > max(more, 0):
        return f"leaves work worth ${lacks / 1e6:,.2f}M more undone"
    return (
        f"costs ${more / 1e6:,.2f}M more"
        if more > 0
        else f"regretted more when demand is high: {_bad_end(plan, other)}"
    )


def _bad_end(plan: Plan, other: Evaluation) -> str:
    p90 = float(np.quantile(other.loss_usd - plan.chosen.loss_usd, 0.9))
    return f"${p90 / 1e6:,.2f}M worse in one world of ten"


def _try_all(
    demand: Demand, supply: Supply, world: Mapping[str, Assumption], draws: Draws, rate: Rate
) -> tuple[tuple[Need, ...], tuple[Evaluation, ...]]:
    wanted = needs(demand, draws)
    tried: Sequence[Candidate] = candidates(supply)
    reference = reference_rates(demand.programmes, rate)
    return wanted, tuple(evaluate(c, demand, supply, wanted, world, draws, rate, reference) for c in tried)


def _register(
    world: Mapping[str, Assumption], demand: Demand, supply: Supply, wanted: Sequence[Need]
) -> tuple[Assumption, ...]:
    """Every number that could be otherwise, once."""
    items = {item.name: item for need in wanted for item in need.implied}
    for programme in demand.programmes:
        said = {"tokens": "tokens", "people": "count", "device_hours": "device-hours", "runs_per_month": "runs/month",
                "tokens_per_s": "tokens/s", "growth_frac_per_year": "share/year", "failed_frac": "share"}  # fmt: skip
        for field, unit in said.items():
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
