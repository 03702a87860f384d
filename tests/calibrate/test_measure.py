"""The measuring discipline, against theory and against simulated clocks: no test here waits for real time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.blocks import wall_block
from calibrate.measure import Point, StopRule, Timing, measure, median, median_interval, sweep

times = st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=200)


class Bench:
    """A make-believe device: each call takes what ``call_s`` says at that moment."""

    def __init__(self, call_s):
        self.now_s, self.calls, self.call_s = 0.0, 0, call_s

    def clock(self) -> float:
        return self.now_s

    def block(self, calls: int) -> float:
        begin = self.now_s
        for _ in range(calls):
            self.now_s += self.call_s(self.calls, self.now_s)
            self.calls += 1
        return self.now_s - begin

    def point(self, **columns) -> Point:
        return Point(columns, lambda: self.block)


@pytest.mark.parametrize(
    ("samples", "rank", "confidence"),
    # David and Nagaraja (2003), section 7.1, and tables of the sign test: k and 1 - 2 P(B < k)
    [(6, 1, 0.96875), (9, 2, 0.9609375), (15, 4, 0.96484375), (20, 6, 0.95861053466796875)],
)
def test_interval_takes_the_ranks_of_the_sign_test(samples, rank, confidence):
    interval = median_interval(list(range(1, samples + 1)))
    assert (interval.low, interval.high) == (rank, samples + 1 - rank)
    assert interval.confidence_frac == pytest.approx(confidence, abs=1e-12)


def test_few_samples_give_their_range_and_say_how_little_that_is():
    assert median_interval([3.0]).confidence_frac == 0
    interval = median_interval([5.0, 1.0, 3.0])
    assert (interval.low, interval.high, interval.confidence_frac) == (1.0, 5.0, 0.75)
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval([])


@given(times)
def test_interval_holds_the_median_and_agrees_with_numpy(samples):
    interval = median_interval(samples)
    assert min(samples) <= interval.low <= median(samples) <= interval.high <= max(samples)
    assert median(samples) == pytest.approx(float(np.median(samples)))


@given(times, st.floats(0.5, 0.9), st.floats(0.0, 0.09))
def test_more_confidence_never_narrows_the_interval(samples, confidence, more):
    narrow, wide = median_interval(samples, confidence), median_interval(samples, confidence + more)
    assert wide.low <= narrow.low
    assert wide.high >= narrow.high


@pytest.mark.parametrize("draw", ["exponential", "standard_cauchy", "lognormal"])
def test_interval_covers_the_true_median_as_often_as_it_says(draw):
    truth = {"exponential": math.log(2), "standard_cauchy": 0.0, "lognormal": 1.0}[draw]
    random = np.random.default_rng(1)
    samples = getattr(random, draw)(size=(4000, 15))
    intervals = [median_interval(list(row)) for row in samples]
    covered = np.mean([i.low <= truth <= i.high for i in intervals])
    stated = intervals[0].confidence_frac
    assert covered == pytest.approx(stated, abs=4 * math.sqrt(stated * (1 - stated) / 4000))


def test_a_steady_device_is_measured_exactly_and_stops_early():
    bench = Bench(lambda call, now: 1e-4)
    timing = measure(bench.block, 10.0, clock=bench.clock)
    assert timing.median_s == pytest.approx(1e-4)
    assert timing.low_s == pytest.approx(timing.high_s)
    assert timing.repeats == StopRule().min_blocks
    assert timing.calls * timing.median_s >= StopRule().block_s * 0.99
    assert timing.steady


def test_warm_up_keeps_slow_first_calls_out():
    cold = Bench(lambda call, now: 1.0 if call == 0 else 1e-3 * (1 + 5 * math.exp(-call / 5)))
    assert measure(cold.block, 100.0, clock=cold.clock).median_s == pytest.approx(1e-3, rel=0.02)


def test_noise_is_repeated_until_the_interval_is_narrow():
    random = np.random.default_rng(2)
    bench = Bench(lambda call, now: 0.01 * random.lognormal(sigma=0.05))
    timing = measure(bench.block, 1e6, clock=bench.clock)
    assert timing.repeats > StopRule().min_blocks
    assert timing.width_frac <= StopRule().width_frac
    assert timing.confidence_frac >= 0.95
    assert timing.median_s == pytest.approx(0.01, rel=0.05)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-3, 10.0), st.floats(1e-4, 0.5), st.integers(0, 1000))
def test_a_share_is_overrun_by_at_most_warm_up_and_one_block(share_s, call_s, seed):
    random = np.random.default_rng(seed)
    bench = Bench(lambda call, now: call_s * random.uniform(0.5, 1.5))
    timing = measure(bench.block, share_s, clock=bench.clock)
    longest_block_s = 1.5 * max(3 * StopRule().block_s, call_s)
    assert bench.now_s <= share_s + 4 * longest_block_s
    assert timing.repeats >= 1


def test_columns_are_microseconds_in_order():
    row = Timing(2e-3, 1e-3, 3e-3, 0.96, 7, 2, True).columns()
    assert (row["low_us"], row["time_us"], row["high_us"]) == (1000.0, 2000.0, 3000.0)
    assert (row["repeats"], row["calls"]) == (7, 2)


def test_sweep_measures_every_point_once_in_an_order_of_its_seed():
    bench = Bench(lambda call, now: 1e-3)
    points = [bench.point(number=number) for number in range(20)]

    def order(seed):
        warnings = []
        done = [p.columns["number"] for p, _ in sweep(points, 1e3, seed, warnings.append, clock=bench.clock)]
        assert warnings == []
        return done

    assert sorted(order(1)) == list(range(20))
    assert order(1) == order(1) != order(2)
    assert order(1) != list(range(20))


def test_sweep_keeps_its_budget_and_says_what_it_left():
    bench = Bench(lambda call, now: 0.5)
    warnings = []
    done = list(sweep([bench.point(n=n) for n in range(50)], 20.0, 0, warnings.append, clock=bench.clock))
    assert 0 < len(done) < 50
    assert bench.now_s <= 20.0 + 2.0
    assert warnings == [f"the budget of 20 s ended after {len(done)} of 50 points"]


@pytest.mark.parametrize(("slowdown", "expected"), [(1.0, 0), (1.3, 1)])
def test_sentinel_notices_a_throttled_device(slowdown, expected):
    bench = Bench(lambda call, now: 1e-3 * (slowdown if now > 2.0 else 1.0))
    warnings = []
    points = [bench.point(n=n) for n in range(60)]
    for _ in sweep(points, 1e3, 3, warnings.append, sentinel=bench.point(size=512), clock=bench.clock):
        pass
    assert len(warnings) == expected, "told once, not at every visit"
    if expected:
        assert "drift: the sentinel (size 512) moved by +30 %" in warnings[0]


def test_wall_block_makes_the_calls_it_is_asked_for():
    made = []
    took_s = wall_block(lambda: made.append(1))(7)
    assert len(made) == 7
    assert took_s > 0
