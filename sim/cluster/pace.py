"""A stretch at changing speed: how much is done by when, and what neighbours cost, where they come and go.

Like a drive through towns: the odometer stands at the sum of pieces, each at its own speed, and so does the time spent
in other people's traffic. Positions are useful seconds of the stretch (overhead, restart and checkpoints apart),
because checkpoints count in them.
"""

from __future__ import annotations

import math

from sim.cluster.state import JobState, Piece


def _piece_at(state: JobState, useful_s: float) -> Piece | None:
    for piece in reversed(state.pace or ()):
        if useful_s >= piece.begin_s:
            return piece
    return None


def work_at(state: JobState, useful_s: float) -> float:
    """Work done in this stretch by so many useful seconds, as seconds on the devices asked for."""
    if state.pace is None:
        return useful_s * state.rate
    piece = _piece_at(state, useful_s)
    return 0.0 if piece is None else piece.done + (useful_s - piece.begin_s) * piece.rate


def slowed_at(state: JobState, useful_s: float) -> tuple[float, float]:
    """Of so many useful seconds, what the job would not have needed alone: lost to shared links, and to neighbours on
    its devices."""
    piece = _piece_at(state, useful_s)
    if piece is None:
        return 0.0, 0.0
    more_s = useful_s - piece.begin_s
    return piece.links_s + more_s * piece.links_frac, piece.devices_s + more_s * piece.devices_frac


def useful_needed_s(state: JobState) -> float:
    """Useful seconds of this stretch until the work that is left is done; infinite where it stands still."""
    if state.pace is None:
        return state.work_left_s / state.rate
    last = state.pace[-1]
    left = max(state.work_left_s - last.done, 0.0)
    return last.begin_s + (left / last.rate if left and last.rate else math.inf if left else 0.0)


def change_pace(state: JobState, share: float, by_links: float, now_s: float) -> None:
    """From now on the job does ``share`` of the work a second that it does alone; ``by_links`` of the loss is the
    links' doing, the rest its neighbours'.

    Pieces that end before the last durable checkpoint can never be asked for again and are dropped.
    """
    ran_s = now_s - state.since_s
    recovery = state.recovery
    done = recovery.progress(max(ran_s - state.owed_s, 0.0), restarted=state.restarted)
    pace = state.pace or [Piece(0.0, 0.0, state.rate)]
    state.pace = pace
    work, (links_s, devices_s) = work_at(state, done.useful_s), slowed_at(state, done.useful_s)
    forgets = math.isinf(recovery.interval_s)  # saves nothing: only where it stands now can matter
    kept_s = done.useful_s if forgets else done.durable_s
    first = max((at for at, piece in enumerate(pace) if piece.begin_s <= kept_s), default=0)
    state.rate = state.alone_rate * share
    lost = 1 - share
    new = Piece(done.useful_s, work, state.rate, links_s, devices_s, lost * by_links, lost * (1 - by_links))
    state.pace = [*pace[first:], new]
