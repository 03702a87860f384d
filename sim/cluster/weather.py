"""From [reliability] to what befalls a cluster of many jobs: outages, jobs' own faults, what is saved, what survives.

The weather service of one replication: it makes the record before the day is played, so that every policy meets the
same storms, and is asked afterwards what it was that hit a job.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sim.cluster.failures.checkpoints import SavedState, recovery_for
from sim.cluster.failures.spares import of_the_floor
from sim.cluster.failures.stream import (
    cause_rates,
    job_failures_per_s,
    job_fault_s,
    outages,
    slow_as_outages,
    slowdowns,
)
from sim.cluster.outage import PLANNED, Outage
from sim.cluster.recovery import NEVER, Recovery
from sim.cluster.rules import Hazard
from sim.cluster.state import JobState
from sim.cost.storage import Storage
from sim.spec.failure_rates import with_rates
from sim.spec.job import Job
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Reliability
from sim.spec.scenario import Scenario
from sim.statistics.streams import Streams
from sim.training.run_phases import checkpoint_bytes

STATE_FRAC = 0.4
"""Share of a gang's device memory that a job of unknown model saves (assumed: weights and optimizer state fill less
than half of a device, activations the rest)."""
JOB_STORAGE = Storage(1e12, 5e11)
"""Shared file system where the scenario names none (assumed: 1 TB/s read, 0.5 TB/s written, as for a few thousand
devices)."""
AS_IT_GOES = ("serving", "notebook")
"""Kinds of jobs whose time is of use as it passes: an interruption takes nothing back."""
SESSION = Recovery(interval_s=1.0)
"""What such a job keeps: all but the last second."""
RATE_STREAM, OUTAGE_STREAM, SLOW_STREAM, HAZARD_STREAM = "failure rate", "outages", "slow nodes", "job faults"


def rated(scenario: Scenario, streams: Streams) -> Reliability | None:
    """The section with the one rate of this replication.

    ``study.failures`` = draw takes it from the two-piece log-normal through low, mid and high (P10, P50, P90; see
    :class:`sim.spec.quantiles.Quantiles`): the same quantile in every scenario of a seed, so that comparisons are
    paired.
    """
    if scenario.reliability is None:
        return None
    section = with_rates(scenario.reliability)
    given, level = section.node_failures_per_1000_node_days, scenario.study.failures
    if level != "draw" or given is None or given.certain:
        rate = section.node_failures_per_s("mid" if level == "draw" else level) * 86400 * 1000
    else:
        rate = float(given.at(streams.generator(RATE_STREAM).standard_normal()))
    return replace(section, node_failures_per_1000_node_days=Quantiles.exactly(rate))


@dataclass(frozen=True, slots=True)
class Weather:
    """Everything that befalls the nodes of one replication, and a memory of it."""

    section: Reliability
    nodes: int
    streams: Streams
    _seen: list[Outage] = field(default_factory=list)

    def outages(self) -> Iterator[Outage]:
        """All outages in order of time, spares already in place; remembered as they are handed out."""
        failing = outages(self.section, self.nodes, self.streams.child(OUTAGE_STREAM))
        slow = slow_as_outages(
            slowdowns(self.section, self.nodes, self.streams.child(SLOW_STREAM)), self.section
        )
        for outage in of_the_floor(failing, slow, self.nodes, self.section.spares, self.section.repair_crews):
            self._seen.append(outage)
            yield outage

    def survives(self, state: JobState, until_s: float) -> str:
        """What of a job's stretch outlives its fault: ``all`` after notice, ``memory`` while no more nodes were lost
        than its snapshots bear (none, where the job failed by itself), otherwise what is ``durable``."""
        mine = {node for node, _ in state.placed.spots}
        first = bisect_left(self._seen, state.fault_s, key=lambda outage: outage.at_s)
        hits = [o for o in self._seen[first:] if o.at_s <= until_s and not mine.isdisjoint(o.nodes)]
        if hits and all(outage.cause in PLANNED for outage in hits):
            return "all"
        lost = mine.intersection(node for o in hits if o.cause not in PLANNED for node in o.nodes)
        return "memory" if len(lost) <= self.section.checkpoints.memory_node_losses else "durable"


def recoveries(scenario: Scenario) -> Callable[[Job], Recovery]:
    """What each job saves and how it comes back. Plans are made with the middle rate: nobody knows the true one.

    Trainings of a known model save their own state, others :data:`STATE_FRAC` of their devices' memory.
    """
    section = with_rates(scenario.reliability)  # type: ignore[arg-type]
    level = scenario.study.failures if scenario.study.failures != "draw" else "mid"
    pool = scenario.cluster.pools[0]
    size = pool.system.gpus_per_node
    shared = scenario.cluster.storage
    storage = Storage(shared.read_bytes_per_s, shared.write_bytes_per_s) if shared else JOB_STORAGE
    network = pool.system.nic_bytes_per_s * pool.system.nics_per_node
    known = {
        run.name: checkpoint_bytes(run.training) for run in (scenario.jobs.runs if scenario.jobs else ())
    }
    made: dict[tuple[int, str], Recovery] = {}

    def recovery(job: Job) -> Recovery:
        if job.kind in AS_IT_GOES:
            return SESSION
        if job.gpus < 1:
            return NEVER
        name = job.name.rpartition("-")[0] or job.name
        key = (job.gpus, name if name in known else job.name if job.name in known else "")
        if key not in made:
            nodes = -(-job.gpus // size)
            state = known.get(key[1], job.gpus * pool.accelerator.memory_bytes * STATE_FRAC)
            saved = SavedState(
                state,
                nodes,
                storage,
                host_bytes_per_s=pool.accelerator.host_link_bytes_per_s * size,
                peer_bytes_per_s=network or math.inf,
            )
            per_s, helped = _failures_per_s(section, nodes, level)
            mean_s = 1 / per_s if per_s > 0 else 1e12
            frac = helped / per_s if per_s > 0 else 0.0
            made[key] = recovery_for(section.checkpoints, saved, mean_s, memory_frac=frac)
        return made[key]

    return recovery


def _failures_per_s(section: Reliability, nodes: int, level: str) -> tuple[float, float]:
    """Failures a second of a job on ``nodes``: all that stop it, and those that snapshots in memory help."""
    own = job_failures_per_s(section, nodes, level)
    sizes = {"node": 1, "switch": section.nodes_per_switch, "rack": section.nodes_per_rack}
    others = [h for h in cause_rates(section, level) if h.cause.scope != "job"]
    kept = section.checkpoints.memory_node_losses
    helped = sum(h.per_node_s for h in others if min(sizes[h.cause.scope], nodes) <= kept)
    return own + nodes * sum(h.per_node_s for h in others), own + nodes * helped


def hazards(
    section: Reliability, gpus_per_node: int, streams: Streams
) -> Callable[[JobState], Hazard | None] | None:
    """Faults of a job's own: drawn for each stretch from a stream of the job's own, whatever the policy does."""
    if job_failures_per_s(section, 1) <= 0:
        return None
    own = streams.child(HAZARD_STREAM)

    def hazard(state: JobState) -> Hazard | None:
        nodes = max(-(-state.gpus // gpus_per_node), 1)
        random = own.generator(state.job.name, state.failures, state.preemptions)
        return Hazard(*job_fault_s(section, nodes, random))

    return hazard
