"""Prices that are kept, links that are wired, garbage that waits."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

import sim
from sim.collection import without_collection
from sim.spec.catalog import load_catalog
from sim.spec.ops import Message
from sim.spec.profiles import fits_for
from sim.training.pricing import Group, Pricer, Prices
from sim.training.system_links import system_links

SCENARIO = sim.load("scenarios/gpt3-175b-1024-a100.toml")
POOL = SCENARIO.cluster.pools[0]
SENT = Message("all_reduce", 64e6, "tensor", "one")


def pricer(known: Prices, group: Group, nic_bytes_per_s: float = 25e9) -> Pricer:
    links = system_links(POOL.system, POOL.accelerator, SCENARIO.cluster.fabric)
    links = replace(links, nic_bytes_per_s=nic_bytes_per_s)
    device = POOL.accelerator.device()
    return Pricer(device, links, fits_for("shipped"), "bf16", {"tensor": group}, known=known)


def test_a_kept_price_of_a_message_is_that_of_its_group_size_and_links() -> None:
    known: Prices = {}
    cases = [
        (Group(8, 8), SENT, 25e9),
        (Group(16, 8), SENT, 25e9),
        (Group(16, 8, concurrent=4), SENT, 25e9),
        (Group(16, 8), SENT, 12.5e9),
        (Group(16, 8), replace(SENT, message_bytes=32e6), 25e9),
        (Group(16, 8), replace(SENT, collective="all_gather"), 25e9),
    ]
    for _ in range(2):
        shared = [pricer(known, group, rate).seconds([op]) for group, op, rate in cases]
        assert shared == [pricer({}, group, rate).seconds([op]) for group, op, rate in cases]
    assert len(known) == len(cases) == len(set(shared))


@pytest.mark.parametrize(("ranks", "share"), [(2, 1 / 3), (3, 2 / 3), (4, 1.0)])
def test_four_v100s_without_a_switch_share_their_links_by_pairs(ranks: int, share: float) -> None:
    """Six links a device and three peers: two links to each (NVIDIA Tesla V100 whitepaper)."""
    volta = load_catalog().accelerator("v100-sxm2-32gb")
    node = replace(POOL.system, key="four", gpus_per_node=4, scale_up_domain_size=4)
    links = system_links(node, volta, SCENARIO.cluster.fabric)
    assert float(links.scale_up_rate(ranks)) == pytest.approx(share * volta.scale_up_bytes_per_s)
    sixteen = system_links(replace(node, scale_up_domain_size=16), volta, SCENARIO.cluster.fabric)
    assert float(sixteen.scale_up_rate(ranks)) == volta.scale_up_bytes_per_s


@without_collection()
def fail() -> None:
    assert not gc.isenabled()
    raise ValueError("inside")


@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_searched_for_again_afterwards(before: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ValueError, match="inside"):
            fail()
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
