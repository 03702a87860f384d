"""What an oversubscribed leaf does to a step, against sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.cost.links import Links, Tier
from sim.spec.catalog import load_catalog
from sim.spec.loader import loads
from sim.spec.scenario import Fabric, Scenario
from sim.training.placement import groups
from sim.training.system_links import system_links

LARGE = """
name = "405B on 512 nodes"
[[cluster.pools]]
system = "dgx-h100"
nodes = 512
[training]
model = "llama-3.1-405b"
sequence = 8192
global_batch = 512
precision = "bf16"
[training.plan]
tensor = 8
pipeline = 4
zero_stage = 1
shard_ranks = 32
micro_batch = 1
sequence_parallel = true
recompute = "full"
overlap_gradients = false
"""


def tapered(scenario: Scenario, oversubscription: float) -> Scenario:
    pool = scenario.cluster.pools[0]
    system = replace(pool.system, oversubscription=oversubscription)
    return replace(scenario, cluster=replace(scenario.cluster, pools=(replace(pool, system=system),)))


def test_gradients_across_leaves_get_the_uplinks_share() -> None:
    """Sharded copies of 32 nodes fill a leaf each: the all-reduce between four copies sends from every node of the leaf
    at once, through uplinks that carry a quarter of that. By hand: a device holds 405.9e9 / (8 x 4) weights, a shard is
    a 32nd of their gradients in fp32, a ring over four sends 2 x 3/4 of it through a 400 Gbit/s card."""
    scenario = loads(LARGE)
    weights = 405_853_388_800 / (8 * 4)
    alone_s = 2 * 3 / 4 * weights * 4 / 32 / 50e9
    full, quarter = (sim.run(tapered(scenario, x)) for x in (1.0, 4.0))
    name = "data communication"
    more_s = quarter.parts_s[name] - full.parts_s[name]
    assert (
        3 * alone_s < more_s < 1.25 * 3 * alone_s
    )  # cards reach nine tenths; one stage holds the embedding too
    assert quarter.step_s - full.step_s > more_s  # stages talk through the uplinks too


def test_full_bisection_is_one_switch_as_ever() -> None:
    scenario = loads(LARGE)
    pool = scenario.cluster.pools[0]
    assert tapered(scenario, 1.0) == scenario
    assert [tier.name for tier in system_links(pool.system, pool.accelerator, Fabric()).tiers] == ["network"]


def test_a_catalogue_system_says_where_its_oversubscription_begins() -> None:
    catalog = load_catalog()
    zone = catalog.system("meta-24k-roce")
    leaf, spine = system_links(zone, catalog.accelerator(zone.accelerator), Fabric()).tiers
    assert leaf.nodes * zone.gpus_per_node == 3072  # Llama 3 paper: full bisection in a zone of 3,072 devices
    assert spine.oversubscription == 7.0


def test_groups_know_how_far_their_next_node_is() -> None:
    plan = loads(LARGE).training.plan  # type: ignore[union-attr]
    found = groups(plan, 128, 8, 8)
    assert found["data"].nodes_apart == 1  # neighbours
    assert found["pipeline"].nodes_apart == 128  # a stage is 128 nodes
    wide = groups(replace(plan, tensor=1, pipeline=1), 4096, 8, 8)
    assert wide["data"].nodes_apart == 1


def links(oversubscription: float, leaf: float = 32) -> Links:
    tiers = (Tier("leaf", leaf), Tier("spine", float("inf"), oversubscription))
    return Links("x", "hopper", "nvlink", 450e9, 8, nic_bytes_per_s=5e10, nics_per_node=8, devices_per_node=8,
                 tiers=tiers)  # fmt: skip


@given(st.integers(2, 512), st.integers(0, 7), st.floats(1.0, 8.0), st.booleans())
def test_no_leaf_sends_more_than_its_uplinks_carry(
    nodes: int, log2_apart: int, oversubscription: float, pairs: bool
) -> None:
    """Counted node by node: members of each interleaved group below one leaf, and what they send to others' leaves."""
    apart, leaf = 2**log2_apart, 32
    share = float(links(oversubscription).taper_frac(nodes, every_pair=pairs, nodes_apart=float(apart)))
    here = max(
        leaf // apart, 1
    )  # members of one group below the first leaf, of which the last has a neighbour outside
    many = min(apart, leaf)  # groups there
    if nodes <= here:
        assert share == 1
        return
    sent = many * (here * (1 - here / nodes) if pairs else 1)
    assert sent * share <= leaf / oversubscription * (1 + 1e-9)
    assert share == pytest.approx(min(1.0, leaf / oversubscription / sent))


def test_arrays_and_scalars_agree() -> None:
    found = links(4.0).taper_frac(
        np.array([4.0, 4.0, 64.0]), every_pair=False, nodes_apart=np.array([1.0, 32.0, 1.0])
    )
    assert found.tolist() == [1.0, 0.25, 1.0]
