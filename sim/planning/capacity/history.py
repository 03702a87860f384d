"""Demand read from the past: a table of jobs becomes device-hours a week, and those a level with its doubt.

A ledger of what was asked for says what will be asked for, give or take: how far to trust the level, and how much
months differ, is found by drawing the weeks again (bootstrap; in blocks of four, since busy weeks come together: Künsch
1989, Annals of Statistics 17(3)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sim.importers.job_table import read_jobs
from sim.planning.capacity import months
from sim.spec.demand import Demand, Programme
from sim.spec.faults import Fault, ScenarioError
from sim.spec.job import Job
from sim.spec.quantiles import Quantiles
from sim.spec.scenario import Scenario

WEEK_S, WEEK_HOURS = 7 * 86400.0, 168.0
BLOCK_WEEKS = 4
RESAMPLES = 4000
LEAST_WEEKS = 4


def with_histories(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with each ``history`` read from its table (a path relative to ``folder``) into hours by week.

    Raises:
        ScenarioError: a table cannot be read, has faults, or spans less than four weeks.
    """
    if scenario.demand is None or not any(p.history for p in scenario.demand.programmes):
        return scenario
    programmes: list[Programme] = []
    faults: list[Fault] = []
    for number, programme in enumerate(scenario.demand.programmes):
        try:
            programmes.append(_read(programme, number, folder))
        except ScenarioError as error:
            faults += error.faults
        except OSError as error:
            where = f"demand.programmes.{number}.history"
            told = f"cannot be read: {error.strerror or error}"
            faults.append(Fault(str(folder), where, programme.history, told))
    if faults:
        raise ScenarioError(faults)
    demand: Demand = replace(scenario.demand, programmes=tuple(programmes))
    return replace(scenario, demand=demand)


def _read(programme: Programme, number: int, folder: Path) -> Programme:
    if not programme.history or programme.week_device_hours:
        return programme
    weeks = by_week(read_jobs(folder / programme.history))
    if len(weeks) < LEAST_WEEKS:
        told = f"spans {len(weeks)} whole weeks: expected at least {LEAST_WEEKS}"
        where = f"demand.programmes.{number}.history"
        raise ScenarioError([Fault(str(folder), where, programme.history, told)])
    return replace(programme, history="", week_device_hours=tuple(round(w, 3) for w in weeks))


def by_week(jobs: Sequence[Job]) -> list[float]:
    """Device-hours asked for in each whole week from the first submission to the last.

    A job's hours count from its submission on, whenever it got its devices: it is the wish that is counted.
    """
    if not jobs:
        return []
    first = min(job.submit_s for job in jobs)
    count = int((max(job.submit_s for job in jobs) - first) // WEEK_S)
    edges = first + WEEK_S * np.arange(count + 1)
    found = np.zeros(count)
    for job in jobs:
        ends = np.clip(job.submit_s + job.duration_s, edges[:-1], edges[1:])
        begins = np.clip(job.submit_s, edges[:-1], edges[1:])
        found += job.gpus * (ends - begins) / 3600
    return [float(hours) for hours in found]


def monthly(weeks: Sequence[float]) -> tuple[Quantiles, Quantiles]:
    """Device-hours of a mean month with the doubt about it, and a month over that mean; from hours by week."""
    past = np.asarray(weeks, float)
    rng = np.random.default_rng(len(past))
    blocks = -(-len(past) // BLOCK_WEEKS)
    starts = rng.integers(len(past), size=(RESAMPLES, blocks))
    picked = (starts[:, :, None] + np.arange(BLOCK_WEEKS)) % len(past)
    four_weeks = past[picked].mean(axis=2)
    level = np.quantile(four_weeks.mean(axis=1), [0.1, 0.5, 0.9]) * months.HOURS / WEEK_HOURS
    mean = max(float(past.mean()), 1e-12)
    one = np.quantile(four_weeks[:, 0], [0.1, 0.5, 0.9]) / mean
    return Quantiles(*map(float, level)), Quantiles(*map(float, one))
