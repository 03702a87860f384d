"""Searching the plans of one or several cluster sizes and batches, and playing the best.

Like a talent search: everybody sings a verse to a machine (closed form), the finalists sing on stage (engine).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.evaluate import Evaluated, evaluate
from sim.planning.plans.mixed import evaluate_mixed
from sim.planning.plans.space import plan_space
from sim.spec.checks import cross_faults
from sim.spec.parallelism import Plan
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.spec.workload import SampleModel
from sim.training.explain import scenario_memory
from sim.training.shorter import played_passes, quick_step_s
from sim.training.step import predict_step

OBJECTIVES = ("step_time", "tokens_per_s_per_device", "memory")
CLOSE_FRAC = 0.10
"""Plans whose closed form is within this of the best one are played: in nine of ten plans its error is less
(docs/sweeps.md)."""
MIXED_PLAYED = 40
"""Plans played at least where pools are unlike: the closed form knows one kind of device."""
MIXED_PASSES = 20_000
"""Passes of a micro-batch after which no more of them are played (some ten seconds)."""
NEAR_FRAC = 0.10
"""A near miss needs at most this much more memory than there is."""

Floats = NDArray[np.float64]


class NoPlanError(ValueError):
    """The scenario has no plan to search: no training, or a model that is not cut."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan on one cluster with one batch."""

    scenario: Scenario
    """With the plan in it."""
    closed_s: float | None
    """Closed form; None for a schedule that has none."""
    memory_bytes: float
    usable_bytes: float
    asked: Scenario
    """As the search was asked: with its own plan, batch and nodes."""
    played_s: float | None = None
    """Step time on the engine, where it had to be played to know who holds what."""

    @property
    def plan(self) -> Plan:
        """The plan itself."""
        assert self.scenario.training is not None  # made from a training scenario
        return self.scenario.training.plan


@dataclass(frozen=True, slots=True)
class Search:
    """The plans of one cluster size and batch, evaluated."""

    scenario: Scenario
    asked: Scenario
    """With the batch and the nodes that it came with."""
    found: Evaluated
    """Where pools are unlike: see :func:`sim.planning.plans.mixed.evaluate_mixed`."""

    @property
    def is_mixed(self) -> bool:
        """Whether the cluster has unlike devices: then the closed form only sifts, and the engine ranks."""
        return len(self.scenario.cluster.pools) > 1

    def score(self, objective: str, seconds: Floats) -> Floats:
        """What is made small: seconds of a sample, device-seconds of a sample, or bytes (then seconds)."""
        training = self.scenario.training
        assert training is not None  # made from a training scenario
        each = seconds / training.global_batch
        if objective == "tokens_per_s_per_device":
            return np.asarray(each * self.scenario.cluster.devices)
        if objective == "memory":
            return np.asarray(
                self.found.memory_bytes + np.where(np.isfinite(each), each / (1 + each), np.inf)
            )
        return np.asarray(each)

    def candidate(self, row: int) -> Candidate:
        """One row as a whole scenario."""
        return Candidate(
            with_plan(self.scenario, self.found.space.plan(row)),
            float(self.found.step_s[row]),
            float(self.found.memory_bytes[row]),
            self.found.usable_bytes,
            self.asked,
        )

    def forms(self, row: int, fits: Sequence[Fit]) -> list[Candidate]:
        """One row in every way that the pools can hold it: whole copies on each, or stages dealt out over them.

        Layers and samples are then shared out by speed and memory (:mod:`sim.training.mixed`); only ways that are legal
        and fit are told.
        """
        whole = self.candidate(row)
        if not self.is_mixed:
            return [whole]
        cluster, stages = self.scenario.cluster, whole.plan.pipeline
        shares = [pool.devices * stages / cluster.devices for pool in cluster.pools]
        ways: list[tuple[str, ...]] = [()]
        if all(share == round(share) and share >= 1 for share in shares):
            dealt = ((pool.name,) * round(share) for pool, share in zip(cluster.pools, shares, strict=True))
            ways.append(tuple(chain.from_iterable(dealt)))
        made = []
        for way in ways:
            changed = with_plan(self.scenario, replace(whole.plan, stages=way))
            if cross_faults(changed.cluster, changed.training, ""):
                continue
            result = predict_step(changed, fits)
            if all(use.fits for use in result.memory):
                worst = max(result.memory, key=lambda use: use.total_bytes / use.usable_bytes)
                made.append(
                    Candidate(changed, None, worst.total_bytes, worst.usable_bytes, self.asked, result.step_s)
                )
        return made


def with_plan(scenario: Scenario, plan: Plan) -> Scenario:
    """The scenario with another plan; what was measured with its own plan is left out."""
    assert scenario.training is not None  # callers have a training scenario
    return replace(scenario, training=replace(scenario.training, plan=plan, auto_plan=False), published=())


def searches(
    scenario: Scenario, fits: Sequence[Fit], nodes: Sequence[int] = (), batches: Sequence[int] = ()
) -> Iterator[Search]:
    """One search for each cluster size and global batch.

    Raises:
        NoPlanError: no training section, or a model known only by its FLOP.
    """
    training = scenario.training
    if training is None:
        raise NoPlanError("the scenario has no [training] section: there is no plan to tune")
    if isinstance(training.model, SampleModel):
        raise NoPlanError("a model known only by its FLOP is not cut: there is no plan to tune")
    pool, mixed = scenario.cluster.pools[0], len(scenario.cluster.pools) > 1
    if nodes and mixed:
        raise NoPlanError(
            "the cluster has several pools: which of them other numbers of nodes are of is not said"
        )
    for count in nodes or (pool.nodes,):
        for batch in batches or (training.global_batch,):
            cluster = (
                scenario.cluster if mixed else replace(scenario.cluster, pools=(replace(pool, nodes=count),))
            )
            tried = replace(scenario, cluster=cluster, training=replace(training, global_batch=batch))
            yield Search(tried, scenario, evaluate_mixed(tried, fits) if mixed else _evaluated(tried, fits))


def _evaluated(scenario: Scenario, fits: Sequence[Fit]) -> Evaluated:
    return evaluate(scenario, fits, plan_space(scenario), beyond_frac=NEAR_FRAC)


def best_plan(scenario: Scenario, fits: Sequence[Fit]) -> Scenario:
    """The scenario with the plan of the shortest step; with the one that needs least memory where none fits.

    Raises:
        NoPlanError: see :func:`searches`; or no plan divides devices and batch.
    """
    (search,) = searches(scenario, fits)
    if not len(search.found.step_s):
        why = search.found.space.refused.most_common(1)
        told = why[0][0] if why else "none divides the cluster's devices and the global batch"
        raise NoPlanError(f"no plan is legal: {told}")
    if not search.found.fits.any():
        return search.candidate(int(np.argmin(search.found.memory_bytes))).scenario
    ranked = played([search], fits, "step_time", 5)
    if not ranked:
        raise NoPlanError("no plan is legal and fits on the pools as they are")
    return ranked[0][0].scenario


def played(
    found: Sequence[Search], fits: Sequence[Fit], objective: str, top: int
) -> list[tuple[Candidate, float]]:
    """The plans that may be best, played on the engine, best first.

    Played are those whose closed form is close to the best, at least ``top`` and at most twice as many; of the first
    few also the forms without sequence parallelism, and under DualPipe, which has no closed form.
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
    if any(one.is_mixed for one in found):
        count = max(count, MIXED_PLAYED)
    first = _unlike(found, [rows[place] for place in order], count)
    chosen, passes = [], 0
    for number, place in first:
        forms = found[number].forms(place, fits) if passes < MIXED_PASSES else []
        passes += sum(played_passes(one.scenario) for one in forms if found[number].is_mixed)
        chosen += forms
    few = max(top // 2, 1)
    chosen += [twin for one in chosen[:few] if (twin := _dual_pipe(one)) is not None]
    for number, one in enumerate(found):
        chosen += _gathered(one, [place for whose, place in first[:few] if whose == number], fits)
    unique = list({one.scenario.content_hash: one for one in chosen}.values())
    timed = [(one, seconds_of(one, fits)) for one in unique]
    return sorted(timed, key=lambda pair: known(score_of(objective, *pair)))


def seconds_of(one: Candidate, fits: Sequence[Fit]) -> float:
    """Step time of a candidate on the engine, s."""
    return quick_step_s(one.scenario, fits) if one.played_s is None else one.played_s


def _unlike(found: Sequence[Search], rows: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The first ``count`` rows, of those that differ in nothing but a choice without effect the first.

    On unlike pools one row for each way to cut model and batch and to share state out: how evenly the work can be dealt
    out, and how often all wait for the slowest link, hang on these.
    """
    chosen: dict[tuple[float, ...], tuple[int, int]] = {}
    for number, place in rows:
        one = found[number].found
        skeleton = int(one.space.skeleton[place])
        same: tuple[float, ...] = number, skeleton, one.step_s[place], one.memory_bytes[place]
        if found[number].is_mixed:
            cut = one.space.skeletons[skeleton]
            shared = one.space.frees[int(one.space.free[place])].zero_stage
            same = number, cut.tensor, cut.pipeline, cut.context, cut.expert, cut.micro_batch, shared
        chosen.setdefault(same, (number, place))
        if len(chosen) == count:
            break
    return list(chosen.values())


def _gathered(search: Search, rows: Sequence[int], fits: Sequence[Fit]) -> list[Candidate]:
    """The plans at ``rows`` without sequence parallelism, where that goes and fits."""
    space = search.found.space
    rows = [row for row in rows if space.skeletons[space.skeleton[row]].sequence_parallel]
    if not rows or search.is_mixed:
        return []
    skeletons = tuple(space.skeletons[space.skeleton[row]]._replace(sequence_parallel=False) for row in rows)
    few = replace(space, skeletons=skeletons, skeleton=np.arange(len(rows)), free=space.free[rows])
    twins = Search(search.scenario, search.asked, evaluate(search.scenario, fits, few))
    candidates = [twins.candidate(int(row)) for row in np.flatnonzero(twins.found.fits)]
    return [one for one in candidates if not cross_faults(one.scenario.cluster, one.scenario.training, "")]


def score_of(objective: str, one: Candidate, seconds: float | None) -> tuple[float, float] | None:
    """The objective of one plan that took ``seconds``; smaller is better."""
    if seconds is None:
        return None
    assert one.scenario.training is not None  # made from a training scenario
    each = seconds / one.scenario.training.global_batch
    if objective == "memory":
        return one.memory_bytes, each
    return each * (one.scenario.cluster.devices if objective == "tokens_per_s_per_device" else 1), 0.0


def known(score: tuple[float, float] | None) -> tuple[float, float]:
    return (float("inf"), 0.0) if score is None else score


def _dual_pipe(one: Candidate) -> Candidate | None:
    """The same plan under DualPipe where that goes and fits."""
    plan = replace(one.plan, schedule="dualpipe", virtual_stages=1)
    changed = with_plan(one.scenario, plan)
    mixed = len(one.scenario.cluster.pools) > 1
    if plan.pipeline == 1 or mixed or cross_faults(changed.cluster, changed.training, ""):
        return None
    memory = scenario_memory(changed)
    if not all(use.fits for use in memory):
        return None
    worst = max(memory, key=lambda use: use.total_bytes)
    return replace(one, scenario=changed, closed_s=None, memory_bytes=worst.total_bytes)
