"""Fits attention kernels: physical parameters for each generation and accelerator, and one grid they share.

Like tuning a family of instruments: siblings of one generation run the same kernels, so the family is tuned
first, each member then departs from it as far as its own measurements ask, and what is left over is shared.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from calibrate.fit import common
from calibrate.fit.attention_rows import (
    CALL,
    Floats,
    Group,
    Rows,
    Table,
    fold_keys,
    groups,
    read,
    take,
    together,
)
from calibrate.fit.common import fit_grid, fit_parameters
from sim.cost.kernels.attention import (
    CHOICES,
    PARAMETERS,
    attention,
    choose,
    operation,
)
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, FitError, ResidualGrid

__all__ = ["cross_validate", "fit", "predict", "together"]

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
FEWEST_FOR_CHOICE = 20
FEWEST_FOR_ACCELERATOR = 6
SMOOTHNESS, RIDGE = 0.3, 0.3
PRIOR_WEIGHT = 0.03
FEW = 130.0
"""Stiffness of the grid and of departures from a start; chosen by five-fold cross-validation by shape."""


def fit(
    rows: Rows, devices: Mapping[str, Device], source: str, *, prior: Sequence[Fit] = (), folds: int = 5
) -> list[Fit]:
    """Fit every (phase, generation, number formats, engine) in ``rows`` and its accelerators; largest first.

    A last fit for each (phase, number formats) holds for every generation: what an unmeasured one is given.

    Args:
        rows: columns gpu, phase, dtype, batch, heads, kv_heads, head_dim, seq_len and time_us; kv_dtype,
            head_dim_v, q_len, causal, window, engine and source may be absent or have empty cells. Tables of
            different columns are joined by :func:`together`.
        devices: datasheet of each name in column gpu.
        source: where the rows come from, for the provenance of each constant.
        prior: fits to start from where they know the kernel: a small measurement then only corrects them.
        folds: folds for the errors; 0 leaves them out, a sixth of the time.

    Raises:
        ValueError: a column or a device is missing, or a size is impossible.
    """
    table = read(rows, devices)
    fits = _fit_all(table, devices, source, prior)
    if folds == 0:
        return fits
    predicted = _held_out(table, devices, prior, folds)
    return [replace(one, error=_error(one, table, devices, predicted, folds)) for one in fits]


def cross_validate(
    rows: Rows, devices: Mapping[str, Device], folds: int = 5, *, prior: Sequence[Fit] = ()
) -> Floats:
    """Seconds predicted for each row by fits that have not seen its shape (decode apart from other phases)."""
    return _held_out(read(rows, devices), devices, prior, folds)


def predict(fits: Sequence[Fit], rows: Rows, devices: Mapping[str, Device]) -> Floats:
    """Seconds of each row of the form that :func:`fit` takes (time_us may be absent)."""
    return _predict(fits, read(rows, devices), devices)


def _held_out(table: Table, devices: Mapping[str, Device], prior: Sequence[Fit], count: int) -> Floats:
    fold = common.folds(fold_keys(table), count)
    predicted = np.full(len(fold), np.nan)
    for number in np.unique(fold):
        out = fold == number
        fits = [] if out.all() else _fit_all(take(table, ~out), devices, "cross-validation", prior)
        predicted[out] = _predict([*fits, *prior], take(table, out), devices)
    return predicted


def _error(one: Fit, table: Table, devices: Mapping[str, Device], predicted: Floats, count: int) -> FitError:
    """Held out by shape; what holds for every generation is held out by generation, as it will be used."""
    if "generation" not in one.key:
        kinds = _across_generations(list(groups(table, devices)))
        return _generation_error(next(kind for kind in kinds if _common_key(kind) == (one.op, dict(one.key))))
    generation = np.array([devices[gpu].generation for gpu in table["gpu"]])
    accelerator = np.array([devices[gpu].key for gpu in table["gpu"]])
    columns = table | {"generation": generation, "accelerator": accelerator}
    mine = np.array([operation(phase) == one.op for phase in table["phase"]])
    for name, wanted in one.key.items():
        mine &= columns[name] == wanted
    return common.errors(predicted[mine], table["seconds"][mine], f"{count} folds by {FOLD_METHOD}")


def _generation_error(kind: Sequence[Group]) -> FitError:
    """Each generation predicted by the parameters that all others share."""
    predicted, measured = [], []
    for name in sorted({group.generation for group in kind}):
        rest = [group for group in kind if group.generation != name]
        values = _common(rest, "left out").values()
        for group in kind:
            if group.generation == name:
                predicted.append(group.physics(values))
                measured.append(group.seconds)
    return common.errors(np.concatenate(predicted), np.concatenate(measured), "generations left out in turn")


def _common_key(kind: Sequence[Group]) -> tuple[str, dict[str, str]]:
    first = kind[0]
    return operation(first.phase), {"dtype": first.dtype, "kv_dtype": first.kv_dtype}


def _fit_all(table: Table, devices: Mapping[str, Device], source: str, prior: Sequence[Fit]) -> list[Fit]:
    fits: list[Fit] = []
    largest: dict[tuple[str, str], Fit] = {}
    everything = list(groups(table, devices))
    for group in everything:
        before = choose(prior, group.parts[0].device, group.phase, group.dtype, group.kv_dtype, group.engine)
        lean = largest.get((group.phase, group.generation))
        own = _fit_group(group, source, before, lean)
        largest.setdefault((group.phase, group.generation), own[0])
        fits += own
    return fits + [_common(some, source) for some in _across_generations(everything)]


def _across_generations(some: Sequence[Group]) -> list[list[Group]]:
    """Groups of one (phase, number formats), where they span more than one generation."""
    kinds: dict[tuple[str, str, str], list[Group]] = {}
    for group in some:
        kinds.setdefault((group.phase, group.dtype, group.kv_dtype), []).append(group)
    return [kind for kind in kinds.values() if len({group.generation for group in kind}) > 1]


def _common(kind: Sequence[Group], source: str) -> Fit:
    """What a generation nobody measured is given: parameters for all rows, each generation weighing the same."""
    first = kind[0]
    rows = {
        name: sum(len(g.seconds) for g in kind if g.generation == name)
        for name in {g.generation for g in kind}
    }
    weights = np.concatenate([np.full(len(g.seconds), 1 / rows[g.generation]) for g in kind])
    fixed = {
        name: _chosen(first.phase, name, values[0], source) for name, values in CHOICES[first.phase].items()
    }
    free = [p for p in PARAMETERS[first.phase] if p.name not in fixed]
    constant = {name: value.value for name, value in fixed.items()}
    found = fit_parameters(
        free,
        lambda values: np.concatenate([group.physics({**constant, **values}) for group in kind]),
        np.concatenate([group.seconds for group in kind]),
        source,
        prior_weight=PRIOR_WEIGHT,
        weights=weights / weights.mean(),
    )
    op, key = _common_key(kind)
    return Fit(op, key, found | fixed)


def _fit_group(group: Group, source: str, before: Fit | None, lean: Fit | None) -> list[Fit]:
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
            own = _parameters(alone, source, known[part.at], start, fixed, _stiffness(len(part.at)))
            each[part.device.key] = own
            seconds[part.at] = alone.physics({name: constant.value for name, constant in own.items()})
    grid = _grid(group, at, np.log(group.seconds / (seconds * known)), base)
    op = operation(group.phase)
    fits = [Fit(op, group.key, shared, grid)]
    return fits + [Fit(op, group.key | {"accelerator": key}, own, grid) for key, own in each.items()]


def _best(group: Group, source: str, known: Floats, before: Fit | None) -> dict[str, Constant]:
    """Parameters for the kernel author's choices that explain the rows best."""
    choices = CHOICES[group.phase]
    start = before.values() if before else {}
    if before and len(group.seconds) < FEWEST_FOR_CHOICE:
        choices = {name: (start.get(name, values[0]),) for name, values in choices.items()}
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
    group: Group,
    source: str,
    known: Floats,
    start: Mapping[str, float],
    fixed: Mapping[str, Constant],
    prior_weight: float,
) -> dict[str, Constant]:
    free = [p for p in PARAMETERS[group.phase] if p.name not in fixed]
    constant = {name: value.value for name, value in fixed.items()}
    found = fit_parameters(
        free,
        lambda values: group.physics({**constant, **values}) * known,
        group.seconds,
        source,
        start=start,
        prior_weight=prior_weight,
    )
    return found | dict(fixed)


def _stiffness(rows: int) -> float:
    """Few rows say little: below about :data:`FEW` of them a fit keeps closer to its start."""
    return PRIOR_WEIGHT * (1 + (FEW / rows) ** 1.5)


def _chosen(phase: str, name: str, value: float, source: str) -> Constant:
    unit = next(p.unit for p in PARAMETERS[phase] if p.name == name)
    return Constant(value, unit, "fitted", source)


def _grid(
    group: Group, at: Mapping[str, Floats], left: Floats, base: ResidualGrid | None
) -> ResidualGrid | None:
    """What is left over, on top of the grid leaned on: on the same nodes, so the sum of both is one grid."""
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
        sizes = {name: table[name][at] for name in CALL}
        seconds[at] = attention(
            fits, devices[gpu], phase=phase, dtype=dtype, kv_dtype=kv_dtype, engine=engine, **sizes
        ).seconds
    return seconds
