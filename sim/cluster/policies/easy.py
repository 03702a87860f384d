"""EASY backfill: the head of the queue has a promise, and small jobs may slip past it as long as the promise is kept.

Lifka, JSSPP 1995; Mu'alem and Feitelson, IEEE TPDS 12(6), 2001.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from sim.cluster.policy import Decision, Decisions, Policy, Start, View
from sim.cluster.state import JobState


@dataclass(frozen=True, slots=True)
class Promise:
    """When the head will start by the limits of running jobs, and the devices it leaves free then."""

    shadow_s: float
    extra_gpus: float


def promise(view: View, head: JobState) -> Promise:
    """The head's reservation; ``view.running`` must be in order of limits.

    Where the devices would suffice now and do not form a place (fragmentation), the next end of a job is promised.
    """
    free, now = view.free_gpus, view.now_s
    need, shadow_s = head.gpus, math.inf
    for state in view.running:
        end_s = max(state.limit_end_s, now)
        if end_s > shadow_s:
            break
        free += state.gpus
        if free >= need:
            shadow_s = end_s
    return Promise(shadow_s, max(free - need, 0) if free >= need else 0)


@dataclass(frozen=True)
class Easy(Policy):
    """First come, first served; when the head does not fit, jobs behind it start if they end, by their limits, before
    the
    head's promised start or use only devices it leaves free.

    ``order``: of those who may slip past: ``submit`` (EASY), ``shortest`` (SJBF: Tsafrir, Etsion and Feitelson, IEEE
    TPDS
    18(6), 2007), ``longest``, ``narrowest`` or ``widest``.
    """

    order: str = "submit"
    name: str = "easy"

    @property
    def running_key(self) -> Callable[[JobState], Any]:
        """By limits."""
        return lambda state: state.limit_end_s

    def decide(self, view: View) -> Decisions:
        """Heads, then backfill."""
        waiting, memory = view.waiting, view.memory
        head = waiting.first
        # with nothing freed since the last pass, all who were passed over then are passed over again: look at the new
        # ones
        seen = (
            memory.get("seen")
            if head is not None and memory.get("blocked") == (head.number, view.releases)
            else None
        )
        if seen is None:
            while (head := waiting.first) is not None:
                if not (yield Start(head)):
                    break
        if head is None:
            return
        if view.free_gpus > 0:
            yield from self._backfill(view, seen or head, promise(view, head))
        memory["blocked"], memory["seen"] = (head.number, view.releases), waiting.last or head

    def _backfill(self, view: View, behind: JobState, promised: Promise) -> Generator[Decision, bool, None]:
        """Start who may slip past, of those behind a job."""
        slack_s, extra = promised.shadow_s - view.now_s, promised.extra_gpus
        after, rank = view.waiting.after, self.rank
        if rank is None:
            state = after(behind, view.free_gpus, slack_s, extra)
            while state is not None:
                if (yield Start(state)) and state.limit_left_s > slack_s:
                    extra -= state.gpus
                state = after(state, view.free_gpus, slack_s, extra)
            return
        found: list[JobState] = []
        state = after(behind, view.free_gpus, slack_s, extra)
        while state is not None:
            found.append(state)
            state = after(state, view.free_gpus, slack_s, extra)
        for state in sorted(found, key=rank):
            short = state.limit_left_s <= slack_s
            if state.gpus > view.free_gpus or not (short or state.gpus <= extra):
                continue
            if (yield Start(state)) and not short:
                extra -= state.gpus

    @property
    def rank(self) -> Callable[[JobState], Any] | None:
        """Order of those who may slip past; None = the queue's own."""
        if self.order not in BACKFILL_ORDERS:
            raise ValueError(f"backfill order {self.order!r}: expected one of {', '.join(BACKFILL_ORDERS)}")
        return BACKFILL_ORDERS[self.order]


BACKFILL_ORDERS: dict[str, Callable[[JobState], Any] | None] = {
    "submit": None,
    "shortest": lambda state: state.limit_left_s,
    "longest": lambda state: -state.limit_left_s,
    "narrowest": lambda state: state.gpus,
    "widest": lambda state: -state.gpus,
}
