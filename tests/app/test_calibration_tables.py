"""Profiles and validation rows as the app shows them, against the document they come from and against closed forms."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from app import calibration
from app.report import search_figures, validation_figures
from benchmarks.validation_rows import row_table
from sim.spec.profile import to_json
from sim.units import format_seconds

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "validation.md"


def test_the_row_tables_give_the_medians_of_the_document() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("## Training steps")[1]
    found = re.search(r"\| all \| (\d+) \| ([\d.]+) .*?\| [-+\d.]+ \| ([\d.]+) ", section)
    assert found
    told = calibration.errors(calibration.points("training"))
    assert told["predicted"] == int(found[1])
    assert round(told["held_out_error_pct_median"], 1) == pytest.approx(float(found[2]), abs=0.11)
    assert round(told["error_pct_median"], 1) == pytest.approx(float(found[3]), abs=0.11)


def test_every_row_names_its_source_and_is_predicted_or_says_why_not() -> None:
    assert calibration.kinds() == list(calibration.KINDS)
    for kind in calibration.kinds():
        table = calibration.points(kind)
        assert (table["source"] != "").all()
        assert ((table["skipped"] != "") ^ table["predicted_s"].notna()).all()
        assert (table["generation"] != "").mean() > 0.9


def test_errors_of_known_rows() -> None:
    table = pd.DataFrame(
        {
            "skipped": ["", "", "no"], "error_pct": [-10.0, 20.0, None], "held_out_error_pct": [5.0, 5.0, None],
            "measured_s": [1.0, 1.0, 1.0], "low_s": [0.9, 1.1, None], "high_s": [1.1, 1.2, None],
        }
    )  # fmt: skip
    told = calibration.errors(table)
    assert (told["rows"], told["predicted"], told["error_pct_median"]) == (3, 2, 15.0)
    assert told["held_out_error_pct_p90"] == 5.0
    assert told["inside_frac"] == 0.5
    assert calibration.errors(table[:0])["error_pct_median"] is None


def test_a_row_table_is_in_seconds_whatever_the_measurements_are_in() -> None:
    own = pd.DataFrame(
        {"gpu": ["H100"], "op": ["norm"], "rows": [8], "cols": [2], "dtype": ["bf16"], "engine": [None],
         "source": ["x"], "time_us": [3.0], "predicted": [6.0], "skipped": [""]}
    )  # fmt: skip
    row = row_table("memory_bound", own.assign(predicted=[9.0]), own).iloc[0]
    assert (row["measured_s"], row["predicted_s"], row["held_out_s"]) == pytest.approx((3e-6, 6e-6, 9e-6))
    assert row["what"] == "op norm, rows 8, cols 2, dtype bf16"
    assert row["stack"] == ""


def test_a_shipped_profile_beside_its_kind_is_itself() -> None:
    profile = calibration.shipped_profile("volta")
    again = calibration.uploaded_profile(to_json(profile), "mine.json")
    rows = calibration.beside_shipped(again)
    assert len(rows) == sum(len(fit.parameters) for fit in profile.fits)
    assert all(row["ratio"] in (None, 1.0) for row in rows)


def test_age_is_told_where_it_is_recorded() -> None:
    from dataclasses import replace

    profile = calibration.shipped_profile("volta")
    assert "scenarios/measurements" in calibration.age_words(profile)
    dated = replace(profile, provenance={"environment": {"measured_at": "2020-01-01T00:00:00Z"}})
    assert "Measured 2020-01-01" in calibration.age_words(dated)
    assert "Measure again" in calibration.age_words(dated)
    assert calibration.age_words(replace(profile, provenance={})) == "Age not recorded."


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"fits": 3}', '{"schema": 1, "fits": [{}]}', "[" * 5000, '{"schema": 9}']
)
def test_a_file_that_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mine"):
        calibration.uploaded_profile(text, "mine.json")


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "{", '{"tables": 3}', '{"schema": 1, "environment": {}, "tables": []}', "# nccl\n1 2 3"],
)
def test_a_file_that_is_no_log_and_no_measurement_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mine"):
        calibration.measured_nodes([("mine.txt", text)])


def test_the_heat_map_shows_every_pair_and_leaves_out_what_does_not_fit() -> None:
    rows = [
        {"tensor": 1, "pipeline": 1, "step_time_s": None, "fitting": 0},
        {"tensor": 2, "pipeline": 1, "step_time_s": 3.0, "fitting": 4},
        {"tensor": 2, "pipeline": 4, "step_time_s": 2.0, "fitting": 1},
    ]
    (drawn,) = search_figures.heat(rows).data
    assert [list(row) for row in drawn.z] == [[None, None], [3.0, 2.0]]
    assert drawn.text[1][0] == format_seconds(3.0, 3)
    assert list(drawn.text[0]) == ["none fits", "none fits"]


def test_points_are_drawn_with_a_colour_and_a_symbol_each() -> None:
    table = calibration.points("training")
    figure = validation_figures.against(table, "predicted_s", "gpu")
    groups = figure.data[2:]
    assert sum(len(group.x) for group in groups) == len(table)
    assert len({group.marker.color for group in groups}) == len({group.marker.symbol for group in groups})
    assert validation_figures.against(table[:0], "predicted_s", "gpu").data == ()
    assert len(validation_figures.residuals(table, "error_pct").data[0].x) == len(table)
