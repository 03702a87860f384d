"""Gavel, elastic gangs and deadlines: allocations and schedules by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.nodes import Nodes, Pool
from sim.cluster.placement.whole import Packed
from sim.cluster.policies.deadline import Deadline
from sim.cluster.policies.elastic import Elastic, ScaledRate, scaled_rate, share_out
from sim.cluster.policies.gavel import Gavel, max_min_shares
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.cluster.state import JobState
from sim.results.cluster_log import account
from sim.spec.job import Job


def test_gavels_program_gives_each_device_to_who_gains_most_there():
    # two jobs, two devices: the first is 4 times faster on pool 0, the second 1.25 times. Equal shares give 2.5 and
    # 1.125; the program gives 0 to the first alone: 4 / 2.5 = 1.6, and 1 / 1.125 = 0.889 for the second. To lift the
    # smallest, time a on pool 0 goes to the second: (1.25 a + (1 - a)) / 1.125 = (4 (1 - a) + a) / 2.5
    speed = np.array([[4.0, 1.0], [1.25, 1.0]])
    shares = max_min_shares(speed, np.ones(2), np.ones(2), np.ones(2))
    a = (4 / 2.5 - 1 / 1.125) / (0.25 / 1.125 + 3 / 2.5)
    assert shares == pytest.approx(np.array([[1 - a, a], [a, 1 - a]]), abs=1e-6)


def test_gavel_like_jobs_share_one_pool_alike_and_no_job_runs_where_it_cannot():
    shares = max_min_shares(np.ones((4, 1)), np.ones(4), np.ones(4), np.array([2.0]))
    assert shares.ravel() == pytest.approx([0.5] * 4)
    only = max_min_shares(np.array([[1.0, 0.0], [1.0, 1.0]]), np.ones(2), np.ones(2), np.ones(2))
    assert only == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0]]))


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 10**6))
def test_gavels_shares_fit(jobs, pools, seed):
    draw = np.random.default_rng(seed)
    speed, gpus = draw.uniform(0.5, 4, (jobs, pools)), draw.integers(1, 9, jobs).astype(float)
    devices = draw.integers(8, 17, pools).astype(float)
    shares = max_min_shares(speed, gpus, np.ones(jobs), devices)
    assert (shares >= -1e-9).all()
    assert (shares.sum(axis=1) <= 1 + 1e-9).all()
    assert (gpus @ shares <= devices + 1e-9).all()


def test_gavel_by_rounds_lets_like_jobs_take_turns_on_the_fast_pool():
    jobs = [Job(name, 0.0, 8, 7200.0) for name in "ab"]
    pools = [Pool(1, 8, "fast", 2.0), Pool(1, 8, "slow", 1.0)]
    log = simulate(jobs, Nodes(pools, Packed()), Gavel(round_s=360.0))
    assert account(log).gap_frac < 1e-9
    fast = {
        name: sum(s.end_s - s.start_s for s in log.segments if s.job == name and s.placed.pool == 0)
        for name in "ab"
    }
    assert fast["a"] == pytest.approx(fast["b"], abs=2 * 360)
    ends = [r.end_s for r in log.records]
    assert max(ends) <= 7200 / 1.5 + 2 * 360  # at the mean speed of both pools


def state(number, gpus, least, most):
    return JobState(Job(str(number), 0.0, gpus, 100.0, min_gpus=least, max_gpus=most), number)


def test_sharing_out_starts_from_the_least_and_equalises_speed_ups():
    states = [state(0, 4, 1, 16), state(1, 4, 1, 16)]
    assert share_out(states, 8, 0.9) == {0: 4, 1: 4}
    assert share_out(states, 5, 0.9) == {0: 3, 1: 2}
    assert share_out([state(0, 4, 4, 4), state(1, 8, 2, 8)], 8, 0.9) == {0: 4, 1: 4}
    assert share_out([state(0, 4, None, None), state(1, 8, None, None)], 8, 0.9) == {0: 4}, "rigid ones wait"


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(3, 10))
def test_greedy_sharing_is_as_good_as_trying_everything(asked, devices):
    from itertools import product

    states = [state(n, gpus, 1, 6) for n, gpus in enumerate(asked)]

    def mean(given):
        return sum(1 / scaled_rate(0.9, gpus, now) for gpus, now in zip(asked, given, strict=True))

    found = share_out(states, devices, 0.9)
    best = min(mean(g) for g in product(range(1, 7), repeat=len(asked)) if sum(g) <= devices)
    assert mean(list(found.values())) == pytest.approx(best)


def test_an_elastic_job_shrinks_for_one_that_comes_and_grows_back():
    jobs = [
        Job("a", 0.0, 8, 1000.0, min_gpus=2, max_gpus=8),
        Job("b", 100.0, 4, 100.0, min_gpus=4, max_gpus=4),
    ]
    rules = Rules(rate=ScaledRate(1.0), resize_overhead_s=lambda job: 10.0)
    log = simulate(jobs, [Pool(1, 8)], Elastic(1.0, 50.0), rules=rules)
    assert account(log).gap_frac < 1e-9
    assert [(s.job, s.gpus, s.start_s) for s in log.segments] == [
        ("a", 8, 0.0), ("b", 4, 100.0), ("a", 4, 100.0), ("a", 8, 200.0),
    ]  # fmt: skip
    # a: 100 s of 8; then 10 s lost and 90 s at half speed; then 10 s lost and the rest at full speed
    assert next(r.end_s for r in log.records if r.job == "a") == pytest.approx(200 + 10 + 1000 - 100 - 45)


def test_deadlines_are_kept_or_refused_at_once():
    jobs = [
        Job("long", 0.0, 8, 100.0, deadline_s=150.0),
        Job("tight", 1.0, 8, 40.0, deadline_s=60.0),  # cannot end before 140 without breaking the promise
        Job("later", 2.0, 8, 40.0, deadline_s=200.0),
        Job("whenever", 3.0, 8, 10.0),
    ]
    log = simulate(jobs, [Pool(1, 8)], Deadline())
    found = {r.job: (r.start_s, r.outcome) for r in log.records}
    assert found == {
        "long": (0.0, "completed"), "tight": (None, "refused"), "later": (100.0, "completed"),
        "whenever": (140.0, "completed"),
    }  # fmt: skip


def test_the_minimum_satisfactory_share_is_the_fewest_devices_that_end_in_time():
    job = Job("e", 0.0, 4, 100.0, min_gpus=1, max_gpus=8, deadline_s=250.0)
    log = simulate([job], [Pool(1, 8)], Deadline(1.0), rules=Rules(rate=ScaledRate(1.0)))
    assert [(s.gpus, s.end_s) for s in log.segments] == [(2, 200.0)]


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 8), st.integers(1, 60), st.integers(0, 100)), max_size=15
    )
)
def test_who_is_admitted_ends_in_time_where_nothing_fails(rows):
    jobs = [
        Job(str(n), float(at), gpus, float(long), deadline_s=float(at + long + slack))
        for n, (at, gpus, long, slack) in enumerate(sorted(rows))
    ]
    log = simulate(jobs, [Pool(1, 8)], Deadline())
    for record in log.records:
        if record.outcome == "completed":
            assert record.end_s <= jobs[record.number].deadline_s + 1e-6
        else:
            assert record.outcome == "refused"
