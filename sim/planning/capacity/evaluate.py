"""One option in every world: work, dates, waterfall, money, energy.

The cheap look at an option that ranks all of them; sim/cluster then plays the best few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity.draws import Draws, world_of
from sim.planning.capacity.fleets import Fleet, fleet, peak_power_w, refusals
from sim.planning.capacity.fluid import Flow, Rate, paid_hours, pour
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
    refused: tuple[str, ...]
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
        served = next(s for s in self.flow.served if s.need.programme.name == name)  # type: ignore[union-attr]
        return float((served.late_months == 0).mean())


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
    own = tuple(
        fleet(p, 1, demand.start, demand.months, world, draws, supply.site, sunk=True, label=f"estate {i}")
        for i, p in enumerate(supply.estate)
    )
    new = tuple(
        fleet(p, candidate.scale, demand.start, demand.months, world, draws, supply.site,
              label=f"{candidate.option.name} {i}")
        for i, p in enumerate(candidate.option.parts)
    )  # fmt: skip
    fleets = own + new
    refused = list(refusals(fleets, supply.site, general))
    for item in new:
        try:
            price_of(item.part)
        except NoPriceError as fault:
            refused.append(str(fault))
    if refused:
        return Evaluation(candidate, tuple(refused), fleets, peak_w=peak_power_w(fleets, general))
    flow = pour(needs, fleets, rate)
    books = joined(
        [ledger(f, u, world, draws) for f, u in zip(fleets, flow.used, strict=True)],
        (draws.count, demand.months),
    )
    typical = float(np.median(books.total_usd))
    if supply.budget_usd is not None and candidate.option.parts and typical > supply.budget_usd:
        told = (
            f"budget: costs ${typical / 1e6:,.2f}M at the median, there is ${supply.budget_usd / 1e6:,.2f}M"
        )
        return Evaluation(candidate, (told,), fleets, peak_w=peak_power_w(fleets, general))
    kwh: dict[str, Array] = {}
    for f, used in zip(fleets, flow.used, strict=True):
        for state, amount in power_states_kwh(f, used, world).items():
            kwh[state] = kwh.get(state, np.zeros(draws.count)) + amount.sum(axis=1)
    nodes = np.asarray(sum(f.nodes for f in new), float)
    life = world["life_years"] * 12
    embodied = world["embodied_kg_per_node"] * nodes * np.minimum(demand.months / life, 1.0)
    carbon = sum(kwh.values(), start=np.zeros(draws.count)) * world["carbon_kg_per_kwh"] + embodied
    short, shortage, late = _missed(demand, flow, draws, reference)
    return Evaluation(candidate, (), fleets, flow, books, shortage, late, short, kwh, np.asarray(carbon),
                      peak_power_w(fleets, general))  # fmt: skip


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
