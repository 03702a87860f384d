"""Capacity plans in sweeps and side by side."""

from pathlib import Path

from sim.planning.compare_plans import compare_plans
from sim.planning.sweep.plan_points import PLAN_FIGURES, plan_figures
from sim.planning.sweep.points import point, simulate
from sim.spec.loader import load

SMALL = Path(__file__).parent / "capacity" / "small-plan.toml"


def test_a_point_is_the_plan_of_its_scenario():
    text = SMALL.read_text()
    asked = point(text, str(SMALL), (), (("demand.value_usd_per_gpu_hour", "1"),))
    row = simulate(asked.payload)
    scenario = load(SMALL, ["demand.value_usd_per_gpu_hour=1"])

    assert row["outcome"] == "done"
    assert set(PLAN_FIGURES) <= set(row)
    assert row == plan_figures(scenario, SMALL.parent)
    assert row["option"] == "do nothing"
    assert row["cost_low_usd"] < row["cost_usd"] < row["cost_high_usd"]


def test_what_cannot_be_had_does_not_fit():
    text = SMALL.read_text()
    changes = ("supply.options=[{name='all',parts=[{system='dgx-h100',nodes=400}]}]",)
    row = simulate(point(text, str(SMALL), changes, ()).payload)
    assert row["outcome"] == "does not fit"
    assert "power: needs" in row["reason"]


def test_a_changed_price_is_the_only_difference_of_two_plans():
    dear = load(SMALL, ["prices.energy_usd_per_kwh=0.5"])
    found = compare_plans([load(SMALL), dear], [SMALL.parent] * 2)
    assert [row["path"] for row in found["changed"]] == ["prices"]
    cost = next(row for row in found["figures"] if row["figure"] == "cost_usd")
    assert cost["values"][1] >= cost["values"][0]
