"""Collectives, predicted against measured, by what they run over and how large the message is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sim.validation.outcome import outcome, records, require

NEEDED = ("system", "gpu", "nodes", "gpus", "collective", "size_bytes", "time_us")
Predict = Callable[[Sequence[Mapping[str, Any]]], tuple[Any, Sequence[str]]]
"""Rows -> seconds of each (NaN where it cannot) and the reason why not ('' where it can)."""


def validate_collectives(rows: pd.DataFrame, predict: Predict, where: str = "rows") -> pd.DataFrame:
    """The rows with ``predicted`` (microseconds), ``error_pct``, ``skipped`` and ``class``.

    Raises:
        ValidationError: columns are missing.
    """
    require(rows, NEEDED, where)
    table = rows.copy()
    seconds, reasons = predict(records(rows))
    table["predicted"], table["skipped"] = 1e6 * np.asarray(seconds), list(reasons)
    measured = pd.to_numeric(table["time_us"], errors="coerce")
    table.loc[~(measured > 0) & (table["skipped"] == ""), "skipped"] = "no measured time"
    table.loc[table["skipped"] != "", "predicted"] = np.nan
    table["class"] = [class_of(row) for row in records(rows)]
    return outcome(table, "time_us")


def class_of(row: Mapping[str, Any]) -> str:
    """What a row is judged among: kind of link and size of message."""
    fabric = str(row.get("fabric") or "") if row.get("fabric") == row.get("fabric") else ""
    size = float(row["size_bytes"]) if row["size_bytes"] == row["size_bytes"] else float("nan")
    band = (
        "<= 32 KB"
        if size <= 2**15
        else "32 KB - 4 MB"
        if size <= 2**22
        else "> 4 MB"
        if size == size
        else "no size"
    )
    gpu, system = str(row["gpu"]), str(row["system"])
    if fabric == "pcie":
        return "PCIe node"
    if fabric in ("nvlink", "xgmi") or float(row["nodes"]) == 1:
        if "pairwise" in system.lower():
            return "pairwise NVLink"
        if gpu == "V100" and "dgx-2" not in system.lower():
            return "V100 cube mesh"
        return f"{'xGMI' if fabric == 'xgmi' else 'NVSwitch'} node {band}"
    return f"several nodes {'> 4 MB' if size > 2**22 else '<= 4 MB' if size == size else band}"
