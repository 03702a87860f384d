"""The worlds a plan is tried in.

Every assumption has its own stream of standard normal numbers, found by its name. All options see the same worlds, so
a difference between two options is never luck (common random numbers; Law 2015, Simulation Modeling and Analysis,
11.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.spec.prices import Assumption, bounds
from sim.spec.quantiles import Quantiles
from sim.statistics.streams import Streams

WORLDS_STREAM = "worlds"
"""Branch of the streams in which every assumption has its own."""


@dataclass(frozen=True, slots=True)
class Draws:
    """``count`` worlds under one ``seed``."""

    count: int
    seed: int = 0
    pinned: Mapping[str, ArrayLike] = field(default_factory=dict, hash=False)
    """Assumptions that are not left to chance: their standard normal value by name, one or one a world."""
    blocks: int = 1
    """The worlds are this many copies of the same ``count / blocks`` ones, for use with ``pinned``."""
    median: bool = False
    """All others stay at their median instead of being drawn."""

    def z(self, name: str) -> NDArray[np.float64]:
        """Standard normal numbers of the assumption ``name``, shape (count,).

        Antithetic pairs: the second half mirrors the first, so a median assumption is the median of the draws.
        """
        if name in self.pinned or self.median:
            return np.array(np.broadcast_to(np.asarray(self.pinned.get(name, 0.0), float), self.count))
        once = self.count // self.blocks
        half = -(-once // 2)
        normal = Streams(self.seed).generator(WORLDS_STREAM, name).standard_normal(half)
        return np.tile(np.concatenate([normal, -normal])[:once], self.blocks)

    def of(self, name: str, value: Quantiles) -> NDArray[np.float64]:
        """The assumption in every world, shape (count,)."""
        return value.at(self.z(name))


def world_of(general: Mapping[str, Assumption], draws: Draws) -> dict[str, NDArray[np.float64]]:
    """Every general assumption in every world, kept to what it can be at all; each shape (draws,)."""
    return {name: np.clip(draws.of(name, item.value), *bounds(name)) for name, item in general.items()}
