"""The bill of one stretch: where its time went and how much of its work is kept."""

from __future__ import annotations

import math

from sim.cluster.pace import slowed_at, useful_needed_s, work_at
from sim.cluster.recovery import NEVER
from sim.cluster.rules import Rules
from sim.cluster.state import JobState
from sim.results.cluster_log import Segment

_row = tuple.__new__


def settle(state: JobState, end_s: float, why: str, rules: Rules) -> Segment:
    """The segment that ends now; takes the kept work off ``state.work_left_s`` and adds what a preemption costs.

    A completed stretch did all its work. A failed one keeps what was durable when the fault came, or held in memory
    where the rules say that it survives (taken to be written out while the job restarts); with notice it spends the
    last moments on a write and keeps the rest. A job ended at its limit keeps (as useful) what was durable, for nobody
    gets the rest; one that is preempted keeps all or what is durable, as the rules say; one that is resized or cut off
    by the end of the run keeps all. Of the time whose work is kept, what the job would not have needed alone is lost to
    shared links (contention) or to neighbours on its devices (interference), and is not useful.
    """
    job = state.job
    begin_s = state.since_s
    gpus = state.gpus * job.gpu_share_frac
    recovery = state.recovery
    if why == "completed" and not state.owed_s and recovery is NEVER and state.pace is None:
        return _row(  # Segment(...) in half the time: most stretches end here
            Segment,
            (
                job.name, state.number, gpus, begin_s, end_s, state.placed, why,
                end_s - begin_s, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
            ),
        )  # fmt: skip
    stop_s = min(state.fault_s, end_s)
    undetected_s = end_s - stop_s
    ran_s = stop_s - begin_s
    overhead_s = min(state.owed_s, ran_s)
    state.owed_s -= overhead_s
    ran_s -= overhead_s
    if why == "completed":
        useful_s = useful_needed_s(state)
        restart_s = recovery.restart_s if state.restarted else 0.0
        checkpoint_s = ran_s - restart_s - useful_s
        if recovery is NEVER or math.isinf(recovery.interval_s):
            useful_s, checkpoint_s = ran_s - restart_s, 0.0
        kept_s = useful_s
        state.work_left_s = 0.0
    else:
        done = recovery.progress(ran_s, restarted=state.restarted)
        useful_s, durable_s, checkpoint_s, restart_s = done[:4]
        keeps_all = why in ("resized", "open") or (why == "preempted" and rules.preemption_keeps_all)
        keeps_all = keeps_all and math.isinf(state.fault_s)
        kept_s = useful_s if keeps_all else min(durable_s, useful_s)
        if why == "failed" and useful_s > kept_s:
            survives = rules.survives(state, end_s)
            if survives == "memory":
                kept_s = min(max(recovery.in_memory_s(ran_s - restart_s), kept_s), useful_s)
            elif survives == "all" and recovery is not NEVER:
                write_s = min(recovery.durable_s, useful_s - kept_s)
                useful_s, checkpoint_s = useful_s - write_s, checkpoint_s + write_s
                kept_s = useful_s
        state.work_left_s = max(state.work_left_s - (work_at(state, kept_s) if kept_s else 0.0), 0.0)
    links_s, devices_s = (0.0, 0.0) if state.pace is None else slowed_at(state, kept_s)
    if why == "preempted":
        state.owed_s += rules.preemption_overhead_s(job)
    return Segment(
        job.name, state.number, gpus, begin_s, end_s, state.placed, why,
        kept_s - links_s - devices_s, checkpoint_s, useful_s - kept_s, restart_s, overhead_s, undetected_s,
        links_s, devices_s,
    )  # fmt: skip
