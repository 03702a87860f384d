"""One option in every world: work, dates, waterfall, money, energy.

The cheap look at an option that ranks all of them; sim/cluster then plays the best few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.cost.money import carbon_kg
from sim.planning.capacity import months
from sim.planning.capacity.draws import Draws, world_of
from sim.planning.capacity.fleets import Fleet, Refusal, cut_frac, fleet, peak_power_w, refusals
from sim.planning.capacity.fluid import Flow, Rate, Served, paid_hours, pour
from sim.planning.capacity.money import Ledger, NoPriceError, joined, ledger, power_states_kwh, price_of
from sim.planning.capacity.needs import Need
from sim.spec.demand import Demand, Programme
from sim.spec.hardware import System
from sim.spec.prices import Assumption
from sim.spec.supply import Option, Supply

Array = NDArray[np.float64]
WATERFALL = ("bought", "available", "scheduled", "running", "useful")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One option in one size."""

    option: Option
    scale: int

    @property
    def name(self) -> str:
        """``buy H100 x2``."""
        return self.option.name if len(self.option.scales) == 1 else f"{self.option.name} x{self.scale}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a candidate does. Arrays: shape (draws,) unless said otherwise; empty where it was refused."""

    candidate: Candidate
    refused: tuple[Refusal, ...]
    """Why it cannot be had here; empty = it can."""
    fleets: tuple[Fleet, ...] = ()
    flow: Flow | None = None
    ledger: Ledger | None = None
    shortage_usd: Array | None = None
    """Value of the wanted work that is never done."""
    lateness_usd: Array | None = None
    short_hours: Array | None = None
    """Reference device-hours wanted and never done, shape (draws, months)."""
    kwh: Mapping[str, Array] | None = None
    """Energy by state."""
    carbon_kg: Array | None = None
    embodied_kg: Array | None = None
    """The part of the carbon that made the machines."""
    peak_w: float = 0.0

    @property
    def cost_usd(self) -> Array:
        """Cash and financing."""
        return self.ledger.total_usd if self.ledger is not None else np.zeros(0)

    @property
    def penalty_usd(self) -> Array:
        """What is short and late, priced."""
        if self.shortage_usd is None or self.lateness_usd is None:
            return np.zeros(0)
        return self.shortage_usd + self.lateness_usd

    @property
    def loss_usd(self) -> Array:
        """Cost and penalty."""
        return self.cost_usd + self.penalty_usd

    @property
    def served(self) -> tuple[Served, ...]:
        """What became of each programme; empty where it was refused."""
        return self.flow.served if self.flow is not None else ()

    def waterfall(self) -> dict[str, Array]:
        """Device-hours over the plan at each step from bought (or paid for) to useful, each shape (draws,)."""
        hours = {step: np.zeros(len(self.penalty_usd)) for step in WATERFALL}
        for item, used in zip(self.fleets, self.flow.used if self.flow else (), strict=True):
            paid = np.divide(
                paid_hours(item, used), item.owned, out=np.zeros_like(used), where=item.owned > 0
            )
            steps = (item.owned, item.available, item.scheduled, item.running)
            for step, amount in zip(WATERFALL[:-1], steps, strict=True):
                hours[step] += (amount * paid).sum(axis=1)
            hours["useful"] += used.sum(axis=1)
        return hours

    def met(self, name: str) -> float:
        """Share of the worlds in which the programme ``name`` meets its deadline."""
        return next(float((s.late_months == 0).mean()) for s in self.served if s.need.programme.name == name)


def candidates(supply: Supply) -> tuple[Candidate, ...]:
    """Doing nothing first, then every option in every size."""
    nothing = Candidate(Option("do nothing", (), (1,), "keep what is there"), 1)
    return (nothing, *(Candidate(option, scale) for option in supply.options for scale in option.scales))


def evaluate(
    candidate: Candidate,
    demand: Demand,
    supply: Supply,
    needs: Sequence[Need],
    general: Mapping[str, Assumption],
    draws: Draws,
    rate: Rate,
    reference: Mapping[str, float],
) -> Evaluation:
    """Try ``candidate`` in every world. ``reference``: units of work a reference device-hour does, by programme."""
    world = world_of(general, draws)
    fleets = _fleets(candidate, demand, supply, world, draws)
    refused = refusals(fleets, supply.site, general) + _unpriced(fleets)
    peak_w = peak_power_w(fleets, general)
    if refused:
        return Evaluation(candidate, refused, fleets, peak_w=peak_w)
    flow = pour(needs, fleets, rate)
    books = joined(
        [ledger(f, u, world, draws) for f, u in zip(fleets, flow.used, strict=True)],
        (draws.count, demand.months),
    )
    kwh: dict[str, Array] = {}
    for f, used in zip(fleets, flow.used, strict=True):
        for state, amount in power_states_kwh(f, used, world).items():
            kwh[state] = kwh.get(state, np.zeros(draws.count)) + amount.sum(axis=1)
    embodied = _embodied_kg(fleets, flow, world, draws.count)
    used_kwh = sum(kwh.values(), start=np.zeros(draws.count))
    carbon = carbon_kg(used_kwh, world["carbon_kg_per_kwh"]) + embodied
    short, shortage, late = _missed(demand, flow, draws, reference)
    return Evaluation(candidate, (), fleets, flow, books, shortage, late, short, kwh, np.asarray(carbon), embodied,
                      peak_w)  # fmt: skip


def _fleets(
    candidate: Candidate, demand: Demand, supply: Supply, world: Mapping[str, Array], draws: Draws
) -> tuple[Fleet, ...]:
    """The estate, then what the candidate adds."""
    parts = [(p, 1, True, f"estate {i}") for i, p in enumerate(supply.estate)]
    parts += [
        (p, candidate.scale, False, f"{candidate.option.name} {i}")
        for i, p in enumerate(candidate.option.parts)
    ]
    cut = cut_frac([(part, scale) for part, scale, _, _ in parts], supply.site, world)
    return tuple(
        fleet(part, scale, demand.start, demand.months, world, draws, cut_frac=cut, sunk=sunk, label=label)
        for part, scale, sunk, label in parts
    )


def _unpriced(fleets: Sequence[Fleet]) -> tuple[Refusal, ...]:
    found = []
    for item in fleets:
        try:
            price_of(item.part)
        except NoPriceError as fault:
            if not item.sunk:
                found.append(Refusal("price", 1.0, 0.0, str(fault)))
    return tuple(found)


def over_budget(found: Evaluation, supply: Supply) -> Evaluation:
    """The same, refused where its median cost is above the budget (doing nothing always may)."""
    if supply.budget_usd is None or found.refused or not found.candidate.option.parts:
        return found
    typical = float(np.median(found.cost_usd))
    if typical <= supply.budget_usd:
        return found
    told = f"budget: costs ${typical / 1e6:,.2f}M at the median, there is ${supply.budget_usd / 1e6:,.2f}M"
    return replace(found, refused=(Refusal("budget", typical, supply.budget_usd, told),))


def _embodied_kg(fleets: Sequence[Fleet], flow: Flow, world: Mapping[str, Array], count: int) -> Array:
    """Carbon of making what is new, shape (draws,): each node's spread evenly over its life, by the hours paid for."""
    years = np.zeros(count)
    for f, used in zip(fleets, flow.used, strict=True):
        if not f.sunk:
            node_hours = paid_hours(f, used).sum(axis=1) / f.part.system.gpus_per_node
            each = np.minimum(node_hours / f.nodes / (12 * months.HOURS), world["life_years"])
            years += each * (f.nodes + f.spares)
    return np.asarray(world["embodied_kg_per_node"] * years / world["life_years"])


def _missed(
    demand: Demand, flow: Flow, draws: Draws, reference: Mapping[str, float]
) -> tuple[Array, Array, Array]:
    """Reference device-hours short (draws, months), and the price of shortage and of delay (draws,)."""
    value = draws.of("value_usd_per_gpu_hour", demand.value_usd_per_gpu_hour)
    each = draws.of("month_late_usd", demand.month_late_usd)
    short = np.zeros((draws.count, demand.months))
    late = np.zeros(draws.count)
    for served in flow.served:
        short += served.short / max(reference[served.need.programme.name], 1e-30)
        late += served.late_months * each
    return short, short.sum(axis=1) * value, late


def remembered(rate: Rate) -> Rate:
    """``rate``, worked out once for each programme, system and number of devices."""
    known: dict[tuple[str, str, int], float] = {}

    def lookup(programme: Programme, system: System, devices: int) -> float:
        key = (programme.name, system.key, devices)
        if key not in known:
            known[key] = rate(programme, system, devices)
        return known[key]

    return lookup
