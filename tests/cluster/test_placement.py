from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.from_scenario import ground
from sim.cluster.nodes import Nodes, Pool
from sim.cluster.placement.apart import Apart
from sim.cluster.placement.fragmentation import FragmentationDescent, fragmented_milli, typical_tasks
from sim.cluster.placement.scores import GpuPacking
from sim.cluster.placement.shared import Ask, Box, NodeKind, SharedNodes
from sim.cluster.placement.whole import Packed, Spread, Tiers
from sim.cluster.policies.order import Fifo
from sim.cluster.run import simulate
from sim.results.cluster_log import Placed, account
from sim.spec.job import Job
from sim.spec.loader import loads


def plain_packed(free: list[int], size: int, gpus: int) -> list[tuple[int, int]] | None:
    """The consolidated rule by scanning all nodes."""
    if gpus <= size:
        fitting = [(left, node) for node, left in enumerate(free) if left >= gpus]
        return [(min(fitting)[1], gpus)] if fitting else None
    whole = [node for node, left in enumerate(free) if left == size]
    need, rest = divmod(gpus, size)
    if len(whole) < need:
        return None
    spots = [(node, size) for node in whole[:need]]
    if rest:
        left = [(-left, node) for node, left in enumerate(free) if node not in whole[:need] and left >= rest]
        if not left:
            return None
        spots.append((min(left)[1], rest))
    return spots


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), max_size=60), st.integers(1, 8))
def test_packed_is_the_rule_by_scanning(steps: list[tuple[int, int]], size: int) -> None:
    ground = Nodes([Pool(6, size)], Packed())
    free, held = [size] * 6, []
    for gpus, leaves in steps:
        job = Job("", 0.0, gpus, 1.0)
        placed = ground.place(job, gpus)
        expected = plain_packed(free, size, gpus)
        assert (list(placed.spots) if placed else None) == expected
        if placed:
            held.append((job, placed))
            for node, devices in placed.spots:
                free[node] -= devices
        if held and leaves == 0:
            job, placed = held.pop(len(held) // 2)
            ground.release(placed, job)
            for node, devices in placed.spots:
                free[node] += devices
        assert ground.free_by_node() == free
        assert ground.free_gpus == sum(free)


def test_spread_takes_few_of_each_and_tiers_stay_together() -> None:
    spread = Nodes([Pool(4, 8)], Spread()).place(Job("", 0.0, 6, 1.0), 6)
    assert spread is not None
    assert sorted(devices for _, devices in spread.spots) == [1, 1, 2, 2]
    ground = Nodes([Pool(8, 8)], Tiers((2, 4)))
    assert ground.place(Job("", 0.0, 3, 1.0), 3).spots == ((0, 3),)
    pair = ground.place(Job("", 0.0, 13, 1.0), 13)  # 13 are left in the first pair: it holds them exactly
    assert {node for node, _ in pair.spots} == {0, 1}
    block = ground.place(
        Job("", 0.0, 24, 1.0), 24
    )  # two nodes are left of the first four: the other block has room
    assert {node for node, _ in block.spots} <= {4, 5, 6, 7}
    required = Nodes([Pool(4, 8)], Tiers((2,), required=True))
    assert required.place(Job("", 0.0, 17, 1.0), 17) is None


def test_a_gang_stays_in_one_pool_of_its_kind() -> None:
    ground = Nodes([Pool(1, 4, "a100"), Pool(2, 4, "h100")], Packed())
    assert ground.place(Job("", 0.0, 8, 1.0), 8).spots == ((1, 4), (2, 4))
    assert ground.place(Job("", 0.0, 1, 1.0, accelerator="h100"), 1) is None
    assert not ground.could_hold(Job("", 0.0, 12, 1.0), 12)


def test_fragmentation_by_hand() -> None:
    """One typical task of 500/1000 of a device and one of a whole: 300 + 1000 left; the small loses 300, the whole
    300."""
    half, whole = Ask(1000, 0.0, 1, 500, ()), Ask(1000, 0.0, 1, 1000, ())
    typical = typical_tasks([half, half, half, whole])
    assert [share for _, share in typical] == [0.75, 0.25]
    assert fragmented_milli(Box(4000, 0.0, (300, 1000), "x"), typical) == 300
    assert (
        fragmented_milli(Box(500, 0.0, (300, 1000), "x"), typical) == 1300
    )  # no CPU core is left for either


def test_fragmentation_descent_fills_the_broken_device_first() -> None:
    half, whole = Ask(0, 0.0, 1, 500, ()), Ask(0, 0.0, 1, 1000, ())
    ground = SharedNodes(
        [NodeKind(64000, 1e12, 2), NodeKind(64000, 1e12, 2)],
        FragmentationDescent(typical_tasks([half, whole])),
    )
    job = Job("", 0.0, 1, 1.0, gpu_share_frac=0.5)
    first, second = ground.place(job, 1), ground.place(job, 1)
    assert first == second
    assert ground.free_gpus == 3
    ground.release(first, job)
    assert ground.take(second, job)
    assert not ground.take(second, Job("", 0.0, 1, 1.0, gpu_share_frac=0.6))


def test_packing_prefers_shared_devices_then_nodes_in_use() -> None:
    ground = SharedNodes([NodeKind(64000, 1e12, 2), NodeKind(64000, 1e12, 4)], GpuPacking())
    part, one = Job("", 0.0, 1, 1.0, gpu_share_frac=0.3), Job("", 0.0, 1, 1.0)
    node, device = (placed := ground.place(part, 1)).spots[0][0], placed.devices
    again, free = ground.place(part, 1), ground.place(one, 1)
    assert (again.spots[0][0], again.devices) == (node, device)
    assert free.spots[0][0] == node


def test_kin_stand_apart_and_strangers_do_not_mind():
    def run(nodes_per_domain):
        ground = Apart(Nodes([Pool(4, 8)], Packed()), 4, lambda job: job.user, nodes_per_domain)
        jobs = [Job(str(n), 0.0, 2, 10.0, user="replica") for n in range(3)]
        jobs += [Job("other", 0.0, 8, 10.0, user="other"), Job("nobody", 0.0, 6, 10.0)]
        log = simulate(jobs, ground, Fifo())
        assert account(log).gap_frac < 1e-12
        return {row.job: (row.placed.spots[0][0], row.start_s) for row in log.segments}

    by_node = run(1)
    assert [by_node[name] for name in ("0", "1", "2")] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert by_node["other"] == (3, 0.0)
    assert by_node["nobody"] == (0, 0.0)  # fills up the node of one of them
    by_switch = run(2)  # two switches: the third waits, and by strict order all behind it
    assert [by_switch[name] for name in ("0", "1", "2")] == [(0, 0.0), (2, 0.0), (0, 10.0)]


def test_kin_cannot_be_put_on_one_node_by_hand_either():
    ground = Apart(Nodes([Pool(2, 8)], Packed()), 2, lambda job: job.queue)
    first, second = Job("a", 0.0, 1, 1.0, queue="q"), Job("b", 0.0, 1, 1.0, queue="q")
    here = Placed(0, ((0, 1),), ())
    assert ground.take(here, first)
    assert not ground.take(here, second)
    assert ground.free_gpus == 15
    ground.release(here, first)
    assert ground.take(here, second)
    ground.close(1)
    assert ground.place(first, 1) is None
    assert (ground.free_gpus, ground.down_gpus, ground.total_gpus) == (7, 8, 16)


def test_a_scenario_keeps_kin_apart(small):
    made = ground(loads(small + '[policy]\napart = "queue"\napart_nodes = 2\n'))
    assert isinstance(made, Apart)
    assert made.total_gpus == 16
    assert made.take(Placed(0, ((0, 1),), ()), Job("a", 0.0, 1, 1.0, queue="q"))
    assert not made.take(Placed(0, ((1, 1),), ()), Job("b", 0.0, 1, 1.0, queue="q"))
    assert made.take(Placed(0, ((1, 1),), ()), Job("c", 0.0, 1, 1.0, queue="r"))
