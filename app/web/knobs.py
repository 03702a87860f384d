"""The inputs that each page offers to change: a control panel with the levers that matter, not every screw."""

from __future__ import annotations

from functools import partial
from typing import Any

from app.web.shell import Knob
from sim.spec.catalog import load_catalog
from sim.spec.parallelism import RECOMPUTE
from sim.spec.prices import bounds, general
from sim.spec.scenario import Scenario
from sim.spec.scheduling import LEVELS, PLACEMENTS, POLICIES

DAY_S = 86400.0


def _system() -> Knob:
    keys = tuple(load_catalog().systems)
    return Knob("cluster.pools.0.system", "Node type", options=keys, help="From the catalogue.")


def _nodes() -> Knob:
    return Knob("cluster.pools.0.nodes", "Nodes", base=_pool_nodes, help="Of the first pool.")


def _pool_nodes(scenario: Scenario) -> int | None:
    return scenario.cluster.pools[0].nodes if scenario.cluster.pools else None


def _plan_field(name: str, scenario: Scenario) -> Any:
    """A field of the parallel plan; none where the plan is left to the search."""
    training = scenario.training
    return None if training is None or training.auto_plan else getattr(training.plan, name)


def _of_plan(name: str, label: str, **more: Any) -> Knob:
    return Knob(f"training.plan.{name}", label, base=partial(_plan_field, name), **more)


def step_knobs() -> list[Knob]:
    """Of a training step."""
    return [
        _system(),
        _nodes(),
        Knob("training.global_batch", "Global batch (sequences)"),
        _of_plan("tensor", "Tensor parallel"),
        _of_plan("pipeline", "Pipeline stages"),
        _of_plan("micro_batch", "Micro-batch"),
        _of_plan("virtual_stages", "Virtual stages"),
        _of_plan("zero_stage", "ZeRO stage", low=0, high=3, help="What the data-parallel ranks share out."),
        _of_plan("recompute", "Recompute", options=RECOMPUTE, help="What backward computes again."),
    ]


def _rate(scenario: Scenario) -> float | None:
    mixes = scenario.jobs.mixes if scenario.jobs else ()
    return mixes[0].arrivals.rate_per_s if mixes and getattr(mixes[0], "arrivals", None) else None


def _policy(scenario: Scenario) -> str | None:
    return None if scenario.policy.function else scenario.policy.name


def cluster_knobs() -> list[Knob]:
    """Of a cluster of many jobs."""
    return [
        _nodes(),
        Knob("policy.name", "Policy", options=POLICIES, base=_policy, help="Who goes next."),
        Knob("policy.placement", "Placement", options=PLACEMENTS, help="Where a gang goes."),
        Knob(
            "jobs.mixes.0.arrivals.rate_per_s", "Jobs a day", low=0.01, high=1e6, whole=False, unit=" /day",
            scale=1 / DAY_S, base=_rate, help="Submissions of the first mix, at the start.",
        ),
        Knob("study.failures", "Failure rates", options=LEVELS, help="Which end of the published rates."),
        Knob("seed", "Seed", low=0, help="Root of every random stream."),
    ]  # fmt: skip


def _assumed(name: str, scenario: Scenario) -> float:
    return general(scenario.prices)[name].value.mid


PRICED = {
    "energy_usd_per_kwh": "Electricity (USD/kWh)",
    "cost_of_capital_frac_per_year": "Cost of capital (share a year)",
    "pue": "PUE of the site",
    "node_down_frac": "Nodes out of service (share)",
}


def plan_knobs() -> list[Knob]:
    """Of a capacity plan. A changed price is one value in place of its interval."""
    told = "One value in place of the interval."
    return [
        Knob("demand.months", "Months", high=240, help="Of the plan."),
        Knob("supply.budget_usd", "Budget (USD million)", low=0.001, high=1e6, whole=False, unit="e6", scale=1e6),
        *(
            Knob(
                f"prices.{name}", label, low=bounds(name)[0] or 0.0, high=min(bounds(name)[1], 1e4), whole=False,
                base=partial(_assumed, name), help=told,
            )
            for name, label in PRICED.items()
        ),
        Knob("seed", "Seed", low=0, help="Root of every random stream."),
    ]  # fmt: skip
