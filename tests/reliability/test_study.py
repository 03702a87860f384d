"""Replications of a long job: same bytes on any number of workers, and where the inputs come from."""

from __future__ import annotations

import math

import pytest

from sim.cluster.failures.checkpoints import SavedState
from sim.cluster.failures.closed_form import shadow
from sim.cluster.failures.long_job import LongJob
from sim.cluster.failures.study import JobStudy, inputs_of, replicate_job, study_of
from sim.cluster.recovery import Recovery
from sim.cost.goodput import goodput_frac
from sim.cost.storage import Storage
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Cause, Checkpointing, Delay, Reliability, Spares
from sim.statistics.replications import Rule

DAY = 86400.0
JOB = LongJob(2048, Recovery(500.0, 20.0, 20.0, 300.0), spares=Spares(cold=64, cold_swap_s=0.0))


def test_replications_are_the_same_bytes_on_any_number_of_workers() -> None:
    study = JobStudy(JOB, Reliability(rates="rsc-1"), 10 * DAY, seed=3)
    rule = Rule(0.05, most=12)
    assert repr(replicate_job(study, rule)) == repr(replicate_job(study, rule, workers=3))
    other = JobStudy(JOB, Reliability(rates="rsc-1"), 10 * DAY, seed=4)
    assert replicate_job(study, rule) != replicate_job(other, rule)


def test_the_interval_covers_the_exact_goodput() -> None:
    section = Reliability(Quantiles(2.0, 6.5, 9.0), causes=(Cause("node"),))
    for level, rate in (("mid", 6.5), ("high", 9.0)):
        got = replicate_job(JobStudy(JOB, section, 20 * DAY, level=level)).interval("goodput_frac")
        mean = DAY / (2048 * rate / 1000)
        exact = float(goodput_frac(mean, 500.0, 20.0, 300.0, fails_while_restarting=True))
        assert abs(got.estimate - exact) < 2 * got.half_width
        assert got.half_width < 0.02


def test_an_answer_says_what_was_published_and_what_assumed() -> None:
    kinds = {item.name: item.kind for item in inputs_of(Reliability(rates="llama-3-405b"))}
    assert kinds["failures per 1,000 node-days"] == "published"
    assert kinds["shares of causes"] == "published"
    assert kinds["gpu: detection and repair"] == "assumed"
    assert all(item.source for item in inputs_of(Reliability(rates="rsc-2")))
    own = inputs_of(Reliability(Quantiles(1.0, 2.0, 3.0), causes=(Cause("gpu"),)))
    assert {item.kind for item in own} == {"given"}
    mixed = {
        item.name: item.kind for item in inputs_of(Reliability(Quantiles(1.0, 2.0, 3.0), "llama-3-405b"))
    }
    assert mixed["failures per 1,000 node-days"] == "given"
    assert mixed["shares of causes"] == "published"


def test_snapshots_in_memory_pay_where_software_fails() -> None:
    """The same weather with and without the memory tier; failures of the job itself are most of all."""
    state = SavedState(1e13, 128, Storage(5e11, 2e11), host_bytes_per_s=2e10, peer_bytes_per_s=5e10)
    causes = (Cause("node", 1.0), Cause("software", 4.0, "job"))
    goodput = []
    for step, losses in ((None, 0), (120.0, 0), (120.0, 1)):
        plan = Checkpointing(requeue_s=60.0, memory_interval_s=step, memory_node_losses=losses)
        section = Reliability(Quantiles.exactly(60.0), causes=causes, spares=Spares(cold=4), checkpoints=plan)
        study = study_of(section, 128, state, 20 * DAY)
        goodput.append(sum(study.answers(number)["goodput_frac"] for number in range(4)) / 4)
    assert goodput[0] < goodput[1] < goodput[2]


def test_every_published_cluster_can_be_played() -> None:
    for name in ("rsc-2", "opt-175b", "bloom-176b", "skt-b200", "delta-h100", "titan-old-batch"):
        job = LongJob(128, Recovery(1800.0, 30.0, 30.0, 600.0), spares=Spares(cold=8))
        answers = JobStudy(job, Reliability(rates=name), 30 * DAY).answers(0)
        assert answers["goodput_frac"] > 0.6, name
        shares = [
            answers[f"{part}_frac"] for part in ("productive", "checkpoint", "lost", "restart", "waiting")
        ]
        assert sum(shares) + answers["undetected_frac"] + answers["slowed_frac"] == pytest.approx(1), name


@pytest.mark.parametrize(
    "plan", [Checkpointing(requeue_s=200.0), Checkpointing("asynchronous", memory_interval_s=90.0)]
)
def test_the_shadow_is_close_to_the_run(plan: Checkpointing) -> None:
    """Goodput and interruptions within 1.5 % of 12 runs of 60 days (standard error about 0.5 %), few spares
    included."""
    state = SavedState(5e12, 512, Storage(5e11, 2e11), host_bytes_per_s=2e10, peer_bytes_per_s=5e10)
    causes = (
        Cause("gpu", 3.0, detect=Delay(90.0), repair=Delay(4 * 3600.0, "lognormal", 2.0)),
        Cause("software", 1.0, "job", detect=Delay(60.0)),
    )
    section = Reliability(
        Quantiles.exactly(20.0), causes=causes, spares=Spares(cold=3, cold_swap_s=120.0), checkpoints=plan
    )
    study = study_of(section, 512, state, 60 * DAY)
    expected = shadow(study)
    answers = [study.answers(number) for number in range(12)]
    for name in ("goodput_frac", "interruptions"):
        assert sum(answer[name] for answer in answers) / 12 == pytest.approx(
            getattr(expected, name), rel=0.015
        )
    assert expected.beyond == ()
    assert 0 < expected.stall_frac < 0.1


def test_the_shadow_says_where_it_does_not_hold() -> None:
    section = Reliability(
        Quantiles.exactly(5.0), causes=(Cause("gpu", weibull_shape=2.0), Cause("rack", scope="rack"))
    )
    job = LongJob(64, Recovery(), min_nodes=32, spares=Spares(hot=2))
    assert len(shadow(JobStudy(job, section, DAY)).beyond) == 5
    assert shadow(JobStudy(JOB, Reliability(Quantiles.exactly(0.0)), DAY)).goodput_frac == 1


def test_the_shadow_of_a_short_job_without_checkpoints() -> None:
    """Work over mean completion, (M + R)(exp(T / M) - 1)."""
    job = LongJob(100, Recovery(restart_s=60.0), work_s=6 * 3600.0)
    mean = DAY / (100 * 0.0065)
    expected = job.work_s / ((mean + 60.0) * math.expm1(job.work_s / mean))
    found = shadow(JobStudy(job, Reliability(Quantiles.exactly(6.5)), math.inf))
    assert found.goodput_frac == pytest.approx(expected)
    assert found.beyond == ("a job without checkpoints",)
