"""Work that returns like the tide: trainings on a timetable with evaluations, and replicas that follow the day."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sim.spec.job import Job
from sim.spec.mix import Cycle, Service

DAY_S = 86400.0


def runs_of(cycle: Cycle, span_s: float, rng: np.random.Generator) -> Iterator[Job]:
    """Trainings every ``every_s`` and, when each would have ended on free devices, its evaluations."""
    held: list[Job] = []
    number = 0
    while number * cycle.every_s < span_s:
        start = number * cycle.every_s
        ready = [job for job in held if job.submit_s <= start]
        held = [job for job in held if job.submit_s > start]
        yield from sorted(ready, key=lambda job: job.submit_s)
        number += 1
        length = cycle.train_s * float(np.exp(rng.normal(0.0, cycle.spread)))
        yield _job(cycle, f"train-{number}", start, cycle.gpus, length, "training")
        done = start + length
        times = cycle.evaluation_s * np.exp(rng.normal(0.0, cycle.spread, cycle.evaluations))
        deadline = None if cycle.evaluate_within_s is None else done + cycle.evaluate_within_s
        if done < span_s:
            held += [
                _job(
                    cycle,
                    f"eval-{number}-{index}",
                    done,
                    cycle.evaluation_gpus,
                    float(t),
                    "evaluation",
                    deadline,
                )
                for index, t in enumerate(times, 1)
            ]
    yield from sorted(held, key=lambda job: job.submit_s)


def _job(
    cycle: Cycle,
    name: str,
    submit_s: float,
    gpus: int,
    length_s: float,
    kind: str,
    deadline_s: float | None = None,
) -> Job:
    return Job(
        name=f"{cycle.name}-{name}",
        submit_s=submit_s,
        gpus=gpus,
        duration_s=length_s,
        user=cycle.user or cycle.name,
        queue=cycle.queue,
        kind=kind,
        deadline_s=deadline_s,
    )


def replicas_needed(service: Service, time_s: float) -> float:
    """Replicas at a moment: least + (most - least) x weekend factor x (1 + cos(2 pi (hour - peak) / 24)) / 2."""
    clock = time_s + service.start_hour * 3600
    hour = clock % DAY_S / 3600
    factor = service.weekend_factor if int(clock // DAY_S) % 7 >= 5 else 1.0
    swing = (1 + math.cos(2 * math.pi * (hour - service.peak_hour) / 24)) / 2
    return service.least_replicas + (service.most_replicas - service.least_replicas) * factor * swing


def replicas_of(service: Service, span_s: float) -> Iterator[Job]:
    """Replicas as jobs. The k-th above the least is needed while the cosine asks for more than k - 1 of them.

    Day by day from peak to peak: a window around each peak, cut at the ends of the span; by chance nothing.
    """
    for number in range(1, service.least_replicas + 1 if span_s > 0 else 1):
        yield _replica(service, f"base-{number}", 0.0, span_s)
    extra = service.most_replicas - service.least_replicas
    offset = service.start_hour % 24 * 3600.0
    day = -1  # yesterday's evening may reach into the first hours
    while extra:
        peak = day * DAY_S + service.peak_hour * 3600 - offset
        if peak - DAY_S / 2 >= span_s:
            return
        day += 1
        weekend = int((peak + service.start_hour * 3600) // DAY_S) % 7 >= 5
        height = extra * (service.weekend_factor if weekend else 1.0)
        windows = []
        for number in range(1, extra + 1):
            if height <= number - 1:
                break
            # height (1 + cos(2 pi t / day)) / 2 = number - 1 at the window's ends
            half = DAY_S / (2 * math.pi) * math.acos(2 * (number - 1) / height - 1)
            start, end = max(peak - half, 0.0), min(peak + half, span_s)
            if end > start:
                windows.append((start, number, end))
        for start, number, end in sorted(windows):
            yield _replica(service, f"day{day + 1}-{number}", start, end)


def _replica(service: Service, name: str, start_s: float, end_s: float) -> Job:
    return Job(
        name=f"{service.name}-{name}",
        submit_s=start_s,
        gpus=service.gpus,
        duration_s=end_s - start_s,
        user=service.name,
        queue=service.queue,
        priority=service.priority,
        preemptible=False,
        kind="serving",
    )
