"""From a history to a ``Mix``: the recipe read back from the meal.

Rates by hour and weekday are the maximum of the Poisson likelihood with independent factors; bursts come from the
excess of hourly variance; run times stay as empirical quantiles per gang size; users' activity is a Zipf law of best
likelihood. What is related in the history (who runs what for how long) is not kept, apart from run time given size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from sim.mixes.draw import HOUR_S, zipf_weights
from sim.spec.job import Job
from sim.spec.mix import DAYS_PER_WEEK, HOURS_PER_DAY, HOURS_PER_WEEK, Arrivals, Mix, Portion, Size

QUANTILES = 65
"""Values kept of each distribution of run times: steps of 1/64."""
LEAST_RUN_S = 1.0
"""Logs count whole seconds: what ran for 0 s is taken as 1 s, since quantiles are in the logarithm."""
DAYS_FOR_HOURS, DAYS_FOR_WEEKDAYS = 2, 14
"""Days a history must span before its hours, and its weekdays, are told apart."""
ROUNDS = 50

Floats = NDArray[np.float64]


class NotFittable(ValueError):  # noqa: N818 - it reads as what it says
    """A history that a mix cannot be made of; the message says why."""


def fit(jobs: Sequence[Job], name: str = "history", origin: str = "", span_s: float | None = None) -> Mix:
    """The mix of a history.

    ``origin``: wall clock of time 0 (ISO 8601), for weekdays and hours of the day; without it time 0 is Monday 00:00.
    ``span_s``: time the history covers; the last submission where not given. Jobs still running or waiting count as
    submissions, not in run times and outcomes; a size of which no job has ended is left out.

    Raises:
        NotFittable: fewer than two jobs, no job that ended, or no time between the first and the last.
    """
    ended = [job for job in jobs if job.outcome not in ("running", "pending")]
    if len(jobs) < 2 or not ended:
        raise NotFittable(
            f"{len(jobs)} jobs, {len(ended)} of them ended: expected at least two, and one that ended"
        )
    submits = np.sort([job.submit_s for job in jobs])
    span = float(submits[-1] if span_s is None else span_s)
    if span <= 0:
        raise NotFittable("all jobs were submitted at once: a rate needs time between them")
    share, ratios = _limits(ended)
    users = Counter(job.user for job in jobs)
    return Mix(
        name=name,
        arrivals=fit_arrivals(submits, span, _hour_of_week(origin)),
        sizes=_sizes(jobs, ended),
        limit_share=share,
        limit_over_duration=ratios,
        users=len(users),
        user_zipf=fit_zipf(list(users.values())),
        queues=_portions(Counter(job.queue for job in jobs)) if any(job.queue for job in jobs) else (),
        outcomes=_portions(Counter(job.outcome for job in ended)),
    )


def _hour_of_week(origin: str) -> float:
    """Hours since Monday 00:00, with their part."""
    if not origin:
        return 0.0
    date = datetime.fromisoformat(origin)
    return date.weekday() * 24 + date.hour + date.minute / 60 + date.second / 3600


def fit_arrivals(submits_s: Floats, span_s: float, hour_of_week: float = 0.0) -> Arrivals:
    """Arrivals of moments (shape (n,), sorted, 0..span_s) whose time 0 is ``hour_of_week`` hours after Monday 00:00.

    Factors: maximum likelihood of Poisson counts with mean exposure x rate x hour x weekday, by alternating scaling.
    ``burst_cv``^2 = sum((n - m)^2 - m) / sum(m^2) over whole hours, n counted, m expected (method of moments of the
    negative binomial, Cameron and Trivedi, Regression Analysis of Count Data, 2013, section 3.3).
    """
    first = int(hour_of_week)
    lead_s = (hour_of_week - first) * HOUR_S
    bins = int(np.ceil((span_s + lead_s) / HOUR_S)) or 1
    edges = np.clip(np.arange(bins + 1) * HOUR_S - lead_s, 0.0, span_s)
    exposure = np.diff(edges) / HOUR_S
    counts = np.histogram(submits_s, edges)[0].astype(float)
    week = (first + np.arange(bins)) % HOURS_PER_WEEK
    hour, day = week % HOURS_PER_DAY, week // HOURS_PER_DAY
    days = span_s / 86400
    hours = np.ones(HOURS_PER_DAY)
    weekdays = np.ones(DAYS_PER_WEEK)
    for _ in range(ROUNDS):
        if days >= DAYS_FOR_HOURS:
            hours = _factors(counts, exposure * weekdays[day], hour, HOURS_PER_DAY)
        if days >= DAYS_FOR_WEEKDAYS:
            weekdays = _factors(counts, exposure * hours[hour], day, DAYS_PER_WEEK)
    shape = hours[hour] * weekdays[day]
    rate_per_hour = counts.sum() / (exposure * shape).sum()
    mean = rate_per_hour * exposure * shape
    whole = exposure > 0.999
    excess = float(((counts - mean) ** 2 - mean)[whole].sum())
    square = float((mean[whole] ** 2).sum())
    return Arrivals(
        rate_per_s=float(rate_per_hour) / HOUR_S,
        by_hour=tuple(hours.tolist()) if days >= DAYS_FOR_HOURS else (),
        by_weekday=tuple(weekdays.tolist()) if days >= DAYS_FOR_WEEKDAYS else (),
        burst_cv=float(np.sqrt(max(excess / square, 0.0))) if square > 0 else 0.0,
        start_hour=first % HOURS_PER_WEEK,
    )


def _factors(counts: Floats, exposure: Floats, group: NDArray[np.int64], groups: int) -> Floats:
    """Counts over exposure per group, mean 1."""
    seen = np.bincount(group, counts, groups)
    offered = np.bincount(group, exposure, groups)
    factors = np.divide(seen, offered, out=np.ones(groups), where=offered > 0)
    scaled: Floats = factors / factors.mean()
    return scaled


def _sizes(jobs: Sequence[Job], ended: Sequence[Job]) -> tuple[Size, ...]:
    common = Counter((job.gpus, job.gpu_share_frac, job.kind) for job in jobs)
    times: dict[tuple[int, float, str], list[float]] = {}
    for job in ended:
        times.setdefault((job.gpus, job.gpu_share_frac, job.kind), []).append(
            max(job.duration_s, LEAST_RUN_S)
        )
    return tuple(
        Size(
            gpus=gpus,
            weight=float(common[gpus, share, kind]),
            quantiles_s=_quantiles(times[gpus, share, kind]),
            gpu_share_frac=share,
            kind=kind,
        )
        for gpus, share, kind in sorted(times)
    )


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    steps = np.linspace(0.0, 1.0, QUANTILES if len(values) > 1 else 2)
    return tuple(float(value) for value in np.quantile(values, steps))


def _limits(ended: Sequence[Job]) -> tuple[float, tuple[float, ...]]:
    """Share of jobs with a limit, and quantiles of limit over run time (at least 1: a job may have ended late)."""
    ratios = [
        max(job.limit_s / max(job.duration_s, LEAST_RUN_S), 1.0) for job in ended if job.limit_s is not None
    ]
    return len(ratios) / len(ended), _quantiles(ratios) if ratios else (1.0, 10.0)


def _portions(counted: Counter[str]) -> tuple[Portion, ...]:
    return tuple(Portion(name, float(count)) for name, count in sorted(counted.items()))


def fit_zipf(counts: Sequence[int]) -> float:
    """Exponent of best likelihood for counts of users ranked by activity; 0 for one user.

    log L(s) = -s sum(n_k ln k) - N ln sum(k^-s), which is concave in s (Clauset, Shalizi and Newman, SIAM Review 51,
    2009, for the discrete power law; the ranks here are those of the sample).
    """
    ranked = np.sort(np.asarray(counts, dtype=float))[::-1]
    if len(ranked) < 2:
        return 0.0
    logs = np.log(np.arange(1, len(ranked) + 1))

    def cost(exponent: float) -> float:
        weights = zipf_weights(len(ranked), exponent)
        return float(exponent * (ranked * logs).sum() + ranked.sum() * np.log(weights.sum()))

    return float(optimize.minimize_scalar(cost, bounds=(0.0, 5.0), method="bounded").x)
