"""Outage streams: rates, shares, groups, ages, batches, and the traps of ageing parts."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, weibull_min

from sim.cluster.failures.laws import draw_s, next_failure_s
from sim.cluster.failures.stream import (
    cause_rates,
    job_failures_per_s,
    job_fault_s,
    node_factors,
    of_nodes_that_are_up,
    outages,
    slowdowns,
)
from sim.cluster.outage import Outage
from sim.cost.goodput import failures_expected, first_failure_s, weibull_scale_s
from sim.spec.failure_rates import with_rates
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import LAWS, Batch, Cause, Delay, Maintenance, Reliability, Stragglers
from sim.statistics.streams import Streams

HOUR, DAY, YEAR = 3600.0, 86400.0, 365.25 * 86400


def before(stream, span_s: float) -> list[Outage]:
    return list(itertools.takewhile(lambda outage: outage.at_s < span_s, stream))


def within(count: float, expected: float, sigmas: float = 4.5) -> bool:
    """Whether a Poisson count is as expected."""
    return abs(count - expected) < sigmas * math.sqrt(expected)


@pytest.mark.parametrize("law", LAWS)
def test_laws_have_the_mean_and_variation_that_they_name(law: str) -> None:
    times = draw_s(Delay(100.0, law, 0.5), np.random.default_rng(1), 200_000)
    assert times.mean() == pytest.approx(100, rel=0.01)
    variation = {"deterministic": 0.0, "exponential": 1.0}.get(law, 0.5)
    assert times.std() / 100 == pytest.approx(variation, abs=0.01)


@pytest.mark.parametrize(("shape", "age"), [(0.7, 0.0), (2.5, 0.0), (2.5, 800.0)])
def test_remaining_life_follows_the_weibull_law_of_parts_that_lived_so_long(shape: float, age: float) -> None:
    random = np.random.default_rng(2)
    lives = [age + next_failure_s(age, 1000.0, shape, 1.0, float(e)) for e in random.exponential(size=3000)]
    law = weibull_min(shape, scale=1000.0)
    conditional = kstest(lives, lambda t: 1 - law.sf(t) / law.sf(age))
    assert conditional.pvalue > 1e-4


def test_llama_s_causes_come_at_their_published_shares() -> None:
    section = with_rates(Reliability(rates="llama-3-405b"))
    found = before(outages(section, 2048, Streams(1), job_nodes=2048), 540 * DAY)
    counts = Counter(outage.cause for outage in found)
    assert within(len(found), 4190)
    for cause, published in (("gpu", 148), ("hbm", 72), ("software", 54), ("silent", 6)):
        assert within(counts[cause], 10 * published), cause
    assert all(outage.nodes == () for outage in found if outage.cause == "software")
    assert found == sorted(found, key=lambda outage: outage.at_s)


def test_a_seed_says_everything_and_a_longer_look_changes_nothing() -> None:
    section = with_rates(Reliability(rates="llama-3-405b", job_failures_per_day=1.0))
    first, again = (list(itertools.islice(outages(section, 64, Streams(5)), n)) for n in (300, 700))
    assert first == again[:300]
    assert first != list(itertools.islice(outages(section, 64, Streams(6)), 300))


def test_levels_share_their_luck() -> None:
    """At twice the rate the same flashes come twice as fast: scenarios are compared under one weather."""
    section = Reliability(Quantiles(1.0, 2.0, 4.0), causes=(Cause("gpu"), Cause("nic")))
    mid, high = (
        list(itertools.islice(outages(section, 64, Streams(1), level=level), 200))
        for level in ("mid", "high")
    )
    for a, b in zip(mid, high, strict=True):
        assert (a.at_s, a.nodes, a.cause) == (pytest.approx(2 * b.at_s), b.nodes, b.cause)


def test_racks_and_switches_fall_together() -> None:
    causes = (
        Cause("rack", scope="rack"),
        Cause("switch", scope="switch", weibull_shape=1.5, replace_frac=1.0),
    )
    section = Reliability(Quantiles.exactly(20.0), causes=causes, nodes_per_rack=4, nodes_per_switch=16)
    found = before(outages(section, 70, Streams(1)), 3000 * DAY)
    racks = [outage.nodes for outage in found if outage.cause == "rack"]
    switches = [outage.nodes for outage in found if outage.cause == "switch"]
    assert within(len(racks), 0.01 * 70 * 3000)
    assert within(len(switches), 0.01 * 70 * 3000, 6)
    assert {len(nodes) for nodes in racks} == {4, 2}
    assert {nodes[0] for nodes in switches} == {0, 16, 32, 48, 64}


def test_lemons_fail_more_and_the_fleet_as_given() -> None:
    """3 of 63 nodes with half of all exclusions (SKT B200): a factor of 20 among the rest."""
    lemons = Batch(3 / 63, 20.0)
    section = Reliability(Quantiles.exactly(10.0), batches=(lemons,))
    factor = node_factors(section, 63, Streams(1))
    assert factor.mean() == pytest.approx(1)
    assert np.sort(factor)[-3:].sum() / factor.sum() == pytest.approx(0.5)
    counts = Counter(outage.nodes[0] for outage in before(outages(section, 63, Streams(1)), 10_000 * DAY))
    assert within(sum(counts.values()), 6300)
    assert within(sum(count for node, count in counts.items() if factor[node] > 1), 3150)


def test_a_bad_batch_comes_on_top_and_stands_together() -> None:
    section = Reliability(
        Quantiles.exactly(10.0), batches=(Batch(0.25, 5.0, together=True, within_rate=False),)
    )
    factor = node_factors(section, 40, Streams(1))
    assert factor.tolist() == [5.0] * 10 + [1.0] * 30
    aged = Reliability(
        Quantiles.exactly(10.0),
        causes=(Cause("gpu", weibull_shape=1.0001, replace_frac=1.0),),
        batches=section.batches,
    )
    for each in (section, aged):
        assert within(len(before(outages(each, 40, Streams(2)), 5000 * DAY)), 0.01 * 80 * 5000)


def test_parts_keep_their_ages_when_others_fail() -> None:
    """4,096 Weibull(0.7) parts of mean life 100 days: in the long run one fails every mean / n = 35.2 min. A simulator
    that makes all parts new at each failure would say 1.0 min (mean n^(-1/k))."""
    section = Reliability(
        Quantiles.exactly(10.0), causes=(Cause("gpu", weibull_shape=0.7, replace_frac=1.0),)
    )
    found = before(outages(section, 4096, Streams(1)), 2300 * DAY)
    late = sum(outage.at_s > 2000 * DAY for outage in found)
    assert 300 * DAY / late == pytest.approx(144_000 * 60 / 4096, rel=0.03)
    assert float(first_failure_s(4096, 144_000, 0.7)) == pytest.approx(0.995, rel=1e-3)


@pytest.mark.parametrize("shape", [0.7, 2.0])
def test_new_parts_fail_as_renewal_theory_says(shape: float) -> None:
    """400 parts of mean life 1,000 h in 20,000 h; the variance of a renewal count is cv^2 t / mean."""
    section = Reliability(
        Quantiles.exactly(24.0), causes=(Cause("gpu", replace_frac=1.0, weibull_shape=shape),)
    )
    law = weibull_min(shape)
    squared = float(law.var() / law.mean() ** 2)
    expected = float(failures_expected(400, 20_000.0, 1000.0, squared))
    found = len(before(outages(section, 400, Streams(4)), 20_000 * HOUR))
    assert abs(found - expected) < 4.5 * math.sqrt(squared * 8000)


def test_wear_out_waits_for_its_age() -> None:
    """Shape 2 at a mean life of a year: a young fleet hardly fails in its first month, one a year old does.

    Expected first failures of a part of age a within t: 1 - S(a + t) / S(a).
    """
    wear = (Cause("gpu", weibull_shape=2.0, replace_frac=1.0),)
    scale = float(weibull_scale_s(YEAR, 2.0))
    for age in (0.0, YEAR):
        section = Reliability(Quantiles.exactly(1000 * DAY / YEAR), causes=wear, age_s=age)
        found = len({outage.nodes for outage in before(outages(section, 5000, Streams(3)), 30 * DAY)})
        expected = 5000 * -math.expm1((age / scale) ** 2 - ((age + 30 * DAY) / scale) ** 2)
        assert within(found, expected)


def test_mending_does_not_make_young() -> None:
    """Minimal repair: failures up to t are Poisson with mean (t / scale)^k a part."""
    section = Reliability(Quantiles.exactly(1000 * DAY / YEAR), causes=(Cause("gpu", weibull_shape=2.0),))
    found = before(outages(section, 300, Streams(3)), 3 * YEAR)
    assert within(len(found), 300 * (3 * YEAR / float(weibull_scale_s(YEAR, 2.0))) ** 2)


def test_maintenance_rolls_over_the_nodes() -> None:
    section = Reliability(
        Quantiles.exactly(1e-9), maintenance=Maintenance(7 * DAY, 4 * HOUR, nodes_at_once=10)
    )
    found = before(outages(section, 25, Streams(1)), 15 * DAY)
    assert [outage.at_s / HOUR for outage in found] == [168, 172, 176, 336, 340, 344]
    assert [len(outage.nodes) for outage in found] == [10, 10, 5] * 2
    crowded = Reliability(
        Quantiles.exactly(1e-9), maintenance=Maintenance(10 * HOUR, 4 * HOUR, nodes_at_once=5)
    )
    times = [outage.at_s for outage in itertools.islice(outages(crowded, 25, Streams(1)), 50)]
    assert times == sorted(times)


def test_jobs_fail_of_their_own_making_whatever_their_size() -> None:
    section = Reliability(
        Quantiles.exactly(2.0),
        causes=(Cause("gpu", 3.0), Cause("software", 1.0, scope="job")),
        job_failures_per_day=0.5,
    )
    assert job_failures_per_s(section, 100) * DAY == pytest.approx(0.5 + 100 * 0.002 / 4)
    found = before(outages(section, 100, Streams(1), job_nodes=100), 5000 * DAY)
    assert within(sum(not outage.nodes for outage in found), 5000 * 0.55)
    assert all(outage.nodes for outage in before(outages(section, 100, Streams(1)), 1000 * DAY))
    random = Streams(1).generator("stretches")
    stretches = [job_fault_s(section, 100, random)[0] for _ in range(4000)]
    assert np.mean(stretches) / DAY == pytest.approx(1 / 0.55, rel=0.07)
    assert job_fault_s(Reliability(Quantiles.exactly(2.0)), 100, random) == (math.inf, 0.0)
    assert sum(hazard.per_node_s for hazard in cause_rates(section)) * DAY == pytest.approx(0.002)


def test_slow_nodes_come_at_their_rate_and_are_found() -> None:
    section = Reliability(Quantiles.exactly(1.0), stragglers=Stragglers(2.0, 0.7, Delay(HOUR)))
    found = list(itertools.islice(slowdowns(section, 100, Streams(1)), 2000))
    assert found[-1].at_s / DAY == pytest.approx(2000 / 0.2, rel=0.1)
    assert np.mean([slow.until_s - slow.at_s for slow in found]) == pytest.approx(HOUR, rel=0.1)
    assert list(slowdowns(Reliability(Quantiles.exactly(1.0)), 100, Streams(1))) == []


@settings(max_examples=30)
@given(
    rate=st.floats(0.1, 1e4),
    nodes=st.integers(1, 60),
    scopes=st.lists(st.sampled_from(["node", "switch", "rack", "job"]), min_size=1, max_size=4),
    shape=st.sampled_from([0.6, 1.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_streams_are_sorted_whole_and_leave_out_the_dead(rate, nodes, scopes, shape, seed) -> None:
    delay = Delay(HOUR, "gamma", 2.0)
    causes = tuple(
        Cause(f"c{i}", scope=scope, weibull_shape=shape, detect=delay, repair=delay)
        for i, scope in enumerate(scopes)
    )
    section = Reliability(Quantiles.exactly(rate), causes=causes, maintenance=Maintenance(DAY, HOUR, 7))
    found = list(itertools.islice(outages(section, nodes, Streams(seed), job_nodes=nodes), 300))
    assert all(a.at_s <= b.at_s for a, b in itertools.pairwise(found))
    assert all(
        set(outage.nodes) <= set(range(nodes)) and outage.detect_s >= 0 <= outage.down_s for outage in found
    )
    back: dict[int, float] = {}
    for outage in of_nodes_that_are_up(found, nodes):
        assert all(back.get(node, 0.0) <= outage.at_s for node in outage.nodes)
        back |= dict.fromkeys(outage.nodes, outage.at_s + outage.detect_s + outage.down_s)
