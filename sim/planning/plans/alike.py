"""Plans on devices that are all alike: the closed form ranks them, memory is known to the byte."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.planning.plans.evaluate import evaluate
from sim.planning.plans.search import Candidate, Search, with_plan
from sim.planning.plans.space import plan_space
from sim.spec.checks import cross_faults
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.training.explain import scenario_memory

NEAR_FRAC = 0.10
"""A near miss needs at most this much more memory than there is."""


@dataclass(frozen=True, slots=True)
class AlikeSearch(Search):
    """One pool: each row is one plan, told apart by its time and memory alone."""

    @property
    def least_played(self) -> int:
        return 0

    @property
    def knows_misses(self) -> bool:
        return True

    def forms(self, row: int, fits: Sequence[Fit]) -> list[Candidate]:  # noqa: ARG002
        return [self.candidate(row)]

    def alike(self, row: int) -> Hashable:
        """Choices without effect leave time and memory as they are."""
        found = self.found
        return int(found.space.skeleton[row]), float(found.step_s[row]), float(found.memory_bytes[row])

    def passes(self, forms: Sequence[Candidate]) -> int:  # noqa: ARG002
        return 0

    def variants(self, rows: Sequence[int], fits: Sequence[Fit]) -> list[Candidate]:
        """The rows under DualPipe, which has no closed form, and those without sequence parallelism."""
        twins = [_dual_pipe(self.candidate(row)) for row in rows]
        return [one for one in twins if one is not None] + self._gathered(rows, fits)

    def _gathered(self, rows: Sequence[int], fits: Sequence[Fit]) -> list[Candidate]:
        """The plans at ``rows`` without sequence parallelism, where that goes and fits."""
        space = self.found.space
        rows = [row for row in rows if space.skeletons[space.skeleton[row]].sequence_parallel]
        if not rows:
            return []
        skeletons = tuple(
            space.skeletons[space.skeleton[row]]._replace(sequence_parallel=False) for row in rows
        )
        few = replace(space, skeletons=skeletons, skeleton=np.arange(len(rows)), free=space.free[rows])
        twins = AlikeSearch(self.scenario, self.asked, evaluate(self.scenario, fits, few))
        candidates = [twins.candidate(int(row)) for row in np.flatnonzero(twins.found.fits)]
        return [
            one for one in candidates if not cross_faults(one.scenario.cluster, one.scenario.training, "")
        ]


def search_alike(scenario: Scenario, asked: Scenario, fits: Sequence[Fit]) -> AlikeSearch:
    """All plans on a cluster of one pool, and those that nearly fit."""
    return AlikeSearch(scenario, asked, evaluate(scenario, fits, plan_space(scenario), beyond_frac=NEAR_FRAC))


def _dual_pipe(one: Candidate) -> Candidate | None:
    """The same plan under DualPipe where that goes and fits."""
    plan = replace(one.plan, schedule="dualpipe", virtual_stages=1)
    changed = with_plan(one.scenario, plan)
    if plan.pipeline == 1 or cross_faults(changed.cluster, changed.training, ""):
        return None
    memory = scenario_memory(changed)
    if not all(use.fits for use in memory):
        return None
    worst = max(memory, key=lambda use: use.total_bytes)
    return replace(one, scenario=changed, closed_s=None, memory_bytes=worst.total_bytes)
