"""Scenarios side by side: what differs is named, and what both lean on does not blur the difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sim
from sim.planning.compare import changed, compare, paired
from sim.spec.profiles import fits_for
from sim.training.interval import Z80, step_interval

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "scenarios" / "llama-3.1-8b-64-h100.toml"


def ran(*changes: str):
    result = sim.run(sim.load(FILE, changes))
    return result, step_interval(result, fits_for(result.scenario.profile))


@pytest.fixture(scope="module")
def first():
    return ran()


def test_a_scenario_does_not_differ_from_itself(first) -> None:
    document = compare([first[0], first[0]], [first[1], first[1]])
    assert document["changed"] == []
    assert document["step_time"][1]["difference_s"] == document["step_time"][1]["difference_high_s"] == 0
    assert not document["step_time"][1]["surely_different"]
    assert all(change in (0, None) for row in document["figures"] for change in row["change_frac"])


def test_a_shared_calibration_narrows_the_difference(first) -> None:
    other = ran("training.plan.recompute=full")
    row = paired(*first, *other)
    assert row["sigma_paired"] < 0.25 * row["sigma_apart"]
    assert row["surely_different"]
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["difference_low_s"] < row["difference_s"] < row["difference_high_s"]


def test_other_hardware_leans_on_other_measurements(first) -> None:
    other = ran("cluster.pools.0.system=dgx-a100-80gb")
    row = paired(*first, *other)
    assert row["sigma_paired"] > 0.5 * row["sigma_apart"]


def test_the_paired_spread_is_that_of_shared_draws(first) -> None:
    """Draw every source's error once for both, as the definition says, and look at the spread."""
    other = ran("training.plan.tensor=4", "training.plan.micro_batch=2")
    row = paired(*first, *other)
    draw = np.random.default_rng(5)
    logs = np.zeros((2, 40_000))
    errors: dict[tuple[str, float], np.ndarray] = {}
    for place, (_, interval) in enumerate((first, other)):
        for term in interval["terms"]:
            key = term["source"], term["sigma"]
            if key not in errors:
                errors[key] = draw.normal(0, term["sigma"], logs.shape[1])
            logs[place] += term["share_frac"] * errors[key]
    assert np.std(logs[1] - logs[0]) == pytest.approx(row["sigma_paired"], rel=0.02)
    seconds = np.array([[first[0].step_s], [other[0].step_s]]) * (1 + logs)
    half = (row["difference_high_s"] - row["difference_low_s"]) / 2
    assert np.std(seconds[1] - seconds[0]) * Z80 == pytest.approx(half, rel=0.02)


def test_a_changed_catalogue_entry_is_one_line() -> None:
    one, two = (
        sim.load(FILE),
        sim.load(FILE, ["cluster.pools.0.system=dgx-a100-80gb", "training.plan.tensor=4"]),
    )
    assert {row["path"]: row["values"] for row in changed([one, two])} == {
        "cluster.pools.0.system": ["dgx-h100", "dgx-a100-80gb"],
        "cluster.pools.0.accelerator": ["h100-sxm5-80gb", "a100-sxm4-80gb"],
        "training.plan.tensor": [2, 4],
    }
