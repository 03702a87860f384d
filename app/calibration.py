"""Profiles and the points they were fitted to, as tables for the app: the correction card beside the readings.

The row tables under scenarios/validation are written by ``python -m benchmarks.accuracy``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from sim.spec.catalog import UnknownName, load_catalog
from sim.spec.profile import Fit, Profile, ProfileError, find, from_json
from sim.spec.profiles import fits_for, shipped

Row = dict[str, Any]
KINDS = {
    "training": "training steps",
    "gemm": "matrix products",
    "attention": "attention",
    "memory_bound": "memory-bound kernels",
    "moe": "experts",
    "collectives": "collectives",
}
"""Row table -> words for people."""


def kinds() -> list[str]:
    """Row tables that there are."""
    folder = files("scenarios") / "validation"
    return [name for name in KINDS if (folder / f"{name}.csv.gz").is_file()]


@cache
def points(kind: str) -> pd.DataFrame:
    """Measured beside predicted: the row table of a kind with ``error_pct``, ``held_out_error_pct``, ``generation``."""
    with (files("scenarios") / "validation" / f"{kind}.csv.gz").open("rb") as file:
        table = pd.read_csv(file, compression="gzip")
    for name in ("gpu", "stack", "model", "source", "what", "skipped"):
        table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    for name, predicted in (("error_pct", "predicted_s"), ("held_out_error_pct", "held_out_s")):
        table[name] = 100 * (table[predicted] / table["measured_s"] - 1)
    table["generation"] = table["gpu"].map({gpu: _generation(gpu) for gpu in table["gpu"].unique()})
    return table


def _generation(gpu: str) -> str:
    try:
        return load_catalog().accelerator(gpu).generation
    except UnknownName:
        return ""


def errors(table: pd.DataFrame) -> Row:
    """Counts and absolute errors in percent of predicted rows, own and held out, and the share inside the interval."""
    done = table[table["skipped"] == ""]
    told: Row = {"rows": len(table), "predicted": len(done), "inside_frac": None}
    for name in ("error_pct", "held_out_error_pct"):
        known = done[name].dropna().abs()
        told |= {f"{name}_median": None, f"{name}_p90": None}
        if len(known):
            told |= {f"{name}_median": float(known.median()), f"{name}_p90": float(known.quantile(0.9))}
    bounded = done.dropna(subset=["low_s", "high_s"])
    if len(bounded):
        inside = bounded["measured_s"].between(bounded["low_s"], bounded["high_s"])
        told["inside_frac"] = float(np.mean(inside))
    return told


def profile_names() -> list[str]:
    """Of the profiles that ship."""
    return [profile.name for profile in shipped()]


def shipped_profile(name: str) -> Profile:
    """One of :func:`profile_names`."""
    return next(profile for profile in shipped() if profile.name == name)


def fit_rows(profile: Profile) -> list[Row]:
    """A row for each fit: what it is of, how many constants, its error on what it had not seen."""
    return [
        {
            "op": fit.op,
            "of": _key_words(fit),
            "constants": len(fit.parameters),
            "assumed": sum(constant.kind == "assumed" for constant in fit.parameters.values()),
            "grid numbers": fit.grid.numbers if fit.grid else 0,
            "median error, %": fit.error.median_ape if fit.error else None,
            "p90 error, %": fit.error.p90_ape if fit.error else None,
            "bias, %": fit.error.bias if fit.error else None,
            "points": fit.error.points if fit.error else None,
            "held out": fit.error.method if fit.error else "",
            "source": next(iter(fit.parameters.values())).source if fit.parameters else "",
        }
        for fit in profile.fits
    ]


def constant_rows(profile: Profile) -> list[Row]:
    """A row for each constant: value, unit, 80 % interval, kind, source."""
    return [
        {
            "op": fit.op, "of": _key_words(fit), "constant": name, "value": constant.value, "unit": constant.unit,
            "low": constant.low, "high": constant.high, "kind": constant.kind, "source": constant.source,
        }
        for fit in profile.fits
        for name, constant in fit.parameters.items()
    ]  # fmt: skip


def _key_words(fit: Fit) -> str:
    return " ".join(str(value) for value in fit.key.values())


def age_words(profile: Profile) -> str:
    """How old the measurements behind a profile are, in a sentence."""
    environment = profile.provenance.get("environment") or {}
    said = environment.get("measured_at", "") if isinstance(environment, dict) else ""
    try:
        when = datetime.fromisoformat(str(said).replace("Z", "+00:00"))
    except ValueError:
        data = profile.provenance.get("data", "")
        return (
            f"Fitted to the tables under {data}; their rows name their sources."
            if data
            else "Age not recorded."
        )
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    days = (datetime.now(UTC) - when).days
    stale = " Measure again: drivers and libraries have moved since." if days > 180 else ""
    return f"Measured {when:%Y-%m-%d}, {days} days ago.{stale}"


def uploaded_profile(text: str, name: str) -> Profile:
    """A profile of a user's.

    Raises:
        ValueError: every fault in it.
    """
    try:
        return from_json(text, name)
    except ProfileError as fault:
        raise ValueError(str(fault)) from None
    except (RecursionError, TypeError, KeyError, AttributeError) as fault:
        raise ValueError(f"{name}: cannot be read as a profile ({fault})") from None


def beside_shipped(profile: Profile) -> list[Row]:
    """Each constant of a profile beside that of the shipped profile for its kind; widest difference first."""
    known, rows = fits_for("shipped"), []
    for fit in profile.fits:
        like = find(known, fit.op, tuple(fit.key.items()))
        for name, constant in fit.parameters.items():
            other = like.parameters.get(name) if like is not None else None
            ratio = constant.value / other.value if other is not None and other.value else None
            rows.append(
                {
                    "op": fit.op, "of": _key_words(fit), "constant": name, "unit": constant.unit,
                    "here": constant.value, "its kind": other.value if other else None, "ratio": ratio,
                    "kind from": _key_words(like) if like is not None else "",
                }
            )  # fmt: skip
    return sorted(
        rows, key=lambda row: -abs(np.log(row["ratio"])) if row["ratio"] and row["ratio"] > 0 else 0.0
    )


def measured_nodes(given: Sequence[tuple[str, str]]) -> Row:
    """A fleet's report from the texts of measurement files or nccl-tests logs, by file name.

    Raises:
        ValueError: every fault of every file.
    """
    from app.cli.calibrate_report import fleet_document
    from calibrate.importers.common import LogError
    from calibrate.importers.nccl_tests import read
    from calibrate.measurements import MeasurementsError
    from calibrate.measurements import from_json as measurements_from
    from calibrate.report.figures import node_name

    nodes, faults = {}, []
    for name, text in given:
        path = PurePath(name)
        try:
            if text.lstrip().startswith("{") and '"tables"' in text:
                measured = measurements_from(text, name)
            else:
                measured = read(text, path).measurements  # type: ignore[arg-type]
        except (MeasurementsError, LogError) as fault:
            faults.append(str(fault))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
            faults.append(f"{name}: cannot be read as measurements or as a log of nccl-tests ({fault})")
        else:
            nodes[node_name(measured, path.stem)] = measured
    if faults:
        raise ValueError("\n".join(faults))
    return fleet_document(nodes)
