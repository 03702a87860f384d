"""What an option costs: a ledger to the cent, month by month, in every world.

Each entry has one line and one month. Cash is what is paid; financing is what tied-up money costs; the two add up to
the cost of the plan, and nothing is counted in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.cost import money
from sim.planning.capacity import months
from sim.planning.capacity.draws import Draws
from sim.planning.capacity.fleets import OWNED, Fleet
from sim.planning.capacity.fluid import paid_hours
from sim.spec.prices import Assumption, hour_price, node_price
from sim.spec.supply import Part

Array = NDArray[np.float64]
LINES = (
    "nodes",
    "network",
    "storage",
    "installation",
    "spares",
    "resale",
    "lease",
    "reserved hours",
    "rented hours",
    "facility",
    "energy",
    "support",
    "people",
    "financing",
)


class NoPriceError(ValueError):
    """The catalogue has no price for a part, and the scenario gives none."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Whole cents by line and month: ``cents[line]`` has shape (draws, months); what comes in is negative."""

    cents: Mapping[str, NDArray[np.int64]]

    @property
    def total_usd(self) -> Array:
        """Cost of the plan in every world, shape (draws,): cash and financing."""
        return np.asarray(sum(entry.sum(axis=1) for entry in self.cents.values()), float) / 100

    @property
    def cash_usd(self) -> Array:
        """What is paid in each month, shape (draws, months), without financing."""
        return (
            np.asarray(sum(entry for line, entry in self.cents.items() if line != "financing"), float) / 100
        )

    def line_usd(self, line: str) -> Array:
        """One line in every world, shape (draws,)."""
        return np.asarray(self.cents[line].sum(axis=1) / 100, float)


def joined(ledgers: Sequence[Ledger], shape: tuple[int, int]) -> Ledger:
    """Several ledgers of ``shape`` (draws, months) as one."""
    zero = np.zeros(shape, np.int64)
    return Ledger({line: sum((book.cents[line] for book in ledgers), start=zero) for line in LINES})


def price_of(part: Part) -> Assumption:
    """The price a part has: of a node (buy, lease) or of a device-hour.

    Raises:
        NoPriceError: neither the scenario nor the catalogue says.
    """
    system = part.system
    if part.contract in ("buy", "lease"):
        given, name, unit = part.node_usd, f"{system.key}.node_usd", "USD"
        found = node_price(system.key)
    else:
        given, name = part.price_usd_per_gpu_hour, f"{system.accelerator}.{part.contract}_usd_per_gpu_hour"
        unit = "USD/gpu hour"
        found = hour_price(system.accelerator, "reserve" if part.contract == "reserve" else "rent")
    if given is not None:
        return Assumption(name, given, unit, "the scenario file", "scenario")
    if found is None:
        raise NoPriceError(
            f"no price is known for {name}: give {'node_usd' if unit == 'USD' else 'price_usd_per_gpu_hour'}"
        )
    return found


def power_states_kwh(fleet: Fleet, used: Array, world: Mapping[str, Array]) -> dict[str, Array]:
    """Energy of a part at the meter of the site by state, kWh, shape (draws, months).

    ``compute``: hours that made progress; ``stall``: busy hours that did not (checkpoints, restarts, lost work);
    ``idle``: the rest of the powered hours; what a power cut switches off draws nothing. Three states, since rated
    power misses by 27-37 % (H100 nodes at 76 % of rated under heavy training).
    """
    paid = paid_hours(fleet, used)
    share = np.divide(used, fleet.running, out=np.zeros_like(used), where=fleet.running > 0)
    busy = fleet.scheduled * share
    rated_w = (fleet.part.system.node_power_w or 0.0) / fleet.part.system.gpus_per_node
    hours = {
        "compute": used,
        "stall": busy - used,
        "idle": np.maximum(paid * (1 - fleet.cut_frac)[:, None] - busy, 0.0),
    }
    pue = world["pue"][:, None]
    return {
        state: money.facility_energy_wh(hours_, rated_w, world[f"power_{state}_frac"][:, None], pue) / 1e3
        for state, hours_ in hours.items()
    }


def ledger(fleet: Fleet, used: Array, world: Mapping[str, Array], draws: Draws) -> Ledger:
    """Every cost of one part of an option.

    Raises:
        NoPriceError: a price is missing.
    """
    shape = used.shape
    lines: dict[str, Array] = {line: np.zeros(shape) for line in LINES}
    paid = paid_hours(fleet, used)
    node_hours = fleet.part.system.gpus_per_node * months.HOURS
    staff = world["staff_usd_per_year"] / 12 / world["nodes_per_engineer"]
    if fleet.part.contract in OWNED:
        nodes = fleet.owned / node_hours  # in place, by month
        hardware = _hardware(fleet, world, draws)
        if not fleet.sunk and fleet.part.contract == "buy":
            _buy(lines, hardware, fleet, world)
        elif not fleet.sunk:
            _lease(lines, hardware, fleet, world)
        yearly = world["support_frac_per_year"] * (hardware["nodes"] + hardware["network"])
        lines["support"] = (yearly / 12)[:, None] * nodes / fleet.nodes
        kw = (fleet.part.system.node_power_w or 0.0) / 1e3
        lines["facility"] = nodes * kw * world["facility_usd_per_kw_month"][:, None]
        kwh = sum(power_states_kwh(fleet, used, world).values())
        lines["energy"] = kwh * world["energy_usd_per_kwh"][:, None]
    else:
        price = price_of(fleet.part)
        rate = draws.of(price.name, price.value)
        if fleet.part.contract == "spot" and fleet.part.price_usd_per_gpu_hour is None:
            rate = rate * world["spot_frac"]
        lines["reserved hours" if fleet.part.contract == "reserve" else "rented hours"] = paid * rate[:, None]
        nodes = paid / node_hours
        staff = staff * world["hosted_staff_frac"]
    lines["people"] = nodes * staff[:, None]
    return Ledger({line: np.rint(amount * 100).astype(np.int64) for line, amount in lines.items()})


def _hardware(fleet: Fleet, world: Mapping[str, Array], draws: Draws) -> dict[str, Array]:
    """Price of the nodes and of what stands beside them, by line, each shape (draws,).

    Of an oversubscribed network the switches above the leaves shrink with it; they are taken as half of its price.
    Nodes of the estate without a known price count 0 (their support is then not seen).
    """
    try:
        price = price_of(fleet.part)
    except NoPriceError:
        if not fleet.sunk:
            raise
        return dict.fromkeys(("nodes", *_BESIDE, "spares"), np.zeros(draws.count))
    each = draws.of(price.name, price.value)
    found = {"nodes": each * fleet.nodes}
    found |= {line: found["nodes"] * world[name] for line, name in _BESIDE.items()}
    found["network"] = found["network"] * (0.5 + 0.5 / (fleet.part.oversubscription or 1.0))
    return found | {"spares": each * fleet.spares}


_BESIDE = {"network": "network_frac", "storage": "storage_frac", "installation": "install_frac"}


def worth(age_months: Array, world: Mapping[str, Array]) -> Array:
    """What a machine would sell for over its price, shape of ``age_months`` (draws, months); see
    :func:`sim.cost.money.worth_frac`."""
    age_frac = age_months / (12 * world["life_years"])[:, None]
    return money.worth_frac(age_frac, world["residual_frac"][:, None])


def lease_share(length: int, world: Mapping[str, Array]) -> Array:
    """Monthly payment of a lease of ``length`` months over the price, shape (draws,): an annuity whose residual is what
    the machine then sells for."""
    residual = worth(np.full((len(world["life_years"]), 1), float(length)), world)[:, 0]
    return money.annuity_frac(world["lease_rate_frac_per_year"] / 12, length, residual)


def _lease(
    lines: dict[str, Array], hardware: Mapping[str, Array], fleet: Fleet, world: Mapping[str, Array]
) -> None:
    """Write a lease: installation paid at delivery, everything else by the month while it stands."""
    length = lines["lease"].shape[1]
    leased = sum(amount for line, amount in hardware.items() if line != "installation")
    payment = leased * lease_share(fleet.part.months or length, world)
    whole = fleet.nodes * fleet.part.system.gpus_per_node * months.HOURS
    lines["lease"] = np.asarray(payment)[:, None] * fleet.owned / whole
    month = np.floor(fleet.delivered).astype(int)
    rows = np.nonzero(month < length)[0]
    lines["installation"][rows, month[rows]] += hardware["installation"][rows]


def _buy(
    lines: dict[str, Array], hardware: Mapping[str, Array], fleet: Fleet, world: Mapping[str, Array]
) -> None:
    """Write a purchase: paid at delivery, sold when retired or at the end of the plan, financed in between.

    Tied-up money costs the cost of capital on what the machines would sell for at the start of each month (residual
    income: discounted at that cost, the charge and the loss of value are worth the price paid).
    """
    length = lines["nodes"].shape[1]
    bought = np.minimum(np.floor(fleet.delivered), length).astype(int)
    here = bought < length
    rows = np.nonzero(here)[0]
    for line, amount in hardware.items():
        lines[line][rows, bought[rows]] += amount[rows]
    total = sum(hardware.values())
    resold = np.asarray(total) - hardware["installation"]
    month = np.arange(length + 1, dtype=float)
    age = month[None, :] - fleet.delivered[:, None]
    value = resold[:, None] * worth(age, world)  # as of each month's start
    gone = np.minimum(np.ceil(fleet.retired), length).astype(int)
    lines["resale"][rows, gone[rows] - 1] -= value[rows, gone[rows]]
    held = (month[None, :length] >= bought[:, None]) & (month[None, :length] < gone[:, None])
    tied = np.where(month[None, :length] == bought[:, None], np.asarray(total)[:, None], value[:, :length])
    lines["financing"] = np.where(held, tied, 0.0) * (world["cost_of_capital_frac_per_year"] / 12)[:, None]
