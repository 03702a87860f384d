"""Reads rows of attention measurements, as people keep them, into typed columns and groups of one kernel.

Like a clerk at the counter: fills in what a form left blank in the usual way, and says what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.kernels.attention import attention_s, coordinates
from sim.cost.kernels.attention_shape import Shape, canonical_dtype, engine_family, shape_of
from sim.spec.device import Device

Floats = NDArray[np.float64]
Rows = Mapping[str, ArrayLike]
Table = dict[str, NDArray[Any]]

SIZES = ("batch", "heads", "kv_heads", "head_dim", "seq_len")
CALL = (*SIZES, "head_dim_v", "q_len", "causal", "window")


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


def read(rows: Rows, devices: Mapping[str, Device]) -> Table:
    """The rows as typed columns, blanks filled in, times in seconds.

    Raises:
        ValueError: a column or a device is missing; all missing ones are named.
    """
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
    """Engine in a measurement's path (``attention/vllm/0.24.0/``), where the table has no such column."""
    found = re.search(r"/(\w+)/\d+(?:\.\d+)+/", source)
    return found.group(1) if found else ""


def take(table: Table, rows: NDArray[Any]) -> Table:
    """Some of the rows."""
    return {name: column[rows] for name, column in table.items()}


def fold_keys(table: Table) -> list[str]:
    """What decides a row's fold: its shape, apart for decode, together for the phases with many queries."""
    kind = np.where(table["phase"] == "decode", "decode", "many queries")
    sizes = zip(*[table[name] for name in SIZES], strict=True)
    return [f"{k}|" + "|".join(f"{v:g}" for v in s) for k, s in zip(kind, sizes, strict=True)]


@dataclass(frozen=True)
class Part:
    """The rows of one device within a group, ready to predict."""

    at: NDArray[np.intp]
    device: Device
    shape: Shape


@dataclass(frozen=True)
class Group:
    """Rows of one (phase, generation, number formats, engine)."""

    phase: str
    generation: str
    dtype: str
    kv_dtype: str
    engine: str
    seconds: Floats
    parts: tuple[Part, ...]

    @property
    def key(self) -> dict[str, str]:
        """What a fit of these rows is filed under."""
        names = ("generation", "dtype", "kv_dtype", "engine")
        return {name: getattr(self, name) for name in names}

    def physics(self, values: Mapping[str, float]) -> Floats:
        """Seconds of each row for given parameter values."""
        out = np.zeros(len(self.seconds))
        for part in self.parts:
            out[part.at] = attention_s(values, part.device, self.phase, part.shape, self.dtype, self.kv_dtype)
        return out

    def coordinates(self) -> dict[str, Floats]:
        """Where the rows lie on a residual grid."""
        found: dict[str, Floats] = {}
        for part in self.parts:
            for name, column in coordinates(self.phase, part.shape, part.device).items():
                found.setdefault(name, np.zeros(len(self.seconds)))[part.at] = column
        return found

    def only(self, part: Part) -> Group:
        """The rows of one device alone."""
        alone = replace(part, at=np.arange(len(part.at)))
        return replace(self, seconds=self.seconds[part.at], parts=(alone,))


def groups(table: Table, devices: Mapping[str, Device]) -> Iterator[Group]:
    """Groups in order of size, so that a small one can lean on the largest of its phase and generation."""
    generation = np.array([devices[gpu].generation for gpu in table["gpu"]])
    names = np.stack([table["phase"], generation, table["dtype"], table["kv_dtype"], table["engine"]])
    kinds, counts = np.unique(names, axis=1, return_counts=True)
    for place in np.argsort(-counts, kind="stable"):
        rows = np.flatnonzero(np.all(names == kinds[:, place][:, None], axis=0))
        own = take(table, rows)
        parts = []
        keys = np.array([devices[gpu].key for gpu in own["gpu"]])
        for key in np.unique(keys):
            at = np.flatnonzero(keys == key)
            parts.append(Part(at, devices[own["gpu"][at[0]]], shape_in(take(own, at))))
        phase, *names_of = (str(name) for name in kinds[:, place])
        yield Group(phase, *names_of, own["seconds"], tuple(parts))


def shape_in(own: Table) -> Shape:
    """The calls of rows of one phase."""
    return shape_of(str(own["phase"][0]), *(own[name] for name in CALL))
