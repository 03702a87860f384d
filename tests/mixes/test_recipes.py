"""Searches, cycles and services against their published or closed forms."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.mixes.generate import generate
from sim.mixes.search import rungs
from sim.mixes.steady import replicas_needed
from sim.spec.job import Job
from sim.spec.mix import Cycle, Search, Service

DAY_S = 86400.0


def test_brackets_of_hyperband_are_those_of_the_paper() -> None:
    """Li et al., JMLR 18 (2018), table 1: R = 81, eta = 3."""
    found = [
        [(rung.trials, round(81 * rung.resource_frac)) for rung in bracket]
        for bracket in rungs(Search("h", 1.0))
    ]
    assert found == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]


@given(st.integers(1, 500), st.integers(2, 5), st.floats(1, 1000))
@settings(max_examples=80)
def test_successive_halving_spends_about_alike_in_every_rung(trials: int, eta: int, most: float) -> None:
    (bracket,) = rungs(
        Search("s", 1.0, rule="successive-halving", trials=trials, eta=eta, most_over_least=most)
    )
    assert bracket[0].trials == trials
    assert bracket[-1].resource_frac == 1
    assert bracket[0].resource_frac >= 1 / most * (1 - 1e-9)
    spent = [rung.trials * rung.resource_frac for rung in bracket]
    assert max(spent) <= spent[0] * (1 + 1e-9)  # rounding down trials only saves
    assert all(after.trials == bracket[0].trials // eta**k for k, after in enumerate(bracket))


def study(search: Search) -> list[Job]:
    jobs = list(generate(search, 400 * DAY_S, 3))
    return [job for job in jobs if job.name.startswith(f"{search.name}-1-")]


def test_a_trial_goes_on_from_its_checkpoint_or_from_its_start() -> None:
    common = {
        "study_rate_per_s": 1 / (30 * DAY_S),
        "rule": "successive-halving",
        "trials": 9,
        "most_over_least": 9.0,
    }
    resumed = study(Search("a", **common, spread=0.0, full_s=900.0))
    anew = study(Search("b", **common, spread=0.0, full_s=900.0, resume=False))
    for jobs, lengths in ((resumed, [100, 200, 600]), (anew, [100, 300, 900])):
        assert Counter(round(job.duration_s) for job in jobs) == dict(zip(lengths, [9, 3, 1], strict=True))
        times = sorted({job.submit_s for job in jobs})
        assert np.diff(times) == pytest.approx(
            lengths[:2]
        )  # a rung starts when the last of the one before ends
    assert len({job.name.rpartition("-")[2] for job in resumed}) == 9  # the same trials go on


def test_studies_start_at_their_rate() -> None:
    jobs = list(generate(Search("r", 10 / DAY_S, rule="random", trials=4), 100 * DAY_S, 1))
    studies = len({job.name.split("-")[1] for job in jobs})
    assert len(jobs) == 4 * studies
    assert abs(studies - 1000) < 4 * math.sqrt(1000)


def test_a_cycle_evaluates_what_it_trained() -> None:
    cycle = Cycle("c", every_s=3600.0, train_s=7200.0, spread=0.0, evaluations=3, evaluate_within_s=600.0)
    jobs = list(generate(cycle, 10 * 3600.0, 1))
    trainings = [job for job in jobs if job.kind == "training"]
    assert [job.submit_s for job in trainings] == [3600.0 * n for n in range(10)]
    evaluations = Counter(job.submit_s for job in jobs if job.kind == "evaluation")
    assert evaluations == {3600.0 * n + 7200: 3 for n in range(8)}
    assert all(job.deadline_s == job.submit_s + 600 for job in jobs if job.kind == "evaluation")


@given(
    st.integers(0, 4),
    st.integers(0, 9),
    st.floats(0, 24),
    st.integers(0, 167),
    st.floats(0.05, 1),
    st.floats(0, 9 * DAY_S - 1),
)
@settings(max_examples=150, deadline=None)
def test_as_many_replicas_run_as_the_cosine_asks_for(
    least: int, more: int, peak: float, start: int, weekend: float, when: float
) -> None:
    service = Service(
        "s", least, max(least + more, 1), peak_hour=peak, start_hour=start, weekend_factor=weekend, gpus=2
    )
    running = sum(
        job.submit_s <= when < job.submit_s + job.duration_s for job in generate(service, 9 * DAY_S)
    )
    # a window belongs to its peak's day: between Friday and Saturday the evening is still Friday's
    clock = when + start * 3600
    nearest = round((clock - peak * 3600) / DAY_S) * DAY_S + peak * 3600
    of_its_day = replicas_needed(service, nearest) - least
    swing = (1 + math.cos(2 * math.pi * (clock - peak * 3600) / DAY_S)) / 2
    height = (service.most_replicas - least) * (weekend if int(nearest // DAY_S) % 7 >= 5 else 1.0)
    assert 0 <= of_its_day <= service.most_replicas - least
    needed = least + height * swing
    assert running in {math.ceil(needed - 1e-6), math.ceil(needed + 1e-6)}


def test_the_base_of_a_service_runs_all_the_time() -> None:
    jobs = list(generate(Service("s", 2, 2), 5 * DAY_S))
    assert [(job.submit_s, job.duration_s, job.preemptible, job.kind) for job in jobs] == [
        (0, 5 * DAY_S, False, "serving")
    ] * 2
