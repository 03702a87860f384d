"""Fits attention kernels: a few physical parameters for each generation, own ones for each accelerator, one grid.

Like tuning a family of instruments: siblings of one generation run the same kernels, so the family is tuned first,
each member then departs from it as far as its own measurements ask, and what is left over is shared again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrate.fit import common
from calibrate.fit.common import fit_grid, fit_parameters
from sim.cost.device import Device
from sim.cost.kernels.attention import (
    CHOICES,
    PARAMETERS,
    attention,
    attention_s,
    choose,
    coordinates,
    operation,
)
from sim.cost.kernels.attention_shape import Shape, canonical_dtype, engine_family, shape_of
from sim.cost.parameters import Parameter
from sim.spec.profile import Constant, Fit, FitError, ResidualGrid

Floats = NDArray[np.float64]
Rows = Mapping[str, ArrayLike]
Table = dict[str, NDArray[Any]]

SIZES = ("batch", "heads", "kv_heads", "head_dim", "seq_len")
FOLD_METHOD = "(phase, batch, heads, kv_heads, head_dim, seq_len), fwd, bwd and prefill together"
GRIDS: Mapping[str, tuple[tuple[str, tuple[float, ...]], ...]] = {
    "prefill": (
        ("log2_queries", (0, 4, 6, 8, 10, 12, 14)),
        ("log2_tiles_per_sm", (-4, -1, 2, 6)),
        ("log2_group", (0, 4)),
        ("log2_head_dim", (6, 7)),
        ("windowed", (0, 1)),
    ),
    "decode": (
        ("log2_keys", (1, 4, 7, 9, 11, 13, 16)),
        ("log2_streams_per_sm", (-7, -4, -2, 0, 2, 4)),
        ("log2_group", (0, 4)),
        ("log2_head_dim", (6, 7, 8)),
    ),
}
"""241 and 270 numbers, positions included. Training kernels have none: their few rows follow the physics."""
FEWEST_FOR_GRID = 40
FEWEST_FOR_ACCELERATOR = 6
SMOOTHNESS, RIDGE = 0.3, 0.3
PRIOR_WEIGHT = 0.03
FEW = 250.0
"""Stiffness of the grid and of departures from a start; chosen by five-fold cross-validation by shape."""


@dataclass(frozen=True)
class _Part:
    """The rows of one device within a group, ready to predict."""

    at: NDArray[np.intp]
    device: Device
    shape: Shape


@dataclass(frozen=True)
class _Group:
    """Rows of one (phase, generation, number formats, engine)."""

    phase: str
    generation: str
    dtype: str
    kv_dtype: str
    engine: str
    seconds: Floats
    parts: tuple[_Part, ...]

    @property
    def key(self) -> dict[str, str]:
        names = ("generation", "dtype", "kv_dtype", "engine")
        return {name: getattr(self, name) for name in names}

    def physics(self, values: Mapping[str, float]) -> Floats:
        out = np.zeros(len(self.seconds))
        for part in self.parts:
            out[part.at] = attention_s(values, part.device, self.phase, part.shape, self.dtype, self.kv_dtype)
        return out

    def coordinates(self) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for part in self.parts:
            for name, column in coordinates(self.phase, part.shape, part.device).items():
                found.setdefault(name, np.zeros(len(self.seconds)))[part.at] = column
        return found

    def only(self, part: _Part) -> _Group:
        alone = replace(part, at=np.arange(len(part.at)))
        return replace(self, seconds=self.seconds[part.at], parts=(alone,))


def fit(
    rows: Rows, devices: Mapping[str, Device], source: str, *, prior: Sequence[Fit] = (), folds: int = 5
) -> list[Fit]:
    """Fit every (phase, generation, number formats, engine) in ``rows``, and its accelerators; largest groups first.

    Args:
        rows: columns gpu, phase, dtype, batch, heads, kv_heads, head_dim, seq_len and time_us; kv_dtype, head_dim_v,
            q_len, causal, window, engine and source may be absent or have empty cells. Tables of different columns
            are joined by :func:`together`.
        devices: datasheet of each name in column gpu.
        source: where the rows come from, for the provenance of each constant.
        prior: fits to start from where they know the kernel: a small measurement then only corrects them.
        folds: folds for the errors; 0 leaves them out, a sixth of the time.

    Raises:
        ValueError: a column or a device is missing, or a size is impossible.
    """
    table = _table(rows, devices)
    fits = _fit_all(table, devices, source, prior)
    if folds == 0:
        return fits
    predicted = _held_out(table, devices, prior, folds)
    return [replace(one, error=_error(one, table, devices, predicted, folds)) for one in fits]


def cross_validate(
    rows: Rows, devices: Mapping[str, Device], folds: int = 5, *, prior: Sequence[Fit] = ()
) -> Floats:
    """Seconds predicted for each row by fits that have not seen its shape (in any phase but decode, or in decode)."""
    return _held_out(_table(rows, devices), devices, prior, folds)


def predict(fits: Sequence[Fit], rows: Rows, devices: Mapping[str, Device]) -> Floats:
    """Seconds of each row of the form that :func:`fit` takes (time_us may be absent)."""
    return _predict(fits, _table(rows, devices), devices)


def together(tables: Sequence[Rows]) -> dict[str, NDArray[Any]]:
    """One table from several whose columns differ; a cell that a table lacks is empty."""
    names = list(dict.fromkeys(name for table in tables for name in table))
    counts = [len(np.asarray(table["gpu"])) for table in tables]
    joined = {}
    for name in names:
        columns = [
            np.asarray(table[name], dtype=object) if name in table else np.full(count, "", dtype=object)
            for table, count in zip(tables, counts, strict=True)
        ]
        joined[name] = np.concatenate(columns)
    return joined


def _table(rows: Rows, devices: Mapping[str, Device]) -> Table:
    missing = [f"column {name}" for name in ("gpu", "phase", "dtype", *SIZES) if name not in rows]
    if not missing:
        seen = np.unique(np.asarray(rows["gpu"]).astype(str))
        missing = [f"device {gpu}" for gpu in seen if gpu not in devices]
    if missing:
        raise ValueError(f"attention rows lack {', '.join(missing)}")
    count = len(np.asarray(rows["gpu"]))
    table: Table = {
        name: _text(rows, name, count) for name in ("gpu", "phase", "dtype", "kv_dtype", "engine")
    }
    table["kv_dtype"] = np.where(table["kv_dtype"] == "", table["dtype"], table["kv_dtype"])
    for name in ("dtype", "kv_dtype"):
        table[name] = np.array([canonical_dtype(cell) for cell in table[name]])
    harness = [_engine_in(cell) for cell in _text(rows, "source", count)]
    table["engine"] = np.array([engine_family(e) or h for e, h in zip(table["engine"], harness, strict=True)])
    for name in SIZES:
        table[name] = _number(rows, name, count)
    table["head_dim_v"] = _or(_number(rows, "head_dim_v", count), table["head_dim"])
    usual = np.where(table["phase"] == "decode", 1.0, table["seq_len"])
    table["q_len"] = _or(_number(rows, "q_len", count), usual)
    table["window"] = _or(_number(rows, "window", count), np.zeros(count))
    table["causal"] = np.array(
        [cell.lower() not in ("false", "0", "0.0") for cell in _text(rows, "causal", count)]
    )
    table["seconds"] = _number(rows, "time_us", count) * 1e-6
    return table


def _text(rows: Rows, name: str, count: int) -> NDArray[Any]:
    cells = np.asarray(rows[name], dtype=object) if name in rows else np.full(count, "", dtype=object)
    return np.array(["" if cell is None or cell != cell else str(cell) for cell in cells])


def _number(rows: Rows, name: str, count: int) -> Floats:
    return np.array(
        [float(cell) if cell not in ("", "nan", "None") else np.nan for cell in _text(rows, name, count)]
    )


def _or(column: Floats, other: Floats) -> Floats:
    return np.where(np.isnan(column), other, column)


def _engine_in(source: str) -> str:
    """Engine named by a measurement's path (``.../attention/vllm/0.24.0/...``), where the table has no such column."""
    found = re.search(r"/(\w+)/\d+(?:\.\d+)+/", source)
    return found.group(1) if found else ""


def _held_out(table: Table, devices: Mapping[str, Device], prior: Sequence[Fit], count: int) -> Floats:
    kind = np.where(table["phase"] == "decode", "decode", "many queries")
    sizes = zip(*[table[name] for name in SIZES], strict=True)
    keys = [f"{k}|" + "|".join(f"{v:g}" for v in s) for k, s in zip(kind, sizes, strict=True)]
    fold = common.folds(keys, count)
    predicted = np.full(len(fold), np.nan)
    for number in np.unique(fold):
        out = fold == number
        fits = [] if out.all() else _fit_all(_take(table, ~out), devices, "cross-validation", prior)
        predicted[out] = _predict([*fits, *prior], _take(table, out), devices)
    return predicted


def _error(
    one: Fit, table: Table, devices: Mapping[str, Device], predicted: Floats, count: int
) -> FitError | None:
    generation = np.array([devices[gpu].generation for gpu in table["gpu"]])
    accelerator = np.array([devices[gpu].key for gpu in table["gpu"]])
    columns = table | {"generation": generation, "accelerator": accelerator}
    mine = np.array([operation(phase) == one.op for phase in table["phase"]])
    for name, wanted in one.key.items():
        mine &= columns[name] == wanted
    return common.errors(predicted[mine], table["seconds"][mine], f"{count} folds by {FOLD_METHOD}")


def _take(table: Table, rows: NDArray[Any]) -> Table:
    return {name: column[rows] for name, column in table.items()}


def _groups(table: Table, devices: Mapping[str, Device]) -> Iterator[_Group]:
    """Groups in order of size, so that a small one can lean on the largest of its phase and generation."""
    generation = np.array([devices[gpu].generation for gpu in table["gpu"]])
    names = np.stack([table["phase"], generation, table["dtype"], table["kv_dtype"], table["engine"]])
    kinds, counts = np.unique(names, axis=1, return_counts=True)
    for place in np.argsort(-counts, kind="stable"):
        rows = np.flatnonzero(np.all(names == kinds[:, place][:, None], axis=0))
        own = _take(table, rows)
        parts = []
        for gpu in np.unique(own["gpu"]):
            at = np.flatnonzero(own["gpu"] == gpu)
            parts.append(_Part(at, devices[str(gpu)], _shape(_take(own, at))))
        phase, *key = (str(name) for name in kinds[:, place])
        yield _Group(phase, *key, own["seconds"], tuple(parts))


def _shape(own: Table) -> Shape:
    names = (*SIZES, "head_dim_v", "q_len", "causal", "window")
    return shape_of(str(own["phase"][0]), *(own[name] for name in names))


def _fit_all(table: Table, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]) -> list[Fit]:
    fits: list[Fit] = []
    largest: dict[tuple[str, str], Fit] = {}
    for group in _groups(table, devices):
        before = choose(prior, group.parts[0].device, group.phase, group.dtype, group.kv_dtype, group.engine)
        lean = largest.get((group.phase, group.generation))
        own = _fit_group(group, source, before, lean)
        largest.setdefault((group.phase, group.generation), own[0])
        fits += own
    return fits


def _fit_group(group: _Group, source: str, before: Fit | None, lean: Fit | None) -> list[Fit]:
    """The fit that holds for the generation, then one for each accelerator in the group."""
    base = before.grid if before and before.key.get("generation") == group.generation else None
    base = base or (lean.grid if lean else None)
    at = group.coordinates()
    known = base.factor(at) if base else np.ones(len(group.seconds))
    shared = _best(group, source, known, before or lean)
    start = {name: constant.value for name, constant in shared.items()}
    seconds = group.physics(start)
    each: dict[str, dict[str, Constant]] = {}
    for part in group.parts if len(group.parts) > 1 else ():
        if len(part.at) >= FEWEST_FOR_ACCELERATOR:
            alone = group.only(part)
            fixed = {name: shared[name] for name in CHOICES[group.phase]}
            own = _parameters(
                alone, source, known[part.at], start, fixed, _stiffness(len(part.at))
            )
            each[part.device.key] = own
            seconds[part.at] = alone.physics({name: constant.value for name, constant in own.items()})
    grid = _grid(group, at, np.log(group.seconds / (seconds * known)), base)
    op = operation(group.phase)
    fits = [Fit(op, group.key, shared, grid)]
    return fits + [Fit(op, group.key | {"accelerator": key}, own, grid) for key, own in each.items()]


def _best(group: _Group, source: str, known: Floats, before: Fit | None) -> dict[str, Constant]:
    """Parameters for the kernel author's choices that explain the rows best."""
    choices = CHOICES[group.phase]
    start = before.values() if before else {}
    found: list[tuple[float, dict[str, Constant]]] = []
    for taken in itertools.product(*choices.values()):
        fixed = {
            name: _chosen(group.phase, name, value, source)
            for name, value in zip(choices, taken, strict=True)
        }
        weight = _stiffness(len(group.seconds))
        values = _parameters(group, source, known, start, fixed, weight)
        left = np.log(group.seconds / (group.physics({n: c.value for n, c in values.items()}) * known))
        found.append((float(np.mean(np.sqrt(1 + (left / 0.1) ** 2))), values))
    return min(found, key=lambda item: item[0])[1]


def _parameters(
    group: _Group,
    source: str,
    known: Floats,
    start: Mapping[str, float],
    fixed: Mapping[str, Constant],
    prior_weight: float,
) -> dict[str, Constant]:
    free = [p for p in PARAMETERS[group.phase] if p.name not in fixed and p.high > p.low > 0]
    held = {p.name: _held(p, source) for p in PARAMETERS[group.phase] if p not in free} | dict(fixed)
    constant = {name: value.value for name, value in held.items()}
    found = fit_parameters(
        free,
        lambda values: group.physics({**constant, **values}) * known,
        group.seconds,
        source,
        start=start,
        prior_weight=prior_weight,
    )
    return found | held


def _stiffness(rows: int) -> float:
    """Few rows say little: below about :data:`FEW` of them a fit keeps closer to its start."""
    return PRIOR_WEIGHT * (1 + FEW / rows)


def _held(parameter: Parameter, source: str) -> Constant:
    return Constant(
        parameter.start, parameter.unit, "assumed", parameter.source, parameter.low, parameter.high
    )


def _chosen(phase: str, name: str, value: float, source: str) -> Constant:
    unit = next(p.unit for p in PARAMETERS[phase] if p.name == name)
    return Constant(value, unit, "fitted", source)


def _grid(
    group: _Group, at: Mapping[str, Floats], left: Floats, base: ResidualGrid | None
) -> ResidualGrid | None:
    """What is left over, on top of the grid leaned on; both live on the same nodes, so their sum is one grid."""
    if group.phase not in GRIDS or len(left) < FEWEST_FOR_GRID:
        return base
    axes = base.axes if base else GRIDS[group.phase]
    own = fit_grid(axes, at, left, smoothness=SMOOTHNESS, ridge=RIDGE)
    if base is None:
        return own
    return ResidualGrid(
        own.axes, tuple(round(a + b, 4) for a, b in zip(own.values, base.values, strict=True))
    )


def _predict(fits: Sequence[Fit], table: Table, devices: Mapping[str, Device]) -> Floats:
    seconds = np.zeros(len(table["gpu"]))
    kinds = ("gpu", "phase", "dtype", "kv_dtype", "engine")
    names = np.stack([table[name] for name in kinds])
    for case in np.unique(names, axis=1).T:
        at = np.flatnonzero(np.all(names == case[:, None], axis=0))
        gpu, phase, dtype, kv_dtype, engine = (str(name) for name in case)
        sizes = {name: table[name][at] for name in (*SIZES, "head_dim_v", "q_len", "causal", "window")}
        seconds[at] = attention(
            fits, devices[gpu], phase=phase, dtype=dtype, kv_dtype=kv_dtype, engine=engine, **sizes
        ).seconds
    return seconds
