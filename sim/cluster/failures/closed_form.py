"""The fast shadow of :func:`run_job`: what a study will say, from formulas alone, and where they do not hold.

Like a back-of-envelope figure beside a measured one: microseconds instead of seconds, for planners that try thousands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sim.cluster.failures.stream import CauseRate, cause_rates, job_failures_per_s
from sim.cluster.failures.study import JobStudy
from sim.cost.goodput import DAY_S, completion_s, goodput_frac, goodput_two_tier_frac, straggler_speed_frac
from sim.cost.queueing import erlang_b
from sim.spec.failure_rates import with_rates
from sim.spec.reliability import Cause, Reliability


class Shadow(NamedTuple):
    """Expected answers of a study."""

    goodput_frac: float
    interruptions: float
    """Over the whole span."""
    stall_frac: float
    """Share of time without enough nodes."""
    beyond: tuple[str, ...]
    """What of the study the formulas leave out; empty where they hold."""


def shadow(study: JobStudy) -> Shadow:
    """Expected goodput, interruptions and stall of a study.

    Goodput of exponential failures (two tiers where there are two), with mean detection, swap and restart as the time a
    failure costs; times the share of time with enough nodes (Erlang B over nodes at repair, restarts neglected) and the
    mean speed under slow nodes.
    """
    section, job = with_rates(study.reliability), study.job
    ours = cause_rates(section, study.level)
    own_s = section.job_failures_per_day / DAY_S  # noticed at once, as the stream has it
    rate = job_failures_per_s(section, job.nodes, study.level) + job.nodes * sum(
        h.per_node_s for h in ours if h.cause.scope != "job"
    )
    if rate == 0:
        return Shadow(1.0, 0.0, 0.0, _beyond(study, section, ours))
    detect = job.nodes * sum(h.per_node_s * h.cause.detect.mean_s for h in ours) / rate
    swap = job.spares.hot_swap_s if job.spares.hot else job.spares.cold_swap_s if job.spares.cold else 0.0
    nodes_lost_frac = 1 - job_failures_per_s(section, job.nodes, study.level) / rate
    busy = job.nodes * sum(h.per_node_s * _down_s(h.cause) for h in ours if h.cause.scope != "job")
    stall = erlang_b(job.spares.cold + job.spares.hot + 1, busy)
    down = detect + swap * nodes_lost_frac
    goodput = _goodput_frac(study, section, ours, rate, own_s, down) * (1 - stall)
    if (slow := section.stragglers) is not None:
        onsets = slow.onsets_per_1000_node_days / 1000
        goodput *= float(straggler_speed_frac(job.nodes, onsets, slow.detect.mean_s, slow.slow_speed_frac))
    return Shadow(goodput, rate * study.span_s * (1 - stall), stall, _beyond(study, section, ours))


def _goodput_frac(
    study: JobStudy,
    section: Reliability,
    ours: Sequence[CauseRate],
    rate: float,
    own_s: float,
    down_s: float,
) -> float:
    recovery, mean = study.job.recovery, 1 / rate
    if math.isinf(recovery.interval_s):
        work_s = study.job.work_s
        return (
            0.0
            if math.isinf(work_s)
            else work_s / float(completion_s(mean, work_s, down_s + recovery.restart_s))
        )
    if recovery.memory is None:
        late = recovery.durable_s - recovery.stall_s
        known = mean, recovery.interval_s, recovery.stall_s, down_s + recovery.restart_s
        again = study.job.fails_while_restarting
        return float(goodput_frac(*known, persist_s=late, fails_while_restarting=again))
    tier = recovery.memory
    sizes = {"job": 0, "node": 1, "switch": section.nodes_per_switch, "rack": section.nodes_per_rack}
    helped = own_s + study.job.nodes * sum(
        h.per_node_s for h in ours if sizes[h.cause.scope] <= tier.node_losses
    )
    return goodput_two_tier_frac(
        mean,
        tier.interval_s,
        tier.stall_s,
        recovery.stall_s,
        round(recovery.interval_s / tier.interval_s),
        memory_frac=helped / rate,
        memory_down_s=down_s + tier.restart_s,
        durable_down_s=down_s + recovery.restart_s,
    )


def _down_s(cause: Cause) -> float:
    return (1 - cause.replace_frac) * cause.repair.mean_s + cause.replace_frac * cause.replace.mean_s


def _beyond(study: JobStudy, section: Reliability, ours: Sequence[CauseRate]) -> tuple[str, ...]:
    found = {
        "parts that age": any(h.cause.weibull_shape != 1 for h in ours),
        "nodes that fall together": any(h.cause.scope in ("switch", "rack") for h in ours),
        "maintenance": section.maintenance is not None,
        "a job that shrinks": study.job.min_nodes is not None,
        "hot spares that fail": study.job.spares.hot > 0,
        "a job without checkpoints": math.isinf(study.job.recovery.interval_s),
    }
    return tuple(name for name, there in found.items() if there)
