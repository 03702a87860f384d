"""Fits memory-bound kernels: how close norms, activations and additions come to the memory bandwidth.

Works from the general to the particular, like a tailor with a standard cut: first one set of parameters for an
operation and engine on all accelerators together, then efficiency and launch time of each accelerator, last a small
grid of what remains by row count and row length, shared by all accelerators because they run the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrate.fit.common import errors, fit_grid, fit_parameters, folds
from sim.cost.device import Device
from sim.cost.kernels.memory_bound import PARAMETERS, coordinates, kind, memory_bound, memory_bound_s
from sim.spec.profile import Constant, Fit, FitError, ResidualGrid

Floats = NDArray[np.float64]
Rows = Mapping[str, ArrayLike]

DTYPES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""Names of measurement files to names of ``sim.cost.device``; others pass unchanged."""

PER_ACCELERATOR = ("launch_s", "memory_eff_frac", "core_bytes_per_s")
"""Parameters that each accelerator fits for itself when it has measurements; the rest describe the kernel."""

FEWEST_FOR_GRID = 12

GRID_STEPS = (("log2_rows", 3.0), ("log2_cols", 0.5))
SMOOTHNESS, RIDGE, OWN_RIDGE = 0.3, 0.3, 0.6
"""How stiff the grids are; chosen by cross-validation on 1,099 kernels of 14 accelerators."""


def fit(rows: Rows, devices: Mapping[str, Device], source: str) -> list[Fit]:
    """Fit every (operation, engine) in ``rows``: one entry for all accelerators, one for each measured one.

    Args:
        rows: columns gpu, op, dtype, rows, cols, bytes, time_us, engine, as in ``memory_measured`` files.
        devices: datasheet of each name in column gpu.
        source: where the rows come from, for the provenance of each constant.
    """
    table = _table(rows)
    result: list[Fit] = []
    for family, engine in sorted({(f, e) for f, e in zip(table["family"], table["engine"], strict=True)}):
        chosen = (table["family"] == family) & (table["engine"] == engine)
        group = {name: column[chosen] for name, column in table.items()}
        result += _fit_group(group, devices, str(family), str(engine), source)
    return result


def cross_validate(rows: Rows, devices: Mapping[str, Device], count: int = 5) -> Floats:
    """Seconds predicted for each row by a fit that has not seen its (op, rows, cols)."""
    table = _table(rows)
    keys = [f"{o}|{r:g}|{c:g}" for o, r, c in zip(table["op"], table["rows"], table["cols"], strict=True)]
    fold = folds(keys, count)
    predicted = np.full(len(fold), np.nan)
    for number in range(count):
        out = fold == number
        if out.any() and not out.all():
            fits = fit({name: column[~out] for name, column in table.items()}, devices, "cross-validation")
            predicted[out] = predict(fits, {name: column[out] for name, column in table.items()}, devices)
    return predicted


def predict(fits: Sequence[Fit], rows: Rows, devices: Mapping[str, Device]) -> Floats:
    """Seconds of each row, by :func:`sim.cost.kernels.memory_bound.memory_bound`."""
    table = _table(rows)
    names = np.stack([table[name].astype(str) for name in ("gpu", "op", "dtype", "engine")])
    predicted = np.zeros(names.shape[1])
    for gpu, op, dtype, engine in np.unique(names, axis=1).T:
        at = np.all(names == np.array([[gpu], [op], [dtype], [engine]]), axis=0)
        estimate = memory_bound(
            fits, devices[gpu], op, table["rows"][at], table["cols"][at], DTYPES.get(dtype, dtype), engine
        )
        predicted[at] = estimate.seconds
    return predicted


def with_errors(fits: Sequence[Fit], rows: Rows, predicted: ArrayLike, devices: Mapping[str, Device]) -> list[Fit]:
    """The fits, each with the cross-validated error of the rows that would be predicted by it."""
    table, guess = _table(rows), np.asarray(predicted, dtype=float)
    keys = np.array([devices[gpu].key for gpu in table["gpu"]])
    result = []
    for one in fits:
        mine = (table["engine"] == one.key["engine"]) & (table["family"] == one.key.get("kernel", one.key["kind"]))
        if "accelerator" in one.key:
            mine &= keys == one.key["accelerator"]
        mine &= np.isfinite(guess)
        error: FitError | None = None
        if mine.any():
            error = errors(guess[mine], table["seconds"][mine], "5 folds by (op, rows, cols)")
        result.append(Fit(one.op, one.key, one.parameters, one.grid, error))
    return result


def _table(rows: Rows) -> dict[str, NDArray[Any]]:
    """Columns as arrays, with seconds and the family: elementwise operations of one engine are one kernel."""
    table = {
        name: np.asarray(rows[name]).astype(str) for name in ("gpu", "op", "dtype", "engine")
    } | {name: np.asarray(rows[name], dtype=float) for name in ("rows", "cols", "time_us")}
    table["seconds"] = table["time_us"] * 1e-6
    table["family"] = np.array([_family(op) for op in table["op"]])
    return table


def _family(op: str) -> str:
    own = kind(op) != "elementwise" or op in ("residual_add", "silu_and_mul")
    return op if own else "elementwise"


def _fit_group(
    group: Mapping[str, NDArray[Any]], devices: Mapping[str, Device], family: str, engine: str, source: str
) -> list[Fit]:
    from sim.cost.kernels.memory_bound import ideal_bytes

    gpus = [str(gpu) for gpu in np.unique(group["gpu"])]
    at = {gpu: group["gpu"] == gpu for gpu in gpus}
    moved = np.array(
        [
            float(ideal_bytes(op, r, c, DTYPES.get(dtype, dtype), engine))
            for op, r, c, dtype in zip(group["op"], group["rows"], group["cols"], group["dtype"], strict=True)
        ]
    )

    def predictor(only: Sequence[str], held: Mapping[str, float]) -> Callable[[Mapping[str, float]], Floats]:
        def run(values: Mapping[str, float]) -> Floats:
            both = dict(held) | dict(values)
            return np.concatenate(
                [memory_bound_s(devices[g], moved[at[g]], group["rows"][at[g]], **both) for g in only]
            )

        return run

    def measured(only: Sequence[str]) -> Floats:
        return np.concatenate([group["seconds"][at[g]] for g in only])

    pooled = fit_parameters(PARAMETERS, predictor(gpus, {}), measured(gpus), source)
    start = {name: constant.value for name, constant in pooled.items()}
    own: dict[str, dict[str, Constant]] = {}
    free = [p for p in PARAMETERS if p.name in PER_ACCELERATOR]
    for gpu in gpus:
        found = fit_parameters(
            free, predictor([gpu], start), measured([gpu]), source, start=start, prior_weight=0.3
        )
        own[gpu] = {**pooled, **found}
    residual = {
        g: np.log(measured([g]) / predictor([g], {})({n: c.value for n, c in own[g].items()})) for g in gpus
    }
    order = np.concatenate([np.flatnonzero(at[g]) for g in gpus])
    grid = _grid(group["rows"][order], group["cols"][order], np.concatenate([residual[g] for g in gpus]))
    key = {"kind": kind(family) if family != "elementwise" else family, "engine": engine}
    if family != "elementwise":
        key["kernel"] = family
    result = [
        Fit(
            "memory_bound",
            key | {"accelerator": devices[gpu].key, "generation": devices[gpu].generation},
            own[gpu],
            _refined(grid, group["rows"][at[gpu]], group["cols"][at[gpu]], residual[gpu]),
        )
        for gpu in gpus
    ]
    return [*result, Fit("memory_bound", key, pooled, grid)]


def _grid(rows: Floats, cols: Floats, residual: Floats) -> ResidualGrid | None:
    if len(residual) < FEWEST_FOR_GRID:
        return None
    at = coordinates(rows, cols)
    axes = [(name, _nodes(at[name], step)) for name, step in GRID_STEPS]
    return fit_grid(axes, at, residual, smoothness=SMOOTHNESS, ridge=RIDGE)


def _refined(grid: ResidualGrid | None, rows: Floats, cols: Floats, residual: Floats) -> ResidualGrid | None:
    """The shared grid plus what one accelerator leaves of it: cache sizes move the steps between row lengths."""
    if grid is None:
        return None
    at = coordinates(rows, cols)
    left = residual - np.log(grid.factor(at))
    own = fit_grid(grid.axes, at, left, smoothness=SMOOTHNESS, ridge=OWN_RIDGE)
    return ResidualGrid(grid.axes, tuple(round(a + b, 4) for a, b in zip(grid.values, own.values, strict=True)))


def _nodes(values: Floats, step: float) -> list[float]:
    """Evenly spaced nodes over the range seen, about ``step`` apart."""
    low, high = float(values.min()), float(values.max())
    if high - low < 0.1:
        return [round(low, 3)]
    return [round(float(v), 3) for v in np.linspace(low, high, max(2, round((high - low) / step) + 1))]
