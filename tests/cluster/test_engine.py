"""Runs small enough to be followed by hand."""

from __future__ import annotations

import math

import pytest

from sim.cluster.board import TraceError
from sim.cluster.nodes import Nodes, Pool
from sim.cluster.outage import Outage
from sim.cluster.placement.whole import Packed
from sim.cluster.policies.order import Fifo
from sim.cluster.policies.preemptive import Srtf, Tiresias
from sim.cluster.policies.shares import FairShare
from sim.cluster.policy import Cancel, FunctionPolicy, PolicyError, Preempt, Resize, Start, Wake
from sim.cluster.recovery import Recovery
from sim.cluster.rules import Hazard, Rules
from sim.cluster.run import simulate
from sim.results.cluster_log import Placed, Sink, account
from sim.spec.job import Job


def stretches(log):
    return [(row.job, row.start_s, row.end_s, row.why) for row in log.segments]


def test_an_outage_costs_detection_repair_and_what_was_not_durable() -> None:
    """Fault at 50, noticed at 60, back at 90: 40 s are durable (interval 20), so 60 s of work are left, after 5 s of
    restart."""
    rules = Rules(recovery=lambda job: Recovery(20.0, 0.0, 1.0, 5.0))
    log = simulate(
        [Job("a", 0.0, 4, 100.0)],
        [Pool(1, 4)],
        Fifo(),
        rules=rules,
        outages=[Outage(50.0, (0,), "gpu", 10.0, 30.0)],
    )
    assert stretches(log) == [("a", 0, 60, "failed"), ("a", 90, 155, "completed")]
    assert account(log).by_cause == pytest.approx(
        {
            "useful": 400, "lost": 40, "undetected_fault": 40, "restart": 20, "down": 120,
            "checkpoint": 0, "preemption_overhead": 0, "contention": 0, "interference": 0,
            "idle_nobody_waits": 0, "idle_though_jobs_wait": 0,
        }
    )  # fmt: skip
    assert [(down.node, down.start_s, down.end_s) for down in log.downtimes] == [(0, 60, 90)]


def test_a_job_sent_to_a_broken_node_gets_nothing_done() -> None:
    log = simulate(
        [Job("a", 55.0, 4, 2.0)], [Pool(1, 4)], Fifo(), outages=[Outage(50.0, (0,), "gpu", 10.0, 30.0)]
    )
    assert stretches(log) == [("a", 55, 60, "failed"), ("a", 90, 92, "completed")]
    assert log.segments[0].undetected_s == 5


def test_a_hazard_hits_the_stretch_it_was_drawn_for() -> None:
    draws = iter([Hazard(10.0, 5.0)])
    log = simulate(
        [Job("a", 0.0, 1, 30.0)], [Pool(1, 1)], Fifo(), rules=Rules(hazard=lambda state: next(draws, None))
    )
    assert stretches(log) == [("a", 0, 15, "failed"), ("a", 15, 45, "completed")]
    assert (log.segments[0].lost_s, log.segments[0].undetected_s) == (10, 5)
    assert log.records[0].failures == 1


def test_preemption_costs_its_overhead_and_nothing_else() -> None:
    rules = Rules(preemption_overhead_s=lambda job: 7.0)
    log = simulate(
        [Job("long", 0.0, 2, 100.0), Job("short", 10.0, 2, 5.0)], [Pool(1, 2)], Srtf(), rules=rules
    )
    assert stretches(log) == [
        ("long", 0, 10, "preempted"), ("short", 10, 15, "completed"), ("long", 15, 112, "completed"),
    ]  # fmt: skip
    assert account(log).by_cause["preemption_overhead"] == 14


def test_time_limit_ends_a_job_and_keeps_what_was_durable() -> None:
    rules = Rules(kill_at_limit=True, recovery=lambda job: Recovery(30.0, 0.0, 0.0, 0.0))
    log = simulate(
        [Job("a", 0.0, 1, 100.0, 50.0), Job("b", 0.0, 1, 50.0, 50.0)], [Pool(1, 2)], Fifo(), rules=rules
    )
    assert {record.job: (record.end_s, record.outcome) for record in log.records} == {
        "a": (50, "timeout"), "b": (50, "completed"),
    }  # fmt: skip
    assert sum(row.lost_s for row in log.segments if row.job == "a") == 20


def test_resizing_conserves_work_under_the_speed_up() -> None:
    """100 s on 2 devices, half the rate on 1, and a rate of 1.5 on 4: 20 + 10 of work by 40 s, 70 are left: 46.67 s."""
    rates = {1: 0.5, 2: 1.0, 4: 1.5}

    def grow(view):
        for state in view.waiting:
            yield Start(state)
        for state in view.running:
            wanted = 1 if 20 <= view.now_s < 40 else 4 if view.now_s >= 40 else 2
            if wanted != state.gpus:
                assert (yield Resize(state, wanted))
        yield Wake(20.0 if view.now_s < 20 else 40.0 if view.now_s < 40 else math.inf)

    job = Job("a", 0.0, 2, 100.0, min_gpus=1, max_gpus=4)
    log = simulate(
        [job], [Pool(1, 4)], FunctionPolicy(grow, idle_passes=True),
        rules=Rules(rate=lambda state, gpus, speed, placed: rates[gpus]),
    )  # fmt: skip
    assert [(row.gpus, row.end_s) for row in log.segments] == [
        (2, 20),
        (1, 40),
        (4, pytest.approx(40 + 70 / 1.5)),
    ]
    assert account(log).gap_frac < 1e-9


def test_a_faster_pool_does_the_work_sooner() -> None:
    log = simulate(
        [Job("a", 0.0, 1, 30.0, accelerator="h100")], [Pool(1, 1, "a100"), Pool(1, 1, "h100", 3.0)], Fifo()
    )
    assert stretches(log) == [("a", 0, 10, "completed")]


def test_a_run_is_cut_at_a_time_and_says_what_is_open() -> None:
    jobs = [Job("a", 0.0, 1, 100.0), Job("b", 1.0, 1, 100.0), Job("huge", 2.0, 9, 1.0)]
    log = simulate(jobs, [Pool(1, 1)], Fifo(), until_s=50.0)
    assert {record.job: record.outcome for record in log.records} == {
        "a": "running",
        "b": "waiting",
        "huge": "refused",
    }
    assert log.span_s == 50
    assert account(log).by_cause["useful"] == 50


def test_a_lazy_trace_is_read_one_job_ahead_and_a_sink_takes_the_log() -> None:
    class Counter(Sink):
        def __init__(self) -> None:
            self.segments, self.records, self.rows = [], [], 0

        def segment(self, row) -> None:
            self.rows += 1

        record = segment

    read = 0

    def trace():
        nonlocal read
        for number in range(1000):
            read += 1
            assert read <= sink.rows // 2 + 3
            yield Job(str(number), 10.0 * number, 1, 5.0)

    sink = Counter()
    log = simulate(trace(), [Pool(1, 1)], Fifo(), sink=sink)
    assert (sink.rows, len(log.segments), log.span_s) == (2000, 0, 9995.0)


def test_a_trace_that_runs_backwards_is_refused_by_name() -> None:
    with pytest.raises(TraceError, match=r"'b'.*sorted"):
        simulate([Job("a", 5.0, 1, 1.0), Job("b", 1.0, 1, 1.0)], [Pool(1, 1)], Fifo())


def test_tiresias_demotes_when_the_threshold_is_passed() -> None:
    log = simulate([Job("a", 0.0, 2, 100.0), Job("b", 10.0, 2, 10.0)], [Pool(1, 2)], Tiresias((60.0,)))
    assert [(row.job, row.why) for row in log.segments] == [
        ("a", "preempted"),
        ("b", "completed"),
        ("a", "completed"),
    ]
    assert log.segments[0].end_s == pytest.approx(30.0, abs=1e-4)


def test_fair_share_forgets_with_its_half_life() -> None:
    """a used 100 s long ago, b 40 s just now: without decay a has had more, with a half-life of 50 s b has."""
    jobs = [Job("a1", 0.0, 1, 100.0, queue="a"), Job("b1", 300.0, 1, 40.0, queue="b"),
            Job("b2", 320.0, 1, 10.0, queue="b"), Job("a2", 330.0, 1, 10.0, queue="a")]  # fmt: skip
    second = {
        half_life_s: simulate(jobs, [Pool(1, 1)], FairShare(half_life_s=half_life_s)).segments[2].job
        for half_life_s in (math.inf, 50.0)
    }
    assert second == {math.inf: "b2", 50.0: "a2"}


def broken(view):
    for state in view.waiting:
        yield Start(state)
        raise KeyError("oops")


def twice(view):
    for state in view.waiting:
        yield Start(state)
        yield Start(state)


def circles(view):
    while True:
        yield Start(view.waiting.first)


def awake(view):
    yield Wake(view.now_s)


def double(view):
    for state in view.waiting:
        yield Start(state, placed=Placed(0, ((0, state.gpus),), ()))


def nonsense(view):
    return ["start"]


def idle_preempt(view):
    for state in view.waiting:
        yield Preempt(state)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (broken, "broken raised KeyError: 'oops' at 0.0 s, after the decision Start of job 'a'"),
        (twice, "twice: job 'a' is started twice"),
        (circles, "circles goes in circles"),
        (awake, "awake: 1000 passes in a row changed nothing"),
        (double, "double: job 'b' is given devices that are not free"),
        (nonsense, "nonsense: 'start' is no decision"),
        (idle_preempt, "idle_preempt: job 'a' is preempted but does not run"),
    ],
)
def test_a_policy_that_breaks_the_rules_is_stopped_by_name(policy, message: str) -> None:
    jobs = [Job("a", 0.0, 1, 5.0), Job("b", 0.0, 2, 5.0)]
    with pytest.raises(PolicyError) as caught:
        simulate(jobs, Nodes([Pool(1, 2)], Packed()), FunctionPolicy(policy))
    assert message in str(caught.value)


def test_a_loss_system_turns_away_who_does_not_fit() -> None:
    def loss(view):
        for state in view.waiting:
            if not (yield Start(state)):
                yield Cancel(state)

    log = simulate([Job("a", 0.0, 1, 5.0), Job("b", 1.0, 1, 5.0)], [Pool(1, 1)], FunctionPolicy(loss))
    assert [(record.job, record.outcome) for record in log.records] == [("b", "refused"), ("a", "completed")]
