"""From a ``Mix`` to jobs, day by day, like a till that prints one receipt at a time.

Only one day's jobs are ever held, so that a decade costs no more memory than a week.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.spec.job import Job
from sim.spec.mix import HOURS_PER_DAY, HOURS_PER_WEEK, Arrivals, Mix, Portion, Size

HOUR_S = 3600.0
YEAR_S = 365.25 * 86400.0

Floats = NDArray[np.float64]


def week_factors(arrivals: Arrivals) -> Floats:
    """Shape (168,): factor of each hour of the week, mean 1."""
    hours = np.asarray(arrivals.by_hour or np.ones(HOURS_PER_DAY), dtype=float)
    days = np.asarray(arrivals.by_weekday or np.ones(7), dtype=float)
    factors = np.outer(days, hours).ravel()
    scaled: Floats = factors / factors.mean()
    return scaled


def quantile_function(values: Sequence[float], probability: Floats) -> Floats:
    """Values at ``probability`` (0..1) of the distribution whose quantiles at even steps are ``values`` (all > 0).

    Straight lines in the logarithm: run times span decades.
    """
    steps = np.linspace(0.0, 1.0, len(values))
    found: Floats = np.exp(np.interp(probability, steps, np.log(values)))
    return found


def run_times_s(size: Size, rng: np.random.Generator, count: int) -> Floats:
    """Shape (count,): run times in seconds."""
    if size.quantiles_s:
        return quantile_function(size.quantiles_s, rng.random(count))
    return rng.lognormal(np.log(size.median_s), size.sigma, count)


def jobs_of(mix: Mix, span_s: float, rng: np.random.Generator) -> Iterator[Job]:
    """Jobs of the mix in order of submission until ``span_s``, made when they are asked for."""
    made = 0
    for times in submissions_s(mix.arrivals, span_s, rng):
        for job in _block(mix, times, made, rng):
            if job.submit_s >= span_s:
                return
            yield job
        made += len(times)


def submissions_s(arrivals: Arrivals, span_s: float, rng: np.random.Generator) -> Iterator[Floats]:
    """Per day from time 0 the sorted moments of submission; the last day is whole: a longer span begins alike."""
    factors = week_factors(arrivals)
    shape = 1.0 / arrivals.burst_cv**2 if arrivals.burst_cv > 0 else 0.0
    for first in range(0, int(np.ceil(span_s / HOUR_S)), HOURS_PER_DAY):
        hours = np.arange(first, first + HOURS_PER_DAY)
        growth = arrivals.growth_per_year ** ((hours + 0.5) * HOUR_S / YEAR_S)
        mean = arrivals.rate_per_s * HOUR_S * growth * factors[(arrivals.start_hour + hours) % HOURS_PER_WEEK]
        if shape:
            mean = mean * rng.gamma(shape, 1.0 / shape, HOURS_PER_DAY)
        which = np.repeat(hours, rng.poisson(mean))
        yield np.sort((which + rng.random(len(which))) * HOUR_S)


def _block(mix: Mix, times: Floats, before: int, rng: np.random.Generator) -> Iterator[Job]:
    """Jobs at these times; ``before`` were made already."""
    count = len(times)
    which = _pick([size.weight for size in mix.sizes], rng, count)
    durations = np.empty(count)
    for index, size in enumerate(mix.sizes):
        mine = which == index
        durations[mine] = run_times_s(size, rng, int(mine.sum()))
    users = _pick(zipf_weights(mix.users, mix.user_zipf), rng, count)
    queues, outcomes = _named(mix.queues, rng, count, ""), _named(mix.outcomes, rng, count, "completed")
    limited = rng.random(count) < mix.limit_share
    limits = durations * quantile_function(mix.limit_over_duration, rng.random(count))
    slack = mix.deadline_over_duration
    for index in range(count):
        size = mix.sizes[which[index]]
        ran = float(durations[index])
        limit = float(limits[index]) if limited[index] else None
        yield Job(
            name=f"{mix.name}-{before + index + 1}",
            submit_s=float(times[index]),
            gpus=size.gpus,
            duration_s=ran if outcomes[index] != "timeout" or limit is None else limit,
            limit_s=limit,
            user=f"{mix.name}-u{users[index] + 1}",
            queue=queues[index],
            priority=mix.priority,
            accelerator=mix.accelerator,
            gpu_share_frac=size.gpu_share_frac,
            network_frac=size.network_frac,
            min_gpus=size.min_gpus,
            max_gpus=size.max_gpus,
            deadline_s=float(times[index]) + slack * ran if slack else None,
            preemptible=mix.preemptible,
            kind=size.kind,
            outcome=outcomes[index],
        )


def zipf_weights(users: int, exponent: float) -> Floats:
    """Shape (users,): weight of the k-th user, k^-exponent (Zipf 1949)."""
    return np.arange(1, users + 1, dtype=float) ** -exponent


def _pick(weights: Sequence[float] | Floats, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    cumulated = np.cumsum(weights)
    chosen: NDArray[np.int64] = np.searchsorted(cumulated, rng.random(count) * cumulated[-1], side="right")
    return chosen


def _named(portions: Sequence[Portion], rng: np.random.Generator, count: int, default: str) -> list[str]:
    if not portions:
        return [default] * count
    return [portions[index].name for index in _pick([one.weight for one in portions], rng, count)]
