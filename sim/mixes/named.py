"""Recipes off the shelf: notebooks, fine-tuning and pre-training, to start from where there is no history.

Every number here is assumed: round figures of the order that Philly (Jeon et al., ATC 2019), Helios (Hu et al., SC
2021) and Acme (Hu et al., NSDI 2024) report, not fits to them. Better fit your own history (``sim.mixes.fit``).
"""

from __future__ import annotations

from sim.spec.mix import Arrivals, Mix, Portion, Size

DAY_S = 86400.0
WORKING_DAY = (0.2,) * 7 + (
    0.5,
    1.0,
    1.8,
    2.2,
    2.0,
    1.4,
    1.8,
    2.2,
    2.2,
    2.0,
    1.6,
    1.2,
    1.0,
    0.9,
    0.7,
    0.5,
    0.3,
)
"""Assumed: activity by hour of the day, high from 9 to 18, low at night."""
WORKING_WEEK = (1.2, 1.3, 1.3, 1.2, 1.1, 0.5, 0.4)
"""Assumed: activity by weekday from Monday."""


def notebooks(jobs_per_day: float, gpu_share_frac: float = 0.25, users: int = 50) -> Mix:
    """People at notebooks: a share of one device for an hour or two in office hours, stopped when idle."""
    return Mix(
        name="notebooks",
        arrivals=Arrivals(jobs_per_day / DAY_S, WORKING_DAY, WORKING_WEEK),
        sizes=(Size(1, 1.0, median_s=5400.0, sigma=0.9, gpu_share_frac=gpu_share_frac, kind="notebook"),),
        limit_share=1.0,
        limit_over_duration=(1.0, 4.0, 12.0),
        users=users,
        user_zipf=0.8,
        outcomes=(Portion("completed", 0.7), Portion("cancelled", 0.3)),
        priority=10.0,
    )


def fine_tuning(jobs_per_day: float, users: int = 30) -> Mix:
    """Fine-tuning: gangs of 1 to 64, from tens of minutes to a day, by people in bursts; a quarter fails early."""
    medians = {1: 1800.0, 2: 2700.0, 4: 3600.0, 8: 7200.0, 16: 10800.0, 64: 21600.0}
    weights = {1: 0.30, 2: 0.10, 4: 0.15, 8: 0.35, 16: 0.07, 64: 0.03}
    return Mix(
        name="fine-tuning",
        arrivals=Arrivals(jobs_per_day / DAY_S, WORKING_DAY, WORKING_WEEK, burst_cv=0.7),
        sizes=tuple(Size(gpus, weights[gpus], medians[gpus], 1.3, kind="fine-tuning") for gpus in medians),
        limit_share=0.9,
        limit_over_duration=(1.0, 2.0, 5.0, 20.0, 100.0),
        users=users,
        user_zipf=1.1,
        outcomes=(Portion("completed", 0.60), Portion("failed", 0.25), Portion("cancelled", 0.15)),
    )


def pretraining(runs_per_month: float, gpus: int = 1024, median_s: float = 10 * DAY_S) -> Mix:
    """Pre-training runs: few, large, days to weeks, at any hour, not to be preempted."""
    return Mix(
        name="pre-training",
        arrivals=Arrivals(runs_per_month / (30 * DAY_S)),
        sizes=(Size(gpus, 1.0, median_s=median_s, sigma=0.8, kind="pre-training"),),
        users=3,
        user_zipf=0.5,
        outcomes=(Portion("completed", 0.5), Portion("failed", 0.3), Portion("cancelled", 0.2)),
        priority=50.0,
        preemptible=False,
    )
