"""The engine against queueing theory: means of long runs inside their own 99.9 % intervals, and Little's law."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sim.cluster.nodes import Nodes, Pool
from sim.cluster.placement.whole import Anywhere
from sim.cluster.policies.order import Fifo, Priority, Sjf
from sim.cluster.policies.preemptive import PriorityPreempt, Srtf
from sim.cluster.policy import Cancel, FunctionPolicy, Policy, Start
from sim.cluster.run import simulate
from sim.results.cluster_log import ClusterLog
from sim.spec.job import Job

JOBS = 20_000


def loss(view):
    """Whoever does not fit goes away."""
    for state in view.waiting:
        if not (yield Start(state)):
            yield Cancel(state)


def poisson(
    rate: float, service: Callable[[np.random.Generator, int], np.ndarray], gpus: int = 1, seed: int = 1
) -> Iterator[Job]:
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate, JOBS))
    for number, (at_s, duration_s) in enumerate(zip(arrivals, service(draw, JOBS), strict=True)):
        yield Job(str(number), float(at_s), gpus, float(duration_s))


def exponential(draw: np.random.Generator, count: int) -> np.ndarray:
    return draw.exponential(1.0, count)


def play(jobs: Iterator[Job], gpus: int, policy: Policy) -> ClusterLog:
    return simulate(jobs, Nodes([Pool(gpus, 1)], Anywhere()), policy)


def batch_means(values: np.ndarray, expected: float) -> None:
    """The expected mean lies in the 99.9 % interval of batch means (the first tenth is warm-up)."""
    batches = values[len(values) // 10 :][: len(values) * 9 // 10 // 20 * 20].reshape(20, -1).mean(axis=1)
    error = batches.std(ddof=1) / math.sqrt(20)
    assert abs(batches.mean() - expected) <= 3.88 * error  # Student's t, 19 degrees of freedom, 99.9 %
    assert error < 0.2 * expected, "the run says something"


def waits(log: ClusterLog) -> np.ndarray:
    rows = sorted(log.records, key=lambda record: record.number)
    return np.array([row.wait_s for row in rows])


@pytest.mark.parametrize(
    ("rate", "gpus", "service", "policy", "expected"),
    [
        # Erlang C: Kleinrock, Queueing Systems I, section 3.5
        (1.6, 2, exponential, Fifo(), 1.7777777777777783),
        # Pollaczek-Khinchine: Kleinrock I, section 5.6
        (0.8, 1, lambda draw, count: np.ones(count), Fifo(), 2.0),
        (0.6, 1, lambda draw, count: draw.gamma(4, 0.25, count), Fifo(), 0.9375),
        # Phipps (1956)
        (0.8, 1, exponential, Sjf(), 1.8822186162397774),
        # Schrage and Miller (1966): mean response less the mean service
        (0.8, 1, exponential, Srtf(), 2.3527732702997217 - 1),
    ],
)
def test_mean_wait(rate: float, gpus: int, service, policy: Policy, expected: float) -> None:
    log = play(poisson(rate, service), gpus, policy)
    batch_means(waits(log), expected)
    assert log.waiting_job_s == pytest.approx(
        waits(log).sum(), rel=1e-9
    )  # Little's law, without any assumption


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        # Cobham (1954): waits; Kleinrock II, section 3.6: preemptive resume, responses less the mean service
        (Priority(), (1.0, 3.333333333333334)),
        (PriorityPreempt(), (1.4285714285714286 - 1, 4.761904761904763 - 1)),
    ],
)
def test_two_classes(policy: Policy, expected: tuple[float, float]) -> None:
    draw = np.random.default_rng(3)
    classes = draw.random(JOBS) < 0.3 / 0.7
    jobs = [
        Job(job.name, job.submit_s, 1, job.duration_s, priority=float(first))
        for job, first in zip(poisson(0.7, exponential, seed=4), classes, strict=True)
    ]
    log = play(iter(jobs), 1, policy)
    for first, mean in zip((True, False), expected, strict=True):
        batch_means(waits(log)[classes == first], mean)


def test_blocking_of_gangs_is_kaufman_and_roberts() -> None:
    """8 devices; gangs of 1, 2, 4 with 2, 1, 0.5 erlang (Kaufman 1981, Roberts 1981)."""
    draw = np.random.default_rng(5)
    sizes = draw.choice([1, 2, 4], JOBS, p=np.array([2.0, 1.0, 0.5]) / 3.5)
    jobs = [
        Job(job.name, job.submit_s, int(size), job.duration_s)
        for job, size in zip(poisson(3.5, exponential, seed=6), sizes, strict=True)
    ]
    log = play(iter(jobs), 8, FunctionPolicy(loss))
    rows = sorted(log.records, key=lambda record: record.number)
    lost = np.array([row.outcome == "refused" for row in rows])
    for size, expected in ((1, 0.09853366956196878), (2, 0.214594813361975), (4, 0.49005323620061636)):
        batch_means(lost[sizes == size].astype(float), expected)


def test_saturated_gangs_behind_a_blocking_head() -> None:
    """Endless queue, half the gangs take one of two devices and half take both: utilisation 6/7 (exact Markov
    chain)."""
    draw = np.random.default_rng(7)
    jobs = [
        Job(str(number), 0.0, int(size), float(duration_s))
        for number, (size, duration_s) in enumerate(
            zip(draw.choice([1, 2], 20_000), draw.exponential(1.0, 20_000), strict=True)
        )
    ]
    log = play(iter(jobs), 2, Fifo())
    used = sum(row.gpus * row.useful_s for row in log.segments)
    assert used / (2 * log.span_s) == pytest.approx(0.8571428571428573, rel=0.015)
