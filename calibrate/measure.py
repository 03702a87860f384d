"""How to time something honestly: as on a scale that trembles, warm up, repeat, and say how sure you are.

A *block* is a function that makes ``calls`` calls and returns the seconds they took. :func:`measure` warms a
block up until it stops getting faster, repeats it, and answers with the median and a distribution-free
interval; :func:`sweep` visits many points in random order within a time budget and re-measures a sentinel to
notice a machine that drifts. Blocks of torch are in :mod:`calibrate.blocks`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Block = Callable[[int], float]
"""``block(calls)`` makes that many calls and returns the seconds they took together."""
Clock = Callable[[], float]
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of a median and the probability that they hold it."""

    low: float
    high: float
    confidence_frac: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: median over blocks, with its interval."""

    median_s: float
    low_s: float
    high_s: float
    confidence_frac: float
    """Of the interval; below the rule's own where the budget ended first."""
    repeats: int
    """Blocks timed."""
    calls: int
    """Calls in each block."""
    steady: bool
    """Whether the warm-up ended because blocks stopped getting faster, not because its share was spent."""
    samples_s: tuple[float, ...] = ()
    """Seconds a call in each block, in the order they were taken."""

    @property
    def width_frac(self) -> float:
        """Width of the interval over the median."""
        return (self.high_s - self.low_s) / self.median_s

    def columns(self) -> dict[str, Any]:
        """Columns of a measurement row; microseconds, as measurement files have them."""
        return {
            "time_us": round(self.median_s * 1e6, 4),
            "low_us": round(self.low_s * 1e6, 4),
            "high_us": round(self.high_s * 1e6, 4),
            "confidence_frac": round(self.confidence_frac, 4),
            "repeats": self.repeats,
            "calls": self.calls,
            "samples_us": [round(sample * 1e6, 4) for sample in self.samples_s],
        }


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a point is measured well enough."""

    width_frac: float = 0.04
    """Stop once the interval is this narrow, as a fraction of the median."""
    confidence_frac: float = 0.95
    min_blocks: int = 6
    """Fewer samples cannot give a distribution-free 95 % interval: 1 - 2 x 2**-6 = 0.969."""
    max_blocks: int = 100
    block_s: float = 0.005
    """A block lasts at least about this long: thousands of times the resolution of the clock."""
    max_calls: int = 10_000
    warm_up_blocks: int = 8
    """At most; warming ends earlier when blocks stop getting faster."""
    faster_frac: float = 0.03
    """A block has stopped getting faster when it gains less than this on the best block before it."""


@dataclass(frozen=True, slots=True)
class Point:
    """Something to measure: what it is, and how to set it up (operands exist only while it is measured)."""

    columns: Mapping[str, Any]
    prepare: Callable[[], Block]


def median_interval(samples: Sequence[float], confidence_frac: float = 0.95) -> Interval:
    """Distribution-free interval of the median from order statistics.

    With ``n`` independent samples, the median lies between the k-th smallest and the k-th largest with
    probability 1 - 2 P(B < k), B binomial(n, 1/2); the largest k that keeps ``confidence_frac`` is taken.
    Too few samples for that give (minimum, maximum) and the confidence they do have.

    Source: David and Nagaraja, *Order Statistics*, 3rd ed. (2003), section 7.1.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("the interval of a median needs at least one sample")
    ordered = sorted(samples)
    n = len(ordered)
    k, below = 1, 1  # below = sum of the first k binomial coefficients: P(B < k) x 2**n
    while 2 * (k + 1) <= n + 1 and 1 - 2 * (below + math.comb(n, k)) / 2**n >= confidence_frac:
        below += math.comb(n, k)
        k += 1
    return Interval(ordered[k - 1], ordered[n - k], max(0.0, 1 - 2 * below / 2**n))


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones."""
    ordered = sorted(samples)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def measure(
    block: Block, share_s: float, rule: StopRule | None = None, clock: Clock = time.perf_counter
) -> Timing:
    """Time one call: warm up, then repeat blocks until the interval is narrow or ``share_s`` is spent.

    At least one block is timed however short the share.

    Args:
        block: what to time.
        share_s: seconds of ``clock`` this point may take, warm-up included.
        rule: when to stop; the default suits kernels.
        clock: monotonic seconds; ranks of a collective pass a clock they agree on.
    """
    rule = rule or StopRule()
    begin = clock()
    calls, steady = _warm_up(block, share_s * 0.4, rule, clock)
    samples: list[float] = []
    while True:
        samples.append(block(calls) / calls)
        interval = median_interval(samples, rule.confidence_frac)
        middle = median(samples)
        narrow = len(samples) >= rule.min_blocks and interval.high - interval.low <= rule.width_frac * middle
        if narrow or len(samples) >= rule.max_blocks or clock() - begin >= share_s:
            return Timing(
                middle,
                interval.low,
                interval.high,
                interval.confidence_frac,
                len(samples),
                calls,
                steady,
                tuple(samples),
            )


def _warm_up(block: Block, share_s: float, rule: StopRule, clock: Clock) -> tuple[int, bool]:
    """Calls that fill a block, and whether the block reached a steady time."""
    begin = clock()
    block(1)  # first touch of memory, compilation, kernel choice: never representative
    calls, best = 1, math.inf
    for _ in range(rule.warm_up_blocks):
        took = block(calls)
        per_call = took / calls
        if took < rule.block_s and calls < rule.max_calls:
            calls = min(rule.max_calls, max(calls + 1, math.ceil(calls * rule.block_s / max(took, 1e-9))))
        elif per_call > best * (1 - rule.faster_frac):
            return calls, True
        best = min(best, per_call)
        if clock() - begin >= share_s:
            return calls, False
    return calls, False


def sweep(
    points: Sequence[Point],
    budget_s: float,
    seed: int,
    warn: Warn,
    *,
    sentinel: Point | None = None,
    rule: StopRule | None = None,
    clock: Clock = time.perf_counter,
    drift_frac: float = 0.08,
    sentinel_visits: int = 6,
    refusals: tuple[type[Exception], ...] = (),
    least: int = 1,
) -> Iterator[tuple[Point, Timing]]:
    """Measure points in random order within ``budget_s``, sharing what is left among those still to come.

    Random order turns slow drift into scatter instead of a bias along the grid. The ``sentinel`` is measured
    before, between and after the points; a move of more than ``drift_frac`` beyond its own intervals is
    reported through ``warn``, and so are points that the budget did not reach. A point that raises one of
    ``refusals`` is told and left out; ``least`` points are measured however short the budget.
    """
    begin = clock()
    order = list(points)
    random.Random(seed).shuffle(order)
    every = max(1, math.ceil(len(order) / max(1, sentinel_visits - 1)))
    first: Timing | None = None
    done, worst = 0, drift_frac
    for number, point in enumerate([*order, None]):
        spent = clock() - begin
        if sentinel is not None and (number % every == 0 or point is None):
            try:
                now = measure(sentinel.prepare(), 0.03 * budget_s, rule, clock)
            except refusals:
                sentinel = None  # the device lacks it, too: drift goes unnoticed, points do not
            else:
                first = first or now
                worst = _compare(first, now, sentinel, spent, worst, warn)
        if point is None or (done >= least and clock() - begin >= budget_s):
            break
        share_s = max(budget_s - (clock() - begin), 0.0) / (len(order) - number)
        done += 1
        try:
            timing = measure(point.prepare(), share_s, rule, clock)
        except refusals as fault:
            reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
            warn(f"left out, not offered here: {_named(point)} ({reason})")
            continue
        yield point, timing
    if done < len(order):
        warn(f"the budget of {budget_s:.3g} s ended after {done} of {len(order)} points")


def _compare(first: Timing, now: Timing, sentinel: Point, at_s: float, told_frac: float, warn: Warn) -> float:
    """Warn of a move beyond ``told_frac``; the move above which the next one is news."""
    move = now.median_s / first.median_s - 1
    apart = now.low_s > first.high_s or now.high_s < first.low_s
    if abs(move) <= told_frac or not apart:
        return told_frac
    warn(
        f"drift: the sentinel ({_named(sentinel)}) moved by {100 * move:+.0f} % after {at_s:.1f} s: clocks changed "
        "or other programs share the machine, and points measured around then scatter by as much"
    )
    return 1.5 * abs(move)


def _named(point: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.columns.items())
