"""Collectives against closed forms, limits and the shape every network shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost import collective_forms as forms
from sim.cost.collectives import ALGORITHMS, collective, domain, hops, network_values
from sim.cost.links import CUBE_MESH_RINGS, Links, Tier, place
from sim.cost.nccl import DOMAIN_PARAMETERS, NETWORK_PARAMETERS
from sim.cost.node_links import measured_links, node_links
from sim.cost.parameters import complete
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, ResidualGrid

H100 = Device("h100-sxm5-80gb", "hopper", {}, 80e9, 3.35e12, 132, 50e6, "nvidia", 450e9, 63e9)
GB200 = Device("gb200", "blackwell", {}, 186e9, 8e12, 148, 126e6, "nvidia", 900e9, 63e9)
V100 = Device("v100-sxm2-32gb", "volta", {}, 32e9, 9e11, 80, 6e6, "nvidia", 150e9, 15.75e9)
V100_PCIE = Device("v100-pcie-32gb", "volta", {}, 32e9, 9e11, 80, 6e6, "nvidia", 0, 15.75e9)
MI300X = Device("mi300x", "cdna3", {}, 192e9, 5.3e12, 304, 256e6, "amd", 448e9, 63e9)

sizes = st.floats(min_value=1, max_value=1e11)
groups = st.integers(min_value=2, max_value=4096)


def test_ring_all_reduce_is_twice_the_buffer_and_two_rounds_of_hops() -> None:
    # 4 ranks, 400 bytes at 100 bytes/s: 2 x 3/4 x 4 s; 6 hops of 0.5 s
    assert forms.ring_all_reduce_s(400, 4, 100, 0.5) == pytest.approx(6 + 3)


def test_reduce_scatter_and_all_gather_make_an_all_reduce() -> None:
    n = np.arange(2, 40)
    halves = sum(forms.ring_s(c, 1e6, n, 1e9, 1e-6) for c in ("reduce_scatter", "all_gather"))
    np.testing.assert_allclose(halves, forms.ring_all_reduce_s(1e6, n, 1e9, 1e-6))


@pytest.mark.parametrize("op", forms.COLLECTIVES)
@given(size=sizes, ranks=groups)
def test_bus_bandwidth_of_a_ring_without_latency_is_the_link_rate(op: str, size: float, ranks: int) -> None:
    seconds = forms.ring_s(op, size, ranks, 3e11, 0.0)
    assert forms.bus_bytes_per_s(op, size, ranks, seconds) == pytest.approx(3e11)


@given(size=sizes, ranks=groups)
def test_no_all_reduce_beats_the_bandwidth_bound(size: float, ranks: int) -> None:
    # without help from switches a rank must send 2(n-1)/n of the buffer (Patarasuk and Yuan 2009)
    bound = forms.ring_all_reduce_s(size, ranks, 1e10, 0.0)
    assert forms.tree_all_reduce_s(size, ranks, 1e10, 0.0) >= bound * (1 - 1e-12)
    assert forms.torus_all_reduce_s(size, ranks, 3, 1e10, 0.0) >= bound * (1 - 1e-12)


def test_tree_is_faster_than_ring_on_many_ranks_and_small_messages_only() -> None:
    assert forms.tree_all_reduce_s(1e3, 256, 1e10, 1e-6) < forms.ring_all_reduce_s(1e3, 256, 1e10, 1e-6)
    assert forms.tree_all_reduce_s(1e9, 8, 1e10, 1e-6) > forms.ring_all_reduce_s(1e9, 8, 1e10, 1e-6)


def test_switch_additions_bound_bus_bandwidth_at_two_n_minus_one_over_n_plus_one() -> None:
    n = np.array([2, 4, 8, 72])
    busbw = forms.bus_bytes_per_s("all_reduce", 1e12, n, forms.in_switch_all_reduce_s(1e12, n, 1e11, 0.0))
    np.testing.assert_allclose(busbw, 1e11 * 2 * (n - 1) / (n + 1))


def test_hierarchical_all_reduce_degenerates_to_rings() -> None:
    inner = forms.hierarchical_all_reduce_s(1e8, 8, 1, 1e11, 1e10, 1e-6, 1e-5)
    assert inner == pytest.approx(float(forms.ring_all_reduce_s(1e8, 8, 1e11, 1e-6)))
    outer = forms.hierarchical_all_reduce_s(1e8, 1, 8, 1e11, 1e10, 1e-6, 1e-5)
    assert outer == pytest.approx(float(forms.ring_all_reduce_s(1e8, 8, 1e10, 1e-5)))


def test_hierarchical_bytes_across_match_the_published_limit_of_bus_bandwidth() -> None:
    # NIC rate of a node x N (n-1) / ((N-1) n): 1.875 node rates for 2 nodes of 8
    seconds = forms.hierarchical_all_reduce_s(1e12, 8, 2, 1e18, 50e9, 0.0, 0.0)
    assert forms.bus_bytes_per_s("all_reduce", 1e12, 16, seconds) == pytest.approx(8 * 50e9 * 1.875, rel=1e-4)


@given(b=st.floats(0, 10), a=st.floats(0, 10))
def test_pipelining_with_depth_one_is_the_square_of_the_sum_of_roots(a: float, b: float) -> None:
    assert forms.pipelined_s(b, a, 1.0) == pytest.approx((np.sqrt(a) + np.sqrt(b)) ** 2, abs=1e-12)


def test_one_rank_costs_nothing() -> None:
    for op in forms.COLLECTIVES:
        assert collective([], node_links(H100), op, 1e9, 1).seconds == 0


@pytest.mark.parametrize("op", forms.COLLECTIVES)
@given(size=sizes, more=st.floats(1, 100), ranks=st.sampled_from([2, 4, 8, 16, 64, 1024]))
def test_time_grows_with_bytes_and_stays_above_the_floor(
    op: str, size: float, more: float, ranks: int
) -> None:
    small, large = collective([], node_links(H100), op, np.array([size, size * more]), ranks).seconds
    assert large >= small > 0
    estimate = collective([], node_links(H100), op, size, ranks)
    assert estimate.lower_bound_s <= estimate.seconds


@pytest.mark.parametrize("op", forms.COLLECTIVES)
def test_arrays_price_like_scalars(op: str) -> None:
    links = node_links(H100)
    size, ranks = np.array([1e3, 1e6, 1e9])[:, None], np.array([1, 2, 8, 16, 512])
    table = collective([], links, op, size, ranks)
    assert table.seconds.shape == table.lower_bound_s.shape == (3, 5)
    for i, j in np.ndindex(3, 5):
        alone = collective([], links, op, float(size[i, 0]), int(ranks[j])).seconds
        assert table.seconds[i, j] == pytest.approx(float(alone))


def test_a_group_that_strides_over_nodes_pays_the_network() -> None:
    links = node_links(H100)
    together = collective([], links, "all_reduce", 1e8, 8).seconds
    strided = collective([], links, "all_reduce", 1e8, 8, 1).seconds
    assert strided > 5 * together


def test_groups_that_send_together_share_a_nodes_cards() -> None:
    links = Links("x", "hopper", "nvlink", 450e9, 8, scale_out="roce", nic_bytes_per_s=50e9, nics_per_node=1,
                  devices_per_node=8)  # fmt: skip
    alone, crowd = (
        collective([], links, "all_gather", 1e10, 64, 1, concurrent_groups=groups).lower_bound_s
        for groups in (1, 8)
    )
    assert crowd == pytest.approx(8 * alone)


def test_ring_and_tree_between_three_domains_reach_what_their_bytes_allow() -> None:
    # NCCL issue 1801: 3 partitions of 4 GB200 with 4 x 400 Gbit/s reach 197 (ring) and 234 GB/s (tree)
    links = measured_links(GB200, "3 NVL partitions over IB, NVL4x3", nodes=3, ranks=12, fabric="infiniband")
    perfect = Fit("network", {}, {"bandwidth_frac": Constant(1.0, "1", "assumed", "test")})
    size = 2.0**36
    found = {
        how: float(forms.bus_bytes_per_s(
            "all_reduce", size, 12, collective([perfect], links, "all_reduce", size, 12, algorithm=how).seconds))
        for how in ("ring", "tree")
    }  # fmt: skip
    assert found["ring"] == pytest.approx(200e9, rel=0.03)
    assert found["tree"] == pytest.approx(200e9 / 1.5 * 2 * 11 / 12, rel=0.03)


def test_nvls_lifts_all_reduce_above_the_link_rate_share_of_a_ring() -> None:
    links = node_links(H100)
    ring = collective([], links, "all_reduce", 2**33, 8, algorithm="ring").seconds
    best = collective([], links, "all_reduce", 2**33, 8).seconds
    assert best < ring
    assert not node_links(V100).in_switch_reduction


def test_latency_of_large_domains_is_a_trees() -> None:
    assert hops("all_reduce", 8) == 14
    assert hops("all_reduce", 64) == 14 + 2 * 2 * 3
    assert hops("all_gather", 64) == 63


def test_bytes_through_host_memory_are_slower() -> None:
    links = node_links(V100_PCIE)
    assert links.scale_up == "pcie"
    assert not links.host_peer_to_peer
    values = complete(DOMAIN_PARAMETERS, {})
    staged = domain(values, links, "all_gather", 1e9, 4).seconds
    direct = domain(values, Links("x", "volta", "pcie", 15.75e9, 8), "all_gather", 1e9, 4).seconds
    assert staged == pytest.approx(direct / values["staged_frac"], rel=0.01)


def test_mesh_and_cube_mesh_give_a_ring_only_the_links_it_can_use() -> None:
    np.testing.assert_allclose(node_links(MI300X).scale_up_rate([2, 8]), [64e9, 448e9])
    cube = node_links(V100)
    assert cube.scale_up_rate(8) == 150e9
    assert cube.scale_up_rate(2) == 25e9
    assert cube.scale_up_rate(5) == V100.host_bytes_per_s  # no ring over the links of five neighbours
    assert len(CUBE_MESH_RINGS) == 9


def test_tiers_slow_all_to_all_more_than_rings() -> None:
    tiers = (Tier("leaf", 4), Tier("spine", float("inf"), oversubscription=4.0, latency_s=1e-6))
    links = Links("x", "hopper", "nvlink", 450e9, 8, nic_bytes_per_s=5e10, nics_per_node=8, devices_per_node=8,
                  tiers=tiers)  # fmt: skip
    assert links.taper_frac(4, every_pair=True) == 1
    assert links.taper_frac(32, every_pair=False) == 1  # four nodes share a leaf's uplinks
    assert links.taper_frac(32, every_pair=True) == pytest.approx(1 / (4 * (1 - 4 / 32)))
    assert links.tier_latency_s([1, 4, 5]).tolist() == [0, 0, 1e-6]


def test_a_grid_corrects_and_is_named() -> None:
    grid = ResidualGrid((("log2_bytes", (10.0, 30.0)),), (0.0, float(np.log(2))))
    fit = Fit("all_gather", {"fabric": "nvlink", "generation": "hopper"}, {}, grid)
    links = node_links(H100)
    assert collective([fit], links, "all_gather", 2**30, 8).leans_on == "parameters and residual grid"
    plain = collective([], links, "all_gather", 2**30, 8)
    assert plain.leans_on == "assumed defaults"
    assert collective([fit], links, "all_gather", 2**30, 8).seconds == pytest.approx(2 * float(plain.seconds))


def test_an_unknown_generation_borrows_and_pcie_never_takes_an_nvlink_curve_first() -> None:
    fast = Fit("all_gather", {"fabric": "nvlink", "generation": "hopper"}, {})
    slow = Fit("all_gather", {"fabric": "pcie"}, {})
    assert collective([fast, slow], node_links(GB200), "all_gather", 1e6, 4).fit is fast
    assert collective([fast, slow], node_links(V100_PCIE), "all_gather", 1e6, 4).fit is slow
    assert collective([fast], node_links(H100), "alltoall", 1e6, 4).fit is fast  # a relative's


def test_latency_of_a_fabric_nobody_fitted_is_assumed() -> None:
    rdma = Fit("network", {"fabric": "infiniband"}, {"hop_s": Constant(5e-6, "s", "fitted", "test")})
    assert network_values(rdma, "infiniband")["hop_s"] == 5e-6
    assert network_values(rdma, "ethernet")["hop_s"] > 5e-5
    assert set(network_values(None, "roce")) == {p.name for p in NETWORK_PARAMETERS}


@pytest.mark.parametrize(
    ("system", "more", "expected"),
    [
        ("HGX 2 nodes 8x400G", {}, ("infiniband", 8, 50e9, 8)),
        ("AWS p4d", {}, ("efa", 4, 12.5e9, 8)),
        (
            "GKE, 1 NIC per node",
            {"ranks": 2, "nics_per_node": 1.0, "nic_gbit_per_s": 400.0},
            ("roce", 1, 50e9, 1),
        ),
        ("H100 1 GPU per node, 4 NICs", {"ranks": 2}, ("infiniband", 4, 50e9, 1)),
        (
            "x",
            {"fabric": "ethernet", "nics_per_node": 1.0, "nic_gbit_per_s": 10.0},
            ("ethernet", 1, 1.25e9, 8),
        ),
    ],
)
def test_rows_resolve_to_links(system: str, more: dict, expected: tuple) -> None:
    links = measured_links(H100, system, **{"nodes": 2, "ranks": 16, **more})
    assert (links.scale_out, links.nics_per_node, links.nic_bytes_per_s, links.scale_up_ranks) == expected


def test_one_nvlink_domain_spans_trays_and_pairs_end_at_their_bridge() -> None:
    rack = measured_links(GB200, "GB200 NVL72", nodes=18, ranks=72, fabric="nvlink")
    assert place(rack, 72).domains == 1
    racks = measured_links(GB200, "GB200 NVL72, 4 racks", nodes=72, ranks=288, fabric="infiniband")
    assert place(racks, 288).domains == 4
    pair, four = (measured_links(H100, "pairwise NVLink", nodes=1, ranks=n, fabric="nvlink") for n in (2, 4))
    assert (pair.scale_up, four.scale_up) == ("nvlink", "pcie")
    assert not pair.in_switch_reduction


def test_bad_names_and_counts_are_refused() -> None:
    links = node_links(H100)
    with pytest.raises(ValueError, match="collective: found 'allreduce'"):
        collective([], links, "allreduce", 1, 2)
    with pytest.raises(ValueError, match="algorithm: found 'star'"):
        collective([], links, "all_reduce", 1, 2, algorithm="star")
    with pytest.raises(ValueError, match="ranks: found 0"):
        collective([], links, "all_reduce", 1, 0)
    assert "" in ALGORITHMS
