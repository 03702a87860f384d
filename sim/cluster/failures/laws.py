"""Random times of the laws that a scenario may name."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sim.spec.reliability import Delay

Floats = NDArray[np.float64]


def draw_s(delay: Delay, random: np.random.Generator, count: int) -> Floats:
    """``count`` independent times of this mean and law.

    lognormal: ``sigma^2 = ln(1 + cv^2)``, ``mu = ln mean - sigma^2 / 2``; gamma: shape ``1 / cv^2``.

    Raises:
        ValueError: a law that is not known.
    """
    mean = delay.mean_s
    if mean == 0 or delay.law == "deterministic":
        return np.full(count, mean)
    if delay.law == "exponential":
        return random.exponential(mean, count)
    if delay.law == "lognormal":
        variance = math.log1p(delay.variation**2)
        return random.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), count)
    if delay.law == "gamma":
        shape = delay.variation**-2
        return random.gamma(shape, mean / shape, count)
    raise ValueError(f"law {delay.law!r} is not known")


def next_failure_s(
    age_s: float, scale_s: float, shape: float, hazard_x: float, unit_exponential: float
) -> float:
    """Time until a Weibull part of this age fails, its hazard times ``hazard_x``.

    The cumulative hazard ``x (t / scale)^k`` still to be lived through is exponential with mean 1 (inverse transform):
    ``scale ((age/scale)^k + E / x)^(1/k) - age``. A part that is mended but not replaced keeps its age.
    """
    aged: float = (age_s / scale_s) ** shape + unit_exponential / hazard_x
    life: float = scale_s * aged ** (1 / shape)
    return max(life - age_s, 0.0)
