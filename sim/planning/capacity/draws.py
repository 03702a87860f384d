"""The worlds a plan is tried in.

Every assumption has its own stream of standard normal numbers, found by its name. All options see the same worlds, so
a difference between two options is never luck (common random numbers; Law 2015, Simulation Modeling and Analysis,
11.2).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.spec.interval import Interval


@dataclass(frozen=True, slots=True)
class Draws:
    """``count`` worlds under one ``seed``."""

    count: int
    seed: int = 0
    fixed: Mapping[str, float] | None = field(default=None, hash=False)
    """Instead of chance: standard normal values by assumption, 0 (the median) for those not named."""

    def z(self, name: str) -> NDArray[np.float64]:
        """Standard normal numbers of the assumption ``name``, shape (count,).

        Antithetic pairs: the second half mirrors the first, so a median assumption is the median of the draws.
        """
        if self.fixed is not None:
            return np.full(self.count, self.fixed.get(name, 0.0))
        half = -(-self.count // 2)
        normal = np.random.default_rng([self.seed, zlib.crc32(name.encode())]).standard_normal(half)
        return np.concatenate([normal, -normal])[: self.count]

    def of(self, name: str, value: Interval) -> NDArray[np.float64]:
        """The assumption in every world, shape (count,)."""
        return value.at(self.z(name))
