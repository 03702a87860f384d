"""What every fit shares: folds, errors, a robust fit in the logarithm, and the small residual grid.

All fits work on log(measured / predicted), because a kernel of 5 microseconds and one of 5 seconds deserve the same
care; losses are soft-L1, because measurements hold outliers that are nobody's physics.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, least_squares
from scipy.sparse import csr_matrix, vstack
from scipy.sparse.linalg import lsqr

from sim.cost.parameters import Parameter
from sim.spec.profile import Constant, FitError, ResidualGrid

Floats = NDArray[np.float64]
Z80 = 1.2816
"""Half width of an 80 % normal interval in standard deviations."""
SPELLS = 8
"""Stretches of a run whose rows :func:`_half_widths` takes to err together; fewer would leave too little to tell by."""
TUKEY, ROUNDS, EXACT = 4.685, 20, 1e-6
"""Of :func:`_drawn`: the biweight's constant, rounds of weighing, and a scatter of rows that is none."""

END_STEP = 1e-4
"""How finely the ends of intervals are sought, in the logarithm: profiles state four digits, intervals two or three."""


def folds(keys: Sequence[str], count: int = 5) -> NDArray[np.int64]:
    """Fold of each row, 0..count-1, by a hash of its key: rows of one key always fall in one fold."""
    return np.array([zlib.crc32(key.encode()) % count for key in keys])


def errors(predicted: ArrayLike, measured: ArrayLike, method: str) -> FitError:
    """Median and p90 absolute error and bias, in percent."""
    p, m = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    ape = 100 * np.abs(p / m - 1)
    bias = 100 * (np.exp(np.mean(np.log(p / m))) - 1)
    return FitError(
        round(float(np.median(ape)), 2),
        round(float(np.quantile(ape, 0.9)), 2),
        round(float(bias), 2),
        len(p),
        method,
    )


def fit_parameters(
    parameters: Sequence[Parameter],
    predict: Callable[[Mapping[str, float]], ArrayLike],
    measured: ArrayLike,
    source: str,
    *,
    start: Mapping[str, float] | None = None,
    prior_weight: float = 0.02,
    loss_scale: float = 0.1,
    weights: ArrayLike | None = None,
    confidence_frac: float = 0.8,
) -> dict[str, Constant]:
    """Fit ``parameters`` so that ``predict(values)`` matches ``measured`` in the logarithm.

    A weak pull towards the start (``prior_weight`` per parameter, in units of the log error) keeps what the data do
    not tell at its physical guess. Intervals hold ``confidence_frac`` (profiles state 80 %): scatter and curvature at
    the optimum on both sides, and on one side as far as one-sided troubles draw the fit (:func:`_drawn`), walked along
    the model where that is no straight line (:func:`_told`). What no row tells of has its whole range for an interval
    (:func:`_untold_frac`).
    """
    target = np.log(np.asarray(measured, dtype=float))
    row_weight = np.ones_like(target) if weights is None else np.sqrt(np.asarray(weights, dtype=float))
    begin = {p.name: (start or {}).get(p.name, p.start) for p in parameters}
    x0 = np.log([np.clip(begin[p.name], p.low * 1.0001, p.high * 0.9999) for p in parameters])
    low, high = np.log([p.low for p in parameters]), np.log([p.high for p in parameters])
    spread = np.maximum(high - low, 1e-9)
    pull = prior_weight * np.sqrt(len(target))

    def residual(x: Floats) -> Floats:
        values = {p.name: float(v) for p, v in zip(parameters, np.exp(x), strict=True)}
        error = (np.log(np.asarray(predict(values), dtype=float)) - target) * row_weight
        return np.concatenate([error, pull * loss_scale * (x - x0) / spread])

    found = least_squares(
        residual, x0, bounds=(low, high), loss="soft_l1", f_scale=loss_scale, x_scale=spread
    )
    left = residual(found.x)
    half = _half_widths(found.jac, left, len(target), loss_scale, confidence_frac)
    half = np.hypot(half, _untold_frac(found.jac, len(target)) * spread)
    drawn = _drawn(found.jac, left, len(target), loss_scale)
    tells = _told(found.jac, left, residual, found.x, loss_scale)
    ends = np.exp(
        [
            [
                _end(partial(tells, number), *side)
                for number, side in enumerate(zip(found.x, bounds, widths, strict=True))
            ]
            for bounds, widths in ((low, half - np.minimum(drawn, 0)), (high, half + np.maximum(drawn, 0)))
        ]
    )
    return {
        p.name: Constant(
            _round(float(np.exp(x))), p.unit, "fitted", source, _round(float(least)), _round(float(most))
        )
        for p, x, least, most in zip(parameters, found.x, *ends, strict=True)
    }


def _half_widths(
    jacobian: Floats, residuals: Floats, rows: int, loss_scale: float, confidence_frac: float
) -> Floats:
    """Half intervals of a soft-L1 fit whose residuals need not be normal: t x root of H^-1 (sum of psi^2 J J^T) H^-1.

    ``jacobian`` as scipy returns it, scaled so that J^T J is the Hessian H of the loss; the first ``rows`` residuals
    are data, the rest is the pull towards the start, which has curvature and no scatter. A row that steers the fit by
    itself leaves less residual than its scatter: each counts over 1 - h, h its leverage (HC3). And a parameter that few
    rows tell of has a scatter known from few: Student's t, z (1 + (z^2 + 1) / (4 df)) (first term of the Cornish-Fisher
    expansion; Abramowitz and Stegun 26.7.5), with Satterthwaite's df = (sum a^2)^2 / sum a^4 - 1, a the pull of each
    row on the parameter. A clock that wanders makes rows err together that were timed one after another, as rows are
    ordered: the same with rows summed over each of :data:`SPELLS` stretches, where that is wider.

    Sources: Huber and Ronchetti, *Robust Statistics*, 2nd ed. (2009), section 7.6 (the sandwich); MacKinnon and White
    1985, J. Econometrics 29(3), 305-325 (HC3); Bell and McCaffrey 2002, Survey Methodology 28(2), 169-181 (df,
    rows in clusters).
    """
    t = 1 + (residuals / loss_scale) ** 2  # soft-L1: rho'(z) = t^-1/2, scipy scales rows by t^-3/4
    scores = jacobian * (t**0.75 * residuals / np.sqrt(t))[:, None]
    bread = np.linalg.pinv(jacobian.T @ jacobian)
    leverage = np.einsum("ij,jk,ik->i", jacobian[:rows], bread, jacobian[:rows])
    told = scores[:rows] / np.maximum(1 - leverage, 0.1)[:, None]
    z = NormalDist().inv_cdf(0.5 + confidence_frac / 2)
    half = np.zeros(jacobian.shape[1])
    for spell in {1, max(1, round(rows / SPELLS))}:
        starts = np.arange(0, rows, spell)
        summed = np.add.reduceat(told, starts)
        variance = np.sum((summed @ bread) ** 2, axis=0)
        pulls = np.add.reduceat((jacobian[:rows] @ bread) ** 2, starts)
        freedom = np.sum(pulls, axis=0) ** 2 / np.maximum(np.sum(pulls**2, axis=0), 1e-300) - 1
        student = z * (1 + (z**2 + 1) / (4 * np.maximum(freedom, 1.0)))
        half = np.maximum(half, student * np.sqrt(variance))
    return np.asarray(half)


def _told(
    jacobian: Floats,
    residuals: Floats,
    residual: Callable[[Floats], Floats],
    optimum: Floats,
    loss_scale: float,
) -> Callable[[int, float], float]:
    """``(number, value)`` -> how far the fit would read from the optimum if that parameter's logarithm were ``value``.

    The influence of each row on the estimate (H^-1 J^T, soft-L1's rho'' by row; Huber and Ronchetti, section 7.6) times
    what the model itself says of the row. Near the optimum it is the distance; where a parameter's share of a time
    fades out, or swamps all others, the logarithm of the parameter is no straight line any more and this is.
    """
    curved = (1 + (residuals / loss_scale) ** 2) ** -0.75
    influence = np.linalg.pinv(jacobian.T @ jacobian) @ (jacobian * curved[:, None]).T

    def told(number: int, value: float) -> float:
        moved = np.where(np.arange(len(optimum)) == number, value, optimum)
        return abs(float(influence[number] @ (residual(moved) - residuals)))

    return told


def _end(told: Callable[[float], float], begin: float, bound: float, width: float) -> float:
    """Where the interval ends that begins at ``begin``: as soon as ``told`` exceeds ``width``, else at the bound."""
    if told(bound) <= width:
        return bound
    return float(brentq(lambda value: told(value) - width, begin, bound, xtol=END_STEP))


def _untold_frac(jacobian: Floats, rows: int) -> Floats:
    """Share of each parameter's value that is the start's and not the data's: 1 - diagonal of the resolution matrix.

    The pull has no scatter of its own, so without this a parameter that no row feels would seem to be known exactly.

    Source: Menke, *Geophysical Data Analysis: Discrete Inverse Theory*, section 4.3 (model resolution matrix).
    """
    resolution = np.linalg.pinv(jacobian.T @ jacobian) @ (jacobian[:rows].T @ jacobian[:rows])
    return np.asarray(np.clip(1 - np.diag(resolution), 0.0, 1.0))


def _drawn(jacobian: Floats, residuals: Floats, rows: int, loss_scale: float) -> Floats:
    """How far each parameter lies from where the fit would be without the rows that are far off.

    Troubles of a machine (throttling, other programs) only ever slow it, so a loss that listens to every row a little
    is drawn to one side: a bias, which no scatter tells. Tukey's biweight, which gives far rows no say, is solved from
    the optimum on the linearised model; with symmetric residuals the two agree.

    Source: Huber and Ronchetti, *Robust Statistics*, 2nd ed. (2009), section 4.8 (redescending estimates, constant
    4.685 = 95 % efficiency at the normal) and 7.8 (iteratively reweighted least squares).
    """
    plain = jacobian * ((1 + (residuals / loss_scale) ** 2) ** 0.75)[:, None]
    scale = 1.4826 * float(np.median(np.abs(residuals[:rows] - np.median(residuals[:rows]))))
    step = np.zeros(jacobian.shape[1])
    if scale < EXACT:
        return step
    for _ in range(ROUNDS):
        far = np.abs(residuals + plain @ step) / (TUKEY * scale)
        say = np.where(far < 1, (1 - far**2) ** 2, 0.0)
        say[rows:] = 1.0
        weighted = plain * say[:, None]
        step = -np.linalg.pinv(weighted.T @ plain) @ (weighted.T @ residuals)
    return np.asarray(step)


def fit_grid(
    axes: Sequence[tuple[str, Sequence[float]]],
    coordinates: Mapping[str, ArrayLike],
    log_residual: ArrayLike,
    *,
    smoothness: float = 1.0,
    ridge: float = 0.1,
    rounds: int = 5,
    loss_scale: float = 0.1,
) -> ResidualGrid:
    """The grid that best explains log(measured / physics), smooth where the data are thin.

    Least squares on the node values with a penalty on second differences along every axis (``smoothness``) and on
    the values themselves (``ridge``); soft-L1 by reweighting.
    """
    shape = [len(nodes) for _, nodes in axes]
    named = tuple((name, tuple(float(node) for node in nodes)) for name, nodes in axes)
    empty = ResidualGrid(named, tuple([0.0] * int(np.prod(shape))))
    index, weight = empty.weights(coordinates)
    target = np.asarray(log_residual, dtype=float).ravel()
    row = np.repeat(np.arange(len(target)), index.shape[1])
    design = csr_matrix((weight.ravel(), (row, index.ravel())), shape=(len(target), len(empty.values)))
    penalty = _second_differences(shape) * smoothness
    keep = csr_matrix((np.full(len(empty.values), ridge), (range(len(empty.values)),) * 2))
    values = np.zeros(len(empty.values))
    for _ in range(rounds):
        z = (target - design @ values) / loss_scale
        robust = (1 + z**2) ** -0.25
        system = vstack([csr_matrix(design.multiply(robust[:, None])), penalty, keep])
        right = np.concatenate([target * robust, np.zeros(penalty.shape[0] + keep.shape[0])])
        values = lsqr(system, right, atol=1e-9, btol=1e-9)[0]
    return ResidualGrid(named, tuple(round(float(v), 4) for v in values))


def _second_differences(shape: Sequence[int]) -> csr_matrix:
    size = int(np.prod(shape))
    order = np.arange(size).reshape(shape)
    blocks = [csr_matrix((0, size))]
    for axis, nodes in enumerate(shape):
        if nodes < 3:
            continue
        a, b, c = (np.take(order, range(k, nodes - 2 + k), axis=axis).ravel() for k in range(3))
        rows = np.arange(len(a))
        data = np.concatenate([np.ones(len(a)), -2 * np.ones(len(a)), np.ones(len(a))])
        blocks.append(csr_matrix((data, (np.tile(rows, 3), np.concatenate([a, b, c]))), shape=(len(a), size)))
    return csr_matrix(vstack(blocks))


def _round(value: float) -> float:
    """Four significant digits: more would pretend to a precision no fit has."""
    return float(f"{value:.4g}")
