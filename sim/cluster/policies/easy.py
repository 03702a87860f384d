"""EASY backfill: the head of the queue has a promise, and small jobs may slip past it as long as the promise is kept.

Lifka, JSSPP 1995; Mu'alem and Feitelson, IEEE TPDS 12(6), 2001.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sim.cluster.policy import Decisions, Policy, Start, View
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
    """First come, first served; when the head does not fit, jobs behind it start if they end, by their limits, before the
    head's promised start or use only devices it leaves free.

    ``order``: of those who may slip past: ``submit`` (EASY), ``shortest`` (SJBF: Tsafrir, Etsion and Feitelson, IEEE TPDS
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
        waiting = view.waiting
        while (head := waiting.first) is not None:
            if not (yield Start(head)):
                break
        if head is None or view.free_gpus <= 0:
            return
        promised = promise(view, head)
        slack_s, extra = promised.shadow_s - view.now_s, promised.extra_gpus
        for state in self._candidates(view, head):
            gpus = state.gpus
            short = state.limit_left_s <= slack_s
            if (short or gpus <= extra) and gpus <= view.free_gpus and (yield Start(state)) and not short:
                extra -= gpus

    def _candidates(self, view: View, head: JobState) -> Iterator[JobState]:
        waiting = view.waiting
        if self.rank is None:
            state = waiting.after(head, view.free_gpus)
            while state is not None:
                yield state
                state = waiting.after(state, view.free_gpus)
            return
        found: list[JobState] = []
        state = waiting.after(head, view.free_gpus)
        while state is not None:
            found.append(state)
            state = waiting.after(state, view.free_gpus)
        yield from sorted(found, key=self.rank)

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
