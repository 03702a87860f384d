"""Jobs that share uplinks: loads, slow-downs and ends by hand; the books under every mix."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sim
from sim.cluster.from_scenario import stage
from sim.cluster.network import Network, TrafficClass, Wiring, slowdown, uplink_bytes_per_s, uplink_loads
from sim.cluster.nodes import Nodes, Pool
from sim.cluster.placement.whole import Anywhere
from sim.cluster.policies.menu import POLICIES
from sim.cluster.recovery import Recovery
from sim.cluster.rules import Hazard, Rules
from sim.cluster.run import simulate
from sim.cluster.study import play
from sim.cost.max_min import max_min
from sim.results.cluster_log import account
from sim.spec.faults import ScenarioError
from sim.spec.job import Job
from sim.spec.loader import loads

WIRING = Wiring(0, 8, 8, 100.0, ((2, 4.0),))
"""Four leaves of two nodes; each leaf has 200 from below and 50 out."""


def test_a_ring_crosses_each_leaf_with_one_nodes_rate_and_pairs_with_what_is_meant_for_outside():
    assert uplink_bytes_per_s(WIRING) == {(0, 0, leaf): 50.0 for leaf in range(4)}
    assert uplink_loads(WIRING, ((0, 8), (1, 8)), False) == {}, "inside one leaf"
    gang = ((0, 8), (1, 8), (2, 8))
    assert uplink_loads(WIRING, gang, False) == {(0, 0, 0): 100.0, (0, 0, 1): 100.0}
    pairs = uplink_loads(WIRING, gang, True)
    assert pairs[0, 0, 0] == pytest.approx(2 * 100 / 3)  # two nodes, a third of whose bytes goes out
    assert pairs[0, 0, 1] == pytest.approx(1 * 100 * 2 / 3)
    assert uplink_loads(WIRING, ((1, 4), (2, 4)), False) == {(0, 0, 0): 50.0, (0, 0, 1): 50.0}


def test_slow_downs_by_amdahls_law():
    assert slowdown(0.5, 1.0) == 1
    assert slowdown(0.5, 0.5) == pytest.approx(1 / 1.5)
    assert slowdown(0.0, 0.0) == 1
    assert slowdown(0.2, 0.0) == 0


def ends(jobs, network, policy="fifo", **rules):
    log = simulate(
        jobs, Nodes([Pool(8, 8)], Anywhere()), POLICIES[policy], rules=Rules(contention=network, **rules)
    )
    assert account(log).gap_frac < 1e-9
    return {r.job: r.end_s for r in log.records}, log


def test_a_job_alone_on_a_narrow_uplink_and_two_that_meet_by_hand():
    # "Anywhere" gives nodes 0-2 to a, 3-5 to b: both cross the uplink of leaf 1 (nodes 2 and 3)
    a, b = Job("a", 0.0, 24, 100.0, network_frac=0.5), Job("b", 30.0, 24, 100.0, network_frac=0.5)
    alone, _ = ends([a], Network([WIRING], {}))
    assert alone["a"] == pytest.approx(100 * (0.5 + 0.5 / 0.5))  # 50 out of 100
    both, log = ends([a, b], Network([WIRING], {}))
    # together each has 25 of the 100 it could send: speed 1 / (0.5 + 0.5 / 0.25) = 0.4 against 2 / 3 alone
    a_done = 30 * 2 / 3
    a_end = 30 + (100 - a_done) / 0.4
    assert both["a"] == pytest.approx(a_end)
    assert both["b"] == pytest.approx(a_end + (100 - 0.4 * (a_end - 30)) / (2 / 3))
    assert len(log.segments) == 2, "a change of speed splits no stretch"


def test_jobs_that_share_no_full_link_are_not_touched():
    wide = Wiring(0, 8, 8, 100.0, ((2, 1.0),))
    jobs = [Job("a", 0.0, 24, 100.0, network_frac=0.9), Job("b", 0.0, 16, 50.0, network_frac=0.9)]
    assert ends(jobs, Network([wide], {}))[0] == {"a": 100.0, "b": 50.0}


def test_right_of_way_and_caps():
    a = Job("a", 0.0, 24, 100.0, queue="first", network_frac=0.5)
    b = Job("b", 0.0, 24, 100.0, queue="second", network_frac=0.5)
    first, second = TrafficClass(1.0, name="1"), TrafficClass(0.0, name="2")
    found, _ = ends([a, b], Network([WIRING], {"first": first, "second": second}))
    assert found["a"] == pytest.approx(150.0)  # as if alone
    assert found["b"] == pytest.approx(150.0 + 150.0)  # stands still until the first has gone
    capped = TrafficClass(0.0, cap_frac=0.2, name="capped")
    found, _ = ends([a, b], Network([WIRING], {"second": capped}))
    # b never has more than 10 of 100; a has the 40 that are left
    assert found["b"] == pytest.approx(100 * (0.5 + 0.5 / 0.1))
    assert found["a"] == pytest.approx(100 * (0.5 + 0.5 / 0.4))


def test_interleaved_phases_only_need_the_mean_rate():
    a, b = (Job(name, 0.0, 24, 100.0, network_frac=0.4) for name in "ab")
    found, _ = ends([a, b], Network([WIRING], {}, together=False))
    # each sends 40 of 100 on average and the uplink of leaf 1 has 50: 25 each, speed 25 / 40
    assert found["a"] == pytest.approx(100 / (25 / 40))
    alone, _ = ends([a], Network([WIRING], {}, together=False))
    assert alone["a"] == pytest.approx(100 * (0.6 + 0.4 / 0.5))  # the peak is what holds a lone job back


def test_what_was_saved_before_a_fault_counts_at_the_speed_of_its_time():
    # a alone: 20 useful seconds at 2/3, a bookmark after each 10 (blocking, free); then b comes and speed is 0.4
    a, b = Job("a", 0.0, 24, 60.0, network_frac=0.5), Job("b", 20.0, 24, 400.0, network_frac=0.5)
    faults = iter([Hazard(35.0)])
    network = Network([WIRING], {})
    found, log = ends(
        [a, b], network, recovery=lambda job: Recovery(10.0, 0.0, 0.0, 0.0),
        hazard=lambda state: next(faults, None) if state.job.name == "a" else None,
    )  # fmt: skip
    failed = next(s for s in log.segments if s.why == "failed")
    kept_s = 20 * 2 / 3 + 10 * 0.4  # what the 30 seconds that were kept would have taken at full bandwidth
    assert (failed.useful_s, failed.contention_s) == pytest.approx((kept_s, 30 - kept_s))
    assert (failed.interference_s, failed.lost_s) == (0.0, 5.0)
    left = 60 - 20 * 2 / 3 - 10 * 0.4  # kept: the first 30 seconds
    assert found["a"] == pytest.approx(35 + left / 0.4)


@st.composite
def crowds(draw: st.DrawFn) -> list[Job]:
    return [
        Job(
            f"j{n}", float(n * draw(st.integers(0, 20))) if n == 0 else float(n * 7), draw(st.integers(1, 48)),
            float(draw(st.integers(1, 90))), 500.0, queue=draw(st.sampled_from("abc")),
            network_frac=draw(st.sampled_from([0.0, 0.3, 0.9])), priority=float(draw(st.integers(0, 2))),
        )
        for n in range(draw(st.integers(1, 15)))
    ]  # fmt: skip


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(derandomize=True, max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(jobs=crowds(), together=st.booleans(), pairs=st.booleans(), faulty=st.booleans())
def test_part_by_part_solutions_are_the_whole_solution_and_all_work_is_done(
    policy, jobs, together, pairs, faulty
):
    classes = {"a": TrafficClass(weight=2.0, name="a"), "b": TrafficClass(cap_frac=0.3, name="b")}
    network = Network([WIRING], classes, together=together, every_pair=pairs)
    held: dict[int, float] = {}

    class Checked:
        def join(self, state):
            network.join(state)

        def leave(self, state):
            network.leave(state)
            held.pop(state.number, None)

        def changed(self):
            new = network.changed()
            held.update(new)
            whole = max_min(network.flows, network.capacity)
            for number, rate in whole.items():
                frac = network._fracs[number]
                assert held[number] == pytest.approx(slowdown(frac, rate) if together else rate, rel=1e-6)
            return new

        def by_links_frac(self, number):
            return network.by_links_frac(number)

    hazards = iter([Hazard(20.0, 2.0), None, Hazard(40.0)] if faulty else [])
    log = simulate(
        jobs, Nodes([Pool(8, 8)], Anywhere()), POLICIES[policy],
        rules=Rules(
            contention=Checked(), recovery=lambda job: Recovery(9.0, 1.0, 2.0, 3.0),
            hazard=lambda state: next(hazards, None), preemption_overhead_s=lambda job: 2.0,
        ),
    )  # fmt: skip
    assert account(log).gap_frac < 1e-9
    # a gang beyond what its queue may ever hold waits for good
    assert {r.outcome for r in log.records} <= {"completed", *(["waiting"] if policy == "quota" else [])}
    for record in log.records:
        if record.outcome != "completed":
            continue
        useful = math.fsum(s.useful_s for s in log.segments if s.number == record.number)
        # speed goes with devices here, and what links cost is no useful time
        if all(s.gpus == jobs[record.number].gpus for s in log.segments if s.number == record.number):
            assert useful == pytest.approx(jobs[record.number].duration_s, abs=1e-6), "work lost or invented"


FABRIC = """
name = "shared"
[[cluster.pools]]
system = "dgx-h100"
nodes = 16
[cluster.fabric]
tiers = [{ name = "leaf", nodes = 2 }, { name = "spine", oversubscription = 8.0 }]
[[jobs.mixes]]
name = "m"
arrivals = { rate_per_s = "60 /day" }
sizes = [{ gpus = 40, median_s = "2 h", sigma = 0.1, network_frac = 0.5 }]
[policy]
name = "fifo"
[policy.network]
sharing = true
[study]
span_s = "3 d"
"""


def test_a_scenario_shares_its_uplinks_and_says_what_it_misses():
    shared = play(stage(loads(FABRIC)))
    free = play(stage(loads(FABRIC, overrides=["policy.network.sharing=false"])))
    assert account(shared).gap_frac < 1e-9
    assert account(shared).by_cause["contention"] > 0

    def ran(log):
        return {r.job: r.end_s - r.start_s for r in log.records if r.outcome == "completed"}

    both = ran(shared).keys() & ran(free).keys()
    assert len(both) > 20
    # alone on an uplink of 2 nodes / 8 a ring has a quarter of its rate: 0.5 + 0.5 / 0.25; others make it slower
    for name in both:
        assert ran(shared)[name] >= 2.5 * ran(free)[name] - 1e-6
    with pytest.raises(ScenarioError) as told:
        loads(FABRIC, overrides=["cluster.fabric.tiers=[]"])
    assert "policy.network.sharing" in str(told.value)


def test_training_runs_bring_their_traffic_from_the_step_model():
    text = (
        FABRIC
        + """
[[jobs.runs]]
name = "llm"
nodes = 4
steps = 100
[jobs.runs.training]
model = "llama-3.1-8b"
global_batch = 64
sequence = 4096
[jobs.runs.training.plan]
tensor = 8
micro_batch = 1
recompute = "full"
"""
    )
    staged, plain = stage(loads(text)), stage(loads(text, overrides=["policy.network.sharing=false"]))
    assert 0 < staged.network["llm"] < 1
    assert staged.step_s["llm"] <= plain.step_s["llm"], (
        "alone at full bandwidth, not through the narrow spine"
    )


def test_managed_bandwidth_helps_those_with_right_of_way():
    folder = Path(sim.__file__).parents[1] / "scenarios"
    mean = {}
    for kind in ("shared", "managed"):
        log = play(stage(sim.load(folder / f"cluster-fabric-{kind}.toml", ["study.span_s=10 d"])))
        assert account(log).gap_frac < 1e-9
        done = [r.end_s - r.start_s for r in log.records if r.queue == "product" and r.outcome == "completed"]
        mean[kind] = sum(done) / len(done)
    assert mean["managed"] < 0.97 * mean["shared"]
