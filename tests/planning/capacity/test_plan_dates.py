"""Months of a plan that cannot be are told all at once; a row that says nothing is not shown."""

from __future__ import annotations

import pytest

from sim.planning.capacity.document import planned
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads

PLAN = """
name = "dates"
[demand]
start = "2027-01"
months = 14
value_usd_per_gpu_hour = 500
[[demand.programmes]]
name = "team"
kind = "team"
people = 5
start = "START"
end = "END"
[[demand.programmes]]
name = "model"
kind = "model"
model = "llama-3.1-8b"
start = "2027-06"
deadline = "DEADLINE"
[[supply.options]]
name = "one"
parts = [{ system = "dgx-h100", nodes = 2, node_usd = 300_000, delivery = "DELIVERY" }]
[[supply.options]]
name = "the same"
parts = [{ system = "dgx-h100", nodes = 2, node_usd = 300_000, delivery = "DELIVERY" }]
"""


def text(start: str, end: str, deadline: str, delivery: str) -> str:
    given = {"START": start, "END": end, "DEADLINE": deadline, "DELIVERY": delivery}
    told = PLAN
    for name, value in given.items():
        told = told.replace(name, value)
    return told


def test_months_out_of_order_are_all_told():
    with pytest.raises(ScenarioError) as told:
        loads(text("2028-03", "2027-02", "2027-05", "2030-01"))
    said = str(told.value)
    assert "programmes.0.start = '2028-03': expected a month of the plan, 2027-01 to 2028-02" in said
    assert "programmes.0.end = '2027-02': expected 2028-03" in said
    assert "programmes.1.deadline = '2027-05': expected 2027-06" in said
    assert said.count("delivery = '2030-01': expected a month of the plan, 2027-01 to 2028-02") == 2


def test_an_option_that_is_the_same_says_so_and_idle_assumptions_are_left_out():
    scenario = loads(text("2027-01", "2028-02", "2028-02", "2027-02"))
    _, document = planned(scenario, 40, lambda _: None)
    reasons = {row["name"]: row["why_not"] for row in document["options"]}
    assert sum(why == "comes to the same in every world" for why in reasons.values()) == 1
    middle = document["tornado_middle_usd"]
    for row in document["tornado"]:
        assert max(abs(row["low_usd"] - middle), abs(row["high_usd"] - middle)) >= 1.0
