"""How far a mean, a quantile or a difference of repeated runs may be off.

Like the plus-minus behind a measurement. Values must come from independent runs (or batch means long enough to pass for
such): numbers along one run hang together and look surer than they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtrit

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and the interval that covers the truth in ``level_frac`` of studies like this one."""

    estimate: float
    low: float
    high: float
    level_frac: float
    values: int
    """How many independent values are behind it."""

    @property
    def half_width(self) -> float:
        """Half the length."""
        return (self.high - self.low) / 2


def mean_interval(values: ArrayLike, level_frac: float = 0.95) -> Interval:
    """Mean of independent values with Student's t: ``mean +- t_{n-1} s / sqrt(n)``; infinite for one value.

    Raises:
        ValueError: there is no value.
    """
    data = _data(values)
    mean = float(data.mean())
    half = half_width(float(data.std(ddof=1)), data.size, level_frac) if data.size > 1 else math.inf
    return Interval(mean, mean - half, mean + half, level_frac, data.size)


def half_width(deviation: float, count: int, level_frac: float = 0.95) -> float:
    """``t_{n-1, 1-a/2} s / sqrt(n)``."""
    return float(stdtrit(count - 1, 0.5 + level_frac / 2)) * deviation / math.sqrt(count)


def quantile_interval(values: ArrayLike, quantile_frac: float, level_frac: float = 0.95) -> Interval:
    """Quantile of independent values between two order statistics, free of any law.

    The number of values below the true quantile is binomial(n, q): take the smallest ranks l < u with
    ``P(l <= B < u) >= level``, tails shared out (David and Nagaraja, Order Statistics, 3rd ed., 7.1). A side for which
    there are too few values is infinite.

    Raises:
        ValueError: there is no value.
    """
    data = np.sort(_data(values))
    size, tail = data.size, (1 - level_frac) / 2
    below = bdtr(np.arange(size + 1, dtype=float), size, quantile_frac)  # P(B <= k)
    low = int(np.searchsorted(below, tail, side="right"))  # first k with P(B <= k) > tail
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return Interval(
        float(np.quantile(data, quantile_frac)),
        float(data[low - 1]) if low >= 1 else -math.inf,
        float(data[high - 1]) if high <= size else math.inf,
        level_frac,
        size,
    )


def paired_difference(first: ArrayLike, second: ArrayLike, level_frac: float = 0.95) -> Interval:
    """Mean of ``second - first`` over runs that shared their streams: what both suffered alike cancels.

    Raises:
        ValueError: the runs do not come in pairs, or there are none.
    """
    a, b = _data(first), _data(second)
    if a.size != b.size:
        raise ValueError(f"{a.size} and {b.size} values do not pair; run both scenarios equally often")
    return mean_interval(b - a, level_frac)


def _data(values: ArrayLike) -> Floats:
    data = np.asarray(values, dtype=float).ravel()
    if data.size == 0:
        raise ValueError("there is no value to take a mean of")
    return data
