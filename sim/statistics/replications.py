"""Repeat a run until its answers are sure enough, and not longer.

Like tasting soup: a spoon at a time, until one knows. Replication k is a pure function of k, so any number of workers
gives the same answer: results are judged in the order of k, and what workers computed too far ahead is not looked at.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.statistics.intervals import Interval, half_width, mean_interval

Run = Callable[[int], Mapping[str, float]]
"""Replication number -> its answers by name; a module-level function or ``functools.partial`` for more than one
worker."""
Told = Callable[[int, int], None]
"""Hears how many replications are done, and how many there are at most."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When to stop: each answer's half-width at most ``gamma / (1 + gamma)`` of its mean (Law and Kelton).

    The fraction gamma' makes the error relative to the true mean at most gamma. Since one lucky stop would make
    intervals too short, it must hold for some replications more (look-ahead of Hoad, Robinson and Davies 2010,
    JORS 61, 1632).
    """

    precision_frac: float = 0.02
    level_frac: float = 0.95
    least: int = 5
    most: int = 1000
    ahead: int = 5
    """Further replications for which it must hold; grows as n * ahead / 100 beyond a hundred."""
    floors: Mapping[str, float] | None = None
    """Half-width that is good enough for an answer whatever its mean (answers near 0 never meet a relative one)."""

    def met(self, name: str, deviation: float, count: int, mean: float) -> bool:
        """Whether ``count`` values of this deviation and mean are enough."""
        relative = self.precision_frac / (1 + self.precision_frac) * abs(mean)
        enough = max(relative, (self.floors or {}).get(name, 0.0))
        return half_width(deviation, count, self.level_frac) <= enough


@dataclass(frozen=True, slots=True)
class Replications:
    """Answers of all replications that counted."""

    values: Mapping[str, tuple[float, ...]]
    rule: Rule
    not_converged: tuple[str, ...]
    """Answers that were not sure enough when the cap was reached; empty when all were."""

    @property
    def count(self) -> int:
        """Replications."""
        return len(next(iter(self.values.values()), ()))

    def interval(self, name: str) -> Interval:
        """Mean and interval of one answer."""
        return mean_interval(self.values[name], self.rule.level_frac)


def replications_needed(values: Sequence[float], rule: Rule) -> int | None:
    """First count from ``rule.least`` on at which a series is sure enough (no look-ahead); None = it never is."""
    moments = _Moments()
    for value in values:
        moments.add(value)
        if moments.count >= max(rule.least, 2) and rule.met(
            "", moments.deviation, moments.count, moments.mean
        ):
            return moments.count
    return None


def replicate(
    run: Run, rule: Rule | None = None, *, workers: int = 1, told: Told | None = None
) -> Replications:
    """Run replications 0, 1, 2 ... until the rule holds for every answer at once, or the cap.

    The same bytes for any number of workers, given that ``run`` depends on its number alone.

    Raises:
        ValueError: replications disagree on the names of their answers.
    """
    rule = rule or Rule()
    moments: dict[str, _Moments] = {}
    values: dict[str, list[float]] = {}
    held = 0
    for count, answer in enumerate(_in_order(run, rule.most, workers), start=1):
        if values and answer.keys() != values.keys():
            raise ValueError(f"replication {count - 1} answers {sorted(answer)}, not {sorted(values)}")
        for name, value in answer.items():
            values.setdefault(name, []).append(float(value))
            moments.setdefault(name, _Moments()).add(float(value))
        if told is not None:
            told(count, rule.most)
        unsure = [n for n, m in moments.items() if count < 2 or not rule.met(n, m.deviation, count, m.mean)]
        held = 0 if unsure or count < rule.least else held + 1
        if held > max(rule.ahead, (count - held) * rule.ahead // 100):
            break
    missed = tuple(unsure) if values else ()
    return Replications({name: tuple(column) for name, column in values.items()}, rule, missed)


def _in_order(run: Run, most: int, workers: int) -> Iterator[Mapping[str, float]]:
    if workers <= 1:
        yield from map(run, range(most))
        return
    context = multiprocessing.get_context(
        "spawn"
    )  # the same start on every system, and no locks copied half-held
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        numbers = iter(range(most))
        waiting: list[Future[Mapping[str, float]]] = [
            pool.submit(run, number) for number in itertools.islice(numbers, 2 * workers)
        ]
        try:
            while waiting:
                answer = waiting.pop(0).result()
                waiting += [pool.submit(run, number) for number in itertools.islice(numbers, 1)]
                yield answer
        finally:
            # not one by one: the pool's thread can wait for ever for the answer of a future cancelled alone
            pool.shutdown(cancel_futures=True)


class _Moments:
    """Mean and deviation of values as they come (Welford 1962)."""

    __slots__ = ("_squares", "count", "mean")

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        gap = value - self.mean
        self.mean += gap / self.count
        self._squares += gap * (value - self.mean)

    @property
    def deviation(self) -> float:
        return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else math.inf


def differences(first: Replications, second: Replications, name: str) -> NDArray[np.float64]:
    """``second - first`` of one answer over the replications both have (same number = same streams)."""
    count = min(first.count, second.count)
    return np.subtract(second.values[name][:count], first.values[name][:count], dtype=float)
