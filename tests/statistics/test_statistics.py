"""Repeated runs: streams, replications on any number of workers, coverage of intervals, warm-up, choosing the best."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from sim.statistics.intervals import Interval, mean_interval, paired_difference, quantile_interval
from sim.statistics.replications import Rule, differences, replicate
from sim.statistics.selection import select_best
from sim.statistics.steady import batch_means_interval, mser_truncation
from sim.statistics.streams import Streams


def noisy(number: int, *, seed: int = 1, shift: float = 0.0) -> dict[str, float]:
    """A made-up run: two answers, one much noisier than the other; the same number has the same luck."""
    luck = Streams(seed).child(number).generator("luck").normal(size=2)
    return {"calm": 10 + shift + 0.1 * luck[0], "wild": 10 + shift + luck[1]}


def test_streams_depend_on_seed_and_name_alone() -> None:
    code = "from sim.statistics.streams import Streams; print(*Streams(7).generator('gpu', 3).integers(10**9, size=3))"
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "9"},
    ).stdout.split()
    here = Streams(7).child("gpu").generator(3).integers(10**9, size=3)
    assert there == [str(number) for number in here]
    assert [int(number) for number in there] != list(Streams(7).generator("gpu", 4).integers(10**9, size=3))
    assert [int(number) for number in there] != list(Streams(8).generator("gpu", 3).integers(10**9, size=3))


def test_streams_of_different_names_are_uncorrelated() -> None:
    draws = np.array([Streams(1).generator("node", i).normal(size=2000) for i in range(12)])
    off = np.corrcoef(draws)[np.triu_indices(12, 1)]
    assert abs(off).max() < 4.5 / math.sqrt(2000)
    assert abs(draws.mean()) < 4.5 / math.sqrt(draws.size)


def test_any_number_of_workers_gives_the_same_replications() -> None:
    rule = Rule(0.05, most=60)
    alone = replicate(noisy, rule)
    assert replicate(noisy, rule, workers=2) == alone
    assert not alone.not_converged


def test_all_answers_must_be_sure_and_the_cap_is_told() -> None:
    whole = replicate(noisy, Rule(0.02))
    calm = replicate(lambda k: {"calm": noisy(k)["calm"]}, Rule(0.02))
    assert calm.count < whole.count
    assert whole.interval("wild").half_width <= 0.02 / 1.02 * whole.interval("wild").estimate * 1.1
    capped = replicate(noisy, Rule(0.001, most=20))
    assert (capped.count, capped.not_converged) == (20, ("calm", "wild"))


def test_an_answer_of_nought_stops_by_its_floor() -> None:
    def run(number: int) -> dict[str, float]:
        return {"gap": noisy(number)["calm"] - 10}

    assert replicate(run, Rule(0.02, most=50)).not_converged == ("gap",)
    assert not replicate(run, Rule(0.02, most=50, floors={"gap": 0.1})).not_converged


def test_answers_must_keep_their_names() -> None:
    with pytest.raises(ValueError, match="replication 1 answers"):
        replicate(lambda k: {f"answer {k}": 1.0})


def test_common_streams_make_differences_surer() -> None:
    rule = Rule(1e-9, most=40)
    base, more, other = (
        replicate(functools.partial(noisy, seed=seed, shift=shift), rule)
        for seed, shift in ((1, 0.0), (1, 0.5), (2, 0.5))
    )
    paired = mean_interval(differences(base, more, "wild"))
    unpaired = mean_interval(differences(base, other, "wild"))
    assert paired.estimate == pytest.approx(0.5)
    assert paired.half_width < 1e-6 < unpaired.half_width
    assert paired == pytest.approx(paired_difference(base.values["wild"], more.values["wild"]))
    with pytest.raises(ValueError, match="do not pair"):
        paired_difference([1.0], [1.0, 2.0])


def coverage(make, truth: float, studies: int = 2000) -> float:
    random = np.random.default_rng(3)
    found: list[Interval] = [make(random) for _ in range(studies)]
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


def test_intervals_cover_as_often_as_they_say() -> None:
    wide = 4.5 * math.sqrt(0.9 * 0.1 / 2000)
    assert coverage(lambda r: mean_interval(r.normal(5, 2, 8), 0.9), 5) == pytest.approx(0.9, abs=wide)
    truth = norm.ppf(0.9)  # order statistics jump: they cover at least what they say
    assert 0.9 - wide < coverage(lambda r: quantile_interval(r.normal(size=60), 0.9, 0.9), truth) < 0.97


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0.05, 0.95))
def test_a_quantile_lies_within_its_interval(values: list[float], quantile: float) -> None:
    interval = quantile_interval(values, quantile)
    assert interval.low <= interval.estimate <= interval.high


def test_too_few_values_bound_a_far_quantile_on_one_side_only() -> None:
    interval = quantile_interval(range(20), 0.99)
    assert interval.low > -math.inf
    assert interval.high == math.inf
    with pytest.raises(ValueError, match="no value"):
        mean_interval([])


def test_warm_up_is_cut_and_batch_means_cover() -> None:
    def autoregressive(random: np.random.Generator) -> Interval:
        noise = random.normal(size=4000)
        series = np.empty(4000)
        level = 30.0  # starts ten deviations off
        for i, kick in enumerate(noise):
            level = 0.8 * level + kick
            series[i] = level
        assert mser_truncation(series) < 500
        return batch_means_interval(series)

    assert coverage(autoregressive, 0.0, 150) == pytest.approx(0.95, abs=4.5 * math.sqrt(0.95 * 0.05 / 150))
    with pytest.raises(ValueError, match="too few"):
        batch_means_interval(np.ones(12))


def test_a_series_without_warm_up_loses_little() -> None:
    assert mser_truncation(np.tile([1.0, 2.0, 3.0, 2.0, 1.0], 40)) == 0


def test_the_best_plan_is_chosen_at_least_as_often_as_promised() -> None:
    def study(seed: int):
        random = np.random.default_rng(seed)
        weather = random.normal(size=5000)
        own = random.normal(size=(4, 5000))
        means = (0.0, 0.0, 0.3, 0.0)
        return select_best(lambda i, k: means[i] + weather[k] + 0.5 * own[i, k], 4, 0.3, most=3000)

    chosen = [study(seed) for seed in range(60)]
    right = sum(choice.best == 2 for choice in chosen)
    assert right >= 52  # 95 % of 60 less two standard errors and a half
    assert all(choice.converged for choice in chosen)
    with pytest.raises(ValueError, match="two plans"):
        select_best(lambda i, k: 0.0, 1, 0.1)
