"""A predicted duration together with what it leans on.

Every cost function that reads a profile answers with an ``Estimate``: like a surveyor's figure, it names the
instrument it came from and how wrong that instrument has been before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.spec.profile import Fit


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, and where they come from."""

    seconds: NDArray[np.float64]
    """Predicted duration; same shape as the inputs broadcast together."""
    lower_bound_s: NDArray[np.float64]
    """What the datasheet alone would allow: FLOP / peak or bytes / bandwidth, whichever is longer."""
    fit: Fit | None
    """The profile entry used; None when nothing is calibrated and starting values were taken."""
    leans_on: str
    """``"parameters"``, ``"parameters and residual grid"`` or ``"assumed defaults"``."""

    @property
    def efficiency_frac(self) -> NDArray[np.float64]:
        """Lower bound over prediction, 0..1 (above 1 where the datasheet is beaten, for example by a hot cache)."""
        return np.asarray(self.lower_bound_s / self.seconds)
