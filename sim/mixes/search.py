"""Hyper-parameter studies as jobs: a knock-out tournament that starts with many and ends with few.

Rungs of a bracket are handed in one after the other, each when the one before would have ended on free devices: the
moment of a job's submission is part of the recipe, its wait is the cluster's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sim.spec.job import Job
from sim.spec.mix import Search


@dataclass(frozen=True, slots=True)
class Rung:
    """One round: so many trials, each trained to so much of a full training."""

    trials: int
    resource_frac: float


def rungs(search: Search) -> list[list[Rung]]:
    """Brackets of rungs.

    Successive halving: rung i has floor(n eta^-i) trials with r eta^i, r = R/eta^k, k the last rung that still has a
    trial and stays within R (Jamieson and Talwalkar 2016). Hyperband: brackets s = s_max..0, s_max = floor(log_eta
    R), with n = ceil((s_max + 1) eta^s / (s + 1)) trials from r = R eta^-s (Li et al. 2018, algorithm 1).
    """
    eta, most = search.eta, search.most_over_least
    if search.rule == "random":
        return [[Rung(search.trials, 1.0)]]
    deepest = math.floor(math.log(most, eta) + 1e-9)
    if search.rule == "successive-halving":
        last = min(deepest, math.floor(math.log(search.trials, eta) + 1e-9))
        return [_bracket(search.trials, last, eta)]
    return [
        _bracket(math.ceil((deepest + 1) * eta**s / (s + 1) - 1e-9), s, eta) for s in range(deepest, -1, -1)
    ]


def _bracket(trials: int, last: int, eta: int) -> list[Rung]:
    return [Rung(trials // eta**rung, float(eta) ** (rung - last)) for rung in range(last + 1)]


def trials_of(search: Search, span_s: float, rng: np.random.Generator) -> Iterator[Job]:
    """Trials in order of submission; only the rungs of studies still under way are held."""
    brackets = rungs(search)
    waiting: list[tuple[float, int, Job]] = []
    start, made = 0.0, 0
    study = 0
    while True:
        start += rng.exponential(1.0 / search.study_rate_per_s)
        while waiting and waiting[0][0] <= min(start, span_s):
            yield heapq.heappop(waiting)[2]
        if start >= span_s:
            break
        study += 1
        for job in _study(search, brackets, study, start, rng):
            if job.submit_s < span_s:
                made += 1
                heapq.heappush(waiting, (job.submit_s, made, job))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _study(
    search: Search, brackets: list[list[Rung]], study: int, start_s: float, rng: np.random.Generator
) -> Iterator[Job]:
    for number, bracket in enumerate(brackets):
        pace = np.exp(rng.normal(0.0, search.spread, bracket[0].trials))
        going = np.arange(bracket[0].trials)
        when, before = start_s, 0.0
        for level, rung in enumerate(bracket):
            # which trials win is not known before they run: a fair draw
            going = rng.permutation(going)[: rung.trials]
            work = rung.resource_frac - (before if search.resume else 0.0)
            going = np.sort(going)
            lengths = search.full_s * work * pace[going]
            for trial, length in zip(going, lengths, strict=True):
                yield Job(
                    name=f"{search.name}-{study}-b{number}-r{level}-t{trial}",
                    submit_s=when,
                    gpus=search.gpus,
                    duration_s=float(length),
                    user=search.user or search.name,
                    queue=search.queue,
                    kind="trial",
                )
            when += float(lengths.max(initial=0.0))
            before = rung.resource_frac
