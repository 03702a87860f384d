"""Accuracy is a series: no class of published runs gets worse by more than two points, and no row is lost.

The baseline is written by ``python -m benchmarks.accuracy training`` together with docs/validation.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy import baseline
from sim.spec.catalog import load_catalog
from sim.spec.profiles import fits_for
from sim.validation.outcome import read_rows
from sim.validation.training import validate_training

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = json.loads((ROOT / "tests" / "published" / "accuracy_baseline.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def now() -> dict:
    rows = read_rows(ROOT / "scenarios" / "measurements" / "training_runs.csv.gz")
    return baseline(validate_training(rows, fits_for("shipped"), load_catalog()))


def test_no_row_that_was_predicted_is_lost(now: dict) -> None:
    assert set(COMMITTED["predicted"]) <= set(now["predicted"])


@pytest.mark.parametrize("name", list(COMMITTED["median_ape"]))
def test_no_class_gets_worse_by_more_than_two_points(now: dict, name: str) -> None:
    assert now["median_ape"][name] <= COMMITTED["median_ape"][name] + 2
