"""Which plan to train with: all legal ones timed by the closed form, the best few played, the played time stands.

Like a talent search: everybody sings a verse to a machine (closed form), the finalists sing on stage (engine), and who
was turned away gets a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.evaluate import Evaluated, evaluate
from sim.planning.plans.space import plan_space
from sim.spec.checks import cross_faults
from sim.spec.parallelism import Plan
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario, as_document
from sim.spec.workload import SampleModel
from sim.training.explain import scenario_memory
from sim.training.shorter import quick_step_s

OBJECTIVES = ("step_time", "tokens_per_s_per_device", "memory")
CLOSE_FRAC = 0.10
"""Plans whose closed form is within this of the best one are played: what its error was in nine of ten cases."""
FRONT = 8
"""Points of the Pareto front that are played."""
NEAR_FRAC = 0.10
"""A near miss needs at most this much more memory than there is."""
NEAR_MISSES = 5
REASONS = 8

Floats = NDArray[np.float64]


class NothingToTune(ValueError):
    """The scenario has no plan to search: no training, or a model that is not cut."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan on one cluster with one batch."""

    scenario: Scenario
    """With the plan in it."""
    closed_s: float | None
    """Closed form; None for a schedule that has none."""
    memory_bytes: float

    @property
    def plan(self) -> Plan:
        """The plan itself."""
        assert self.scenario.training is not None  # made from a training scenario
        return self.scenario.training.plan


@dataclass(frozen=True, slots=True)
class Search:
    """The plans of one cluster size and batch, evaluated."""

    scenario: Scenario
    found: Evaluated

    def score(self, objective: str, seconds: Floats) -> Floats:
        """What is made small: seconds of a sample, device-seconds of a sample, or bytes (then seconds)."""
        training = self.scenario.training
        assert training is not None  # made from a training scenario
        each = seconds / training.global_batch
        if objective == "tokens_per_s_per_device":
            return np.asarray(each * self.scenario.cluster.devices)
        if objective == "memory":
            return np.asarray(self.found.memory_bytes + np.where(np.isfinite(each), each / (1 + each), np.inf))
        return np.asarray(each)

    def candidate(self, row: int) -> Candidate:
        """One row as a whole scenario."""
        return Candidate(
            with_plan(self.scenario, self.found.space.plan(row)),
            float(self.found.step_s[row]),
            float(self.found.memory_bytes[row]),
        )


def with_plan(scenario: Scenario, plan: Plan) -> Scenario:
    """The scenario with another plan; what was measured with its own plan is left out."""
    assert scenario.training is not None  # callers have a training scenario
    return replace(scenario, training=replace(scenario.training, plan=plan, auto_plan=False), published=())


def searches(
    scenario: Scenario, fits: Sequence[Fit], nodes: Sequence[int] = (), batches: Sequence[int] = ()
) -> Iterator[Search]:
    """One search for each cluster size and global batch.

    Raises:
        NothingToTune: no training section, or a model known only by its FLOP.
    """
    training = scenario.training
    if training is None:
        raise NothingToTune("the scenario has no [training] section: there is no plan to tune")
    if isinstance(training.model, SampleModel):
        raise NothingToTune("a model known only by its FLOP is not cut: there is no plan to tune")
    pool = scenario.cluster.pools[0]
    for count in nodes or (pool.nodes,):
        for batch in batches or (training.global_batch,):
            cluster = replace(scenario.cluster, pools=(replace(pool, nodes=count),))
            job = replace(training, global_batch=batch)
            tried = replace(scenario, cluster=cluster, training=job)
            yield Search(tried, evaluate(tried, fits, plan_space(tried), beyond_frac=NEAR_FRAC))


def best_plan(scenario: Scenario, fits: Sequence[Fit]) -> Scenario:
    """The scenario with the plan of the shortest step; with the one that needs least memory where none fits.

    Raises:
        NothingToTune: see :func:`searches`; or no plan divides devices and batch.
    """
    (search,) = searches(scenario, fits)
    if not len(search.found.step_s):
        raise NothingToTune("no plan divides the cluster's devices and the global batch")
    if not search.found.fits.any():
        return search.candidate(int(np.argmin(search.found.memory_bytes))).scenario
    played = _played([search], fits, "step_time", 5)
    return played[0][0].scenario


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
    of time a sample, memory headroom and devices; ``near_misses`` faster plans that need a little more memory;
    ``rejected`` why the others are not plans; ``smallest`` is told where nothing fits.

    Raises:
        NothingToTune: see :func:`searches`.
    """
    found = list(searches(scenario, fits, nodes, batches))
    searched = sum(len(one.found.step_s) for one in found)
    document: dict[str, Any] = {
        "objective": objective,
        "searched": searched,
        "fitting": int(sum(one.found.fits.sum() for one in found)),
        "rejected": _rejected(found),
    }
    if not document["fitting"]:
        return document | {"plans": [], "pareto": [], "near_misses": [], "smallest": _smallest(scenario, found, fits)}
    played = _played(found, fits, objective, top)
    best_s = played[0][1]
    closed = sorted(range(len(played)), key=lambda n: _known(_score_of(objective, played[n][0], played[n][0].closed_s)))
    ranks = {number: rank + 1 for rank, number in enumerate(closed)}
    rows = [row(one, seconds) | {"closed_form_rank": ranks[n]} for n, (one, seconds) in enumerate(played)]
    return document | {
        "played": len(played),
        "plans": rows[:top],
        "order_differs": any(place["closed_form_rank"] != n + 1 for n, place in enumerate(rows[:top])),
        "pareto": _pareto(found, fits),
        "near_misses": _near_misses(found, objective, played[0][0], best_s),
    }


def row(one: Candidate, seconds: float | None) -> dict[str, Any]:
    """A candidate for people and for JSON; ``set`` is what makes the scenario this one."""
    training, cluster = one.scenario.training, one.scenario.cluster
    assert training is not None  # made from a training scenario
    plan, devices = training.plan, cluster.devices
    usable = scenario_memory(one.scenario)[0].usable_bytes
    timed = seconds if seconds is not None else one.closed_s
    tokens = training.global_batch * training.source_tokens
    return {
        "plan": {name: getattr(plan, name) for name in SEARCHED} | {"data": devices // plan.model_ranks},
        "nodes": cluster.pools[0].nodes,
        "devices": devices,
        "global_batch": training.global_batch,
        "closed_form_s": one.closed_s,
        "step_time_s": seconds,
        "tokens_per_s": None if timed is None else tokens / timed,
        "tokens_per_s_per_device": None if timed is None else tokens / timed / devices,
        "memory_bytes": one.memory_bytes,
        "memory_headroom_bytes": usable - one.memory_bytes,
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
"""Fields of a plan that are searched; all others stay as the scenario has them, ``shard_ranks`` at 0."""


def settings(one: Candidate) -> list[str]:
    """``PATH=VALUE`` for ``--set``, of everything that was searched."""
    values = as_document(one.plan)
    texts = [
        f"training.plan.{name}={str(values[name]).lower() if isinstance(values[name], bool) else values[name]}"
        for name in SEARCHED
    ]
    assert one.scenario.training is not None  # made from a training scenario
    texts.append(f"training.global_batch={one.scenario.training.global_batch}")
    return [*texts, f"cluster.pools.0.nodes={one.scenario.cluster.pools[0].nodes}"]


def _played(found: Sequence[Search], fits: Sequence[Fit], objective: str, top: int) -> list[tuple[Candidate, float]]:
    """The plans that may be best, played on the engine, best first.

    Played are those whose closed form is close to the best, at least ``top`` and at most twice as many, and the
    DualPipe form of the first few, which has no closed form.
    """
    scores, rows = [], []
    for number, one in enumerate(found):
        mine = np.flatnonzero(one.found.fits)
        scores.append(one.score(objective, one.found.step_s)[mine])
        rows += [(number, int(place)) for place in mine]
    score = np.concatenate(scores)
    order = np.argsort(score, kind="stable")
    near = int((score <= score[order[0]] * (1 + CLOSE_FRAC)).sum())
    count = min(max(min(near, 2 * top), top), len(order))
    chosen = [found[rows[place][0]].candidate(rows[place][1]) for place in order[:count]]
    both = [twin for one in chosen[: max(top // 2, 1)] if (twin := _dual_pipe(one)) is not None]
    unique = list({one.scenario.content_hash: one for one in (*chosen, *both)}.values())
    played = [(one, quick_step_s(one.scenario, fits)) for one in unique]
    return sorted(played, key=lambda pair: _known(_score_of(objective, *pair)))


def _score_of(objective: str, one: Candidate, seconds: float | None) -> tuple[float, float] | None:
    """The objective of one plan that took ``seconds``; smaller is better."""
    if seconds is None:
        return None
    assert one.scenario.training is not None  # made from a training scenario
    each = seconds / one.scenario.training.global_batch
    if objective == "memory":
        return one.memory_bytes, each
    return each * (one.scenario.cluster.devices if objective == "tokens_per_s_per_device" else 1), 0.0


def _known(score: tuple[float, float] | None) -> tuple[float, float]:
    return (float("inf"), 0.0) if score is None else score


def _dual_pipe(one: Candidate) -> Candidate | None:
    """The same plan under DualPipe where that goes and fits."""
    plan = replace(one.plan, schedule="dualpipe", virtual_stages=1)
    changed = with_plan(one.scenario, plan)
    if plan.pipeline == 1 or cross_faults(changed.cluster, changed.training, ""):
        return None
    memory = scenario_memory(changed)
    if not all(use.fits for use in memory):
        return None
    return Candidate(changed, None, max(use.total_bytes for use in memory))


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
    candidates = [found[rows[place][0]].candidate(rows[place][1]) for place in shown]
    played = [row(one, quick_step_s(one.scenario, fits)) for one in candidates]
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
    limit = _known(_score_of(objective if objective != "memory" else "step_time", best, best_s))[0]
    missed = []
    for number, one in enumerate(found):
        score = one.score(objective if objective != "memory" else "step_time", one.found.step_s)
        for place in np.flatnonzero(~one.found.fits & (score < limit)):
            missed.append((float(score[place]), number, int(place)))
    rows = []
    for _, number, place in sorted(missed)[:NEAR_MISSES]:
        one = found[number].candidate(place)
        worst = max(scenario_memory(one.scenario), key=lambda use: use.total_bytes)
        told = {"excess_bytes": worst.total_bytes - worst.usable_bytes, "binding_part": worst.largest_part}
        rows.append(row(one, None) | told)
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
    """Where nothing fits: the plan that needs least, what binds it, and the smallest larger cluster on which one fits."""
    filled = [one for one in found if len(one.found.memory_bytes)]
    if not filled:
        return None
    search = min(filled, key=lambda one: float(one.found.memory_bytes.min()))
    one = search.candidate(int(np.argmin(search.found.memory_bytes)))
    worst = max(scenario_memory(one.scenario), key=lambda use: use.total_bytes)
    told = row(one, None) | {
        "excess_bytes": worst.total_bytes - worst.usable_bytes,
        "binding_part": worst.largest_part,
        "nodes_that_fit": None,
    }
    now = scenario.cluster.pools[0].nodes
    for factor in (2, 4, 8, 16):
        (larger,) = searches(with_plan(scenario, Plan()), fits, (now * factor,))
        if larger.found.fits.any():
            told["nodes_that_fit"] = now * factor
            break
    return told

