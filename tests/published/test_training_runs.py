"""Published Megatron-LM runs on A100; one constant of the stack is fitted to them, none to a single row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sim.spec.catalog import load_catalog
from sim.spec.profiles import fits_for
from sim.validation.outcome import read_rows, summary
from sim.validation.training import scenario_of, validate_training

TABLE = read_rows(Path(__file__).parents[2] / "scenarios" / "measurements" / "training_runs.csv.gz")
PAPERS = TABLE["group"].str.match(r"korthikanti\||sc21\|")
README = (TABLE["stack"] == "megatron-lm") & TABLE["gpu"].str.startswith("A100")
ROWS = TABLE[PAPERS | README].reset_index(drop=True)
"""Narayanan et al. (SC21) Table 1, Korthikanti et al. Table 5, and the A100 runs of the Megatron-LM README."""


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return validate_training(ROWS, fits_for("shipped"), load_catalog())


def test_every_run_is_expressed(table: pd.DataFrame) -> None:
    assert list(table.loc[table["skipped"] != "", ["id", "skipped"]].itertuples(index=False)) == []


@pytest.mark.parametrize("identity", list(ROWS["id"]))
def test_each_run_is_predicted_within_twelve_percent(table: pd.DataFrame, identity: str) -> None:
    error = float(table.loc[table["id"] == identity, "error_pct"].iloc[0])
    assert abs(error) <= 12


def test_the_runs_together_have_little_bias(table: pd.DataFrame) -> None:
    document = summary(table, "group")
    assert document["median_ape"] <= 6
    assert abs(document["bias_pct"]) <= 4


def test_they_hold_without_any_constant_fitted_to_training_runs() -> None:
    kernels = [fit for fit in fits_for("shipped") if fit.op != "stack"]
    document = summary(validate_training(ROWS, kernels, load_catalog()), "group")
    assert document["max_ape"] <= 10


def test_almost_every_published_run_is_expressed() -> None:
    few = TABLE.groupby(["stack", "strategy", "gpu"]).head(1).reset_index(drop=True)
    table = validate_training(few, fits_for("shipped"), load_catalog())
    assert set(table["skipped"]) == {""}
    assert (table["predicted"] > 0).all()
    assert table["error_pct"].abs().median() < 15


@pytest.mark.parametrize(
    ("identity", "stages", "half"),
    [("P0465", 5, True), ("P0605", 10, True), ("P0435", 1, True), ("P0990", 1, False)],
    ids=["Llama 3 70B, Megatron-Bridge", "Llama 2 13B, NeMo", "experts: as stated", "Megatron-DeepSpeed"],
)
def test_what_a_row_leaves_unsaid_is_what_its_recipes_do(identity: str, stages: int, half: bool) -> None:
    row = TABLE[TABLE["id"] == identity].to_dict("records")[0]
    scenario, guesses = scenario_of({str(name): cell for name, cell in row.items()}, load_catalog())
    assert scenario.training is not None
    plan = scenario.training.plan
    assert (plan.virtual_stages, plan.half_gradients) == (stages, half)
    assert any("virtual stages" in guess for guess in guesses)
