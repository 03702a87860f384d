"""Published costs, energies and carbon beside what the planner gives: a section of docs/validation.md.

The figures of tests/planning/capacity/test_published_costs.py and test_regret.py, in one table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity.break_even import break_even
from sim.planning.capacity.draws import Draws, world_of
from sim.planning.capacity.fleets import fleet
from sim.planning.capacity.money import ledger, power_states_kwh
from sim.planning.capacity.regret import spend_regret
from sim.spec.catalog import load_catalog
from sim.spec.prices import Prices, general
from sim.spec.quantiles import Z90, Quantiles
from sim.spec.supply import Part

Array = NDArray[np.float64]
DRAWS = Draws(4000)
Z95 = 1.6448536269514722


def costs_section() -> list[str]:
    """The table, and why what differs does."""
    lines = ["| published | figure | rackcast, P50 (P10 to P90) |", "|---|--:|--:|"]
    for name, figure, values, form in _rows():
        low, mid, high = np.quantile(values, [0.1, 0.5, 0.9])
        spread = "" if low == high else f" ({low:{form}} to {high:{form}})"
        lines.append(f"| {name} | {figure} | {mid:{form}}{spread} |")
    return [*lines, "", *WORDS]


WORDS = (
    "- BLOOM's 433 MWh are the devices alone; the planner bills whole nodes, the hours in which they stall or stand",
    "  idle, and cooling, hence about twice as much. With one's own node power and PUE in `[prices]` it comes closer.",
    "- The Llama figure is the devices at 700 W; its grid is not published, so the planner's range of grids is wide.",
    "- Prices of H100 nodes are inputs, drawn from the same sources as the published totals: that row checks that the",
    "  lines add up, not that the price is right. GB200 is cheaper in the published calculator, inside the range here.",
    "- DeepSeek's and Google's rows have every input given: they check the arithmetic of the ledger.",
    "- Netflix' planner chooses among discrete clusters; the figure here is the best of all sums under its regret.",
)


def _rows() -> list[tuple[str, str, Array, str]]:
    world = world_of(general(), DRAWS)
    even = break_even(load_catalog().system("dgx-h100"), general(), DRAWS)
    certain = {"scheduling_frac": 1.0, "runtime_frac": 1.0, "pue": 1.1}
    return [
        ("H100 cluster with network, $ a GPU (Latent Space, 2024-08)", "43,000",
         _capex(world, "dgx-h100", ("nodes", "network")), ",.0f"),
        ("GB200 all in, $ a GPU (open data-centre calculator, 2026)", "47,700",
         _capex(world, "gb200-nvl72", ("nodes", "network", "storage", "installation")), ",.0f"),
        ("$ a useful hour at $3, S 0.95, R 0.854, P 0.40 (Google's goodput)", "9.25",
         np.array([_useful_hour_usd()]), ".2f"),
        ("DeepSeek-V3: 2.788 M H800 hours at $2, $M (technical report, table 1)", "5.576",
         np.array([_rented_usd(2.788e6) / 1e6]), ".3f"),
        ("GPT-3: 3.55 M V100 hours, PUE 1.10, MWh (Patterson et al. 2021)", "1,287",
         _energy_kwh("dgx-1v", 3.55e6, certain) / 1e3, ",.0f"),
        ("BLOOM: 1.083 M A100 hours, devices alone, MWh (Luccioni et al. 2022)", "433",
         _energy_kwh("dgx-a100-80gb", 1_082_990, {}) / 1e3, ",.0f"),
        ("Llama 3.1 405B: 30.84 M H100 hours at 700 W, t CO2e (model card)", "8,930",
         30.84e3 * 0.7 * world["carbon_kg_per_kwh"], ",.0f"),
        ("owned H100 pays from this busy share on (price pages: 14-18 months)", "about 0.5", even.busy_frac, ".2f"),
        ("Netflix' interval planning: needs $6.3k / 17.9k / 72.2k, least regret, $k", "21.4",
         np.array([_netflix()]), ".1f"),
    ]  # fmt: skip


def _capex(world: Mapping[str, Array], system: str, lines: tuple[str, ...]) -> Array:
    own = fleet(Part(load_catalog().system(system), 128, "buy"), 1, "2027-01", 2, world, DRAWS)
    books = ledger(own, own.running * 0, world, DRAWS)
    return np.asarray(sum(books.line_usd(line) for line in lines) / own.devices)


def _useful_hour_usd() -> float:
    one = Draws(1, median=True)
    given = {"node_down_frac": 0.0, "scheduling_frac": 0.95, "runtime_frac": 0.854}
    world = world_of(
        general(Prices(**{name: Quantiles.exactly(value) for name, value in given.items()})), one
    )
    price = Quantiles.exactly(3.0)
    part = Part(load_catalog().system("dgx-h100"), 1, "reserve", months=1, price_usd_per_gpu_hour=price)
    had = fleet(part, 1, "2027-01", 1, world, one)
    paid = ledger(had, had.running, world, one).line_usd("reserved hours")
    return float((paid / had.running.sum(axis=1))[0] / 0.40)


def _rented_usd(hours: float) -> float:
    one = Draws(1, median=True)
    world = world_of(general(), one)
    part = Part(load_catalog().system("dgx-h100"), 256, "rent", price_usd_per_gpu_hour=Quantiles.exactly(2.0))
    had = fleet(part, 1, "2027-01", 3, world, one)
    books = ledger(had, had.running * (hours / had.owned.sum()), world, one)
    return float(books.line_usd("rented hours")[0])


def _energy_kwh(system: str, hours: float, given: Mapping[str, float]) -> Array:
    world = world_of(
        general(Prices(**{name: Quantiles.exactly(value) for name, value in given.items()})), DRAWS
    )
    had = fleet(Part(load_catalog().system(system), 1, "buy"), 1, "2027-01", 1, world, DRAWS)
    kwh = sum(state.sum(axis=1) for state in power_states_kwh(had, had.running, world).values())
    return np.asarray(kwh / had.running.sum(axis=1) * hours)


def _netflix() -> float:
    low, mid, high = 6.3, 17.9, 72.2
    wider = Z90 / Z95
    needed = Quantiles(mid * (low / mid) ** wider, mid, mid * (high / mid) ** wider).at(
        np.random.default_rng(1).standard_normal(100_000)
    )
    sums = np.linspace(10, 60, 251)
    return float(sums[int(np.argmin([spend_regret(s, needed).mean() for s in sums]))])


if __name__ == "__main__":
    sys.stdout.write("\n".join(costs_section()) + "\n")
