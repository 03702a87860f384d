"""SimPy's clock with a short hand: bare events with one callback, and a loop without the ceremony of processes."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import EventPriority

_new = object.__new__
FIRST, SECOND = simpy.events.URGENT, simpy.events.NORMAL


class Moment(simpy.Event):
    """A bare timeout with one callback; among events of one time, the smaller priority is first."""

    _ok = True


class Clock(simpy.Environment):
    """A SimPy environment for events that never fail and for callbacks that nothing interrupts."""

    def moment(self, act: Callable[[Any], None]) -> Moment:
        """An event that is not in the calendar yet."""
        moment = _new(Moment)
        moment.env, moment.callbacks = self, [act]
        return moment

    def put(self, moment: Moment, at_s: float, value: Any, priority: EventPriority) -> None:
        """Into the calendar, at a time not before now; one that has passed may be put in again."""
        moment._value = value
        now = self._now
        heappush(self._queue, (now + (at_s - now), priority, next(self._eid), moment))  # as ``schedule`` does

    def at(self, at_s: float, act: Callable[[Any], None], value: Any, priority: EventPriority) -> Moment:
        """A new event at a time not before now."""
        moment = self.moment(act)
        self.put(moment, at_s, value, priority)
        return moment

    def more_now(self) -> bool:
        """Whether another event of this very instant is to come."""
        queue = self._queue
        return bool(queue) and queue[0][0] <= self._now

    over = False
    """Whether nothing that is still to come matters; whoever acts on an event may say so."""

    def play(self, until_s: float) -> None:
        """All events up to a time, until it is ``over``."""
        queue = self._queue
        while queue and queue[0][0] <= until_s and not self.over:
            self._now, _, _, moment = heappop(queue)
            moment.callbacks[0](moment)
