"""A mix fitted to a history: what was put in comes out again, within the error that the number of jobs allows."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sim.importers.kinds import import_files
from sim.mixes.as_scenario import to_toml
from sim.mixes.fit import NotFittable, fit, fit_arrivals, fit_zipf
from sim.mixes.generate import generate
from sim.mixes.named import DAY_S, fine_tuning
from sim.spec.job import Job
from sim.spec.mix import Arrivals, Mix, Portion, Size

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
BY_HOUR = tuple(1.0 + (8 <= hour < 18) for hour in range(24))
TRUE = Mix(
    name="true",
    arrivals=Arrivals(600 / DAY_S, BY_HOUR, (1.2, 1.2, 1.2, 1.2, 1.2, 0.6, 0.4), burst_cv=0.5, start_hour=50),
    sizes=(
        Size(1, 0.5, median_s=900, sigma=1.2),
        Size(8, 0.4, median_s=7200, sigma=1.0),
        Size(32, 0.1, median_s=86400, sigma=0.4, kind="large"),
    ),
    limit_share=0.7,
    limit_over_duration=(1.0, 3.0, 30.0),
    users=40,
    user_zipf=1.1,
    queues=(Portion("a", 2.0), Portion("b", 1.0)),
    outcomes=(Portion("completed", 0.6), Portion("failed", 0.3), Portion("cancelled", 0.1)),
)
JOBS = list(generate(TRUE, 70 * DAY_S, 11))
FITTED = fit(
    JOBS, "again", origin="2024-01-03T02:00:00", span_s=70 * DAY_S
)  # a Wednesday: hour 50 of the week


def test_rate_day_week_and_bursts_come_out_again() -> None:
    got = FITTED.arrivals
    assert got.start_hour == 50
    # bursts dominate the error: 0.5 / sqrt(70 x 24 hours) = 1.2 %; four of it
    assert got.rate_per_s == pytest.approx(TRUE.arrivals.rate_per_s, rel=0.05)
    hours = np.asarray(BY_HOUR) / np.mean(BY_HOUR)
    # each hour of the day was seen 70 times: 0.5 / sqrt(70) = 6 %
    assert np.abs(np.asarray(got.by_hour) / hours - 1).max() < 4 * 0.06
    days = np.asarray(TRUE.arrivals.by_weekday) / np.mean(TRUE.arrivals.by_weekday)
    assert np.abs(np.asarray(got.by_weekday) / days - 1).max() < 4 * 0.5 / np.sqrt(240)
    assert got.burst_cv == pytest.approx(0.5, rel=0.1)


def test_sizes_and_run_times_come_out_again() -> None:
    total = sum(size.weight for size in FITTED.sizes)
    for fitted, true in zip(FITTED.sizes, TRUE.sizes, strict=True):
        assert (fitted.gpus, fitted.kind) == (true.gpus, true.kind)
        assert fitted.weight / total == pytest.approx(true.weight, abs=4 * np.sqrt(0.25 / len(JOBS)))
        steps = np.linspace(0, 1, len(fitted.quantiles_s))[4:-4]
        law = stats.lognorm(true.sigma, scale=true.median_s)
        assert np.log(fitted.quantiles_s[4:-4]) == pytest.approx(np.log(law.ppf(steps)), abs=0.2 * true.sigma)


def test_users_limits_queues_and_ends_come_out_again() -> None:
    assert FITTED.users == 40
    assert FITTED.user_zipf == pytest.approx(1.1, abs=0.05)
    assert FITTED.limit_share == pytest.approx(0.7, abs=0.01)
    middle = FITTED.limit_over_duration[len(FITTED.limit_over_duration) // 2]
    assert middle == pytest.approx(3.0, rel=0.05)
    assert {one.name: round(one.weight / len(JOBS), 2) for one in FITTED.queues} == pytest.approx(
        {"a": 0.67, "b": 0.33}, abs=0.02
    )
    ends = {one.name: one.weight / len(JOBS) for one in FITTED.outcomes}
    assert ends == pytest.approx({"completed": 0.6, "failed": 0.3, "cancelled": 0.1}, abs=0.01)


def test_jobs_made_from_the_fit_are_like_the_history() -> None:
    made = list(generate(FITTED, 70 * DAY_S, 4))
    assert len(made) == pytest.approx(len(JOBS), rel=0.06)
    for gpus in (1, 8, 32):
        both = [[job.duration_s for job in jobs if job.gpus == gpus] for jobs in (JOBS, made)]
        assert stats.ks_2samp(*both).statistic < 0.05
    work = [sum(job.gpus * job.duration_s for job in jobs) / len(jobs) for jobs in (JOBS, made)]
    assert work[1] == pytest.approx(work[0], rel=0.05)


def test_a_poisson_stream_shows_no_bursts() -> None:
    mix = dataclasses.replace(TRUE, arrivals=dataclasses.replace(TRUE.arrivals, burst_cv=0.0))
    times = np.asarray([job.submit_s for job in generate(mix, 35 * DAY_S, 2)])
    assert fit_arrivals(times, 35 * DAY_S, 50.0).burst_cv < 0.06


def test_a_short_history_tells_no_weekdays() -> None:
    week = fit([job for job in JOBS if job.submit_s < 7 * DAY_S])
    assert (len(week.arrivals.by_hour), week.arrivals.by_weekday) == (24, ())
    day = fit([job for job in JOBS if job.submit_s < DAY_S])
    assert day.arrivals.by_hour == ()


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.5])
def test_zipf_exponents_of_exact_counts(exponent: float) -> None:
    counts = [round(1e7 * k**-exponent) for k in range(1, 60)]
    assert fit_zipf(counts) == pytest.approx(exponent, abs=1e-3)
    assert fit_zipf([17]) == 0


def test_jobs_still_running_count_as_submissions_alone() -> None:
    ended = [Job(f"e{i}", i * 60.0, 1, 100.0) for i in range(50)]
    running = [Job(f"r{i}", 3000.0 + i, 1, 5.0, outcome="running") for i in range(50)]
    mix = fit([*ended, *running])
    assert mix.sizes[0].weight == 100
    assert set(mix.sizes[0].quantiles_s) == {100.0}
    assert [one.name for one in mix.outcomes] == ["completed"]


def test_histories_that_cannot_be_fitted() -> None:
    with pytest.raises(NotFittable, match="at least two"):
        fit([Job("a", 0, 1, 10)])
    with pytest.raises(NotFittable, match="submitted at once"):
        fit([Job("a", 0, 1, 10), Job("b", 0, 1, 10)])


def test_a_month_of_philly() -> None:
    file = SHARED / "scheduling" / "lucid_philly-11cb48-2017-11_5x8_fifo.csv.gz"
    if not file.exists():
        pytest.skip("scheduling is not beside the repository")
    got = import_files("schedule", [file])
    mix = fit(got.jobs)
    span = got.jobs[-1].submit_s
    made = list(generate(mix, span, 1))
    assert len(made) == pytest.approx(len(got.jobs), rel=0.3)  # bursts: hours differ by more than their mean
    for jobs in (made, got.jobs):
        assert sum(job.gpus == 1 for job in jobs) / len(jobs) == pytest.approx(
            mix.sizes[0].weight / len(got.jobs), abs=0.03
        )


def test_fitting_what_is_off_the_shelf_keeps_its_bursts() -> None:
    jobs = list(generate(fine_tuning(800), 60 * DAY_S, 9))
    assert fit(jobs).arrivals.burst_cv == pytest.approx(0.7, rel=0.15)


def test_a_fitted_mix_is_written_down_and_read_back() -> None:
    written = tomllib.loads(to_toml(FITTED))["jobs"]["mixes"][0]
    parts = {"arrivals": Arrivals(**_tuples(written.pop("arrivals")))}
    for name, noun in (("sizes", Size), ("queues", Portion), ("outcomes", Portion)):
        parts[name] = tuple(noun(**_tuples(one)) for one in written.pop(name))
    again = Mix(**parts, **_tuples(written))
    assert to_toml(again) == to_toml(FITTED)
    assert again.arrivals.rate_per_s == pytest.approx(FITTED.arrivals.rate_per_s, rel=1e-5)
    assert [size.gpus for size in again.sizes] == [size.gpus for size in FITTED.sizes]
    assert again.sizes[1].quantiles_s == pytest.approx(FITTED.sizes[1].quantiles_s, rel=1e-5)
    assert again.users == 40


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
