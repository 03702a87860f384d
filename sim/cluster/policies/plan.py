"""The plan of a pool: how many devices are free from when to when, as a skyline."""

from __future__ import annotations

import math
from bisect import bisect_right


class Plan:
    """Free devices as a step function of time; ``free[i]`` holds from ``times[i]`` to ``times[i + 1]``."""

    __slots__ = ("free", "times")

    def __init__(self, gpus: float, from_s: float) -> None:
        self.times = [from_s]
        self.free = [gpus]

    def forget(self, before_s: float) -> None:
        """Drop what is past."""
        at = bisect_right(self.times, before_s) - 1
        if at > 0:
            del self.times[:at], self.free[:at]
            self.times[0] = before_s
        elif at == 0:
            self.times[0] = before_s

    def _cut(self, at_s: float) -> int:
        """Make a step begin at a time; its number."""
        at = bisect_right(self.times, at_s) - 1
        if at < 0:
            raise ValueError(f"the plan begins at {self.times[0]} s and does not know {at_s} s")
        if self.times[at] == at_s:
            return at
        self.times.insert(at + 1, at_s)
        self.free.insert(at + 1, self.free[at])
        return at + 1

    def change(self, gpus: float, from_s: float, to_s: float) -> None:
        """Add (or, negative, take) devices between two times; an infinite end = for good."""
        if to_s <= from_s:
            return
        first = self._cut(from_s)
        last = len(self.times) if math.isinf(to_s) else self._cut(to_s)
        for at in range(first, last):
            self.free[at] += gpus
        for at in (last, first):  # equal neighbours become one step
            if 0 < at < len(self.times) and self.free[at] == self.free[at - 1]:
                del self.times[at], self.free[at]

    def earliest(self, gpus: float, duration_s: float, from_s: float) -> float:
        """First time from which so many devices are free for so long; infinite where there is none."""
        times, free = self.times, self.free
        at = max(bisect_right(times, from_s) - 1, 0)
        start_s = from_s
        count = len(times)
        begin = -1
        while at < count:
            if free[at] < gpus:
                begin = -1
            elif begin < 0:
                begin = at
                start_s = max(times[at], from_s)
            if begin >= 0 and (at + 1 == count or times[at + 1] >= start_s + duration_s):
                return start_s
            at += 1
        return math.inf
