"""What evaluating a space of plans works with: the space, its tables, one price list, and what is made once.

Like a workbench: the tools lie where every hand finds them, and a jig that was built stays for the next piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.price_book import ListPricer
from sim.planning.plans.space import Skeleton, Space
from sim.planning.plans.tables import Tables, stage_counts
from sim.spec.profile import Fit
from sim.spec.workload import Training
from sim.training.overheads import Overheads


@dataclass(frozen=True, slots=True)
class Bench:
    """What evaluating a space works with."""

    devices: int
    fits: Sequence[Fit]
    space: Space
    table: Tables
    pricer: ListPricer
    extra: Overheads
    counts: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    """Blocks of each kind by rank, for the pipelines that were asked for."""
    jobs: dict[tuple[int, int, int, bool], Training] = field(default_factory=dict)

    def job(self, skeleton: Skeleton, stage: int, host: bool = False) -> Training:
        """The job under a cut, as far as exchange and state look at it; each made once."""
        key = skeleton.tensor, skeleton.expert, stage, host
        if key not in self.jobs:
            plan = replace(
                self.space.training.plan,
                tensor=skeleton.tensor,
                expert=skeleton.expert,
                zero_stage=stage,
                offload_optimizer=host,
            )
            self.jobs[key] = replace(self.space.training, plan=plan)
        return self.jobs[key]

    def stage_counts(self, pipeline: int, virtual: int) -> NDArray[np.int64]:
        """Blocks of each kind on each rank."""
        key = pipeline, virtual
        if key not in self.counts:
            self.counts[key] = stage_counts(self.table, pipeline, virtual)
        return self.counts[key]

    def ranks(self, skeleton: Skeleton) -> list[int]:
        """Ranks of which one is the fullest: the first with each mix of blocks (earlier ones hold more passes)."""
        counts = self.stage_counts(skeleton.pipeline, skeleton.virtual_stages)
        return sorted(int(rank) for rank in np.unique(counts, axis=0, return_index=True)[1])

    def data(self, skeleton: Skeleton) -> int:
        """Data-parallel copies."""
        return self.devices // (skeleton.tensor * skeleton.pipeline * skeleton.context)

    def passes(self, skeleton: Skeleton) -> int:
        """Micro-batches of one copy in a step."""
        return self.space.training.global_batch // (self.data(skeleton) * skeleton.micro_batch)
