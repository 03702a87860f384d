"""Jobs of a mix: their moments are those of the recipe. Seeds are fixed, levels 1 in 1,000."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.importers.job_table import write_csv
from sim.mixes.draw import HOUR_S, quantile_function, week_factors
from sim.mixes.generate import generate
from sim.mixes.named import DAY_S, fine_tuning, notebooks, pretraining
from sim.spec.mix import Arrivals, Cycle, Jobs, Mix, Portion, Search, Service, Size

LEVEL = 1e-3
BY_HOUR = tuple(float(1 + (9 <= hour < 18) * 3) for hour in range(24))
BY_WEEKDAY = (1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.3)
MIX = Mix(
    name="m",
    arrivals=Arrivals(300 / DAY_S, BY_HOUR, BY_WEEKDAY, start_hour=30),
    sizes=(
        Size(1, 6, median_s=600, sigma=1.5),
        Size(8, 3, quantiles_s=(60.0, 3600.0, 7200.0, 86400.0)),
        Size(64, 1, median_s=86400, sigma=0.5, kind="large"),
    ),
    limit_share=0.6,
    limit_over_duration=(1.0, 2.0, 10.0),
    users=20,
    user_zipf=1.2,
    queues=(Portion("a", 3), Portion("b", 1)),
    outcomes=(Portion("completed", 7), Portion("failed", 2), Portion("cancelled", 1)),
)
JOBS = list(generate(MIX, 60 * DAY_S, seed=5))


def chi_square(seen: list[float], expected: list[float]) -> float:
    """Probability of counts at least as far from what is expected, in total and shares."""
    return float(stats.chisquare(seen, np.asarray(expected) * sum(seen) / sum(expected)).pvalue)


def test_arrivals_follow_the_hours_of_the_week() -> None:
    factors = week_factors(MIX.arrivals)
    assert factors.mean() == pytest.approx(1)
    hours = np.asarray([int(job.submit_s // HOUR_S + 30) % 168 for job in JOBS])
    slots = np.bincount((30 + np.arange(60 * 24)) % 168, minlength=168)
    assert chi_square(np.bincount(hours, minlength=168).tolist(), (factors * slots).tolist()) > LEVEL
    expected = 300 / 24 * float((factors * slots).sum())
    assert abs(len(JOBS) - expected) < 4 * math.sqrt(expected)
    within = np.asarray([job.submit_s % HOUR_S / HOUR_S for job in JOBS])
    assert stats.kstest(within, "uniform").pvalue > LEVEL


def test_sizes_users_queues_and_ends_have_their_shares() -> None:
    def share(values: list[object], weights: dict[object, float]) -> float:
        return chi_square([values.count(key) for key in weights], list(weights.values()))

    assert share([job.gpus for job in JOBS], {size.gpus: size.weight for size in MIX.sizes}) > LEVEL
    assert share([job.queue for job in JOBS], {"a": 3, "b": 1}) > LEVEL
    assert share([job.outcome for job in JOBS], {"completed": 7, "failed": 2, "cancelled": 1}) > LEVEL
    assert share([job.user for job in JOBS], {f"m-u{k}": k**-1.2 for k in range(1, 21)}) > LEVEL
    limited = sum(job.limit_s is not None for job in JOBS)
    assert stats.binomtest(limited, len(JOBS), 0.6).pvalue > LEVEL


def test_run_times_follow_their_distribution() -> None:
    by_size = {gpus: [job.duration_s for job in JOBS if job.gpus == gpus] for gpus in (1, 8, 64)}
    assert stats.kstest(by_size[1], stats.lognorm(1.5, scale=600).cdf).pvalue > LEVEL
    assert stats.kstest(by_size[64], stats.lognorm(0.5, scale=86400).cdf).pvalue > LEVEL
    logs, steps = np.log(MIX.sizes[1].quantiles_s), np.linspace(0, 1, 4)
    assert stats.kstest(np.log(by_size[8]), lambda x: np.interp(x, logs, steps)).pvalue > LEVEL
    over = [job.limit_s / job.duration_s for job in JOBS if job.limit_s]
    assert stats.kstest(np.log(over), lambda x: np.interp(x, np.log([1, 2, 10]), [0, 0.5, 1])).pvalue > LEVEL


def test_bursts_spread_the_hourly_counts_as_a_negative_binomial() -> None:
    arrivals = Arrivals(20 / HOUR_S, burst_cv=0.8)
    mix = dataclasses.replace(MIX, arrivals=arrivals)
    counts = np.bincount(
        [int(job.submit_s // HOUR_S) for job in generate(mix, 5000 * HOUR_S, 1)], minlength=5000
    )
    shape = 1 / 0.8**2
    law = stats.nbinom(shape, shape / (shape + 20))
    edges = law.ppf(np.linspace(0.05, 0.95, 19)).astype(int)
    cells = np.searchsorted(edges, counts, side="left")
    expected = np.diff(np.concatenate([[0], law.cdf(edges), [1]])) * 3000
    assert chi_square(np.bincount(cells, minlength=20).tolist(), expected.tolist()) > LEVEL


def test_growth_compounds() -> None:
    mix = dataclasses.replace(MIX, arrivals=Arrivals(2 / HOUR_S, growth_per_year=3.0))
    year = 365.25 * DAY_S
    times = np.asarray([job.submit_s for job in generate(mix, 2 * year, 3)])
    first, second = (times < year).sum(), (times >= year).sum()
    # second is Poisson with three times the mean of first
    assert stats.binomtest(int(second), int(first + second), 0.75).pvalue > LEVEL
    expected = 2 * 24 * 365.25 * (3**2 - 1) / math.log(3)
    assert len(times) == pytest.approx(expected, abs=4 * math.sqrt(expected))


def test_a_timeout_ends_at_its_limit() -> None:
    mix = dataclasses.replace(MIX, outcomes=(Portion("timeout", 1),), limit_share=1.0)
    assert all(job.duration_s == job.limit_s for job in generate(mix, 3 * DAY_S))


EVERYTHING = Jobs(
    mixes=(MIX, notebooks(100), fine_tuning(80), pretraining(4)),
    searches=(Search("hyper", 1 / DAY_S),),
    cycles=(Cycle("daily"),),
    services=(Service("chat"),),
)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    first, again, other = (write_csv(generate(EVERYTHING, 10 * DAY_S, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_recipe_more_leaves_the_others_jobs_as_they_were() -> None:
    alone = list(generate(MIX, 10 * DAY_S, 7))
    together = [job for job in generate(EVERYTHING, 10 * DAY_S, 7) if job.name.startswith("m-")]
    assert alone == together


@given(st.integers(0, 10**6), st.floats(0, 9 * DAY_S))
@settings(max_examples=10, deadline=None)
def test_jobs_come_in_order_within_the_span_under_names_of_their_own(seed: int, span_s: float) -> None:
    jobs = list(generate(EVERYTHING, span_s, seed))
    assert all(a.submit_s <= b.submit_s for a, b in pairwise(jobs))
    assert all(0 <= job.submit_s < span_s for job in jobs)
    assert len({job.name for job in jobs}) == len(jobs)
    assert all(job.duration_s > 0 and (job.limit_s is None or job.limit_s >= job.duration_s) for job in jobs)


def test_a_longer_span_begins_with_the_same_jobs() -> None:
    short = list(generate(MIX, 40 * HOUR_S, 7))
    assert list(islice(generate(MIX, 10_000 * HOUR_S, 7), len(short))) == short


def test_memory_does_not_grow_with_the_span() -> None:
    def peak(days: int) -> int:
        tracemalloc.start()
        made = sum(1 for _ in generate(EVERYTHING, days * DAY_S, 1))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert made > 100 * days
        return used

    peak(2)
    assert peak(12) < 1.5 * peak(4)


def test_recipes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="two recipes are called 'daily'"):
        list(generate(Jobs(cycles=(Cycle("daily"), Cycle("daily"))), DAY_S))
    with pytest.raises(ValueError, match="span_s"):
        generate(MIX, float("nan"))
    with pytest.raises(ValueError, match="by_hour has 23 factors"):
        Arrivals(1.0, (1.0,) * 23)
    with pytest.raises(ValueError, match="do not fall"):
        Size(1, quantiles_s=(2.0, 1.0))
    with pytest.raises(ValueError, match="below least_replicas"):
        Service("s", 5, 4)
    with pytest.raises(ValueError, match="sizes"):
        Mix(Arrivals(1.0), (), "m")


def test_every_field_of_a_recipe_says_what_it_means() -> None:
    for noun in (Arrivals, Size, Portion, Mix, Search, Cycle, Service):
        untold = [f.name for f in dataclasses.fields(noun) if "meaning" not in f.metadata]
        assert set(untold) <= {"arrivals", "sizes", "queues", "outcomes"}


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=9).map(sorted), st.floats(0, 1))
def test_a_quantile_function_stays_within_its_values_and_rises(
    values: list[float], probability: float
) -> None:
    low, high = quantile_function(values, np.asarray([probability * 0.9, probability]))
    assert values[0] * (1 - 1e-12) <= low <= high * (1 + 1e-12) <= values[-1] * (1 + 1e-9)
