"""The shipped profiles against the tables they come from, and a quick held-out form of the memory-bound fits."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from app.cli.common import named_devices
from calibrate.fit.shipped import cross_validate_kernels, predict_collectives, predict_kernels
from sim.spec.catalog import load_catalog
from sim.spec.profiles import fits_for
from sim.validation.collectives import validate_collectives
from sim.validation.kernels import validate_kernels
from sim.validation.outcome import read_rows, summary

MEASUREMENTS = Path(__file__).resolve().parents[2] / "scenarios" / "measurements"


def table_of(name: str) -> pd.DataFrame:
    return read_rows(MEASUREMENTS / f"{name}.csv.gz")


@pytest.mark.parametrize(
    ("name", "median", "p90"),
    [
        ("gemm", 4, 15),
        ("gemm_measured", 5, 20),
        ("attention", 6, 22),
        ("attention_measured", 5, 20),
        ("memory_measured", 2, 10),
        ("moe_kernel", 7, 25),
    ],
)
def test_a_shipped_profile_describes_its_own_rows(name: str, median: float, p90: float) -> None:
    table = validate_kernels(table_of(name), predict_kernels(fits_for("shipped")), load_catalog())
    document = summary(table, "gpu")
    assert document["predicted"] == document["rows"]
    assert document["median_ape"] < median
    assert document["p90_ape"] < p90
    assert abs(document["bias_pct"]) < 3


def test_memory_bound_shapes_it_has_not_seen_are_predicted() -> None:
    table = validate_kernels(table_of("memory_measured"), cross_validate_kernels(3), load_catalog())
    document = summary(table, "op")
    assert document["median_ape"] < 3
    assert document["p90_ape"] < 18


def test_collectives_of_large_messages_inside_a_node() -> None:
    table = validate_collectives(
        table_of("collectives"), predict_collectives(fits_for("shipped"), named_devices())
    )
    document = summary(table, "class")
    assert document["predicted"] > 0.98 * document["rows"]
    large = document["by_group"]["NVSwitch node > 4 MB"]
    assert large["median_ape"] < 5
    assert large["p90_ape"] < 15


def test_a_system_nobody_measured_gets_a_prediction_from_its_links() -> None:
    row = {
        "system": "new", "gpu": "GB300", "nodes": 4, "gpus": 16, "fabric": "infiniband", "nics_per_node": 4,
        "nic_gbit_per_s": 800, "collective": "all_reduce", "size_bytes": 2.0**30, "time_us": 1.0,
    }  # fmt: skip
    table = validate_collectives(
        pd.DataFrame([row]), predict_collectives(fits_for("shipped"), named_devices())
    )
    seconds = float(table["predicted"].iloc[0]) * 1e-6
    bound = 2**30 / (4 * 800e9 / 8)  # each byte leaves a node at least once
    assert bound < seconds < 20 * bound
