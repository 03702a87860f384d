"""Strict orders have a short cut through the engine: same log as of the same policy asked decision by decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.nodes import Pool
from sim.cluster.outage import Outage
from sim.cluster.policies.order import EarliestDeadline, Fifo, Priority, Sjf
from sim.cluster.policy import Decisions, Policy, View
from sim.cluster.rules import Hazard, Rules
from sim.cluster.run import simulate
from sim.spec.job import Job

ORDERS: tuple[Policy, ...] = (Fifo(), Sjf(), Sjf(by_limit=True), Priority(), EarliestDeadline())


class Asked(Policy):
    """The same order, through the generator that every other policy uses."""

    def __init__(self, order: Policy) -> None:
        self.name = order.name
        self.key: Callable[..., Any] = order.key  # type: ignore[method-assign]

    def decide(self, view: View) -> Decisions:
        """What the base class yields."""
        return super().decide(view)


@st.composite
def traces(draw: st.DrawFn) -> list[Job]:
    """Few sizes and times, so that submissions, ends and faults meet in one instant; 9 devices never fit."""
    number = st.integers(0, 6)
    submits = sorted(draw(st.lists(number, min_size=1, max_size=14)))
    return [
        Job(
            str(place), float(at), draw(st.sampled_from((0, 1, 2, 3, 4, 8, 9))), float(draw(number)),
            float(draw(number)) + 1, priority=float(draw(number)), deadline_s=draw(st.sampled_from((None, 5.0, 9.0))),
        )
        for place, at in enumerate(submits)
    ]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order.name}-{order.key.__qualname__}")
@settings(max_examples=60, deadline=None)
@given(jobs=traces(), one_pass=st.booleans(), first=st.booleans(), limit=st.booleans(), faults=st.booleans())
def test_the_short_cut_writes_the_same_log(
    order: Policy, jobs: list[Job], one_pass: bool, first: bool, limit: bool, faults: bool
) -> None:
    """Stretches, records, books and passes that served somebody, under every event rule, with faults and without."""
    outages = [Outage(2.0, (0,), "gpu", 1.0, 3.0), Outage(9.0, (1,), "nic", 0.0, 2.0)] if faults else []

    def log(policy: Policy) -> Any:
        rules = Rules(
            one_pass=one_pass, completions_first=first, kill_at_limit=limit,
            hazard=(lambda state: Hazard(3.0, 1.0) if state.stretch == 1 else None) if faults else None,
        )  # fmt: skip
        return simulate(iter(jobs), [Pool(2, 4)], policy, rules=rules, outages=outages)

    short, asked = log(order), log(Asked(order))
    assert replace(short, passes=0) == replace(asked, passes=0)  # the short cut saves passes, nothing else
