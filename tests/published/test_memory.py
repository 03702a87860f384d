"""Peak memory against 22 measured cases of Megatron-LM on B200 (dense and mixture of experts): nothing is fitted."""

from __future__ import annotations

from pathlib import Path

from sim.spec.catalog import load_catalog
from sim.validation.memory import validate_memory
from sim.validation.outcome import read_rows, summary

TABLE = read_rows(Path(__file__).parents[2] / "scenarios" / "measurements" / "training_runs.csv.gz")


def test_peak_memory_of_megatron_runs_is_within_four_percent() -> None:
    table = validate_memory(TABLE, load_catalog())
    mine = table[(table["stack"] == "megatron-lm-no-overlap") & (table["skipped"] == "")]
    assert len(mine) == 22
    assert mine["error_pct"].abs().max() < 4


def test_every_row_with_a_measured_peak_gets_a_prediction() -> None:
    document = summary(validate_memory(TABLE, load_catalog()), "stack")
    assert document["predicted"] == int((TABLE["memory_gib"] > 0).sum()) == 25
    assert document["median_ape"] < 5
