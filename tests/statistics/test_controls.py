"""Controls: what they explain is taken off, what they cannot is left, and intervals cover as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from sim.statistics.controls import controlled_mean
from sim.statistics.intervals import mean_interval


def test_a_value_that_is_all_luck_of_its_controls_is_known_at_once():
    x = np.random.default_rng(1).normal(size=(12, 2))
    found = controlled_mean(7 + 3 * x[:, 0] - 2 * x[:, 1], x)
    assert found.interval.estimate == pytest.approx(7, abs=1e-12)
    assert found.interval.half_width == pytest.approx(0, abs=1e-12)
    assert found.controls == 2


def test_without_controls_it_is_students_interval():
    y = np.random.default_rng(2).exponential(size=30)
    found = controlled_mean(y, np.zeros((30, 0)), 0.99)
    assert found.interval == pytest.approx(mean_interval(y, 0.99))
    assert found.plain == pytest.approx(mean_interval(y, 0.99))
    assert found.gain_x == pytest.approx(1)


def test_controls_that_say_the_same_count_once():
    draw = np.random.default_rng(3)
    x = draw.normal(size=(40, 1))
    y = x[:, 0] + draw.normal(size=40)
    once = controlled_mean(y, x)
    thrice = controlled_mean(y, np.hstack([x, -5 * x, 0 * x]))
    assert thrice.controls == once.controls == 1
    assert thrice.interval == pytest.approx(once.interval)


def test_the_gain_is_that_of_the_multiple_correlation():
    draw = np.random.default_rng(4)
    x = draw.normal(size=(20_000, 1))
    y = 3 * x[:, 0] + 4 * draw.normal(size=20_000)  # correlation 0.6: 1 / (1 - 0.36) = 1.5625
    assert controlled_mean(y, x).gain_x == pytest.approx(1.5625, rel=0.02)


def test_intervals_cover_as_often_as_they_say():
    draw, studies, hit = np.random.default_rng(5), 2000, 0
    for _ in range(studies):
        x = draw.normal(size=(15, 3))
        y = 10 + x @ [1.0, 2.0, 0.0] + draw.normal(size=15)
        interval = controlled_mean(y, x).interval
        hit += interval.low <= 10 <= interval.high
    # binomial(2000, 0.95): 4 standard deviations are 0.0195
    assert hit / studies == pytest.approx(0.95, abs=0.0195)


def test_too_few_values_and_wrong_shapes_are_told():
    with pytest.raises(ValueError, match="too few for 3 controls"):
        controlled_mean([1.0, 2.0, 3.0, 5.0], np.random.default_rng(6).normal(size=(4, 3)))
    with pytest.raises(ValueError, match=r"expected \(2, q\)"):
        controlled_mean([1.0, 2.0], np.zeros((3, 1)))
    with pytest.raises(ValueError, match="no spread"):
        controlled_mean([1.0], np.zeros((1, 1)))
