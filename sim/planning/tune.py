"""Which plan to train with: the best ones, the front between speed and memory, and why the others are none.

Like the jury's protocol: the ranking, who was best at what, who missed by a hair, who was turned away and the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.rank import best_plan, played, searches
from sim.planning.plans.search import (
    OBJECTIVES,
    Candidate,
    NoPlanError,
    Search,
    known,
    score_of,
    seconds_of,
    with_plan,
)
from sim.planning.plans.space import LEFT_OPEN
from sim.spec.overrides import value_text
from sim.spec.parallelism import Plan
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario, as_document
from sim.training.explain import scenario_memory

__all__ = ["OBJECTIVES", "NoPlanError", "best_plan", "pareto_front", "row", "settings", "tune", "with_plan"]

FRONT = 8
"""Points of the Pareto front that are played."""
NEAR_MISSES = 5
REASONS = 8

Floats = NDArray[np.float64]


def tune(
    scenario: Scenario,
    fits: Sequence[Fit],
    objective: str = "step_time",
    top: int = 10,
    nodes: Sequence[int] = (),
    batches: Sequence[int] = (),
) -> dict[str, Any]:
    """Search, and say what was found, ready for JSON.

    ``plans`` are the ``top`` by played time, each with its closed form and the rank it had there; ``pareto`` the front
    of time a sample, memory headroom and devices; ``unit`` what ``tokens_per_s`` counts (samples without tokens);
    ``near_misses`` faster plans that need a little more memory;
    ``rejected`` why the others are not plans; ``smallest`` is told where nothing fits.

    Raises:
        NoPlanError: see :func:`searches`.
    """
    found = list(searches(scenario, fits, nodes, batches))
    searched = sum(len(one.found.step_s) for one in found)
    document: dict[str, Any] = {
        "objective": objective,
        "unit": "tokens"
        if scenario.training is not None and scenario.training.source_tokens > 1
        else "samples",
        "searched": searched,
        "fitting": int(sum(one.found.fits.sum() for one in found)),
        "rejected": _rejected(found),
    }
    ranked = played(found, fits, objective, top) if document["fitting"] else []
    if not ranked:
        return document | {
            "plans": [],
            "pareto": [],
            "near_misses": [],
            "smallest": _smallest(scenario, found, fits),
        }
    best_s = ranked[0][1]
    closed = sorted(
        range(len(ranked)), key=lambda n: known(score_of(objective, ranked[n][0], ranked[n][0].closed_s))
    )
    ranks = {number: rank + 1 for rank, number in enumerate(closed)}
    rows = [row(one, seconds) | {"closed_form_rank": ranks[n]} for n, (one, seconds) in enumerate(ranked)]
    return document | {
        "played": len(ranked),
        "plans": rows[:top],
        "order_differs": any(place["closed_form_rank"] != n + 1 for n, place in enumerate(rows[:top])),
        "pareto": _pareto(found, fits),
        "near_misses": _near_misses(found, objective, ranked[0][0], best_s),
    }


def row(one: Candidate, seconds: float | None) -> dict[str, Any]:
    """A candidate for people and for JSON; ``set`` is what makes the scenario this one."""
    training, cluster = one.scenario.training, one.scenario.cluster
    assert training is not None  # made from a training scenario
    plan, devices = training.plan, cluster.devices
    timed = seconds if seconds is not None else one.closed_s
    tokens = training.global_batch * training.source_tokens
    return {
        "plan": {name: getattr(plan, name) for name in SEARCHED} | {"data": devices // plan.model_ranks},
        "nodes": sum(pool.nodes for pool in cluster.pools),
        "devices": devices,
        "global_batch": training.global_batch,
        "closed_form_s": one.closed_s,
        "step_time_s": seconds,
        "tokens_per_s": None if timed is None else tokens / timed,
        "tokens_per_s_per_device": None if timed is None else tokens / timed / devices,
        "memory_bytes": one.memory_bytes,
        "memory_headroom_bytes": one.usable_bytes - one.memory_bytes,
        "set": settings(one),
    }


SEARCHED = (
    "tensor",
    "pipeline",
    "context",
    "expert",
    "micro_batch",
    "virtual_stages",
    "schedule",
    "sequence_parallel",
    "recompute",
    "zero_stage",
    "offload_optimizer",
)
"""Fields of a plan that are searched; others stay as the scenario has them, but for what holds for one cut alone."""


def settings(one: Candidate) -> list[str]:
    """``PATH=VALUE`` for ``--set``, of everything that differs from what the scenario says itself."""
    mine, own = one.scenario.training, one.asked.training
    assert mine is not None  # made from a training scenario
    assert own is not None
    values, before = as_document(mine.plan), as_document(own.plan)
    changed = {name: values[name] for name in (*SEARCHED, *LEFT_OPEN) if values[name] != before[name]}
    texts = [f"training.plan.{name}={value_text(value)}" for name, value in changed.items()]
    if own.auto_plan:  # "auto" has no keys below it: it is replaced as a whole
        texts = [f"training.plan={value_text(changed)}"]
    if mine.global_batch != own.global_batch:
        texts.append(f"training.global_batch={mine.global_batch}")
    nodes = one.scenario.cluster.pools[0].nodes
    return [
        *texts,
        *([f"cluster.pools.0.nodes={nodes}"] if nodes != one.asked.cluster.pools[0].nodes else []),
    ]


def _pareto(found: Sequence[Search], fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """Plans that no other beats in time a sample, memory and devices at once, by closed form; some of them played."""
    each, memory, devices, rows = [], [], [], []
    for number, one in enumerate(found):
        mine = np.flatnonzero(one.found.fits)
        each.append(one.score("step_time", one.found.step_s)[mine])
        memory.append(one.found.memory_bytes[mine])
        devices.append(np.full(len(mine), one.scenario.cluster.devices))
        rows += [(number, int(place)) for place in mine]
    front = pareto_front(np.column_stack([np.concatenate(column) for column in (each, memory, devices)]))
    shown = front[np.unique(np.linspace(0, len(front) - 1, min(FRONT, len(front))).astype(int))]
    candidates = [form for place in shown for form in found[rows[place][0]].forms(rows[place][1], fits)]
    played = [row(one, seconds_of(one, fits)) for one in candidates]
    if not played:
        return []
    costs = [[1 / one["tokens_per_s"], one["memory_bytes"], one["devices"]] for one in played]
    return [played[place] for place in pareto_front(np.array(costs))]  # the played times stand


def pareto_front(costs: Floats) -> NDArray[np.int64]:
    """Rows of ``costs`` (points x criteria, smaller is better) that no other row beats, by the first criterion.

    Of equal rows the first is kept. In the order of the criteria no later row beats an earlier one, so that each row
    need be held against the front so far alone.
    """
    order = np.lexsort(costs.T[::-1])
    front: list[int] = []
    best = np.empty((0, costs.shape[1]))
    for place in order:
        if not bool((best <= costs[place]).all(axis=1).any()):
            front.append(int(place))
            best = np.vstack([best, costs[place]])
    return np.array(front, dtype=np.int64)


def _near_misses(
    found: Sequence[Search], objective: str, best: Candidate, best_s: float
) -> list[dict[str, Any]]:
    """Plans that would beat the best one by their closed form and need a little more memory than there is."""
    limit = known(score_of(objective if objective != "memory" else "step_time", best, best_s))[0]
    missed: list[tuple[float, int, int]] = []
    for number, one in enumerate(found):
        if not one.knows_misses:
            continue
        score = one.score(objective if objective != "memory" else "step_time", one.found.step_s)
        faster = np.flatnonzero(~one.found.fits & (score < limit))
        missed += ((float(score[place]), number, int(place)) for place in faster)
    rows = []
    for _, number, place in sorted(missed)[:NEAR_MISSES]:
        candidate = found[number].candidate(place)
        worst = max(scenario_memory(candidate.scenario), key=lambda use: use.total_bytes)
        told = {"excess_bytes": worst.total_bytes - worst.usable_bytes, "binding_part": worst.largest_part}
        rows.append(row(candidate, None) | told)
    return rows


def _rejected(found: Sequence[Search]) -> list[dict[str, Any]]:
    """Why what was looked at is no plan, most frequent first."""
    counts: dict[str, int] = {}
    for one in found:
        full = int((~one.found.fits).sum())
        counts["does not fit in memory"] = counts.get("does not fit in memory", 0) + full
        for reason, count in one.found.space.refused.items():
            counts[reason] = counts.get(reason, 0) + count
    rows = sorted(((count, reason) for reason, count in counts.items() if count), reverse=True)
    return [{"reason": reason, "plans": count} for count, reason in rows[:REASONS]]


def _smallest(scenario: Scenario, found: Sequence[Search], fits: Sequence[Fit]) -> dict[str, Any] | None:
    """Where nothing fits: the plan that needs least, what binds it, the smallest larger cluster on which one fits."""
    filled = [one for one in found if len(one.found.memory_bytes)]
    if not filled:
        return None
    search = min(filled, key=lambda one: float(one.found.memory_bytes.min()))
    one = search.candidate(int(np.argmin(search.found.memory_bytes)))
    worst = max(scenario_memory(one.scenario, fits), key=lambda use: use.total_bytes)
    told = row(one, None) | {
        "excess_bytes": worst.total_bytes - worst.usable_bytes,
        "binding_part": worst.largest_part,
        "nodes_that_fit": None,
    }
    if not search.knows_misses:
        return told
    now = scenario.cluster.pools[0].nodes
    for factor in (2, 4, 8, 16):
        (larger,) = searches(with_plan(scenario, Plan()), fits, (now * factor,))
        if larger.found.fits.any():
            told["nodes_that_fit"] = now * factor
            break
    return told
