"""Fitting the shipped profiles: tables are read and joined right, and the command writes profiles that load."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from app.cli.common import named_devices
from calibrate.fit.shipped import TABLES, fit_shipped, join, read_columns
from sim.spec.profile import load

MEASUREMENTS = Path(__file__).resolve().parents[2] / "scenarios" / "measurements"


def sample(name: str, target: Path, keep: int, **wanted: str) -> None:
    """Every n-th row of a table that has the wanted cells, ``keep`` of them."""
    with gzip.open(MEASUREMENTS / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[key] == cell for key, cell in wanted.items())]
    rows = rows[:: max(len(rows) // keep, 1)][:keep]
    with gzip.open(target / f"{name}.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_columns_are_numbers_or_text_and_empty_cells_survive() -> None:
    columns = read_columns(MEASUREMENTS / "collectives.csv.gz")
    assert columns["size_bytes"].dtype == float
    assert np.isnan(columns["size_bytes"]).sum() == 14
    assert columns["system"].dtype == object


def test_joined_tables_keep_every_row_and_fill_what_one_lacks() -> None:
    one, other = ({"a": np.array([1.0]), "t": np.array(["x"], dtype=object)}, {"a": np.array([2.0, 3.0])})
    joined = join([one, other])
    assert joined["a"].tolist() == [1, 2, 3]
    assert joined["t"].tolist() == ["x", "", ""]


def test_a_small_set_of_tables_becomes_profiles_that_load(tmp_path: Path) -> None:
    tables, out = tmp_path / "tables", tmp_path / "profiles"
    tables.mkdir()
    out.mkdir()
    sample("gemm", tables, 30, gpu="H100-80GB", dtype="bfloat16")
    sample("gemm_measured", tables, 20, gpu="H100-80GB", dtype="bfloat16")
    sample("attention", tables, 30, gpu="H100-80GB", phase="prefill", dtype="bfloat16")
    sample("attention_measured", tables, 30, gpu="H200", phase="prefill")
    sample("memory_measured", tables, 30, gpu="H100-80GB")
    sample("moe_kernel", tables, 30, gpu="H100-80GB", dtype="bfloat16")
    sample("collectives", tables, 60, gpu="H100", fabric="nvlink", collective="all_reduce")
    told: list[str] = []
    written = fit_shipped(tables, out, named_devices(), told.append)
    assert len(told) == len(TABLES)
    names = {path.stem for path in written}
    assert "hopper" in names
    fits = [fit for path in written for fit in load(path).fits]
    assert {"gemm", "memory_bound", "moe", "attention_prefill"} <= {fit.op for fit in fits}
    assert all(constant.source for fit in fits for constant in fit.parameters.values())


@pytest.mark.parametrize("name", [name for names in TABLES.values() for name in names])
def test_every_table_names_a_source_in_each_row(name: str) -> None:
    columns = read_columns(MEASUREMENTS / f"{name}.csv.gz")
    assert all(str(source) for source in columns["source"])
