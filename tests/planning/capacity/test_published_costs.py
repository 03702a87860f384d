"""Published costs, energies and carbon, beside what the planner's own prices and formulas give.

Each figure is quoted with its source; what must agree is that the published value lies in the planner's P10 to P90, or
within a stated tolerance where everything but one formula is given.
"""

import numpy as np
import pytest

from sim.planning.capacity import months
from sim.planning.capacity.break_even import break_even
from sim.planning.capacity.draws import Draws, world_of
from sim.planning.capacity.fleets import fleet
from sim.planning.capacity.money import ledger, power_states_kwh
from sim.spec.catalog import load_catalog
from sim.spec.prices import Prices, general, node_price
from sim.spec.quantiles import Quantiles
from sim.spec.supply import Part

CATALOG, DRAWS = load_catalog(), Draws(4000)


def spread(values):
    return np.quantile(values, [0.1, 0.9])


def capex_per_device(system, lines=("nodes", "network")):
    world = world_of(general(), DRAWS)
    own = fleet(Part(CATALOG.system(system), 128, "buy"), 1, "2027-01", 2, world, DRAWS)
    books = ledger(own, own.running * 0, world, DRAWS)
    return sum(books.line_usd(line) for line in lines) / own.devices


def test_h100_cluster_with_its_network():
    """Latent Space, '$2 H100s' workbook (2024-08): $43,000 a GPU for 1,024 H100 with nodes, switches and cables
    ($39.68M + $1.73M + $2.62M over 1,024)."""
    low, high = spread(capex_per_device("dgx-h100"))
    assert low < 44_029e3 / 1024 < high


def test_gb200_all_in():
    """About $47.7k a GPU, all in (an open data-centre calculator, 2026)."""
    low, high = spread(capex_per_device("gb200-nvl72", ("nodes", "network", "storage", "installation")))
    assert low < 47_700 < high


def test_price_of_a_useful_hour():
    """Google's goodput example: $3 an hour at scheduling 0.95, runtime 0.854 and program goodput 0.40 is $9.25."""
    world = {name: np.full(1, item.value.mid) for name, item in general().items()}
    world |= {
        "node_down_frac": np.zeros(1),
        "scheduling_frac": np.full(1, 0.95),
        "runtime_frac": np.full(1, 0.854),
    }
    one = Draws(1, median=True)
    part = Part(
        CATALOG.system("dgx-h100"), 1, "reserve", months=1, price_usd_per_gpu_hour=Quantiles.exactly(3.0)
    )
    had = fleet(part, 1, "2027-01", 1, world, one)
    paid = ledger(had, had.running, world, one).line_usd("reserved hours")
    assert (paid / had.running.sum(axis=1) / 0.40)[0] == pytest.approx(9.25, abs=0.01)


def test_deepseek_v3_training_cost():
    """2.788 million H800 hours at $2 are $5.576M (DeepSeek-V3 technical report, table 1)."""
    world = {name: np.full(1, item.value.mid) for name, item in general().items()}
    one = Draws(1, median=True)
    system = CATALOG.system("dgx-h100")
    nodes = 256
    part = Part(system, nodes, "rent", price_usd_per_gpu_hour=Quantiles.exactly(2.0))
    length = 3
    had = fleet(part, 1, "2027-01", length, world, one)
    share = 2.788e6 / had.owned.sum()
    assert ledger(had, had.running * share, world, one).line_usd("rented hours")[0] == pytest.approx(
        5.576e6, rel=1e-6
    )


def energy_kwh(system, hours, **given):
    """Energy of so many busy device-hours at the site's meter, shape (draws,)."""
    world = world_of(general(Prices(**given)), DRAWS)
    had = fleet(Part(CATALOG.system(system), 1, "buy"), 1, "2027-01", 1, world, DRAWS)
    kwh = sum(state.sum(axis=1) for state in power_states_kwh(had, had.running, world).values())
    return kwh / had.running.sum(axis=1) * hours


def test_bloom_energy():
    """BLOOM: 1,082,990 GPU-hours of A100, 433 MWh of the devices alone, 520 MWh with PUE 1.2 (Luccioni et al. 2022);
    the whole node takes about as much again as its devices' share, so the meter shows more than the devices do."""
    low, high = spread(energy_kwh("dgx-a100-80gb", 1_082_990))
    assert 433e3 < low < high < 3 * 433e3


def test_gpt3_energy():
    """GPT-3: 1,287 MWh (Patterson et al. 2021: 3.55 million V100 hours, 330 W a device with its share of the node),
    with the PUE of 1.10 that they give; the run's own hours, none idle."""
    one = Quantiles.exactly(1.0)
    found = energy_kwh("dgx-1v", 3.55e6, pue=Quantiles.exactly(1.10), scheduling_frac=one, runtime_frac=one)
    assert np.median(found) == pytest.approx(1_287e3, rel=0.05)


def test_llama_31_405b_carbon():
    """30.84 million H100 hours at 700 W: 8,930 t CO2e, location-based (Llama 3.1 model card): the devices alone; the
    planner, which counts whole nodes and cooling, says more."""
    world = world_of(general(), DRAWS)
    devices_only = 30.84e6 * 0.7 * world["carbon_kg_per_kwh"]
    low, high = spread(devices_only)
    assert low < 8_930e3 < high
    assert np.median(energy_kwh("dgx-h100", 30.84e6)) > 30.84e6 * 0.7


def test_break_even_of_an_h100_node():
    """A year or so of high use pays a node back against renting (price pages: 14-18 months), so owning pays from about
    half of the hours on over a life of five years."""
    found = break_even(CATALOG.system("dgx-h100"), general(), DRAWS)
    low, high = spread(found.busy_frac)
    assert low < 0.55 < high
    assert np.median(found.own_usd_per_gpu_hour) == pytest.approx(1.9, rel=0.15)


def test_prices_of_nodes_are_dated_and_sourced():
    for system in ("dgx-h100", "dgx-b200", "gb200-nvl72"):
        price = node_price(system)
        assert price.date
        assert price.source
        assert price.value.low < price.value.high
    assert months.HOURS * 12 == 8766
