"""What a cluster run was like, in numbers: waits, slowdowns, use of the devices, fairness.

The report card that is written from the diary; nothing in it that the diary does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.results.cluster_log import ClusterLog, JobRecord, account

BOUND_S = 10.0
"""Shortest run time in the bounded slowdown (Feitelson and Rudolph 1998, JSSPP)."""


def job_table(records: Sequence[JobRecord], warm_up_s: float = 0.0) -> dict[str, NDArray[np.float64]]:
    """Columns over jobs handed in after the warm-up that ended: ``wait_s``, ``run_s``, ``slowdown``, ``completion_s``,
    ``gpus``; run = everything between submission and end that is not waiting."""
    ended = [r for r in records if r.end_s is not None and r.submit_s >= warm_up_s]
    wait = np.array([r.wait_s for r in ended], float)
    completion = np.array([r.end_s - r.submit_s for r in ended if r.end_s is not None], float)
    run = np.maximum(completion - wait, 0.0)
    slowdown = np.maximum((wait + run) / np.maximum(run, BOUND_S), 1.0)
    gpus = np.array([r.gpus for r in ended], float)
    return {"wait_s": wait, "run_s": run, "slowdown": slowdown, "completion_s": completion, "gpus": gpus}


def answers(log: ClusterLog, warm_up_s: float = 0.0) -> dict[str, float]:
    """The numbers of one replication, by name.

    Those of jobs are of the jobs handed in after the warm-up that ended; those of device-time are of the whole span.
    """
    jobs = job_table(log.records, warm_up_s)
    books = account(log)
    owned = books.owned_gpu_s or 1.0
    share = {cause: seconds / owned for cause, seconds in books.by_cause.items()}
    held = 1 - share["down"] - share["idle_nobody_waits"] - share["idle_though_jobs_wait"]
    spent = sum(
        share[cause] for cause in ("checkpoint", "lost", "restart", "preemption_overhead", "undetected_fault")
    )
    counted = [r for r in log.records if r.submit_s >= warm_up_s]
    failures = sum(r.failures for r in counted)
    return {
        "mean_wait_s": _mean(jobs["wait_s"]),
        "p50_wait_s": _quantile(jobs["wait_s"], 0.5),
        "p95_wait_s": _quantile(jobs["wait_s"], 0.95),
        "mean_slowdown": _mean(jobs["slowdown"]),
        "mean_completion_s": _mean(jobs["completion_s"]),
        "jobs_done_per_day": 86400.0 * len(jobs["wait_s"]) / max(log.span_s - warm_up_s, 1e-9),
        "utilisation_frac": held,
        "goodput_frac": share["useful"],
        "effective_frac": share["useful"] / held if held > 0 else 0.0,
        "spent_on_failures_frac": spent,
        "down_frac": share["down"],
        "idle_though_jobs_wait_frac": share["idle_though_jobs_wait"],
        "interruptions": float(failures),
        "interruptions_per_day": 86400.0 * failures / log.span_s if log.span_s else 0.0,
        "fairness": jain(user_slowdowns(counted)),
        "left_waiting": float(sum(r.outcome == "waiting" for r in log.records)),
    }


def by_group(
    records: Sequence[JobRecord], group: str, warm_up_s: float = 0.0, kinds: Sequence[str] = ()
) -> list[dict[str, float | str]]:
    """Waits and device-hours by ``user``, ``queue``, ``gpus`` (gang size) or ``kind``; most hours first.

    ``kinds``: kind of each job in order of submission.
    """
    found: dict[str, list[JobRecord]] = {}
    for record in records:
        if record.submit_s >= warm_up_s and record.end_s is not None:
            if group == "gpus":
                key = size_class(record.gpus)
            else:
                key = (kinds[record.number] if group == "kind" else getattr(record, group)) or "(none)"
            found.setdefault(key, []).append(record)
    rows: list[dict[str, float | str]] = []
    for name, mine in found.items():
        jobs = job_table(mine)
        hours = float((jobs["gpus"] * jobs["run_s"]).sum() / 3600)
        rows.append(
            {
                "name": name,
                "jobs": float(len(mine)),
                "device_hours": hours,
                "mean_wait_s": _mean(jobs["wait_s"]),
                "p95_wait_s": _quantile(jobs["wait_s"], 0.95),
                "mean_slowdown": _mean(jobs["slowdown"]),
            }
        )
    return sorted(rows, key=lambda row: (-float(row["device_hours"]), str(row["name"])))


def size_class(gpus: int) -> str:
    """Class of a gang for tables: 1, 2-4, 5-8, 9-16, ..."""
    if gpus <= 1:
        return str(gpus)
    top = 4 if gpus <= 4 else 2 ** math.ceil(math.log2(gpus))
    return f"{2 if top == 4 else top // 2 + 1}-{top}"


def user_slowdowns(records: Sequence[JobRecord]) -> Mapping[str, float]:
    """Mean bounded slowdown by user."""
    sums: dict[str, list[float]] = {}
    for r in records:
        if r.end_s is None:
            continue
        run = max(r.end_s - r.submit_s - r.wait_s, BOUND_S)
        sums.setdefault(r.user, []).append(max((r.wait_s + run) / run, 1.0))
    return {user: float(np.mean(values)) for user, values in sums.items()}


def jain(shares: Mapping[str, float]) -> float:
    """Jain's index of the users' slowdowns: 1 = all alike, 1/n = one bears all (Jain, Chiu and Hawe 1984)."""
    values = np.array(list(shares.values()), float)
    if not len(values) or not (values**2).sum():
        return 1.0
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))


def queue_series(log: ClusterLog, points: int = 200) -> list[dict[str, float]]:
    """Devices held, devices down and jobs waiting over time, at evenly spaced times."""
    times = log.start_s + np.linspace(0, log.span_s, points)
    starts = np.array([s.start_s for s in log.segments], float)
    ends = np.array([s.end_s for s in log.segments], float)
    gpus = np.array([s.gpus for s in log.segments], float)
    held = _level(times, starts, ends, gpus)
    first = np.array([r.submit_s for r in log.records], float)
    until = np.array([r.start_s if r.start_s is not None else math.inf for r in log.records], float)
    waiting = _level(times, first, until, np.ones(len(first)))
    return [
        {"time_s": float(t), "held": float(h), "waiting_jobs": float(w)}
        for t, h, w in zip(times, held, waiting, strict=True)
    ]


def in_system(log: ClusterLog, points: int = 200) -> NDArray[np.float64]:
    """Jobs handed in and not yet through, ``[points]``, at the middles of equal stretches of the run."""
    times = log.start_s + (np.arange(points) + 0.5) / points * log.span_s
    first = np.array([r.submit_s for r in log.records if r.outcome != "refused"], float)
    until = np.array(
        [math.inf if r.end_s is None else r.end_s for r in log.records if r.outcome != "refused"], float
    )
    return _level(times, first, until, np.ones(len(first)))


def _level(
    times: NDArray[np.float64],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    size: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum of the sizes whose [start, end) holds each time."""
    up, down = np.argsort(starts, kind="stable"), np.argsort(ends, kind="stable")
    risen = np.concatenate([[0.0], np.cumsum(size[up])])[np.searchsorted(starts[up], times, side="right")]
    gone = np.concatenate([[0.0], np.cumsum(size[down])])[np.searchsorted(ends[down], times, side="right")]
    return np.asarray(risen - gone)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _quantile(values: NDArray[np.float64], share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else 0.0
