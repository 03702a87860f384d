"""One point of a sweep: a scenario with some values set anew, run, and its answer as one flat row.

Like a form filled in by whoever works the point out: what came of it first, then either the figures or the reason why
there are none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sim.cluster.policy import PolicyError
from sim.cluster.study import ClusterStudy
from sim.planning.capacity.history import with_histories
from sim.planning.plans.search import NoPlanError
from sim.planning.sweep.axes import Settings
from sim.planning.sweep.plan_points import PLAN_FIGURES, plan_figures
from sim.planning.sweep.run import Point, content_key
from sim.results.step import StepResult
from sim.results.step_tables import step_document
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.spec.profile import ProfileError
from sim.spec.profiles import fits_for
from sim.spec.scenario import Scenario
from sim.training.interval import step_interval

FUNCTION = "sim.planning.sweep.points:simulate"
"""Import path of :func:`simulate`."""
STEP_FIGURES = (
    "step_time_s",
    "step_time_low_s",
    "step_time_high_s",
    "samples_per_s",
    "tokens_per_s",
    "tokens_per_s_per_device",
    "mfu_frac",
    "memory_bytes",
    "memory_headroom_bytes",
    "devices",
    "device_s_per_step",
    "bound_by",
    "run_wall_s",
    "goodput_frac",
)
"""Columns of a training step; those it does not have are empty."""
CLUSTER_FIGURES = (
    "devices",
    "goodput_frac",
    "verdict",
    "offered_frac",
    "turns_frac",
    "mean_wait_s",
    "mean_wait_low_s",
    "mean_wait_high_s",
    "p95_wait_s",
    "mean_slowdown",
    "mean_completion_s",
    "jobs_done_per_day",
    "utilisation_frac",
    "effective_frac",
    "idle_though_jobs_wait_frac",
    "interruptions_per_day",
    "fairness",
    "left_waiting",
    "replications",
)
"""Columns of a cluster of many jobs."""
FIGURES = tuple(dict.fromkeys(PLAN_FIGURES + STEP_FIGURES + CLUSTER_FIGURES))
"""All columns; those that no point of a sweep has are left out."""


def point(text: str, where: str, base: Sequence[str], settings: Settings) -> Point:
    """The point of scenario ``text`` under ``base`` overrides and ``settings``.

    Its key is the content hash of the scenario it makes (or of its text where it makes none) with the code's version
    and the user's own profile.
    """
    overrides = [*base, *(f"{path}={value}" for path, value in settings)]
    payload = {"text": text, "where": where, "overrides": overrides}
    try:
        scenario = with_histories(loads(text, where, overrides), Path(where).parent)
    except ScenarioError:
        return Point(content_key("refused", json.dumps(payload)), payload)
    return Point(
        content_key(
            "run", scenario.content_hash, _profile_hash(scenario.profile), _trace_hash(scenario, where)
        ),
        payload,
    )


def _profile_hash(name: str) -> str:
    """Hash of a user's profile file; nothing for those that ship (they belong to the code's version)."""
    path = Path(name)
    if name in ("shipped", "ideal") or not path.is_file():
        return ""
    return sha256(path.read_bytes()).hexdigest()


def _trace_hash(scenario: Scenario, where: str) -> str:
    """Hash of the table of jobs that a cluster replays; nothing where there is none."""
    path = Path(where).parent / scenario.jobs.trace if scenario.jobs and scenario.jobs.trace else None
    return sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


def cluster_figures(study: ClusterStudy) -> dict[str, Any]:
    """The row of a cluster study: means over replications."""
    answers = study.replications
    wait = answers.interval("mean_wait_s")
    named = [name for name in CLUSTER_FIGURES if name in answers.values]
    return (
        {"outcome": "done", "reason": ""}
        | {name: answers.interval(name).estimate for name in named}
        | {
            "devices": study.scenario.cluster.devices,
            "verdict": study.verdict.word,
            "turns_frac": study.verdict.turns_frac,
            "mean_wait_low_s": max(wait.low, 0.0),
            "mean_wait_high_s": wait.high,
            "replications": answers.count,
        }
    )


def simulate(payload: dict[str, Any]) -> dict[str, Any]:
    """Run one point. ``outcome`` is ``done``, ``does not fit``, ``refused`` or ``failed``, with its ``reason``."""
    from sim import run, watch

    try:
        scenario = loads(payload["text"], payload["where"], payload["overrides"])
        if scenario.jobs is not None:
            return cluster_figures(watch(scenario, Path(payload["where"]).parent))
        if scenario.demand is not None:
            return plan_figures(scenario, Path(payload["where"]).parent)
        return figures(run(scenario))
    except ScenarioError as error:
        told = (str(fault).removeprefix(f"{payload['where']}: ") for fault in error.faults)
        return {"outcome": "refused", "reason": "; ".join(told)}
    except (ProfileError, NoPlanError) as error:
        return {"outcome": "refused", "reason": str(error)}
    except (
        ValueError,
        ArithmeticError,
        RuntimeError,
        PolicyError,
    ) as error:  # one point's trouble is not the sweep's end
        return {"outcome": "failed", "reason": f"{type(error).__name__}: {error}"}


def figures(result: Any) -> dict[str, Any]:
    """The row of a result: :data:`STEP_FIGURES` of a training step, else the numbers its own table starts with."""
    if not isinstance(result, StepResult):
        kind = type(result).__name__
        return {"outcome": "failed", "reason": f"a {kind} has no columns in a sweep yet"}
    document = step_document(result)
    interval = step_interval(result, fits_for(result.scenario.profile))
    memory, run = document["memory"], document.get("run", {})
    full = memory.get("worst_total_bytes")
    row = {
        "outcome": "done",
        "reason": "",
        "step_time_s": document["step_time_s"],
        "step_time_low_s": interval["low_s"],
        "step_time_high_s": interval["high_s"],
        "samples_per_s": document["samples_per_s"],
        "tokens_per_s": document["tokens_per_s"],
        "tokens_per_s_per_device": document["tokens_per_s_per_device"],
        "mfu_frac": document["utilisation"][0]["frac"] if document["utilisation"] else None,
        "memory_bytes": full,
        "memory_headroom_bytes": None if full is None else memory["usable_bytes"] - full,
        "devices": result.devices,
        "device_s_per_step": result.step_s * result.devices,
        "bound_by": document["bound_by"],
        "run_wall_s": run.get("wall_s"),
        "goodput_frac": run.get("goodput_frac"),
    }
    if not memory["fits"]:
        over = f"{full / 1e9:.1f} GB of {memory['usable_bytes'] / 1e9:.1f} GB usable"
        row |= {
            "outcome": "does not fit",
            "reason": f"{over} on rank {memory['worst_rank']}; the largest part is {memory['binding_part']}",
        }
    return row
