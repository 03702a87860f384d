"""A first guess at plans on pools of unlike devices, to choose which of them to play.

Like rowers of unlike strength: the boat goes at the mean of their strokes, but never faster than the slowest can make
one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from sim.planning.plans.evaluate import Evaluated, evaluate
from sim.planning.plans.search import Candidate, Search, with_plan
from sim.planning.plans.space import Skeleton, plan_space
from sim.spec.checks import cross_faults
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.training.shorter import played_passes
from sim.training.step import predict_step

PLAYED = 40
"""Plans played at least: the closed form knows one kind of device."""


@dataclass(frozen=True, slots=True)
class MixedSearch(Search):
    """Pools of unlike devices: the closed form only sifts, and the engine ranks."""

    @property
    def least_played(self) -> int:
        return PLAYED

    @property
    def knows_misses(self) -> bool:
        return False

    def forms(self, row: int, fits: Sequence[Fit]) -> list[Candidate]:
        """Whole copies on each pool, or stages dealt out over them.

        Layers and samples are then shared out by speed and memory (:mod:`sim.training.mixed`).
        """
        whole = self.candidate(row)
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

    def alike(self, row: int) -> Hashable:
        """One way to cut model and batch and to share state out.

        How evenly the work can be dealt out, and how often all wait for the slowest link, hang on these.
        """
        space = self.found.space
        cut, free = space.skeletons[int(space.skeleton[row])], space.frees[int(space.free[row])]
        return cut.tensor, cut.pipeline, cut.context, cut.expert, cut.micro_batch, free.zero_stage

    def passes(self, forms: Sequence[Candidate]) -> int:
        return sum(played_passes(one.scenario) for one in forms)

    def variants(self, rows: Sequence[int], fits: Sequence[Fit]) -> list[Candidate]:  # noqa: ARG002
        """None: those that are played are too few already to rank such fine changes by."""
        return []


def search_mixed(scenario: Scenario, asked: Scenario, fits: Sequence[Fit]) -> MixedSearch:
    """Plans on a cluster of several pools."""
    return MixedSearch(scenario, asked, evaluate_mixed(scenario, fits))


def evaluate_mixed(scenario: Scenario, fits: Sequence[Fit]) -> Evaluated:
    """Plans on unlike pools: memory against the smallest device, and a step time good enough to sift by.

    With T_k the closed form of a cluster all of whose devices are of pool k, and w_k the pool's share of the devices:
    the larger of 1 / sum(w_k / T_k), since samples are dealt out by speed, and of max T_k with the fewest micro-batches
    that a copy can have. A pool's own plans are legal where they are on a cluster of its devices alone; where a
    pool knows none (an unknown number format), those of the next.
    """
    cluster, training = scenario.cluster, scenario.training
    assert training is not None  # the search asks for training scenarios
    pools = sorted(cluster.pools, key=lambda pool: pool.accelerator.memory_bytes)
    alike = [
        replace(
            scenario,
            cluster=replace(
                cluster, pools=(replace(pool, nodes=cluster.devices // (pool.devices // pool.nodes)),)
            ),
        )
        for pool in pools
    ]
    spaces = [plan_space(one) for one in alike]
    space = next((one for one in spaces if len(one.skeleton)), spaces[0])
    found = [evaluate(one, fits, space) for one in alike]
    if not len(space.skeleton):
        return found[0]
    shares = [pool.devices / cluster.devices for pool in pools]
    with np.errstate(divide="ignore"):
        mean = 1 / sum(share / one.step_s for share, one in zip(shares, found, strict=True))
    least = np.array([_least_rounds(cut, training.global_batch, cluster.devices) for cut in space.skeletons])
    slowest = np.maximum.reduce([one.step_s for one in found]) * least[space.skeleton]
    return Evaluated(space, found[0].memory_bytes, found[0].usable_bytes, np.maximum(mean, slowest))


def _least_rounds(cut: Skeleton, batch: int, devices: int) -> float:
    """Share of an even step that a copy takes with the fewest micro-batches it can have: (l + f) / (m + f).

    f = (p - 1) / v fills the pipeline; l = 1, or p where chunks are interleaved.
    """
    copies = devices // (cut.tensor * cut.pipeline * cut.context)
    even, fill = batch / (copies * cut.micro_batch), (cut.pipeline - 1) / cut.virtual_stages
    least = cut.pipeline if cut.virtual_stages > 1 else 1
    return min((least + fill) / (even + fill), 1.0)
