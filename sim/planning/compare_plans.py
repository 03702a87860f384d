"""Capacity plans side by side: what was changed, and what would be chosen there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.planning.compare import change_frac, changed
from sim.planning.sweep.plan_points import PLAN_FIGURES, plan_figures
from sim.spec.scenario import Scenario


def compare_plans(scenarios: Sequence[Scenario], folders: Sequence[Path]) -> dict[str, Any]:
    """Every plan against the first, ready for JSON; the same worlds where the seeds are the same."""
    rows = [plan_figures(one, folder) for one, folder in zip(scenarios, folders, strict=True)]
    values = {name: [row[name] for row in rows] for name in PLAN_FIGURES}
    return {
        "scenarios": [{"name": one.name, "hash": one.content_hash, "seed": one.seed} for one in scenarios],
        "outcomes": [{"outcome": row["outcome"], "reason": row["reason"]} for row in rows],
        "changed": changed(scenarios),
        "figures": [
            {"figure": name, "values": found, "change_frac": change_frac(found)}
            for name, found in values.items()
        ],
    }
