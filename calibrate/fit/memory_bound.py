"""Fits memory-bound kernels: how close norms, activations and additions come to the memory bandwidth.

Works from the general to the particular, like a tailor with a standard cut: first one set of parameters for
an operation and engine on all accelerators together, then efficiency and launch time of each,
last a small grid of what remains by row count and row length, shared by all and corrected for each. An
accelerator nobody measured finds an entry for its generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrate.fit import common
from calibrate.fit.common import fit_grid, fit_parameters
from sim.cost.kernels.memory_bound import (
    OP,
    PARAMETERS,
    choose,
    coordinates,
    family,
    ideal_bytes,
    kind,
    memory_bound,
    memory_bound_s,
)
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, FitError, ResidualGrid

Floats = NDArray[np.float64]
Rows = Mapping[str, ArrayLike]
Table = dict[str, NDArray[Any]]

DTYPES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""Names of measurement files to names of ``sim.spec.device``; others pass unchanged."""

OWN = ("launch_s", "memory_eff_frac", "core_bytes_per_s")
"""Parameters that each accelerator fits for itself when it has measurements; the rest describe the kernel."""

FEWEST_FOR_GRID = 12
MODEL_ERROR = 0.05
"""Log error of the physics that the rounding of a printed time is weighed against."""
GRID_STEPS = (("log2_rows", 4.0), ("log2_cols", 0.5))
SMOOTHNESS, RIDGE, OWN_RIDGE = 0.1, 0.2, 0.2
PRIOR_WEIGHT, OWN_PRIOR_WEIGHT = 0.02, 0.3
"""How stiff grids and departures are; chosen by cross-validation on 1,099 kernels of 14 accelerators."""


def fit(
    rows: Rows,
    devices: Mapping[str, Device],
    source: str,
    *,
    prior: Sequence[Fit] = (),
    folds: int = 5,
) -> list[Fit]:
    """Fit every (operation, engine) in ``rows``: entries for accelerators, generations and all.

    Args:
        rows: columns gpu, op, dtype, rows, cols and time_us; engine may be absent.
        devices: datasheet of each name in column gpu.
        source: where the rows come from, for the provenance of each constant.
        prior: fits to start from where they know the operation: a small measurement then only corrects them.
        folds: folds by (op, rows, cols) for the errors; 0 leaves them out and takes a sixth of the time.

    Raises:
        ValueError: a column or a device is missing (all missing ones are named), or an unknown operation.
    """
    table = _table(rows, devices)
    fits = _fit_all(table, devices, source, prior)
    if folds == 0:
        return fits
    predicted = _held_out(table, devices, prior, folds)
    return [replace(one, error=_error(one, table, predicted, folds)) for one in fits]


def cross_validate(
    rows: Rows, devices: Mapping[str, Device], folds: int = 5, *, prior: Sequence[Fit] = ()
) -> Floats:
    """Seconds predicted for each row by fits that have not seen its (op, rows, cols)."""
    return _held_out(_table(rows, devices), devices, prior, folds)


def predict(fits: Sequence[Fit], rows: Rows, devices: Mapping[str, Device]) -> Floats:
    """Seconds of each row of the form that :func:`fit` takes (time_us may be absent)."""
    return _predict(fits, _table(rows, devices), devices)


def _held_out(table: Table, devices: Mapping[str, Device], prior: Sequence[Fit], count: int) -> Floats:
    keys = [f"{o}|{r:g}|{c:g}" for o, r, c in zip(table["op"], table["rows"], table["cols"], strict=True)]
    fold = common.folds(keys, count)
    predicted = np.full(len(fold), np.nan)
    for number in np.unique(fold):
        out = fold == number
        seen = _take(table, ~out)
        fits = list(prior) if out.all() else _fit_all(seen, devices, "cross-validation", prior)
        predicted[out] = _predict(fits, _take(table, out), devices)
    return predicted


def _predict(fits: Sequence[Fit], table: Table, devices: Mapping[str, Device]) -> Floats:
    names = np.stack([table[name] for name in ("gpu", "op", "dtype", "engine")])
    predicted = np.zeros(names.shape[1])
    for case in np.unique(names, axis=1).T:
        at = np.all(names == case[:, None], axis=0)
        gpu, op, dtype, engine = (str(name) for name in case)
        shape = table["rows"][at], table["cols"][at]
        predicted[at] = memory_bound(fits, devices[gpu], op, *shape, dtype, engine).seconds
    return predicted


def _error(one: Fit, table: Table, predicted: Floats, count: int) -> FitError:
    mine = np.ones(len(predicted), dtype=bool)
    for name in ("family", "engine", "accelerator", "generation"):
        mine &= table[name] == one.key.get(name, table[name])
    return common.errors(predicted[mine], table["seconds"][mine], f"{count} folds by (op, rows, cols)")


def _take(table: Table, rows: NDArray[Any]) -> Table:
    return {name: column[rows] for name, column in table.items()}


def _table(rows: Rows, devices: Mapping[str, Device]) -> Table:
    """Columns as arrays, with ideal bytes, seconds, family and accelerator."""
    missing = [f"column {name}" for name in ("gpu", "op", "dtype", "rows", "cols") if name not in rows]
    if not missing:
        gpus = np.unique(np.asarray(rows["gpu"]).astype(str))
        missing = [f"device {gpu}" for gpu in gpus if gpu not in devices]
    if missing:
        raise ValueError(f"memory-bound rows lack {', '.join(missing)}")
    count = len(np.asarray(rows["gpu"]))
    table: Table = {name: np.asarray(rows[name]).astype(str) for name in ("gpu", "op", "dtype")}
    table["engine"] = np.asarray(rows.get("engine", [""] * count)).astype(str)
    table["dtype"] = np.array([DTYPES.get(dtype, dtype) for dtype in table["dtype"]])
    table |= {name: np.asarray(rows[name], dtype=float) for name in ("rows", "cols")}
    table["seconds"] = np.asarray(rows.get("time_us", np.full(count, np.nan)), dtype=float) * 1e-6
    table["family"] = np.array([family(op) for op in table["op"]])
    table["generation"] = np.array([devices[gpu].generation for gpu in table["gpu"]])
    table["accelerator"] = np.array([devices[gpu].key for gpu in table["gpu"]])
    each = zip(*(table[name] for name in ("op", "rows", "cols", "dtype", "engine")), strict=True)
    table["bytes"] = np.array([float(ideal_bytes(str(o), r, c, str(t), str(e))) for o, r, c, t, e in each])
    return table


def _fit_all(table: Table, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]) -> list[Fit]:
    result: list[Fit] = []
    table = table | {"weight": _weights(table)}
    names = np.stack([table["family"], table["engine"]])
    for case in np.unique(names, axis=1).T:
        group = _take(table, np.all(names == case[:, None], axis=0))
        known = choose(prior, devices[str(group["gpu"][0])], str(group["op"][0]), str(case[1]))
        result += _fit_group(group, devices, source, {} if known is None else known.values())
    return result


def _weights(table: Table) -> Floats:
    """Weight of each row: short times printed in half or whole microseconds know little.

    A time rounded to r is uncertain by r / sqrt(12); against a model error of ``MODEL_ERROR`` the row weighs
    1 / (1 + (uncertainty / time / model error)^2).
    """
    weight = np.ones(len(table["seconds"]))
    names = np.stack([table["gpu"], table["engine"]])
    for case in np.unique(names, axis=1).T:
        at = np.all(names == case[:, None], axis=0)
        halves = table["seconds"][at] * 2e6
        if np.abs(halves - np.round(halves)).max() < 1e-3:
            uncertain = 1e-6 / np.sqrt(12) / table["seconds"][at]
            weight[at] = 1 / (1 + (uncertain / MODEL_ERROR) ** 2)
    return weight


def _fit_group(
    group: Table, devices: Mapping[str, Device], source: str, before: Mapping[str, float]
) -> list[Fit]:
    """One family on one engine: common parameters, those of each accelerator and generation, grids."""
    weight = OWN_PRIOR_WEIGHT if before else PRIOR_WEIGHT
    pooled = fit_parameters(
        PARAMETERS,
        lambda values: _physics(group, devices, values),
        group["seconds"],
        source,
        start=before,
        prior_weight=weight,
        weights=group["weight"],
    )
    result, left = [], []
    name, engine = str(group["family"][0]), str(group["engine"][0])
    key = {"kind": kind(name), "family": name, "engine": engine}
    for level in ("accelerator", "generation"):
        for value in np.unique(group[level]):
            part = _take(group, group[level] == value)
            own = _own(part, devices, source, pooled)
            part["left"] = np.log(part["seconds"] / _physics(part, devices, _values(own)))
            generation = str(part["generation"][0])
            mine = key | {"generation": generation} | {level: str(value)}
            result.append(Fit(OP, mine, own))
            left.append(_take(part, part["weight"] > 0.5))
    accelerators = left[: len(np.unique(group["accelerator"]))]
    grid = _grid({n: np.concatenate([part[n] for part in accelerators]) for n in ("rows", "cols", "left")})
    result = [replace(one, grid=_refined(grid, part)) for one, part in zip(result, left, strict=True)]
    return [*result, Fit(OP, key, pooled, grid)]


def _own(
    part: Table, devices: Mapping[str, Device], source: str, pooled: Mapping[str, Constant]
) -> dict[str, Constant]:
    start = _values(pooled)
    found = fit_parameters(
        [p for p in PARAMETERS if p.name in OWN],
        lambda values: _physics(part, devices, start | dict(values)),
        part["seconds"],
        source,
        start=start,
        prior_weight=OWN_PRIOR_WEIGHT,
        weights=part["weight"],
    )
    return {**pooled, **found}


def _values(constants: Mapping[str, Constant]) -> dict[str, float]:
    return {name: constant.value for name, constant in constants.items()}


def _physics(group: Table, devices: Mapping[str, Device], values: Mapping[str, float]) -> Floats:
    seconds = np.zeros(len(group["bytes"]))
    for gpu in np.unique(group["gpu"]):
        at = group["gpu"] == gpu
        seconds[at] = memory_bound_s(devices[str(gpu)], group["bytes"][at], group["rows"][at], **values)
    return seconds


def _grid(part: Table) -> ResidualGrid | None:
    rows, cols, left = part["rows"], part["cols"], part["left"]
    if len(left) < FEWEST_FOR_GRID:
        return None
    at = coordinates(rows, cols)
    axes = [(name, _nodes(at[name], step)) for name, step in GRID_STEPS]
    return fit_grid(axes, at, left, smoothness=SMOOTHNESS, ridge=RIDGE)


def _refined(grid: ResidualGrid | None, part: Table) -> ResidualGrid | None:
    """The shared grid plus what one accelerator leaves of it: caches move the steps between row lengths."""
    if grid is None or not len(part["left"]):
        return grid
    at = coordinates(part["rows"], part["cols"])
    left = part["left"] - np.log(grid.factor(at))
    own = fit_grid(grid.axes, at, left, smoothness=SMOOTHNESS, ridge=OWN_RIDGE)
    values = (round(a + b, 4) for a, b in zip(grid.values, own.values, strict=True))
    return ResidualGrid(grid.axes, tuple(values))


def _nodes(values: Floats, step: float) -> list[float]:
    """Evenly spaced nodes over the range seen, about ``step`` apart."""
    low, high = float(values.min()), float(values.max())
    if high - low < 0.1:
        return [round(low, 3)]
    return [round(float(v), 3) for v in np.linspace(low, high, max(2, round((high - low) / step) + 1))]
