"""``rackcast validate``: the document, the columns of the table, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from app.cli import app

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENTS = ROOT / "scenarios" / "measurements"


def run(*arguments: str):
    return CliRunner().invoke(app, ["validate", *arguments])


def test_the_document_has_counts_and_errors_by_gpu_and_group(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    done = run("kernels", str(MEASUREMENTS / "attention_measured.csv.gz"), "--json", "--out", str(out))
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert {
        "rows",
        "predicted",
        "skipped",
        "mape",
        "median_ape",
        "p90_ape",
        "max_ape",
        "by_gpu",
        "by_group",
    } <= set(document)
    assert set(document["by_group"]) == {"fwd", "bwd", "prefill", "decode"}
    rows = pd.read_csv(out, keep_default_na=False)
    assert len(rows) == document["rows"]
    first = rows.iloc[0]
    assert float(first["error_pct"]) == pytest.approx(
        100 * (float(first["predicted"]) / first["time_us"] - 1)
    )
    assert first["skipped"] == ""


def test_rows_that_cannot_be_predicted_are_skipped_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "gpu,dtype,m,n,k,time_us\nH100-80GB,bf16,1024,1024,1024,9\nABC,bf16,1,1,1,1\nH100-80GB,bf16,8,8,8,\n"
    )
    document = json.loads(run("kernels", str(path), "--json").stdout)
    assert document["rows"] == 3
    assert document["predicted"] == 1
    assert document["skipped"] == {"accelerator not in the catalogue": 1, "no measured time": 1}


def test_training_runs_name_what_was_assumed(tmp_path: Path) -> None:
    table = pd.read_csv(MEASUREMENTS / "training_runs.csv.gz")
    path, out = tmp_path / "runs.csv", tmp_path / "out.csv"
    table[table["id"].isin(["P0011", "P0050", "P0001"]) | (table["strategy"] == "bert")].to_csv(
        path, index=False
    )
    document = json.loads(run("training", str(path), "--json", "--out", str(out)).stdout)
    assert document["predicted"] + sum(document["skipped"].values()) == document["rows"]
    rows = pd.read_csv(out, keep_default_na=False).set_index("id")
    assert "micro_batch 1" in rows.loc["P0050", "assumed"]
    assert abs(float(rows.loc["P0011", "error_pct"])) < 10


def test_a_table_for_people() -> None:
    done = run("collectives", str(MEASUREMENTS / "collectives.csv.gz"))
    assert done.exit_code == 0
    assert "NVSwitch node > 4 MB" in done.stdout
    assert "14 skipped: no message size" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kernels", "absent.csv"), "cannot be read"),
        (("kernels", str(MEASUREMENTS / "collectives.csv.gz")), "the columns tell no kind of kernel"),
        (("collectives", str(MEASUREMENTS / "gemm.csv.gz")), "missing columns: system, nodes"),
        (("collectives", str(MEASUREMENTS / "collectives.csv.gz"), "--leave-out", "gpu"), "expected system"),
        (("kernels", str(MEASUREMENTS / "gemm.csv.gz"), "--profile", "none.json"), "cannot be read"),
    ],
)
def test_refusals(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
