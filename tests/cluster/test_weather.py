"""Failures on a cluster of many jobs: spares, slow nodes, notice, memory, and the rate that nobody knows."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from sim.cluster.failures.spares import of_the_floor
from sim.cluster.failures.stream import Slowdown, outages, slow_as_outages
from sim.cluster.from_scenario import stage, weather
from sim.cluster.nodes import Pool
from sim.cluster.outage import Outage
from sim.cluster.policies.order import Fifo
from sim.cluster.recovery import MemoryTier, Recovery
from sim.cluster.rules import Hazard, Rules
from sim.cluster.run import simulate
from sim.cluster.study import play
from sim.cluster.weather import Weather, rated
from sim.cost.queueing import erlang_b
from sim.results.cluster_log import account
from sim.spec.job import Job
from sim.spec.loader import loads
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Cause, Checkpointing, Delay, Reliability, Spares, Stragglers
from sim.statistics.streams import Streams

DAY_S = 86400.0


def test_a_failure_finds_no_spare_as_often_as_erlang_b_says():
    nodes, spares, repair_s = 1000, 3, 2 * DAY_S
    section = Reliability(
        Quantiles.exactly(1.0),
        causes=(Cause(name="node", repair=Delay(repair_s, "lognormal", 1.5)),),
        spares=Spares(cold=spares),
    )
    stream = of_the_floor(outages(section, nodes, Streams(3)), (), nodes, section.spares)
    shortfall = [outage.down_s != section.spares.cold_swap_s for outage in itertools.islice(stream, 40_000)]
    assert np.mean(shortfall) == pytest.approx(float(erlang_b(spares, nodes * 1e-3 * 2)), abs=0.015)


def test_a_place_that_is_empty_cannot_fail_and_hot_spares_go_first():
    events = [Outage(t, (0,), "node", 1.0, 1000.0) for t in (0.0, 30.0, 100.0, 2000.0)]
    found = list(of_the_floor(events, (), 1, Spares(hot=1, cold=1, hot_swap_s=10.0, cold_swap_s=60.0)))
    assert [(o.at_s, o.down_s) for o in found] == [(0.0, 10.0), (30.0, 60.0), (100.0, 1000.0), (2000.0, 10.0)]


def test_spares_of_one_event_are_given_to_the_nodes_one_by_one():
    found = list(
        of_the_floor([Outage(0.0, (0, 1, 2), "rack", 0.0, 500.0)], (), 3, Spares(cold=2, cold_swap_s=5.0))
    )
    assert [(o.nodes, o.down_s) for o in found] == [((0, 1), 5.0), ((2,), 500.0)]


def test_slow_spells_become_standstills_of_the_same_work_in_order():
    section = Reliability(Quantiles.exactly(1.0), stragglers=Stragglers(repair=Delay(7.0)))
    spells = [Slowdown(0.0, 1, 0.8, 1000.0), Slowdown(10.0, 2, 0.5, 30.0), Slowdown(900.0, 3, 0.8, 910.0)]
    found = list(slow_as_outages(spells, section))
    assert [(o.at_s, o.nodes[0], o.detect_s) for o in found] == [
        (20.0, 2, 10.0), (800.0, 1, pytest.approx(200.0)), (908.0, 3, pytest.approx(2.0)),
    ]  # fmt: skip
    assert {o.down_s for o in found} == {7.0}


SAVES = Recovery(100.0, 2.0, 2.0, 0.0, memory=MemoryTier(10.0, 0.0, 0.0, node_losses=1))


def one_job(events, *, losses=1, hazard=None):
    section = Reliability(
        Quantiles.exactly(1.0), checkpoints=Checkpointing(memory_interval_s=10.0, memory_node_losses=losses)
    )
    sky = Weather(section, 3, Streams(0))
    sky._seen.extend(events)
    rules = Rules(recovery=lambda job: SAVES, survives=sky.survives, hazard=hazard)
    log = simulate([Job("a", 0.0, 16, 1000.0)], [Pool(3, 8)], Fifo(), rules=rules, outages=events)
    assert account(log).gap_frac < 1e-9
    return log.segments[0]


@pytest.mark.parametrize(
    ("event", "losses", "useful_s", "lost_s"),
    [
        (Outage(157.0, (0,), "gpu", 0.0, 50.0), 1, 150.0, 5.0),
        (Outage(157.0, (0, 1), "rack", 0.0, 50.0), 1, 100.0, 55.0),
        (Outage(157.0, (0,), "gpu", 0.0, 50.0), 0, 100.0, 55.0),
        (Outage(157.0, (0, 1), "maintenance", 0.0, 50.0), 0, 153.0, 0.0),
        (Outage(157.0, (0,), "slow", 20.0, 0.0), 0, 153.0, 0.0),
    ],
)
def test_what_survives_depends_on_what_was_lost(event, losses, useful_s, lost_s):
    segment = one_job([event], losses=losses)
    assert (segment.useful_s, segment.lost_s) == (pytest.approx(useful_s), pytest.approx(lost_s))
    assert segment.undetected_s == event.detect_s


def test_a_fault_of_the_jobs_own_restores_from_memory():
    segment = one_job([], losses=0, hazard=lambda state: Hazard(157.0) if not state.failures else None)
    assert (segment.useful_s, segment.lost_s) == (pytest.approx(150.0), pytest.approx(5.0))


TEXT = """
name = "weather"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 8
[[jobs.mixes]]
name = "people"
arrivals = { rate_per_s = "60 /day" }
sizes = [ { gpus = 8, median_s = "90 min" }, { gpus = 16, median_s = "3 h", weight = 0.3 } ]
[reliability]
node_failures_per_1000_node_days = [100.0, 200.0, 800.0]
job_failures_per_day = 0.5
maintenance = { every_s = "2 d", lasts_s = "2 h", nodes_at_once = 4 }
stragglers = { onsets_per_1000_node_days = 100, detect = { mean_s = "3 h" } }
spares = { cold = 1 }
checkpoints = { memory_interval_s = "5 min", memory_node_losses = 1 }
[study]
span_s = "10 d"
failures = "draw"
"""


def test_a_drawn_rate_has_the_quantiles_that_were_given():
    scenario = loads(TEXT)
    rates = np.array([rated(scenario, Streams(k)).node_failures_per_1000_node_days.mid for k in range(600)])
    for quantile, value in ((0.1, 100.0), (0.5, 200.0), (0.9, 800.0)):
        # binomial share of draws below a quantile: 4 standard errors
        assert (rates < value).mean() == pytest.approx(
            quantile, abs=4 * math.sqrt(quantile * (1 - quantile) / 600)
        )
    other = replace(scenario, policy=replace(scenario.policy, name="fifo"))
    assert rated(other, Streams(5)) == rated(scenario, Streams(5))


def test_everything_that_can_befall_a_cluster_closes_the_books():
    staged = stage(loads(TEXT))
    log = play(staged)
    assert account(log).gap_frac < 1e-9
    causes = {away.cause for away in log.downtimes}
    assert {"maintenance", "node"} <= causes
    assert account(log).by_cause["undetected_fault"] > 0  # slow nodes: nothing else goes unnoticed here
    again = play(staged)
    assert again.records == log.records


def test_no_reliability_no_weather():
    assert weather(loads(TEXT.split("[reliability]")[0]), Streams(0)) is None
