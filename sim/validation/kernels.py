"""Kernels: matrix products, attention, memory-bound passes and experts, predicted against measured.

The kind of kernel follows from the table's columns, which are those of ``scenarios/measurements``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sim.spec.catalog import Catalog, UnknownName
from sim.spec.device import Device
from sim.validation.outcome import ValidationError, outcome, require

Predict = Callable[[str, dict[str, Any], dict[str, Device]], Any]
"""(kind, columns, devices by the names in column ``gpu``) -> seconds of each row, NaN where it cannot."""


class Kind(NamedTuple):
    """One kind of kernel table."""

    name: str
    telling: tuple[str, ...]
    """Columns that only this kind has."""
    needed: tuple[str, ...]
    group: str
    """Column that ``by_group`` reports."""


KINDS = (
    Kind(
        "moe", ("tokens", "experts"), ("gpu", "dtype", "tokens", "hidden", "ffn", "topk", "experts"), "dtype"
    ),
    Kind(
        "attention",
        ("phase", "kv_heads"),
        ("gpu", "phase", "dtype", "batch", "heads", "kv_heads", "head_dim", "seq_len"),
        "phase",
    ),
    Kind("memory_bound", ("op", "rows", "cols"), ("gpu", "op", "dtype", "rows", "cols"), "op"),
    Kind("gemm", ("m", "n", "k"), ("gpu", "dtype", "m", "n", "k"), "dtype"),
)


def kind_of(rows: pd.DataFrame, where: str) -> Kind:
    """Which kernels a table holds.

    Raises:
        ValidationError: no kind fits, or columns are missing.
    """
    for kind in KINDS:
        if set(kind.telling) <= set(rows.columns):
            require(rows, (*kind.needed, "time_us"), where)
            return kind
    known = "; ".join(f"{kind.name}: {', '.join(kind.telling)}" for kind in KINDS)
    raise ValidationError(f"{where}: the columns tell no kind of kernel (expected one of {known})")


def devices_of(rows: pd.DataFrame, catalog: Catalog) -> tuple[dict[str, Device], dict[str, str]]:
    """Devices by the names in column ``gpu``, and the names the catalogue lacks with the reason."""
    found, unknown = {}, {}
    for name in rows["gpu"].dropna().astype(str).unique():
        try:
            found[name] = catalog.accelerator(name).device()
        except UnknownName as fault:
            unknown[name] = str(fault)
    return found, unknown


def columns_of(rows: pd.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    """The table as arrays; empty text cells are ''."""
    return {
        str(name): rows[name].fillna("").to_numpy(dtype=object)
        if pd.api.types.is_string_dtype(rows[name]) or rows[name].dtype == object
        else rows[name].to_numpy()
        for name in rows.columns
    }


def validate_kernels(
    rows: pd.DataFrame, predict: Predict, catalog: Catalog, where: str = "rows"
) -> pd.DataFrame:
    """The rows with ``predicted`` (microseconds), ``error_pct`` and ``skipped`` (the reason, '' where predicted).

    ``predict`` answers from a profile, or from fits that have not seen the row's shape.

    Raises:
        ValidationError: the columns tell no kind of kernel, or needed ones are missing.
    """
    kind = kind_of(rows, where)
    table = rows.copy()
    table["predicted"], table["skipped"] = np.nan, ""
    devices, _ = devices_of(rows, catalog)
    table.loc[~table["gpu"].astype(str).isin(list(devices)), "skipped"] = "accelerator not in the catalogue"
    measured = pd.to_numeric(table["time_us"], errors="coerce")
    table.loc[~(measured > 0) & (table["skipped"] == ""), "skipped"] = "no measured time"
    usable = table["skipped"] == ""
    if usable.any():
        table.loc[usable, "predicted"] = 1e6 * np.asarray(
            predict(kind.name, columns_of(rows[usable]), devices)
        )
    table.loc[usable & table["predicted"].isna(), "skipped"] = (
        "no rate for this number format on this accelerator"
    )
    return outcome(table, "time_us")
