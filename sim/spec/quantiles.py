"""A number nobody knows exactly: one in ten below ``low``, one in two below ``mid``, nine in ten below ``high``.

Like a weather forecast it is a range with a middle. A value known exactly is a range of no width, so what uses it
never asks which of the two it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z90 = 1.2815515655446004
"""Standard normal quantile of 0.9."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """P10, P50 and P90 of a quantity.

    Raises:
        ValueError: they are not in rising order, or not finite.
    """

    low: float
    mid: float
    high: float

    def __post_init__(self) -> None:
        if not np.isfinite([self.low, self.mid, self.high]).all() or not self.low <= self.mid <= self.high:
            raise ValueError(f"expected low <= mid <= high, all finite, not {self}")

    @classmethod
    def exactly(cls, value: float) -> Quantiles:
        """A value without doubt."""
        return cls(value, value, value)

    @property
    def certain(self) -> bool:
        """Whether it has no width."""
        return self.low == self.high

    def at(self, z: ArrayLike) -> NDArray[np.float64]:
        """Value at a standard normal ``z``; the quantiles are met exactly and the value rises with ``z``.

        A two-piece log-normal where ``low`` is above zero (Wallis 2014, Statistical Science 29(1), for the two-piece
        normal), else a two-piece normal cut off at zero. One ``z`` for one assumption in one draw makes options
        comparable: they meet the same world.
        """
        z = np.asarray(z, float)
        if self.certain:
            return np.full(z.shape, self.mid)
        share = z / Z90
        if self.low > 0:
            falling, rising = np.log(self.mid / self.low), np.log(self.high / self.mid)
            return np.asarray(self.mid * np.exp(np.where(share < 0, share * falling, share * rising)))
        value = self.mid + np.where(share < 0, share * (self.mid - self.low), share * (self.high - self.mid))
        return np.maximum(value, 0.0) if self.low >= 0 else value

    def __mul__(self, factor: float) -> Quantiles:
        """The same doubt about a multiple (``factor`` is not negative)."""
        return Quantiles(self.low * factor, self.mid * factor, self.high * factor)

    def __str__(self) -> str:
        """``12 (8 - 20)``, or ``12`` where it has no width."""
        return f"{self.mid:g}" if self.certain else f"{self.mid:g} ({self.low:g} - {self.high:g})"
