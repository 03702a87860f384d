"""Fits fused mixture-of-experts layers: weight streaming, padded tiles and the overheads around them.

Like a school with one curriculum and many classes: parameters of a number format on all hardware come first, each
(kernel, generation) then departs from them as far as its own measurements ask, and a small grid keeps what physics
leaves over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrate.fit.common import errors, fit_grid, fit_parameters, folds
from sim.cost.device import Device
from sim.cost.kernels.moe import (
    ALIASES,
    PARAMETERS,
    coordinates,
    expert_matrices,
    format_of,
    moe,
    moe_s,
)
from sim.cost.kernels.routing import RankLoad, rank_load
from sim.spec.profile import Constant, Fit, ResidualGrid

Floats = NDArray[np.float64]
Rows = Mapping[str, ArrayLike]

NUMBERS = ("tokens", "hidden", "ffn", "topk", "experts", "tensor", "expert_parallel")
NAMES = ("gpu", "dtype", "kernel", "distribution")

FEWEST_FOR_GRID = 24
GRID_STEPS = (("log2_tokens_per_expert", 2.0), ("log2_active", 2.0), ("log2_ffn", 2.0))
SMOOTHNESS, RIDGE = 0.5, 0.5
PRIOR_WEIGHT = 0.1
FEW = 20.0
"""How stiff grids and departures from the common parameters are; chosen by five-fold cross-validation."""


def fit(rows: Rows, devices: Mapping[str, Device], source: str) -> list[Fit]:
    """Fit every number format in ``rows``, then every (format, kernel, generation); largest groups first.

    Args:
        rows: columns gpu, dtype, tokens, hidden, ffn, topk, experts, tensor, expert_parallel, distribution, kernel,
            time_us, as in ``moe_kernel`` files; optional matrices (3 gated, 2 not).
        devices: datasheet of each name in column gpu; rows without a peak rate for their format are left out.
        source: where the rows come from, for the provenance of each constant.
    """
    return _fit_all(_table(rows, devices), devices, source)


def cross_validate(rows: Rows, devices: Mapping[str, Device], count: int = 5) -> Floats:
    """Seconds predicted for each row by a fit that has not seen its (tokens, hidden, ffn, topk, experts).

    Rows that cannot be predicted (no peak rate for the format) are nan.
    """
    table = _table(rows, devices)
    keys = ["|".join(f"{v:g}" for v in shape) for shape in zip(*[table[n] for n in NUMBERS[:5]], strict=True)]
    fold = folds(keys, count)
    predicted = np.full(len(np.asarray(rows["time_us"])), np.nan)
    for number in range(count):
        out = fold == number
        if out.any() and not out.all():
            fits = _fit_all({n: c[~out] for n, c in table.items()}, devices, "cross-validation")
            predicted[table["row"][out]] = _predict(fits, {n: c[out] for n, c in table.items()}, devices)
    return predicted


def predict(fits: Sequence[Fit], rows: Rows, devices: Mapping[str, Device]) -> Floats:
    """Seconds of each row, by :func:`sim.cost.kernels.moe.moe`; nan without a peak rate for the format."""
    table = _table(rows, devices)
    predicted = np.full(len(np.asarray(rows["time_us"])), np.nan)
    predicted[table["row"]] = _predict(fits, table, devices)
    return predicted


def with_errors(fits: Sequence[Fit], rows: Rows, predicted: ArrayLike, devices: Mapping[str, Device]) -> list[Fit]:
    """The fits, each with the cross-validated error of the rows of its key."""
    table = _table(rows, devices)
    guess = np.asarray(predicted, dtype=float)[table["row"]]
    result = []
    for one in fits:
        mine = np.isfinite(guess)
        for name in ("dtype", "kernel", "generation"):
            if name in one.key:
                mine &= table[name] == one.key[name]
        method = "5 folds by (tokens, hidden, ffn, topk, experts)"
        error = errors(guess[mine], table["seconds"][mine], method) if mine.any() else None
        result.append(Fit(one.op, one.key, one.parameters, one.grid, error))
    return result


def _table(rows: Rows, devices: Mapping[str, Device]) -> dict[str, NDArray[Any]]:
    """Columns as arrays with the busiest rank's load; rows whose format the device cannot multiply are dropped."""
    table: dict[str, NDArray[Any]] = {name: np.asarray(rows[name]).astype(str) for name in NAMES}
    table |= {name: np.asarray(rows[name], dtype=float) for name in NUMBERS}
    table["seconds"] = np.asarray(rows["time_us"], dtype=float) * 1e-6
    table["row"] = np.arange(len(table["seconds"]))
    table["generation"] = np.array([devices[gpu].generation for gpu in table["gpu"]])
    known = [format_of(d).math in devices[g].flop_per_s for d, g in zip(table["dtype"], table["gpu"], strict=True)]
    table["dtype"] = np.array([ALIASES.get(dtype, dtype) for dtype in table["dtype"]])
    shape = [table[name] for name in ("ffn", "topk", "experts")]
    table["matrices"] = expert_matrices(*shape, table["kernel"])
    if "matrices" in rows:
        table["matrices"] = np.asarray(rows["matrices"], dtype=float)
    keep = np.array(known, dtype=bool)
    table = {name: column[keep] for name, column in table.items()}
    return table | _loads(table)


def _loads(table: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    count = len(table["seconds"])
    pairs, active = np.zeros(count), np.zeros(count)
    blocks = np.zeros((count, 6))
    for name in np.unique(table["distribution"]):
        at = table["distribution"] == name
        columns = (table[c][at] for c in ("tokens", "topk", "experts", "expert_parallel"))
        load = rank_load(*columns, str(name))
        pairs[at], active[at], blocks[at] = load.pairs, load.active, load.blocks
    return {"pairs": pairs, "active": active, "blocks": blocks}


def _load(table: Mapping[str, NDArray[Any]]) -> RankLoad:
    return RankLoad(table["pairs"], table["active"], table["blocks"])


def _fit_all(table: Mapping[str, NDArray[Any]], devices: Mapping[str, Device], source: str) -> list[Fit]:
    found: list[tuple[int, Fit]] = []
    for dtype in np.unique(table["dtype"]):
        of_dtype = {n: c[table["dtype"] == dtype] for n, c in table.items()}
        common = _fit_group(of_dtype, devices, source, None, 0.02)
        found.append((len(of_dtype["row"]), Fit("moe", {"dtype": str(dtype)}, common)))
        start = {name: constant.value for name, constant in common.items()}
        names = np.stack([of_dtype["kernel"], of_dtype["generation"]])
        for kernel, generation in np.unique(names, axis=1).T:
            at = (names[0] == kernel) & (names[1] == generation)
            group = {n: c[at] for n, c in of_dtype.items()}
            stiff = PRIOR_WEIGHT * (1 + (FEW / at.sum()) ** 1.5)
            own = _fit_group(group, devices, source, start, stiff)
            left = np.log(group["seconds"] / _physics(group, devices, {n: c.value for n, c in own.items()}))
            key = {"dtype": str(dtype), "generation": str(generation), "kernel": str(kernel)}
            found.append((int(at.sum()), Fit("moe", key, own, _grid(group, left))))
    return [one for _, one in sorted(found, key=lambda item: -item[0])]


def _fit_group(
    group: Mapping[str, NDArray[Any]],
    devices: Mapping[str, Device],
    source: str,
    start: Mapping[str, float] | None,
    prior_weight: float,
) -> dict[str, Constant]:
    run: Callable[[Mapping[str, float]], Floats] = lambda values: _physics(group, devices, values)  # noqa: E731
    return fit_parameters(PARAMETERS, run, group["seconds"], source, start=start, prior_weight=prior_weight)


def _physics(
    group: Mapping[str, NDArray[Any]], devices: Mapping[str, Device], values: Mapping[str, float]
) -> Floats:
    seconds = np.zeros(len(group["row"]))
    load = _load(group)
    form = format_of(str(group["dtype"][0]))
    for gpu in np.unique(group["gpu"]):
        at = group["gpu"] == gpu
        seconds[at] = moe_s(
            devices[str(gpu)],
            RankLoad(load.pairs[at], load.active[at], load.blocks[at]),
            group["tokens"][at],
            group["topk"][at],
            group["hidden"][at],
            group["ffn"][at] / group["tensor"][at],
            form,
            matrices=group["matrices"][at],
            **values,
        )
    return seconds


def _predict(fits: Sequence[Fit], table: Mapping[str, NDArray[Any]], devices: Mapping[str, Device]) -> Floats:
    seconds = np.zeros(len(table["row"]))
    names = np.stack([table[name] for name in NAMES])
    for case in np.unique(names, axis=1).T:
        at = np.all(names == case[:, None], axis=0)
        gpu, dtype, kernel, distribution = (str(name) for name in case)
        seconds[at] = moe(
            fits,
            devices[gpu],
            *(table[name][at] for name in NUMBERS[:5]),
            tensor=table["tensor"][at],
            expert_parallel=table["expert_parallel"][at],
            distribution=distribution,
            dtype=dtype,
            kernel=kernel,
            matrices=table["matrices"][at],
        ).seconds
    return seconds


def _grid(group: Mapping[str, NDArray[Any]], residual: Floats) -> ResidualGrid | None:
    if len(residual) < FEWEST_FOR_GRID:
        return None
    at = coordinates(_load(group), group["tokens"], group["hidden"], group["ffn"] / group["tensor"])
    axes = [(name, _nodes(at[name], step)) for name, step in GRID_STEPS]
    return fit_grid(axes, at, residual, smoothness=SMOOTHNESS, ridge=RIDGE)


def _nodes(values: Floats, step: float) -> list[float]:
    """Evenly spaced nodes over the range seen, about ``step`` apart."""
    low, high = float(values.min()), float(values.max())
    if high - low < 0.1:
        return [round(low, 3)]
    return [round(float(v), 3) for v in np.linspace(low, high, max(2, round((high - low) / step) + 1))]
