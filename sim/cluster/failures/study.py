"""A long job asked often enough: replications of :func:`run_job` under one seed, and where its inputs come from.

Like a clinical trial with its protocol: what was given, what was only assumed, and how sure the outcome is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sim.cluster.failures.checkpoints import SavedState, recovery_for
from sim.cluster.failures.job_run import run_job
from sim.cluster.failures.long_job import LongJob
from sim.cluster.failures.stream import cause_rates, job_failures_per_s, outages, slowdowns
from sim.spec.failure_rates import known_causes, rate_set, with_rates
from sim.spec.reliability import Reliability
from sim.statistics.replications import Replications, Rule, replicate
from sim.statistics.streams import Streams


class Input(NamedTuple):
    """One input of an answer."""

    name: str
    value: str
    kind: str
    """``given`` by the scenario, ``published`` or ``assumed``."""
    source: str


@dataclass(frozen=True, slots=True)
class JobStudy:
    """One question: this job, in this weather, for so long. Replication k has the same weather in every study of a
    seed."""

    job: LongJob
    reliability: Reliability
    span_s: float
    seed: int = 1
    level: str = "mid"

    def answers(self, number: int) -> Mapping[str, float]:
        """One replication: goodput, interruptions, speed, time until the work was done (or the span), share of each
        cause of time."""
        section, streams = with_rates(self.reliability), Streams(self.seed).child("replication", number)
        weather = outages(
            section, self.job.owned, streams.child("outages"), level=self.level, job_nodes=self.job.nodes
        )
        slow = slowdowns(section, self.job.owned, streams.child("slow"))
        run = run_job(self.job, weather, self.span_s, slowdowns=slow)
        return {
            "goodput_frac": run.goodput_frac,
            "interruptions": float(sum(run.interruptions.values())),
            "speed_frac": run.speed_frac,
            "span_s": run.span_s,
        } | {f"{part}_frac": seconds / run.span_s for part, seconds in run.parts_s.items()}


def study_of(
    reliability: Reliability,
    nodes: int,
    state: SavedState,
    span_s: float,
    *,
    work_s: float = math.inf,
    min_nodes: int | None = None,
    seed: int = 1,
    level: str = "mid",
) -> JobStudy:
    """The study of a job on ``nodes`` that saves ``state`` as the section says, with the section's spares.

    Mean time between failures and the share that snapshots in memory help are the section's own at this level.
    """
    section = with_rates(reliability)
    own = job_failures_per_s(section, nodes, level)
    others = [hazard for hazard in cause_rates(section, level) if hazard.cause.scope != "job"]
    total = own + nodes * sum(hazard.per_node_s for hazard in others)
    kept = section.checkpoints.memory_node_losses
    sizes = {"node": 1, "switch": section.nodes_per_switch, "rack": section.nodes_per_rack}
    helped = own + nodes * sum(h.per_node_s for h in others if sizes[h.cause.scope] <= kept)
    recovery = recovery_for(section.checkpoints, state, 1 / total, memory_frac=helped / total)
    return JobStudy(
        LongJob(nodes, recovery, work_s, section.spares, min_nodes), reliability, span_s, seed, level
    )


def replicate_job(study: JobStudy, rule: Rule | None = None, *, workers: int = 1) -> Replications:
    """Replications until the rule holds; the same bytes for any number of workers.

    Without a rule: each answer within 2 % of itself or, for shares of time, 0.2 points, and interruptions within one.
    """
    floors = {name: 0.002 for name in study.answers(0) if name.endswith("_frac")} | {"interruptions": 1.0}
    return replicate(functools.partial(_answers, study), rule or Rule(0.02, floors=floors), workers=workers)


def _answers(study: JobStudy, number: int) -> Mapping[str, float]:
    return study.answers(number)


def inputs_of(reliability: Reliability) -> tuple[Input, ...]:
    """Where the section's rate, causes and their behaviour come from.

    Raises:
        sim.spec.catalog.UnknownName: no such published set.
    """
    found = rate_set(reliability.rates) if reliability.rates else None
    section = with_rates(reliability)
    rate = str(section.node_failures_per_1000_node_days)
    own = reliability.node_failures_per_1000_node_days is not None or found is None
    inputs = [
        Input(
            "failures per 1,000 node-days",
            rate,
            "given" if own else "published",
            "the scenario" if own or found is None else found.source,
        )
    ]
    if reliability.causes or found is None:
        names = ", ".join(cause.name for cause in reliability.causes) or "node"
        return (*inputs, Input("causes, detection and repair", names, "given", "the scenario"))
    if found.counts:
        inputs.append(Input("shares of causes", f"{len(found.counts)} causes", "published", found.source))
    for cause in section.causes:
        like = cause.name if cause.name in known_causes() else "node"
        value = f"noticed after {cause.detect.mean_s:g} s, mended after {cause.repair.mean_s:g} s on average"
        inputs.append(
            Input(f"{cause.name}: detection and repair", value, "assumed", f"catalogue, cause {like}")
        )
    return tuple(inputs)
