"""Devices shared by several jobs: portions, neighbours by hand, and a scenario of notebooks."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim
from sim.cluster.contention import Several
from sim.cluster.from_scenario import ground, stage
from sim.cluster.network import Network
from sim.cluster.placement.scores import GpuPacking
from sim.cluster.placement.shared import NodeKind, SharedNodes
from sim.cluster.policies.order import Fifo
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.cluster.sharing import MIG_SLICES, EqualTurns, Neighbours, portion
from sim.cluster.study import play
from sim.results.cluster_log import account
from sim.results.cluster_stats import answers
from sim.spec.faults import ScenarioError
from sim.spec.job import Job
from sim.spec.scheduling import DeviceSharing, Scheduling

FOLDER = Path(sim.__file__).parents[1] / "scenarios"


def test_portions_are_whole_devices_slices_or_thousandths():
    mig = Scheduling(placement="fgd", sharing=DeviceSharing("mig"))
    assert [portion(share, mig) for share in (0.1, 1 / 7, 0.2, 0.5, 0.6)] == [0.142, 0.142, 0.285, 0.571, 1.0]
    assert 7 * MIG_SLICES[0] <= 1
    assert MIG_SLICES[2] + MIG_SLICES[3] <= 1
    assert portion(0.3, Scheduling(placement="packed")) == 1
    assert portion(1 / 3, Scheduling(placement="best-fit")) == 0.334
    own = Scheduling(placement="fgd", sharing=DeviceSharing(slices=(0.5, 0.25)))
    assert [portion(share, own) for share in (0.2, 0.3, 0.7)] == [0.25, 0.5, 1.0]


def run(jobs, contention, devices=1):
    nodes = SharedNodes([NodeKind(10**9, 1e18, devices)], GpuPacking())
    log = simulate(jobs, nodes, Fifo(), rules=Rules(contention=contention))
    assert account(log).gap_frac < 1e-9
    return {r.job: r.end_s for r in log.records}, log


def test_neighbours_slow_each_other_while_they_are_there():
    a = Job("a", 0.0, 1, 100.0, gpu_share_frac=0.5, kind="train")
    b = Job("b", 50.0, 1, 30.0, gpu_share_frac=0.4, kind="notebook")
    ends, log = run([a, b], Neighbours(0.5, {}))
    # a beside b: 1 / 1.2; b beside a: 1 / 1.25
    b_end = 50 + 30 * 1.25
    assert ends["b"] == pytest.approx(b_end)
    assert ends["a"] == pytest.approx(b_end + 100 - 50 - 37.5 / 1.2)
    assert len(log.segments) == 2
    measured = Neighbours(0.5, {("train", "notebook"): 0.9})
    assert run([a, b], measured)[0]["a"] == pytest.approx(b_end + 100 - 50 - 37.5 * 0.9)


def test_three_multiply_and_a_job_on_a_device_of_its_own_is_left_alone():
    three = [Job(name, 0.0, 1, 100.0, gpu_share_frac=0.25) for name in "abc"]
    whole = Job("d", 0.0, 1, 100.0)
    ends, _ = run([*three, whole], Neighbours(0.4, {}), devices=2)
    assert ends["d"] == 100
    assert ends["a"] == ends["c"] == pytest.approx(100 * 1.1**2)
    both = Several([Neighbours(0.4, {}), Network([], {})])
    assert run([*three, whole], both, devices=2)[0] == ends


@pytest.mark.parametrize("placement", ["fgd", "best-fit", "dot-product", "gpu-packing"])
def test_sharing_lets_notebooks_in_at_once(placement):
    changes = ["study.span_s=3 d"]
    whole = play(stage(sim.load(FOLDER / "cluster-notebooks-whole.toml", changes)))
    shared = sim.load(FOLDER / "cluster-notebooks-shared.toml", [*changes, f"policy.placement={placement}"])
    assert ground(shared).total_gpus == 32
    log = play(stage(shared))
    assert account(log).gap_frac < 1e-9
    assert account(whole).gap_frac < 1e-9
    assert answers(log, 0.0)["mean_wait_s"] < 0.5 * answers(whole, 0.0)["mean_wait_s"]


def test_a_gang_larger_than_a_node_cannot_share():
    with pytest.raises(ScenarioError) as told:
        sim.load(FOLDER / "cluster-notebooks-shared.toml", ["jobs.mixes.1.sizes=[{gpus=16}]"])
    assert "sits on one node" in str(told.value)


def test_equal_turns_by_hand_and_what_neighbours_cost_is_no_useful_time():
    # a alone for 10 s; a and b at 1/2 for 40 s (b's 20 are done); a alone again for its last 20
    a, b = Job("a", 0.0, 1, 50.0, gpu_share_frac=0.25), Job("b", 10.0, 1, 20.0, gpu_share_frac=0.25)
    ends, log = run([a, b], EqualTurns())
    assert ends == {"a": 70.0, "b": 50.0}
    books = account(log)
    assert books.by_cause["useful"] == pytest.approx(0.25 * (50 + 20))
    assert books.by_cause["interference"] == pytest.approx(0.25 * (20 + 20))
    assert books.by_cause["contention"] == 0
    assert books.gap_frac < 1e-12


class Half:
    """Everybody goes at half speed, for their links."""

    def __init__(self):
        self.here = {}

    def join(self, state):
        self.here[state.number] = 0.5

    def leave(self, state):
        self.here.pop(state.number)

    def changed(self):
        return dict(self.here)

    def by_links_frac(self, number):
        return 1.0


def test_links_and_neighbours_share_a_loss_by_their_logarithms():
    pair = [Job(name, 0.0, 1, 100.0, gpu_share_frac=0.25) for name in "ab"]
    ends, log = run(pair, Several([Half(), EqualTurns()]))
    assert ends == {"a": 400.0, "b": 400.0}  # a quarter: a half of a half
    for row in log.segments:
        assert (row.useful_s, row.contention_s, row.interference_s) == pytest.approx((100, 150, 150))
    assert account(log).gap_frac < 1e-12
