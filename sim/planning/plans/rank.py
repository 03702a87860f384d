"""Searching the plans of one or several cluster sizes and batches, and playing the best.

Like a talent search: everybody sings a verse to a machine (closed form), the finalists sing on stage (engine).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from sim.planning.plans.alike import search_alike
from sim.planning.plans.mixed import search_mixed
from sim.planning.plans.search import Candidate, NoPlanError, Search, known, score_of, seconds_of
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.spec.workload import SampleModel

CLOSE_FRAC = 0.10
"""Plans whose closed form is within this of the best one are played: in nine of ten plans its error is less
(docs/sweeps.md)."""
MOST_PASSES = 20_000
"""Passes of a micro-batch after which no more plans are played where these are rationed (some ten seconds)."""


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
    pools = scenario.cluster.pools
    search: Callable[[Scenario, Scenario, Sequence[Fit]], Search] = (
        search_mixed if len(pools) > 1 else search_alike
    )
    if len(pools) > 1:
        if nodes:
            raise NoPlanError(
                "the cluster has several pools: which of them other numbers of nodes are of is not said"
            )
        clusters = [scenario.cluster]
    else:
        sizes = nodes or (pools[0].nodes,)
        clusters = [replace(scenario.cluster, pools=(replace(pools[0], nodes=count),)) for count in sizes]
    for cluster in clusters:
        for batch in batches or (training.global_batch,):
            tried = replace(scenario, cluster=cluster, training=replace(training, global_batch=batch))
            yield search(tried, scenario, fits)


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
    few also their variants (:meth:`sim.planning.plans.search.Search.variants`).
    """
    scores, rows = [], []
    for number, one in enumerate(found):
        mine = np.flatnonzero(one.found.fits)
        scores.append(one.score(objective, one.found.step_s)[mine])
        rows += [(number, int(place)) for place in mine]
    score = np.concatenate(scores)
    order = np.argsort(score, kind="stable")
    near = int((score <= score[order[0]] * (1 + CLOSE_FRAC)).sum())
    count = max(min(max(near, top), 2 * top, len(order)), *(one.least_played for one in found))
    first = _unlike(found, [rows[place] for place in order], count)
    chosen: list[Candidate] = []
    passes = 0
    for number, place in first:
        forms = found[number].forms(place, fits) if passes < MOST_PASSES else []
        passes += found[number].passes(forms)
        chosen += forms
    few = first[: max(top // 2, 1)]
    for number, one in enumerate(found):
        chosen += one.variants([place for whose, place in few if whose == number], fits)
    unique = list({one.scenario.content_hash: one for one in chosen}.values())
    timed = [(one, seconds_of(one, fits)) for one in unique]
    return sorted(timed, key=lambda pair: known(score_of(objective, *pair)))


def _unlike(found: Sequence[Search], rows: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The first ``count`` rows, of those that are alike the first."""
    chosen: dict[tuple[int, Hashable], tuple[int, int]] = {}
    for number, place in rows:
        chosen.setdefault((number, found[number].alike(place)), (number, place))
        if len(chosen) == count:
            break
    return list(chosen.values())
