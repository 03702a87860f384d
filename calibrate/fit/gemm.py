"""Fit the cost of matrix products to measured ones: the physics, then a smooth leftover, each pooled first.

Siblings of a generation run the same kernels, so their rows are fitted together and each accelerator then
departs from the common answer only as far as its own rows insist; the same holds for the residual grid. A
small measurement of a user's own departs in the same way from a profile given as ``prior``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrate.fit.common import errors, fit_grid, fit_parameters
from calibrate.fit.common import folds as folds_of
from sim.cost.kernels.gemm import (
    FORMATS,
    OP,
    canonical,
    choose,
    coordinates,
    gemm,
    gemm_s,
    parameters_of,
)
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, ResidualGrid

Floats = NDArray[np.float64]
Rows = Mapping[str, ArrayLike]

MIN_ROWS = 8
"""A group with fewer rows gets no fit: it cannot tell its parameters from its noise."""
FULL_ROWS = 270.0
"""Rows at which a fit's pull towards its start has the nominal strength; it weighs more against fewer."""
PULL_OWN, PULL_SIBLING, PULL_KIN, PULL_NONE = 0.4, 0.1, 0.05, 0.02
"""Pull towards a start that is the same kernels' fit, the pooled fit of siblings, another engine's, a mere guess;
chosen on held-out shapes."""
PRELIMINARY_ROWS = 150
"""Rows on which the starting points are compared."""
LOSS_SCALE = 0.1
GRID_GAIN = 0.98
"""A residual grid must bring the held-out loss below this share of what it is without."""
NODES: tuple[tuple[int, dict[str, tuple[float, ...]]], ...] = (
    (
        150,
        {
            "log2_m": (0, 3, 5, 7, 9, 11, 12.5, 15),
            "log2_n": (5, 8, 10, 12, 14, 16),
            "log2_k": (5, 8, 11, 13.5, 16),
        },
    ),
    (60, {"log2_m": (0, 4, 7, 10, 13, 15), "log2_n": (5, 9, 12, 16), "log2_k": (5, 9, 12, 16)}),
    (25, {"log2_m": (0, 5, 10, 15), "log2_n": (7, 11, 15), "log2_k": (7, 11, 15)}),
)
"""Grid axes by the number of rows they take at least: m finest, because kernels change with it."""
STARTS: tuple[Mapping[str, float], ...] = (
    {},
    {"k_step_s": 3e-7, "split_s": 3e-5, "resident_frac": 0.5},
    {
        "resident_frac": 0.1,
        "l2_ratio": 6.0,
        "wave_frac": 0.2,
        "exposed_frac": 0.1,
        "sm_share": 1.3,
        "wave_s": 2e-6,
    },
)
"""Kernel families to start from: balanced; no split of K; persistent kernels with a fast L2."""
_KERNEL = re.compile(r"gemm|cijk_|cutlass::", re.IGNORECASE)


def engine_of(name: str) -> str:
    """The library behind an engine column: kernel names are PyTorch's, vLLM keeps its version."""
    text = name.strip().lower()
    for found, engine in (
        ("aiter", "aiter"),
        ("transformerengine", "transformer-engine"),
        ("deepgemm", "deepgemm"),
        ("profiler", "vllm profiler"),
        ("cublas", "cublas"),
    ):
        if found in text:
            return engine
    version = re.match(r"vllm [0-9.]+", text)
    if version:
        return version[0]
    return "pytorch" if _KERNEL.search(text) else text


@dataclass(frozen=True, slots=True)
class Table:
    """The rows as arrays of one length, names resolved."""

    gpu: NDArray[np.str_]
    generation: NDArray[np.str_]
    dtype: NDArray[np.str_]
    engine: NDArray[np.str_]
    shape: Floats
    """Columns m, n, k."""
    batch: Floats
    """Products in one launch."""
    c_bytes: Floats
    seconds: Floats

    def take(self, rows: NDArray[np.bool_]) -> Table:
        """The rows where ``rows`` is true."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.__slots__})

    def fold(self, count: int) -> NDArray[np.int64]:
        """Fold of each row by its shape alone: a shape never sits in two folds on different accelerators."""
        return folds_of([",".join(str(int(x)) for x in row) for row in self.shape], count)

    def where(self) -> dict[str, Floats]:
        """Coordinates on the residual grid."""
        m, n, k = self.shape.T
        return coordinates(m * self.batch, n, k)


def fit(
    rows: Rows, devices: Mapping[str, Device], source: str, *, prior: Sequence[Fit] = (), folds: int = 5
) -> list[Fit]:
    """Fits of every (generation, format, engine) in ``rows``: one per accelerator, and one they share.

    ``rows`` has the columns gpu, dtype, m, n, k, time_us and may have engine and layout; ``devices`` maps
    every gpu name to its datasheet. ``prior`` are fits to start from and lean on. Errors are held out in
    ``folds`` folds by shape; ``folds=0`` leaves them out and takes a sixth of the time.

    Raises:
        ValueError: a column or device is missing, or a number format unknown; every missing one is named.
    """
    table = _table(rows, devices)
    fits = _fit(table, devices, source, prior)
    if folds == 0:
        return fits
    predicted = _held_out(table, devices, prior, folds)
    method = f"{folds} folds by shape"
    result = []
    for one in fits:
        own = np.ones(len(predicted), dtype=bool)
        for name in ("generation", "dtype", "engine"):
            own &= getattr(table, name) == one.key[name]
        if "accelerator" in one.key:
            own &= np.array([devices[gpu].key == one.key["accelerator"] for gpu in table.gpu])
        result.append(replace(one, error=errors(predicted[own], table.seconds[own], method)))
    return result


def cross_validate(
    rows: Rows, devices: Mapping[str, Device], folds: int = 5, *, prior: Sequence[Fit] = ()
) -> NDArray[np.float64]:
    """Seconds predicted for each row by fits that never saw its shape on any accelerator."""
    return _held_out(_table(rows, devices), devices, prior, folds)


def predict(fits: Sequence[Fit], rows: Rows, devices: Mapping[str, Device]) -> NDArray[np.float64]:
    """Seconds that ``fits`` predict for rows of the form that :func:`fit` takes (time_us may be absent)."""
    return _predict(fits, _table(rows, devices), devices)


def _table(rows: Rows, devices: Mapping[str, Device]) -> Table:
    missing = [name for name in ("gpu", "dtype", "m", "n", "k") if name not in rows]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}; found {', '.join(rows)}")
    gpu = np.asarray(rows["gpu"], dtype=str)
    unknown = sorted(set(gpu) - set(devices))
    if unknown:
        raise ValueError(f"no datasheet for {', '.join(unknown)}")
    dtype = np.array([canonical(name) for name in np.asarray(rows["dtype"], dtype=str)], dtype=str)
    generation = np.array([devices[name].generation for name in gpu], dtype=str)
    unnamed = np.where(generation == "xe2", "vllm-xpu", "tensorrt-llm")
    named = np.asarray(rows.get("engine", np.full(len(gpu), "")), dtype=str)
    engine = np.where(named == "", unnamed, np.array([engine_of(name) for name in named], dtype=str))
    layout = np.asarray(rows["layout"], dtype=str) if "layout" in rows else np.full(len(gpu), "")
    shape = np.stack([np.asarray(rows[name], dtype=float) for name in "mnk"], axis=1)
    seconds = (
        np.asarray(rows["time_us"], dtype=float) * 1e-6 if "time_us" in rows else np.full(len(gpu), np.nan)
    )
    c_bytes = np.array([_c_bytes(*pair) for pair in zip(dtype, layout, strict=True)])
    batch = np.asarray(rows.get("batch", np.ones(len(gpu))), dtype=float)
    batch = np.where(np.isnan(batch), 1.0, batch)
    return Table(gpu, generation, dtype, engine, shape, batch, c_bytes, seconds)


def _c_bytes(dtype: str, layout: str) -> float:
    """Traffic per element of C: ``->fp32`` writes four bytes, ``+acc`` reads as many first."""
    width = 4.0 if layout.endswith("->fp32") else FORMATS[dtype].c_bytes
    return width * (2.0 if "+acc" in layout else 1.0)


def _groups(table: Table) -> Iterator[tuple[tuple[str, str, str], NDArray[np.bool_]]]:
    """(generation, dtype, engine) and its rows, the largest first: smaller groups lean on larger ones."""
    key = np.array(
        ["|".join(k) for k in zip(table.generation, table.dtype, table.engine, strict=True)], dtype=str
    )
    names, counts = np.unique(key, return_counts=True)
    for name in names[np.argsort(-counts, kind="stable")]:
        generation, dtype, engine = name.split("|")
        yield (generation, dtype, engine), key == name


def _fit(table: Table, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]) -> list[Fit]:
    fits: list[Fit] = []
    for (generation, dtype, engine), own in _groups(table):
        if own.sum() < MIN_ROWS:
            continue
        group = table.take(own)
        key = {"generation": generation, "dtype": dtype, "engine": engine}
        lean = choose([*prior, *fits], devices[group.gpu[0]], dtype, engine)
        if lean is not None and lean.key.get("generation", generation) != generation:
            lean = None
        fits += _fit_group(group, devices, source, key, lean)
    return fits


def _fit_group(
    group: Table, devices: Mapping[str, Device], source: str, key: Mapping[str, str], lean: Fit | None
) -> list[Fit]:
    """The fits of one (generation, format, engine): pooled, then one per accelerator with rows enough."""
    common = _pooled_parameters(group, devices, source, lean)
    pooled = {name: constant.value for name, constant in common.items()}
    members: list[tuple[str, NDArray[np.bool_], dict[str, Constant]]] = []
    keys = np.array([devices[name].key for name in group.gpu], dtype=str)
    names = np.unique(keys)
    if len(names) == 1:
        members.append((str(names[0]), np.ones(len(keys), dtype=bool), common))
    else:
        for name in names:
            own = keys == name
            if own.sum() >= MIN_ROWS:
                members.append(
                    (str(name), own, _parameters(group.take(own), devices, source, pooled, PULL_SIBLING)[0])
                )
    residual = np.log(group.seconds / _physics(_pieces(group, devices), pooled))
    left = residual.copy()
    for _, own, constants in members:
        values = {name: constant.value for name, constant in constants.items()}
        left[own] = np.log(group.seconds[own] / _physics(_pieces(group.take(own), devices), values))
    base = lean.grid if lean is not None and lean.key.get("dtype") == key["dtype"] else None
    shared = _best_grid(group, left, base)
    result = []
    for name, own, constants in members:
        grid = shared
        if shared is not None and len(members) > 1:
            some = group.take(own)
            grid = _departure(some, left[own], shared, smoothness=1.0, ridge=0.5)
        result.append(Fit(OP, {"accelerator": name, **key}, constants, grid))
    if len(names) > 1:
        result.append(Fit(OP, dict(key), common, _best_grid(group, residual, base)))
    return result


def _pooled_parameters(
    group: Table, devices: Mapping[str, Device], source: str, lean: Fit | None
) -> dict[str, Constant]:
    if lean is not None and len(group.seconds) < PRELIMINARY_ROWS:
        own = (lean.key.get("dtype"), lean.key.get("engine")) == (group.dtype[0], group.engine[0])
        return _parameters(group, devices, source, lean.values(), PULL_OWN if own else PULL_KIN)[0]
    few = np.zeros(len(group.seconds), dtype=bool)
    few[:: max(1, len(few) // PRELIMINARY_ROWS)] = True
    some = group.take(few)
    starts = [*STARTS, *([lean.values()] if lean is not None else [])]
    tried = [_parameters(some, devices, source, start, PULL_NONE) for start in starts]
    best = min(tried, key=lambda pair: pair[1])[0]
    return _parameters(group, devices, source, {name: c.value for name, c in best.items()}, PULL_NONE)[0]


def _parameters(
    group: Table, devices: Mapping[str, Device], source: str, start: Mapping[str, float], prior_weight: float
) -> tuple[dict[str, Constant], float]:
    """Constants and the robust loss they leave."""
    known = parameters_of(devices[group.gpu[0]])
    wanted = [p for p in known if FORMATS[group.dtype[0]].quantises or not p.name.startswith("quantise")]
    weight = prior_weight * float(np.sqrt(FULL_ROWS / len(group.seconds)))

    pieces = _pieces(group, devices)

    def predicted(values: Mapping[str, float]) -> Floats:
        return _physics(pieces, values)

    constants = fit_parameters(
        wanted, predicted, group.seconds, source, start=start, prior_weight=weight, loss_scale=LOSS_SCALE
    )
    left = np.log(group.seconds / predicted({name: constant.value for name, constant in constants.items()}))
    return constants, _loss(left)


def _loss(log_error: Floats) -> float:
    return float(np.mean(np.sqrt(1 + (log_error / LOSS_SCALE) ** 2)))


def _pieces(table: Table, devices: Mapping[str, Device]) -> list[tuple[NDArray[np.bool_], Device, Table]]:
    """The rows of each (gpu, format, engine), cut once because a fit prices them hundreds of times."""
    key = np.array(["|".join(k) for k in zip(table.gpu, table.dtype, table.engine, strict=True)], dtype=str)
    cuts = [key == name for name in np.unique(key)]
    return [(own, devices[table.gpu[own][0]], table.take(own)) for own in cuts]


def _physics(
    pieces: Sequence[tuple[NDArray[np.bool_], Device, Table]], values: Mapping[str, float]
) -> NDArray[np.float64]:
    seconds = np.empty(len(pieces[0][0]))
    for own, device, some in pieces:
        seconds[own] = gemm_s(
            device, *some.shape.T, some.dtype[0], values, batch=some.batch, c_bytes=some.c_bytes
        )
    return seconds


def _predict(fits: Sequence[Fit], table: Table, devices: Mapping[str, Device]) -> Floats:
    seconds = np.empty(len(table.seconds))
    for own, device, some in _pieces(table, devices):
        answer = gemm(
            fits,
            device,
            *some.shape.T,
            some.dtype[0],
            some.engine[0],
            batch=some.batch,
            c_bytes=some.c_bytes,
        )
        seconds[own] = answer.seconds
    return seconds


def _held_out(table: Table, devices: Mapping[str, Device], prior: Sequence[Fit], count: int) -> Floats:
    fold = table.fold(count)
    predicted = np.empty(len(table.seconds))
    for number in range(count):
        test = fold == number
        if test.any():
            fits = _fit(table.take(~test), devices, "cross-validation", prior)
            predicted[test] = _predict([*fits, *prior], table.take(test), devices)
    return predicted


def _departure(
    group: Table, residual: Floats, base: ResidualGrid, *, smoothness: float, ridge: float
) -> ResidualGrid:
    """``base`` plus what the rows say against it, on the same nodes."""
    where = group.where()
    left = residual - np.log(base.factor(where))
    own = fit_grid(
        base.axes, where, left, smoothness=smoothness, ridge=ridge, rounds=3, loss_scale=LOSS_SCALE
    )
    return ResidualGrid(
        base.axes, tuple(round(a + b, 4) for a, b in zip(base.values, own.values, strict=True))
    )


def _best_grid(group: Table, residual: Floats, base: ResidualGrid | None) -> ResidualGrid | None:
    """The residual grid that predicts held-out shapes best, or none where none helps."""
    where = group.where()
    fold = group.fold(5)
    axes = next((nodes for least, nodes in NODES if len(residual) >= least), None)
    makers: list[Callable[[Table, Floats], ResidualGrid]] = []
    if axes is not None:
        flat = list(axes.items())

        def fresh(some: Table, left: Floats) -> ResidualGrid:
            return fit_grid(
                flat, some.where(), left, smoothness=0.3, ridge=0.1, rounds=3, loss_scale=LOSS_SCALE
            )

        makers.append(fresh)
    if base is not None:
        makers.append(lambda some, left: _departure(some, left, base, smoothness=1.0, ridge=0.5))
    best, best_loss = None, GRID_GAIN * _loss(residual)
    for make in makers:
        left = residual.copy()
        for number in range(5):
            test = fold == number
            if test.any() and not test.all():
                grid = make(group.take(~test), residual[~test])
                left[test] -= np.log(grid.factor({name: values[test] for name, values in where.items()}))
        if _loss(left) < best_loss:
            best, best_loss = make, _loss(left)
    return None if best is None else best(group, residual)
