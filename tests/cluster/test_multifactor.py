"""Slurm's priorities: the documentation's own worked example, the tree by hand, and who goes first in a run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.nodes import Pool
from sim.cluster.policies.multifactor import (
    Association,
    Multifactor,
    age_factor,
    classic,
    fair_tree,
    size_factor,
    user_of,
)
from sim.cluster.run import simulate
from sim.results.cluster_log import account
from sim.spec.job import Job
from sim.spec.loader import loads
from sim.spec.scheduling import Account, MultifactorWeights

DOCUMENTED = [
    Association("A", shares=40), Association("D", shares=60),
    Association("B", "A", 30), Association("C", "A", 10), Association("E", "D", 25), Association("F", "D", 35),
    Association("1", "B", 1, 0.2, user=True),
    Association("2", "C", 1, 0.25, user=True), Association("3", "C", 1, 0.0, user=True),
    Association("4", "E", 1, 0.25, user=True), Association("5", "F", 1, 0.0, user=True),
]  # fmt: skip
"""The example of slurm.schedmd.com/classic_fair_share.html: usage as parts of the machine."""


def test_the_documentations_example_of_classic_fair_share():
    # there usage adds up to 0.7 of the machine; here to all of it, so that shares of usage are a 1/0.7 larger
    machine = [*DOCUMENTED, Association("others", shares=0.0), Association("x", "others", 1, 0.3, user=True)]
    found = classic(machine)
    printed = {"1": 0.408479, "2": 0.022097, "3": 0.125, "4": 0.5, "5": 0.749154}
    assert {name: found[name] for name in printed} == pytest.approx(printed, abs=2e-4)
    assert found["x"] == 0  # no shares


def test_the_same_tree_by_the_fair_tree_walked_by_hand():
    # level fair shares: A 0.4/(0.45/0.7) = 0.62, D 0.6/(0.25/0.7) = 1.68; in D: F unused, E; in A: B 0.75/(4/9), C
    found = fair_tree(DOCUMENTED)
    assert found == {"5": 1.0, "4": 0.8, "1": 0.6, "3": 0.4, "2": 0.2}


def test_ties_of_users_of_a_user_with_an_account_and_of_accounts():
    def user(name, parent, used):
        return Association(name, parent, 1, used, user=True)

    pair = fair_tree([Association("a"), user("u", "a", 5), user("v", "a", 5), user("w", "a", 20)])
    assert pair == {"u": 1.0, "v": 1.0, "w": pytest.approx(1 / 3)}
    # the user and the account beside it have used the same: it shares the account's first rank
    mixed = fair_tree([Association("a"), user("u", "", 9), user("v", "a", 3), user("w", "a", 6)])
    assert mixed == {"u": 1.0, "v": 1.0, "w": pytest.approx(1 / 3)}
    # tied accounts are walked as one: the order is of their users' own levels
    merged = fair_tree(
        [
            Association("a"),
            Association("b"),
            user("p", "a", 8),
            user("q", "a", 2),
            user("r", "b", 6),
            user("s", "b", 4),
        ]
    )
    assert sorted(merged, key=merged.get, reverse=True) == ["q", "s", "r", "p"]
    assert sorted(merged.values()) == [0.25, 0.5, 0.75, 1.0]


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.floats(0, 100)), min_size=1, max_size=12))
def test_an_account_ahead_of_its_sibling_is_ahead_with_all_its_users(users):
    known = [Association(name) for name in "ABC"]
    known += [Association(f"u{n}", name, 1, used, user=True) for n, (name, used) in enumerate(users)]
    found = fair_tree(known)
    total = {name: sum(used for where, used in users if where == name) for name in "ABC"}
    for n, (mine, _) in enumerate(users):
        assert 0 < found[f"u{n}"] <= 1
        for m, (other, _) in enumerate(users):
            if total[mine] < total[other]:
                assert found[f"u{n}"] >= found[f"u{m}"]
    assert max(found.values()) == 1


def test_age_and_size_factors():
    week = 604_800.0
    assert (age_factor(week / 2, week), age_factor(2 * week, week)) == (0.5, 1.0)
    assert (size_factor(64, 64), size_factor(16, 64)) == (1.0, 0.25)
    assert (size_factor(1, 64, True), size_factor(64, 64, True)) == (1.0, 1 / 64)


def order(jobs, policy, gpus=8):
    log = simulate(jobs, [Pool(1, gpus)], policy)
    assert account(log).gap_frac < 1e-9
    return [r.job for r in sorted(log.records, key=lambda r: (r.start_s, r.number))]


def test_points_add_up_as_the_documents_sample_configuration_says():
    # PriorityWeightAge=1000, Fairshare=10000, JobSize=1000, Partition=1000, QOS=0; full after two weeks
    day = 86_400.0
    knobs = MultifactorWeights(partition=1000.0, max_age_s=14 * day)
    accounts = {"p": Account("p", partition_priority=5.0), "q": Account("q", partition_priority=10.0)}
    seen = {}

    class Told(Multifactor):
        def decide(self, view):
            for state in view.waiting:
                seen[state.job.name, view.now_s] = self.points(state, view, 0.59534)
            return super().decide(view)

    jobs = [
        Job("blocker", 0.0, 8, 7 * day, 7 * day, user="x", queue="q"),
        Job("j", 0.0, 2, 1.0, 1.0, user="y", queue="p"),
        Job("k", day, 8, 1.0, 1.0, user="y", queue="q"),
    ]
    order(jobs, Told(knobs, accounts))
    assert seen["j", 7 * day] == pytest.approx(500 + 5953.4 + 250 + 500)
    assert seen["k", day] == pytest.approx(0 + 5953.4 + 1000 + 1000)


def test_who_has_used_less_goes_first_and_old_use_is_forgotten():
    jobs = [
        Job("used", 0.0, 8, 100.0, 100.0, user="u", queue="a"),
        Job("blocker", 100.0, 8, 1000.0, 1000.0, user="b", queue="c"),
        Job("again", 101.0, 8, 10.0, 10.0, user="u", queue="a"),
        Job("other", 102.0, 8, 10.0, 10.0, user="v", queue="b"),
    ]
    assert order(jobs, Multifactor())[2:] == ["other", "again"]
    # v has used little, but lately: with a half-life of 50 s it weighs more than what u used 1,000 s ago
    late = [
        Job("used", 0.0, 8, 100.0, 100.0, user="u", queue="a"),
        Job("blocker", 100.0, 8, 1000.0, 1000.0, user="b", queue="c"),
        Job("late", 1100.0, 1, 200.0, 200.0, user="v", queue="b"),
        Job("block", 1301.0, 8, 1000.0, 1000.0, user="b", queue="c"),
        Job("v2", 1302.0, 8, 10.0, 10.0, user="v", queue="b"),
        Job("u2", 1303.0, 8, 10.0, 10.0, user="u", queue="a"),
    ]
    assert order(late, Multifactor(half_life_s=50.0))[-2:] == ["u2", "v2"]
    assert order(late, Multifactor())[-2:] == ["v2", "u2"]


def test_backfill_keeps_the_heads_promise_and_ages_count():
    jobs = [
        Job("long", 0.0, 6, 100.0, 100.0, user="u"),
        Job("head", 1.0, 8, 10.0, 10.0, user="u"),
        Job("slips", 2.0, 2, 50.0, 50.0, user="u"),
        Job("waits", 3.0, 2, 200.0, 200.0, user="u"),
    ]
    log = simulate(jobs, [Pool(1, 8)], Multifactor())
    assert {r.job: r.start_s for r in log.records} == {"long": 0, "slips": 2, "head": 100, "waits": 110}
    small = [
        Job("long", 0.0, 8, 100.0, 100.0),
        Job("wide", 1.0, 8, 10.0, 10.0),
        Job("slim", 2.0, 1, 10.0, 10.0),
    ]
    assert order(small, Multifactor(MultifactorWeights(favor_small=True))) == ["long", "slim", "wide"]
    patient = MultifactorWeights(favor_small=True, age=1e9)
    assert order(small, Multifactor(patient)) == ["long", "wide", "slim"]
    assert user_of("a", "u") != user_of("au", "")
    assert math.isinf(Multifactor().half_life_s)


def test_a_scenario_names_the_tree_and_the_weights(small):
    from sim.cluster.policies.menu import policy_named

    text = (
        small
        + """
[policy]
name = "multifactor"
half_life_s = "7 d"
multifactor.age = 5
multifactor.algorithm = "classic"
[[policy.accounts]]
name = "physics"
shares = 3
"""
    )
    made = policy_named(loads(text).policy)
    assert isinstance(made, Multifactor)
    assert (made.knobs.age, made.knobs.algorithm, made.accounts["physics"].shares) == (5.0, "classic", 3.0)
    assert made.half_life_s == 604_800
