"""The plan of a pool: how many devices are free from when to when, as a skyline."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right


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

    def change(self, gpus: float, from_s: float, to_s: float) -> None:
        """Add (or, negative, take) devices between two times; an infinite end = for good."""
        if to_s <= from_s:
            return
        times, free = self.times, self.free
        first = bisect_left(times, from_s)
        if first == len(times) or times[first] != from_s:
            if not first:
                raise ValueError(f"the plan begins at {times[0]} s and does not know {from_s} s")
            times.insert(first, from_s)
            free.insert(first, free[first - 1])
        last = bisect_left(times, to_s, first)
        if not math.isinf(to_s) and (last == len(times) or times[last] != to_s):
            times.insert(last, to_s)
            free.insert(last, free[last - 1])
        for at in range(first, last):
            free[at] += gpus
        # equal neighbours become one step
        if last < len(times) and free[last] == free[last - 1]:
            del times[last], free[last]
        if first and free[first] == free[first - 1]:
            del times[first], free[first]

    def move(self, gpus: float, duration_s: float, from_s: float, to_s: float) -> None:
        """Put a booking of so many devices that begins at ``from_s`` forward to ``to_s``; what it holds before and
        after stays untouched."""
        self.change(-gpus, to_s, min(to_s + duration_s, from_s))
        self.change(gpus, max(to_s + duration_s, from_s), from_s + duration_s)

    def free_at(self, at_s: float) -> float:
        """Devices free at a time."""
        return self.free[max(bisect_right(self.times, at_s) - 1, 0)]

    def first_below(self, gpus: float, from_s: float) -> float:
        """First time from which fewer devices are free; infinite where there is none."""
        times, free = self.times, self.free
        for at in range(max(bisect_right(times, from_s) - 1, 0), len(times)):
            if free[at] < gpus:
                return max(times[at], from_s)
        return math.inf

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

    def earlier(self, gpus: float, duration_s: float, from_s: float, start_s: float) -> float:
        """First time not before ``from_s`` to which a booking of so many devices for so long from ``start_s`` on can
        move; ``start_s`` where there is none. What it holds itself is in its own way nowhere: a gap that reaches its
        present start goes on there."""
        times, free = self.times, self.free
        begin_s = math.inf
        for at in range(max(bisect_right(times, from_s) - 1, 0), bisect_left(times, start_s)):
            if free[at] < gpus:
                begin_s = math.inf
                continue
            if begin_s == math.inf:
                begin_s = max(times[at], from_s)
            if at + 1 == len(times) or times[at + 1] >= begin_s + duration_s:
                return begin_s
        return min(begin_s, start_s)
