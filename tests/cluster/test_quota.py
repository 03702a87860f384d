"""Quotas: the arithmetic of the tree by hand, and who gives way to whom."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.nodes import Pool
from sim.cluster.policies.quota import Quotas, Tree
from sim.cluster.run import simulate
from sim.results.cluster_log import account
from sim.spec.faults import ScenarioError
from sim.spec.job import Job
from sim.spec.loader import loads
from sim.spec.scheduling import QuotaRule


def rules(*made):
    return {rule.name: rule for rule in made}


COHORT = rules(
    QuotaRule("all"),
    QuotaRule("a", "all", 8.0),
    QuotaRule("b", "all", 8.0, borrow_limit_gpus=4.0, lend_limit_gpus=2.0),
)


def test_what_is_not_lent_stays_at_home_and_the_rest_is_stored_above():
    tree = Tree(COHORT, {})
    assert tree.local("b") == 6
    assert tree.local("a") == 0
    assert tree.subtree("all") == 8 + 2
    assert tree.available("a") == 10  # its own and what b lends
    assert tree.available("b") == 8 + 4  # its own and what it may borrow
    tree = Tree(COHORT, {"a": 10.0})
    assert tree.available("b") == 6, "the guarantee is never lent"
    tree = Tree(COHORT, {"b": 7.0})
    assert tree.usage("all") == 1  # one beyond the six that stay at home
    assert tree.available("a") == 9
    assert not tree.borrows("b")
    assert tree.borrows("b", 2.0)


def test_a_queue_on_its_own_a_ceiling_and_a_guest():
    tree = Tree(
        rules(QuotaRule("x", nominal_gpus=4.0), QuotaRule("y", nominal_gpus=9.0, ceiling_gpus=3.0)),
        {"x": 1.0},
    )
    assert (tree.available("x"), tree.available("y")) == (3.0, 3.0)
    assert tree.available("stranger") == math.inf
    assert tree.borrows("stranger")


def test_cohorts_of_cohorts_borrow_from_cousins():
    tree = Tree(
        rules(
            QuotaRule("root"), QuotaRule("left", "root", borrow_limit_gpus=2.0), QuotaRule("right", "root"),
            QuotaRule("a", "left", 4.0), QuotaRule("b", "left", 4.0), QuotaRule("c", "right", 8.0),
        ),
        {"b": 3.0},
    )  # fmt: skip
    assert tree.available("a") == 8 - 3 + 2  # the left cohort's rest, and two from the right
    assert tree.available("c") == 16 - 3


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    nominal=st.lists(st.integers(0, 8), min_size=2, max_size=4),
    held=st.lists(st.integers(0, 8), min_size=4, max_size=4),
    lend=st.integers(0, 8),
)
def test_nobody_is_given_more_than_all_have_and_the_guarantee_is_always_there(nominal, held, lend):
    made = rules(
        QuotaRule("all"),
        *(QuotaRule(str(n), "all", float(own), lend_limit_gpus=float(lend)) for n, own in enumerate(nominal)),
    )
    tree = Tree(made, {})
    for number, asked in enumerate(held[: len(nominal)]):
        tree.held[str(number)] += min(asked, max(tree.available(str(number)), 0.0))
    assert sum(tree.held.values()) <= sum(nominal)
    for number, own in enumerate(nominal):
        free = max(own - lend, 0) - tree.held[str(number)]
        assert tree.available(str(number)) >= free - 1e-9


def run(jobs, made, devices=16, **kind):
    log = simulate(jobs, [Pool(devices // 8, 8)], Quotas(made, **kind))
    assert account(log).gap_frac < 1e-9
    return {r.job: r for r in log.records}, log


def test_a_borrower_gives_back_when_the_owner_comes_and_goes_on_later():
    jobs = [Job("b1", 0, 8, 100, queue="b"), Job("b2", 0, 4, 100, queue="b"), Job("a1", 10, 8, 50, queue="a")]
    made = rules(QuotaRule("all"), QuotaRule("a", "all", 8.0), QuotaRule("b", "all", 8.0))
    found, log = run(jobs, made)
    assert found["a1"].start_s == 10, "its quota is its own"
    assert [s.job for s in log.segments if s.why == "preempted"] == ["b2"], "b1 is within b's quota"
    assert found["b2"].end_s == pytest.approx(60 + 90)
    never = rules(QuotaRule("all"), QuotaRule("a", "all", 8.0, reclaim="never"), QuotaRule("b", "all", 8.0))
    assert run(jobs, never)[0]["a1"].start_s == 100


def test_reclaim_of_lower_priority_alone_and_preemption_within_a_queue():
    jobs = [Job("b1", 0, 16, 100, queue="b", priority=5), Job("a1", 10, 8, 50, queue="a", priority=1)]
    made = rules(
        QuotaRule("all"), QuotaRule("a", "all", 8.0, reclaim="lower-priority"), QuotaRule("b", "all", 8.0)
    )
    assert run(jobs, made)[0]["a1"].start_s == 100
    own = [Job("low", 0, 8, 100, queue="a"), Job("high", 10, 8, 50, queue="a", priority=1)]
    for within, start_s in (("never", 100.0), ("lower-priority", 10.0)):
        found, _ = run(own, rules(QuotaRule("a", nominal_gpus=8.0, within=within)))
        assert found["high"].start_s == start_s


def test_borrowing_goes_by_weight_and_the_ceiling_holds():
    jobs = [Job(f"{q}{n}", 0, 1, 100, queue=q) for n in range(20) for q in "ab"]
    made = rules(
        QuotaRule("all", nominal_gpus=16.0),
        QuotaRule("a", "all", weight=3.0),
        QuotaRule("b", "all", weight=1.0),
    )
    found, _ = run(jobs, made)
    first = [name for name, record in found.items() if record.start_s == 0]
    assert sum(name.startswith("a") for name in first) == 12
    capped = rules(
        QuotaRule("all", nominal_gpus=16.0), QuotaRule("a", "all", ceiling_gpus=5.0), QuotaRule("b", "all")
    )
    first = [name for name, record in run(jobs, capped)[0].items() if record.start_s == 0]
    assert sum(name.startswith("a") for name in first) == 5


def test_quotas_in_a_scenario_are_checked():
    text = """
name = "q"
[[cluster.pools]]
system = "dgx-h100"
nodes = 2
[[jobs.mixes]]
name = "m"
arrivals = { rate_per_s = "60 /day" }
queues = [{ name = "team" }]
sizes = [{ gpus = 1 }]
[policy]
name = "quota"
quotas = [{ name = "tea", parent = "al" }, { name = "all" }, { name = "x", parent = "y" }, { name = "y", parent = "x" }]
"""
    with pytest.raises(ScenarioError) as told:
        loads(text)
    words = str(told.value)
    assert "did you mean 'all'" in words
    assert "circle" in words
    assert "'team'" in words
