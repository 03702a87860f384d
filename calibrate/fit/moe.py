"""Fits fused mixture-of-experts layers: weight streaming, padded tiles and the overheads around them.

Like a school with one curriculum and many classes: parameters of a number format on all hardware come
first, each (kernel, generation) then departs from them as far as its own measurements ask, and a small grid
keeps what physics leaves over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrate.fit import common
from calibrate.fit.common import fit_grid, fit_parameters
from sim.cost.kernels.gemm import canonical
from sim.cost.kernels.moe import OP, PARAMETERS, backend, choose, coordinates, expert_matrices, moe, moe_s
from sim.cost.kernels.routing import BLOCKS, RankLoad, rank_load
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, FitError, ResidualGrid

Floats = NDArray[np.float64]
Rows = Mapping[str, ArrayLike]

Table = dict[str, NDArray[Any]]

SHAPE = ("tokens", "hidden", "ffn", "topk", "experts")
NAMES = ("gpu", "dtype", "kernel", "distribution")

FEWEST_FOR_GRID = 24
GRID_STEPS = (("log2_tokens_per_expert", 2.5), ("log2_active", 2.0), ("log2_ffn", 1.5))
SMOOTHNESS, RIDGE = 0.2, 0.3
PRIOR_WEIGHT = 0.1
FEW = 20.0
"""How stiff grids and departures from the common parameters are; chosen by five-fold cross-validation."""


def fit(
    rows: Rows,
    devices: Mapping[str, Device],
    source: str,
    *,
    prior: Sequence[Fit] = (),
    folds: int = 5,
) -> list[Fit]:
    """Fit every number format in ``rows``, then every (format, kernel, generation); largest groups first.

    Args:
        rows: columns gpu, dtype, tokens, hidden, ffn, topk, experts and time_us; tensor, expert_parallel,
            distribution, kernel and matrices (3 gated, 2 not) may be absent.
        devices: datasheet of each name in column gpu.
        source: where the rows come from, for the provenance of each constant.
        prior: fits to start from where they know the format: a small measurement then only corrects them.
        folds: folds by (tokens, hidden, ffn, topk, experts) for the errors; 0 leaves them out, a sixth of
            the time.

    Raises:
        ValueError: a column or a device is missing, or a number format is unknown; all missing ones are
            named.
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
    """Seconds predicted for each row by fits that have not seen its (tokens, hidden, ffn, topk, experts)."""
    return _held_out(_table(rows, devices), devices, prior, folds)


def predict(fits: Sequence[Fit], rows: Rows, devices: Mapping[str, Device]) -> Floats:
    """Seconds of each row of the form that :func:`fit` takes (time_us may be absent)."""
    return _predict(fits, _table(rows, devices), devices)


def _held_out(table: Table, devices: Mapping[str, Device], prior: Sequence[Fit], count: int) -> Floats:
    keys = ["|".join(f"{v:g}" for v in shape) for shape in zip(*[table[n] for n in SHAPE], strict=True)]
    fold = common.folds(keys, count)
    predicted = np.full(len(fold), np.nan)
    for number in np.unique(fold):
        out = fold == number
        fits = [] if out.all() else _fit_all(_take(table, ~out), devices, "cross-validation", prior)
        predicted[out] = _predict(fits, _take(table, out), devices)
    return predicted


def _error(one: Fit, table: Table, predicted: Floats, count: int) -> FitError:
    mine = np.ones(len(predicted), dtype=bool)
    for name in ("dtype", "kernel", "generation"):
        mine &= table[name] == one.key.get(name, table[name])
    method = f"{count} folds by (tokens, hidden, ffn, topk, experts)"
    return common.errors(predicted[mine], table["seconds"][mine], method)


def _take(table: Table, rows: NDArray[Any]) -> Table:
    return {name: column[rows] for name, column in table.items()}


def _table(rows: Rows, devices: Mapping[str, Device]) -> Table:
    """Columns as arrays, with the busiest rank's load."""
    missing = [f"column {name}" for name in ("gpu", "dtype", *SHAPE) if name not in rows]
    if not missing:
        missing = [
            f"device {gpu}" for gpu in np.unique(np.asarray(rows["gpu"]).astype(str)) if gpu not in devices
        ]
    if missing:
        raise ValueError(f"MoE rows lack {', '.join(missing)}")
    count = len(np.asarray(rows["gpu"]))
    table: Table = {}
    for name, default in (("gpu", ""), ("dtype", ""), ("kernel", ""), ("distribution", "balanced")):
        table[name] = np.asarray(rows.get(name, [default] * count)).astype(str)
    for name in (*SHAPE, "tensor", "expert_parallel"):
        table[name] = np.nan_to_num(np.asarray(rows.get(name, np.ones(count)), dtype=float), nan=1.0)
    table["dtype"] = np.array([canonical(dtype) for dtype in table["dtype"]])
    table["seconds"] = np.asarray(rows.get("time_us", np.full(count, np.nan)), dtype=float) * 1e-6
    table["generation"] = np.array([devices[gpu].generation for gpu in table["gpu"]])
    table["matrices"] = expert_matrices(table["ffn"], table["topk"], table["experts"], table["kernel"])
    if "matrices" in rows:
        table["matrices"] = np.asarray(rows["matrices"], dtype=float)
    return table | _loads(table)


def _loads(table: Table) -> dict[str, Floats]:
    count = len(table["seconds"])
    pairs, active = np.zeros(count), np.zeros(count)
    blocks = np.zeros((count, len(BLOCKS)))
    for name in np.unique(table["distribution"]):
        at = table["distribution"] == name
        tokens, topk, experts, ranks = (
            table[c][at] for c in ("tokens", "topk", "experts", "expert_parallel")
        )
        load = rank_load(tokens, topk, experts, ranks, str(name))
        pairs[at], active[at], blocks[at] = load.pairs, load.active, load.blocks
    return {"pairs": pairs, "active": active, "blocks": blocks}


def _load(table: Table) -> RankLoad:
    return RankLoad(table["pairs"], table["active"], table["blocks"])


def _fit_all(table: Table, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]) -> list[Fit]:
    found: list[tuple[int, Fit]] = []
    for dtype in np.unique(table["dtype"]):
        of_dtype = _take(table, table["dtype"] == dtype)
        known = choose(prior, devices[str(of_dtype["gpu"][0])], str(dtype), str(of_dtype["kernel"][0]))
        before = {} if known is None else known.values()
        shared = _fit_group(of_dtype, devices, source, before, PRIOR_WEIGHT if before else 0.02)
        found.append((len(of_dtype["seconds"]), Fit(OP, {"dtype": str(dtype)}, shared)))
        start = {name: constant.value for name, constant in shared.items()}
        names = np.stack([of_dtype["kernel"], of_dtype["generation"]])
        for kernel, generation in np.unique(names, axis=1).T:
            at = (names[0] == kernel) & (names[1] == generation)
            group = _take(of_dtype, at)
            stiff = PRIOR_WEIGHT * (1 + (FEW / at.sum()) ** 1.5)
            own = _fit_group(group, devices, source, start, stiff)
            left = np.log(group["seconds"] / _physics(group, devices, {n: c.value for n, c in own.items()}))
            key = {"dtype": str(dtype), "generation": str(generation), "kernel": str(kernel)}
            key |= {"backend": backend(str(kernel))}
            found.append((int(at.sum()), Fit(OP, key, own, _grid(group, left))))
    return [one for _, one in sorted(found, key=lambda item: -item[0])]


def _fit_group(
    group: Table,
    devices: Mapping[str, Device],
    source: str,
    start: Mapping[str, float],
    prior_weight: float,
) -> dict[str, Constant]:
    run: Callable[[Mapping[str, float]], Floats] = lambda values: _physics(group, devices, values)  # noqa: E731
    return fit_parameters(PARAMETERS, run, group["seconds"], source, start=start, prior_weight=prior_weight)


def _physics(group: Table, devices: Mapping[str, Device], values: Mapping[str, float]) -> Floats:
    seconds = np.zeros(len(group["seconds"]))
    load = _load(group)
    dtype = str(group["dtype"][0])
    for gpu in np.unique(group["gpu"]):
        at = group["gpu"] == gpu
        seconds[at] = moe_s(
            devices[str(gpu)],
            RankLoad(load.pairs[at], load.active[at], load.blocks[at]),
            group["tokens"][at],
            group["topk"][at],
            group["hidden"][at],
            group["ffn"][at] / group["tensor"][at],
            dtype,
            matrices=group["matrices"][at],
            **values,
        )
    return seconds


def _predict(fits: Sequence[Fit], table: Table, devices: Mapping[str, Device]) -> Floats:
    seconds = np.zeros(len(table["seconds"]))
    names = np.stack([table[name] for name in NAMES])
    for case in np.unique(names, axis=1).T:
        at = np.all(names == case[:, None], axis=0)
        gpu, dtype, kernel, distribution = (str(name) for name in case)
        seconds[at] = moe(
            fits,
            devices[gpu],
            *(table[name][at] for name in SHAPE),
            tensor=table["tensor"][at],
            expert_parallel=table["expert_parallel"][at],
            distribution=distribution,
            dtype=dtype,
            kernel=kernel,
            matrices=table["matrices"][at],
        ).seconds
    return seconds


def _grid(group: Table, residual: Floats) -> ResidualGrid | None:
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
