"""Sharper answers from the same runs: what luck did to the inputs is seen, and taken off the outputs.

Like judging a season's harvest with the rainfall beside it: a wet year explains part of a good one. Controls are
quantities of a run whose true mean is known (mean service time, work that came in); where a run had more of them than
it should, its answer is corrected by as much as such a surplus usually goes with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sim.statistics.intervals import Interval, half_width


@dataclass(frozen=True, slots=True)
class Controlled:
    """A mean after its controls are regressed out."""

    interval: Interval
    plain: Interval
    """The same without controls."""
    error: float
    """Standard error."""
    controls: int
    """Controls that counted; those that say the same as others are left out."""
    gain_x: float
    """How many times as many plain values would give as short an interval."""


def controlled_mean(
    values: ArrayLike, surplus: ArrayLike, level_frac: float = 0.95, *, tolerance: float = 1e-9
) -> Controlled:
    """Mean of independent ``values`` ``[n]`` with controls ``surplus`` ``[n, q]`` (each less its known mean).

    Ordinary least squares of the values on the controls; the intercept is the answer, Student's interval with
    ``n - q - 1`` degrees of freedom (Lavenberg and Welch 1981, Management Science 27, 322; exact for normal values).
    Controls that depend on others to ``tolerance`` are dropped, so their number need not be chosen with care.

    Raises:
        ValueError: fewer values than controls need, or shapes that do not go together.
    """
    y = np.asarray(values, dtype=float).ravel()
    x = np.asarray(surplus, dtype=float)
    if x.ndim != 2 or x.shape[0] != y.size:
        raise ValueError(
            f"controls of shape {x.shape} do not go with {y.size} values: expected ({y.size}, q)"
        )
    n = y.size
    if n < 2:
        raise ValueError(f"{n} values have no spread: expected two or more")
    centre = x.mean(axis=0)
    scale = x.std(axis=0)
    kept = scale > 0
    centre, scale = centre[kept], scale[kept]
    spread = (x[:, kept] - centre) / scale
    left, singular, right = np.linalg.svd(spread, full_matrices=False)
    sure = singular > tolerance * (singular[0] if singular.size else 0.0)
    q = int(sure.sum())
    if n - q - 1 < 1:
        raise ValueError(f"{n} values are too few for {q} controls: expected {q + 2} or more")
    basis, size, turn = left[:, sure], singular[sure], right[sure]
    slope = turn.T @ ((basis.T @ (y - y.mean())) / size)
    off = centre / scale
    estimate = float(y.mean() - off @ slope)
    rest = y - y.mean() - spread @ slope
    variance = float(rest @ rest) / (n - q - 1)
    # the intercept's variance: 1/n and how far the controls' means lie from the known ones
    lever = (turn @ off) / size
    error = float(np.sqrt(variance * (1 / n + lever @ lever)))
    half = half_width(error, n - q, level_frac) * np.sqrt(n - q)
    plain_half = half_width(float(y.std(ddof=1)), n, level_frac)
    gain = (plain_half / half) ** 2 if half > 0 else np.inf
    return Controlled(
        Interval(estimate, estimate - float(half), estimate + float(half), level_frac, n),
        Interval(float(y.mean()), float(y.mean()) - plain_half, float(y.mean()) + plain_half, level_frac, n),
        error,
        q,
        float(gain),
    )
