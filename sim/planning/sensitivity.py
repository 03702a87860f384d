"""Which inputs move an answer: one at a time (tornado), by rank over a sample, and by share of variance (Sobol).

Like asking who is loudest in a choir: let each sing alone (tornado), listen who swells when the whole swells (rank
correlation), or work out whose voice explains how much of the sound, alone and in chords (Sobol indices).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.planning.sweep.axes import Axis, Settings, settings
from sim.spec.faults import Fault, ScenarioError

Rows = Sequence[Mapping[str, Any]]
Floats = NDArray[np.float64]


def tornado_points(axes: Sequence[Axis]) -> list[Settings]:
    """All axes in the middle; then each at its low and its high end, the others in the middle."""
    middle = [axis.at(0.5) for axis in axes]
    points: list[list[str]] = [middle]
    for place, axis in enumerate(axes):
        ends = (axis.lowest, axis.highest)
        points += ([*middle[:place], end, *middle[place + 1 :]] for end in ends)
    return [tuple(zip((axis.path for axis in axes), point, strict=True)) for point in points]


def tornado(axes: Sequence[Axis], rows: Rows, metric: str) -> list[dict[str, Any]]:
    """Swing of each input, widest first, from the rows of :func:`tornado_points`; None where a point has no figure."""
    middle = _figure(rows[0], metric)
    bars = []
    for place, axis in enumerate(axes):
        low, high = (_figure(rows[1 + 2 * place + side], metric) for side in (0, 1))
        ends = [value for value in (low, middle, high) if value is not None]
        bars.append(
            {
                "path": axis.path,
                "low": axis.lowest,
                "middle": axis.at(0.5),
                "high": axis.highest,
                "at_low": low,
                "at_middle": middle,
                "at_high": high,
                "swing": max(ends) - min(ends) if ends else None,
            }
        )
    return sorted(bars, key=lambda bar: -(bar["swing"] or 0.0))


def rank_correlations(axes: Sequence[Axis], rows: Rows, metric: str) -> list[dict[str, Any]]:
    """Spearman's rank correlation of the figure with each input, strongest first; None where either never changes.

    Rows without the figure are left out. Values that are no numbers count by their place in the list. The p-value is
    SciPy's, of no monotonic relation.
    """
    from scipy.stats import spearmanr

    kept = [row for row in rows if _figure(row, metric) is not None]
    answer = np.array([_figure(row, metric) for row in kept], dtype=float)
    found = []
    for axis in axes:
        values = _numeric(axis, kept)
        rho = p = None
        if len(kept) > 2 and np.ptp(values) > 0 and np.ptp(answer) > 0:
            test = spearmanr(values, answer)
            rho, p = float(test.statistic), float(test.pvalue)
        found.append({"path": axis.path, "rank_correlation": rho, "p_value": p, "points": len(kept)})
    return sorted(found, key=lambda row: -abs(row["rank_correlation"] or 0.0))


def _numeric(axis: Axis, rows: Rows) -> Floats:
    values = [row[axis.path] for row in rows]
    if all(isinstance(value, int | float) for value in values):
        return np.array(values, dtype=float)
    places = {value: place for place, value in enumerate(dict.fromkeys(map(str, values)))}
    marks = [mark.strip('"') for mark in axis.values]
    places |= {mark: place for place, mark in enumerate(marks)}
    return np.array([places[str(value)] for value in values], dtype=float)


def saltelli_points(axes: Sequence[Axis], count: int, seed: int) -> list[Settings]:
    """SALib's design for Sobol indices: ``count`` x (axes + 2) points (Saltelli 2002, first and total order).

    Raises:
        ScenarioError: ``count`` is no power of two, which the design's balance needs; or SALib is not there.
    """
    if importlib.util.find_spec("SALib") is None:
        text = "needs the extra 'sensitivity' (pip install 'rackcast[sensitivity]')"
        raise ScenarioError([Fault("--sensitivity", "", "sobol-indices", text)])
    from SALib.sample import sobol

    if count & (count - 1) or count < 2:
        nearest = 2 ** max(round(float(np.log2(max(count, 1)))), 1)
        text = f"expected a power of two for Sobol indices; nearest is {nearest}"
        raise ScenarioError([Fault("--sample", "", count, text)])
    unit = sobol.sample(_problem(axes), count, calc_second_order=False, seed=seed)
    return settings(axes, np.asarray(unit))


def sobol_indices(axes: Sequence[Axis], rows: Rows, metric: str, seed: int) -> dict[str, Any]:
    """First-order and total Sobol indices from the rows of :func:`saltelli_points`, each with its 95 % half-width.

    S1 is the share of the figure's variance that an input explains alone, ST with all its interactions (Sobol 2001;
    estimators of Saltelli et al. 2010 as in SALib). ``reason`` says why there are none.
    """
    from SALib.analyze import sobol

    figures = [_figure(row, metric) for row in rows]
    missing = sum(value is None for value in figures)
    if missing:
        reason = f"{missing:,} of {len(rows):,} points have no {metric}: narrow the ranges until every point has one"
        return {"inputs": [], "reason": reason}
    answer = np.array(figures, dtype=float)
    if np.ptp(answer) == 0:
        return {"inputs": [], "reason": f"{metric} is the same at every point"}
    found = sobol.analyze(_problem(axes), answer, calc_second_order=False, seed=seed)
    inputs = [
        {
            "path": axis.path,
            "first_order": float(found["S1"][place]),
            "first_order_half_width": float(found["S1_conf"][place]),
            "total": float(found["ST"][place]),
            "total_half_width": float(found["ST_conf"][place]),
        }
        for place, axis in enumerate(axes)
    ]
    return {"inputs": sorted(inputs, key=lambda row: -row["total"]), "reason": ""}


def _problem(axes: Sequence[Axis]) -> dict[str, Any]:
    """SALib's description of the unit cube; :meth:`Axis.at` maps it onto values."""
    names = [axis.path for axis in axes]
    return {"num_vars": len(names), "names": names, "bounds": [[0.0, 1.0]] * len(names)}


def _figure(row: Mapping[str, Any], metric: str) -> float | None:
    value = row.get(metric)
    return float(value) if isinstance(value, int | float) else None
