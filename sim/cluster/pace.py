"""A stretch at changing speed: how much is done by when, where neighbours come and go.

Like a drive through towns: the odometer stands at the sum of pieces, each at its own speed. Positions are useful
seconds
of the stretch (overhead, restart and checkpoints apart), because checkpoints count in them.
"""

from __future__ import annotations

import math

from sim.cluster.recovery import Recovery
from sim.cluster.state import JobState


def work_at(state: JobState, useful_s: float) -> float:
    """Work done in this stretch by so many useful seconds, as seconds on the devices asked for."""
    if state.pace is None:
        return useful_s * state.rate
    for begin_s, done, rate in reversed(state.pace):
        if useful_s >= begin_s:
            return done + (useful_s - begin_s) * rate
    return 0.0


def useful_needed_s(state: JobState) -> float:
    """Useful seconds of this stretch until the work that is left is done; infinite where it stands still."""
    if state.pace is None:
        return state.work_left_s / state.rate
    begin_s, done, rate = state.pace[-1]
    left = max(state.work_left_s - done, 0.0)
    return begin_s + (left / rate if left and rate else math.inf if left else 0.0)


def change_pace(state: JobState, rate: float, now_s: float, recovery: Recovery) -> None:
    """From now on the job does ``rate`` useful seconds a second.

    Pieces that end before the last durable checkpoint can never be asked for again and are dropped.
    """
    ran_s = now_s - state.since_s
    done = recovery.progress(max(ran_s - state.owed_s, 0.0), restarted=state.restarted)
    pace = state.pace or [(0.0, 0.0, state.rate)]
    work = work_at(state, done.useful_s)
    forgets = math.isinf(recovery.interval_s)  # saves nothing: only where it stands now can matter
    kept_s = done.useful_s if forgets else done.durable_s
    first = max((at for at, piece in enumerate(pace) if piece[0] <= kept_s), default=0)
    state.pace = [*pace[first:], (done.useful_s, work, rate)]
    state.rate = rate
