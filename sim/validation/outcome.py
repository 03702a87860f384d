"""The result of a validation: every row has one outcome, predicted or skipped with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


class ValidationError(ValueError):
    """A measurement file that cannot be used; the message names every missing column."""


def read_rows(path: str | Path) -> pd.DataFrame:
    """Read a CSV (also .gz) as text and numbers; empty cells are NaN or empty text.

    Raises:
        ValidationError: not readable as a table.
    """
    try:
        return pd.read_csv(path, keep_default_na=True)
    except (OSError, UnicodeDecodeError, ValueError) as fault:
        raise ValidationError(f"{path}: cannot be read as a CSV table: {fault}") from None


def require(rows: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Refuse a table that lacks columns, naming all of them."""
    missing = [name for name in columns if name not in rows.columns]
    if missing:
        raise ValidationError(
            f"{where}: missing column{'s' if len(missing) > 1 else ''}: {', '.join(missing)}"
        )


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries by column name."""
    return [{str(name): cell for name, cell in row.items()} for row in rows.to_dict("records")]


def source_family(row: Mapping[str, Any]) -> str:
    """The source of a published run: what stands before the first bar of its ``group``."""
    return str(row.get("group", "")).split("|")[0]


def outcome(rows: pd.DataFrame, measured: str) -> pd.DataFrame:
    """The input with ``predicted``, ``error_pct`` and ``skipped``, given the first and the last."""
    table = rows.copy()
    table["error_pct"] = 100 * (table["predicted"] / table[measured] - 1)
    return table


def summary(table: pd.DataFrame, group: str) -> dict[str, Any]:
    """Counts and absolute errors in percent, in all and by ``gpu`` and by ``group``.

    Training steps (columns ``low_s``, ``high_s``, ``constant_s``) also tell how many lie inside their interval, and the
    errors of one constant utilisation for each generation, stack and number format.
    """
    done = table[table["skipped"] == ""]
    reasons = Counter(table.loc[table["skipped"] != "", "skipped"])
    return {
        "rows": len(table),
        "predicted": len(done),
        "skipped": dict(sorted(reasons.items())),
        **_errors(done),
        "by_gpu": {str(key): _errors(part) for key, part in done.groupby("gpu", dropna=False)},
        "by_group": {str(key): _errors(part) for key, part in done.groupby(group, dropna=False)},
    }


def _errors(part: pd.DataFrame) -> dict[str, Any]:
    if part.empty:
        return {
            "points": 0,
            "mape": None,
            "median_ape": None,
            "p90_ape": None,
            "max_ape": None,
            "bias_pct": None,
        }
    ape = part["error_pct"].abs().to_numpy()
    log = np.log1p(part["error_pct"].to_numpy() / 100)
    more = {}
    if "low_s" in part:
        inside = (part["low_s"] <= part["step_time_s"]) & (part["step_time_s"] <= part["high_s"])
        more["inside_80_pct"] = round(float(100 * inside.mean()), 1)
    if "constant_s" in part:
        rival = 100 * (part["constant_s"] / part["step_time_s"] - 1).abs().to_numpy()
        more["constant_median_ape"] = round(float(np.median(rival)), 3)
        more["constant_p90_ape"] = round(float(np.quantile(rival, 0.9)), 3)
    return more | {
        "points": len(part),
        "mape": round(float(ape.mean()), 3),
        "median_ape": round(float(np.median(ape)), 3),
        "p90_ape": round(float(np.quantile(ape, 0.9)), 3),
        "max_ape": round(float(ape.max()), 3),
        "bias_pct": round(float(100 * np.expm1(log.mean())), 3),
    }
