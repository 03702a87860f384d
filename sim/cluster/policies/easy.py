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
    TPDS 18(6), 2007), ``longest``, ``narrowest``, ``widest``, ``smallest``, ``largest``, ``reverse`` (last come first)
    or ``lookahead`` (the set that uses the most).
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
        if seen is None or self.order == "lookahead":  # which looks at whole sets
            seen = None
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
        after = view.waiting.after
        if self.rank is None and self.order != "lookahead":
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
        for state in self.in_order(found, int(view.free_gpus), slack_s, int(extra)):
            short = state.limit_left_s <= slack_s
            if state.gpus > view.free_gpus or not (short or state.gpus <= extra):
                continue
            if (yield Start(state)) and not short:
                extra -= state.gpus

    @property
    def rank(self) -> Callable[[JobState], Any] | None:
        """Order of those who may slip past; None = the queue's own, or a choice of the whole set."""
        if self.order not in BACKFILL_ORDERS:
            raise ValueError(f"backfill order {self.order!r}: expected one of {', '.join(BACKFILL_ORDERS)}")
        return BACKFILL_ORDERS[self.order]

    def in_order(self, found: list[JobState], free: int, slack_s: float, extra: int) -> list[JobState]:
        """Who of those found is tried, and in which order, when so many devices are free, ``slack_s`` until the
        head's start and ``extra`` beyond it."""
        if self.order == "lookahead":
            return look_ahead(found, free, slack_s, extra)
        return sorted(found, key=self.rank) if self.rank else found


def look_ahead(found: list[JobState], free: int, slack_s: float, extra: int) -> list[JobState]:
    """The set with the most device-seconds (by limits) among those that fit, in the order of the queue.

    Dynamic programming over the devices that are used (Shmueli and Feitelson, JPDC 65(9), 2005); as in pyss, one best
    set is kept for each number of devices, with what it leaves of ``extra``, and of equal ones the later.
    """
    best: list[tuple[float, int, tuple[JobState, ...]]] = [(0.0, extra, ())] * (free + 1)
    for state in found:
        gpus = state.gpus
        beyond = 0 if state.limit_left_s <= slack_s else gpus
        before = list(best)
        for devices in range(gpus, free + 1):
            work, left, chosen = before[devices - gpus]
            if beyond <= left and work + gpus * state.limit_left_s >= before[devices][0]:
                best[devices] = (work + gpus * state.limit_left_s, left - beyond, (*chosen, state))
    return list(best[free][2])


BACKFILL_ORDERS: dict[str, Callable[[JobState], Any] | None] = {
    "submit": None,
    "shortest": lambda state: state.limit_left_s,
    "longest": lambda state: -state.limit_left_s,
    "narrowest": lambda state: state.gpus,
    "widest": lambda state: -state.gpus,
    "smallest": lambda state: state.gpus * state.limit_left_s,
    "largest": lambda state: -state.gpus * state.limit_left_s,
    "reverse": lambda state: -state.submit_s,
    "lookahead": None,
}
"""Ties in the order of the queue. Smallest and largest go by device-seconds asked for."""
BACKFILLS = {
    name: Easy(order, name=name)
    for name, order in (
        ("easy_sjbf", "shortest"),
        ("easy_ljbf", "longest"),
        *((f"easy_{order}", order) for order in BACKFILL_ORDERS if order != "submit"),
    )
}
"""EASY by the names of its backfill orders; ``sjbf`` and ``ljbf`` are usual words for shortest and longest."""
