"""Faults of a plan scenario: each is told with its place, all at once."""

from pathlib import Path

import pytest

from sim.spec.faults import ScenarioError
from sim.spec.loader import loads

SMALL = (Path(__file__).parent / "small-plan.toml").read_text()


def test_every_fault_is_told_at_once():
    changes = [
        "demand.programmes.0.history=past.csv",
        "demand.programmes.1.kind=history",
        "supply.options.0.parts.0.oversubscription=0.5",
        "supply.options.1.policy=esy",
    ]
    with pytest.raises(ScenarioError) as refused:
        loads(SMALL, "plan.toml", changes[2:])
    told = str(refused.value)
    assert "supply.options.0.parts.0.oversubscription" in told
    assert "did you mean 'easy'" in told
    with pytest.raises(ScenarioError) as refused:
        loads(SMALL, "plan.toml", changes[:2])
    told = str(refused.value)
    assert "only a history has one, not 'chat'" in told
    assert "demand.programmes.1.history" in told


def test_a_training_run_does_not_give_up():
    text = SMALL.replace('kind = "traffic"', 'kind = "model"\nmodel = "llama-3-8b"\nwait_months = 2')
    with pytest.raises(ScenarioError, match="waits until it is done"):
        loads(text, "plan.toml")
