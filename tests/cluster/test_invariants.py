"""What must hold in every run of every policy, whatever the mix of jobs, faults and preemptions."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.cluster.nodes import Nodes, Pool
from sim.cluster.outage import Outage
from sim.cluster.placement.whole import Anywhere, Packed, Spread, Tiers
from sim.cluster.policies.menu import POLICIES, policy_named
from sim.cluster.recovery import Recovery
from sim.cluster.rules import Hazard, Rules
from sim.cluster.run import simulate
from sim.results.cluster_log import ClusterLog, account
from sim.spec.job import Job
from sim.spec.scheduling import QuotaRule, Scheduling

PLACEMENTS = {"packed": Packed(), "anywhere": Anywhere(), "spread": Spread(), "tiers": Tiers((2,))}
POOLS = (Pool(4, 4), Pool(2, 8))
SIZES = [4] * 4 + [8] * 2


@st.composite
def one_job(draw: st.DrawFn, number: int) -> Job:
    """Jobs that can shrink fit as they are too: a rigid policy never shrinks them."""
    gpus = draw(st.integers(0, 20))
    submit_s = float(draw(st.integers(0, 300)))
    return Job(
        f"j{number}", submit_s, gpus, float(draw(st.integers(0, 120))), float(draw(st.integers(120, 200))),
        queue=draw(st.sampled_from("abc")), priority=float(draw(st.integers(0, 3))),
        preemptible=draw(st.booleans()), deadline_s=draw(st.sampled_from([None, None, submit_s + 300, submit_s + 900])),
        min_gpus=draw(st.sampled_from([None, 1])) if 0 < gpus <= 8 else None,
        max_gpus=draw(st.sampled_from([None, 24])),
    )  # fmt: skip


@st.composite
def mixes(draw: st.DrawFn) -> tuple[list[Job], list[Outage], Rules]:
    """Jobs, outages that may overlap, and house rules."""
    count = draw(st.integers(1, 20))
    jobs = sorted((draw(one_job(number)) for number in range(count)), key=lambda job: job.submit_s)
    outages = sorted(
        Outage(
            float(draw(st.integers(0, 400))), tuple(draw(st.sets(st.integers(0, 5), min_size=1, max_size=3))), "node",
            float(draw(st.integers(0, 20))), float(draw(st.integers(1, 60))),
        )
        for _ in range(draw(st.integers(0, 5)))
    )  # fmt: skip
    interval_s = draw(st.sampled_from([math.inf, 15.0]))
    recovery = Recovery(interval_s, 1.0, 2.0, 3.0)
    hazards = iter(draw(st.lists(st.one_of(st.none(), st.integers(1, 90)), max_size=8)))

    def hazard(state: object) -> Hazard | None:
        after = next(hazards, None)
        return None if after is None else Hazard(float(after), 2.0)

    rules = Rules(
        one_pass=draw(st.booleans()),
        completions_first=draw(st.booleans()),
        preemption_overhead_s=lambda job: 5.0,
        resize_overhead_s=lambda job: 3.0,
        preemption_keeps_all=draw(st.booleans()),
        recovery=lambda job: recovery,
        hazard=hazard,
    )
    return jobs, outages, rules


def check(jobs: list[Job], log: ClusterLog) -> None:
    assert account(log).gap_frac < 1e-9
    assert sorted(record.number for record in log.records) == list(range(len(jobs))), "a job was forgotten"
    assert log.waiting_job_s == pytest.approx(sum(record.wait_s for record in log.records), abs=1e-6)
    changes: dict[int, list[tuple[float, int]]] = defaultdict(list)
    useful: dict[int, float] = defaultdict(float)
    last: dict[int, float] = {}
    for row in log.segments:
        parts = (
            row.useful_s
            + row.checkpoint_s
            + row.lost_s
            + row.restart_s
            + row.overhead_s
            + row.undetected_s
            + row.contention_s
            + row.interference_s
        )
        assert parts == pytest.approx(row.end_s - row.start_s, abs=1e-9)
        assert min(row[7:]) >= -1e-9
        assert row.start_s >= last.get(row.number, 0.0), "a job runs twice at once"
        last[row.number] = row.end_s
        asked = jobs[row.number].gpus
        useful[row.number] += row.useful_s * (row.gpus / asked if asked else 1.0)  # linear speed-up
        assert sum(devices for _, devices in row.placed.spots) == row.gpus
        for node, devices in row.placed.spots:
            if row.end_s > row.start_s:
                changes[node] += [(row.end_s, -devices), (row.start_s, devices)]
            for down in log.downtimes:
                overlap = min(row.end_s, down.end_s) - max(row.start_s, down.start_s)
                assert down.node != node or overlap <= 1e-9, "a job runs on a node that is down"
    for node, steps in changes.items():
        held = 0
        for _, devices in sorted(steps):
            held += devices
            assert 0 <= held <= SIZES[node], "two jobs on one device"
    for record in log.records:
        job = jobs[record.number]
        if record.outcome == "completed":
            assert useful[record.number] == pytest.approx(job.duration_s, abs=1e-6), "work lost or invented"
        else:
            assert record.outcome == "refused", "everybody is served in the end, or can never fit"


QUOTAS = (
    QuotaRule("all"),
    QuotaRule("a", "all", 16.0, within="lower-priority"),
    QuotaRule("b", "all", 16.0, lend_limit_gpus=4.0),
)


@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(derandomize=True, max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mix=mixes(), placement=st.sampled_from(sorted(PLACEMENTS)))
def test_every_policy_keeps_the_books(
    name: str, mix: tuple[list[Job], list[Outage], Rules], placement: str
) -> None:
    jobs, outages, rules = mix
    policy = policy_named(Scheduling(name, weights={"a": 1.0, "b": 2.0}, quotas=QUOTAS))
    log = simulate(
        iter(jobs), Nodes(POOLS, PLACEMENTS[placement]), policy, rules=rules, outages=iter(outages)
    )
    check(jobs, log)
