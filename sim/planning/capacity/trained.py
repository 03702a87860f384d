"""Tokens a second that one device of a system trains: by the best plan that a search finds for a gang.

The test drive: the same car on every road, each time with the gears that suit it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.planning.capacity.rates import Trained
from sim.planning.plans.rank import best_plan
from sim.planning.plans.search import NoPlanError
from sim.spec.catalog import load_catalog
from sim.spec.demand import Programme
from sim.spec.hardware import System
from sim.spec.profile import Fit
from sim.spec.scenario import Cluster, Pool, Scenario
from sim.spec.workload import Training
from sim.training.shorter import quick_step_s

TOKENS_A_STEP = 4_194_304
"""Global batch where a programme says none (GPT-3's and Llama's are 3 to 16 M tokens)."""


def trained_by(fits: Sequence[Fit]) -> Trained:
    """The rate of a programme on a system, from the step model; 0 where no plan fits the memory."""

    def rate(programme: Programme, system: System, devices: int) -> float:
        if programme.model is None:
            return 0.0
        tokens = programme.model.kind in ("decoder", "moe", "mla-moe", "encoder", "encoder-decoder")
        sequence = programme.sequence if tokens else 1
        batch = programme.global_batch or max(TOKENS_A_STEP // sequence if tokens else 1024, 1)
        for nodes in _gangs(devices // system.gpus_per_node, system.gpus_per_node, batch):
            training = Training(
                model=programme.model, global_batch=batch, sequence=sequence, precision=programme.precision
            )
            pool = Pool(system, load_catalog().accelerator(system.accelerator), nodes)
            asked = Scenario(programme.name, cluster=Cluster((pool,)), training=training)
            try:
                found = best_plan(asked, fits)
            except NoPlanError:
                continue
            return batch * sequence / quick_step_s(found, fits) / pool.devices
        return 0.0

    return rate


def _gangs(nodes: int, size: int, batch: int) -> list[int]:
    """Nodes to try: the largest power of two that is there and that the batch can feed, then smaller ones."""
    most = max(min(nodes, max(batch * 64 // size, 1)), 1)
    largest = 1 << (most.bit_length() - 1)
    return [largest >> step for step in range(largest.bit_length())][:4]
