"""Who waits, in the policy's order, kept sorted between passes.

Like a card index in drawers: a card goes straight to its drawer, and a drawer whose smallest request is too large is
passed over unopened.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Any

from sim.cluster.state import JobState

Entry = tuple[Any, int, JobState]
DRAWER = 128
"""Cards at which a drawer is split in two halves; between 50 and 500 makes no difference that shows."""


class _Drawer:
    __slots__ = ("cards", "shortest_s", "smallest")

    def __init__(self, cards: list[Entry], smallest: int, shortest_s: float) -> None:
        self.cards = cards
        self.smallest = smallest
        """Lower bound of the devices asked for."""
        self.shortest_s = shortest_s
        """Lower bound of the limits."""

    def look(self) -> None:
        """Make the bounds exact (they stay behind when cards are taken out)."""
        self.smallest = min(card[2].gpus for card in self.cards)
        self.shortest_s = min(card[2].limit_left_s for card in self.cards)


class Waiting:
    """Waiting jobs sorted by ``key``; every change and every look-up costs about the logarithm of the length."""

    __slots__ = ("_drawers", "_key", "_lasts", "first", "size")

    def __init__(self, key: Callable[[JobState], Any]) -> None:
        self._key = key
        self._drawers: list[_Drawer] = []
        self._lasts: list[Entry] = []
        self.size = 0
        self.first: JobState | None = None
        """The head of the queue."""

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[JobState]:
        """All in order, as they stand now: a job that starts meanwhile does not disturb the walk."""
        for drawer in tuple(self._drawers):
            for card in tuple(drawer.cards):
                yield card[2]

    def add(self, state: JobState) -> None:
        """Put a job in its place; ties by the order of submission."""
        entry = state.entry = (self._key(state), state.number, state)
        self.size += 1
        drawers, lasts = self._drawers, self._lasts
        if lasts and entry < lasts[-1]:
            at = bisect_left(lasts, entry)
            drawer = drawers[at]
            insort(drawer.cards, entry)
            if not at:
                self.first = drawer.cards[0][2]
            if len(drawer.cards) > DRAWER:
                self._split(at)
                return
        elif lasts and len(drawers[-1].cards) < DRAWER:
            drawer = drawers[-1]
            drawer.cards.append(entry)
            lasts[-1] = entry
        else:
            drawers.append(_Drawer([entry], state.gpus, state.limit_left_s))
            lasts.append(entry)
            if self.size == 1:
                self.first = state
            return
        if state.gpus < drawer.smallest:
            drawer.smallest = state.gpus
        if state.limit_left_s < drawer.shortest_s:
            drawer.shortest_s = state.limit_left_s

    def _split(self, at: int) -> None:
        drawer = self._drawers[at]
        half = len(drawer.cards) // 2
        behind = _Drawer(drawer.cards[half:], drawer.smallest, drawer.shortest_s)
        del drawer.cards[half:]
        self._drawers.insert(at + 1, behind)
        self._lasts.insert(at, drawer.cards[-1])
        drawer.look()
        behind.look()

    def remove(self, state: JobState) -> None:
        """Take a job out."""
        entry = state.entry
        at = place = 0
        cards = self._drawers[0].cards
        if cards[0] is not entry:  # most that leave are at the head
            at = bisect_left(self._lasts, entry)
            cards = self._drawers[at].cards
            place = bisect_left(cards, entry)
        del cards[place]
        self.size -= 1
        if not cards:
            del self._drawers[at]
            del self._lasts[at]
        elif place == len(cards):
            self._lasts[at] = cards[-1]
        if state is self.first:
            self.first = self._drawers[0].cards[0][2] if self.size else None

    def after(
        self, state: JobState | None, gpus: float, short_s: float = math.inf, narrow_gpus: float = 0
    ) -> JobState | None:
        """The next job behind ``state`` (from the head, when None) that asks for at most ``gpus`` devices, and whose
        limit is at
        most ``short_s`` unless it asks for at most ``narrow_gpus``.

        ``state`` may have left the queue since: its place is remembered.
        """
        drawers = self._drawers
        if state is None:
            first, begin = 0, 0
        else:
            first = bisect_right(self._lasts, state.entry)
            begin = bisect_right(drawers[first].cards, state.entry) if first < len(drawers) else 0
        for at in range(first, len(drawers)):
            drawer = drawers[at]
            if drawer.smallest <= gpus and (drawer.shortest_s <= short_s or drawer.smallest <= narrow_gpus):
                cards = drawer.cards
                for place in range(begin, len(cards)):
                    found = cards[place][2]
                    if found.gpus <= gpus and (found.limit_left_s <= short_s or found.gpus <= narrow_gpus):
                        return found
                if begin == 0:
                    drawer.look()
            begin = 0
        return None

    @property
    def last(self) -> JobState | None:
        """The end of the queue."""
        return self._lasts[-1][2] if self.size else None
