"""Conservative backfill: every waiting job has a promise, like tables booked for the whole evening.

Mu'alem and Feitelson, IEEE TPDS 12(6), 2001. Two policies go by that name: one writes the whole plan anew at each pass
(as Slurm's sched/backfill does), the other keeps promises and moves them forward when a job ends early.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Generator
from dataclasses import dataclass, field

from sim.cluster.policies.plan import Plan
from sim.cluster.policy import Decision, Decisions, Policy, Start, View
from sim.cluster.state import JobState


@dataclass(frozen=True)
class Conservative(Policy):
    """At every pass the plan is built from nothing in order of submission, by limits; a job planned for now starts."""

    depth: int | None = None
    """Plan for so many jobs only (Slurm's bf_max_job_test); none = for all."""
    name: str = "conservative"

    def decide(self, view: View) -> Decisions:
        """Plan, and start what is planned for now."""
        now = view.now_s
        plan = Plan(view.up_gpus, now)
        for state in view.running:
            plan.change(-state.gpus, now, _until(state, now))
        # The plan only fills up while it is made: a job starts no sooner than an earlier one of its shape, and once
        # nobody further down can have what is free now, the rest need no planning.
        floor_s: dict[tuple[int, float], float] = {}
        hopeful: JobState | None = None
        for number, state in enumerate(view.waiting):
            if view.free_gpus <= 0 or (self.depth is not None and number >= self.depth):
                return
            if hopeful is None or hopeful.number < state.number:
                hopeful = _hopeful(view, plan, state, now)
                if hopeful is None:
                    return
            shape = state.gpus, state.limit_left_s
            start_s = plan.earliest(*shape, floor_s.get(shape, now))
            if start_s == math.inf:
                continue  # devices are down: no promise can be given
            floor_s[shape] = start_s
            if start_s <= now:
                yield Start(state)
            plan.change(-state.gpus, start_s, start_s + state.limit_left_s)


def _hopeful(view: View, plan: Plan, state: JobState, now_s: float) -> JobState | None:
    """The first from ``state`` on that is small and short enough to start now, as far as a glance can tell."""
    free, short_s = plan.free_at(now_s), plan.first_below(1, now_s) - now_s
    if state.gpus <= free and (state.limit_left_s <= short_s or not state.gpus):
        return state
    return view.waiting.after(state, free, short_s)


def _until(state: JobState, now_s: float) -> float:
    """When a running job is taken to end: by its limit, and an overdue one any moment (one second, assumed)."""
    return state.limit_end_s if state.limit_end_s > now_s else now_s + 1.0


@dataclass
class Bookings:
    """What ``ConservativeCompress`` remembers.

    A job moves only where devices have become free since it was last looked at, so the hull of those times is kept and
    most jobs need a glance at it instead of a search.
    """

    plan: Plan
    up_gpus: float
    start_s: dict[int, float] = field(default_factory=dict)
    """Promised start of every waiting job, by number."""
    line: list[tuple[float, int]] = field(default_factory=list)
    """The same as (start, number), sorted."""
    running: dict[int, tuple[JobState, float]] = field(default_factory=dict)
    """Running jobs with the time until which they are booked."""
    jobs: dict[int, JobState] = field(default_factory=dict)
    freed: tuple[float, float] = (math.inf, -math.inf)
    """Hull of what moves gave back in the last compression: those ahead of who moved have not been asked since."""

    def book(self, state: JobState, now_s: float) -> None:
        """Promise the earliest gap."""
        start_s = self.plan.earliest(state.gpus, state.limit_left_s, now_s)
        self.plan.change(-state.gpus, start_s, start_s + state.limit_left_s)
        self.jobs[state.number] = state
        self.start_s[state.number] = start_s
        insort(self.line, (start_s, state.number))

    def move(self, state: JobState, to_s: float) -> None:
        """Another promise instead."""
        start_s = self.start_s[state.number]
        self.plan.move(state.gpus, state.limit_left_s, start_s, to_s)
        self.start_s[state.number] = to_s
        del self.line[bisect_left(self.line, (start_s, state.number))]
        insort(self.line, (to_s, state.number))

    def begin(self, state: JobState) -> None:
        """A promise is kept: the job runs."""
        start_s = self.start_s.pop(state.number)
        del self.line[bisect_left(self.line, (start_s, state.number))]
        del self.jobs[state.number]
        self.running[state.number] = (state, start_s + state.limit_left_s)

    def compress(self, now_s: float, until_s: float) -> None:
        """Move promises, in order of submission, each to its earliest gap with all others in place.

        Devices have been given back between now and ``until_s``.
        """
        before, after = min(self.freed[0], now_s), max(self.freed[1], until_s)
        self.freed = (math.inf, -math.inf)
        for number in sorted(self.start_s):
            start_s, state = self.start_s[number], self.jobs[number]
            if start_s <= now_s or not self._may_move(state, start_s, max(before, now_s), after):
                continue
            found_s = self.plan.earlier(state.gpus, state.limit_left_s, now_s, start_s)
            if found_s < start_s:
                self.move(state, found_s)
                end_s = start_s + state.limit_left_s
                self.freed = min(self.freed[0], start_s), max(self.freed[1], end_s)
                before, after = min(before, start_s), max(after, end_s)

    def _may_move(self, state: JobState, start_s: float, before_s: float, after_s: float) -> bool:
        """Whether an earlier gap can have opened up, where devices have become free within these times.

        Such a gap takes in a moment that was freed: one before its present start at which there are devices for it, or
        a later one, and then there must be devices for it right before its present start.
        """
        times, free, gpus = self.plan.times, self.plan.free, state.gpus
        here = bisect_left(times, start_s)
        if after_s > start_s and free[here - 1] >= gpus:
            return True
        first = max(bisect_right(times, before_s) - 1, 0)
        last = here if after_s >= start_s else bisect_left(times, after_s)
        return first < last and max(free[first:last]) >= gpus


@dataclass(frozen=True)
class ConservativeCompress(Policy):
    """Each job is promised the earliest gap when it arrives and keeps it; when a job ends, promises are moved forward
    one by one, in order of submission."""

    name: str = "conservative-compress"

    def decide(self, view: View) -> Decisions:
        """Bring the bookings up to date, then start what is due."""
        now = view.now_s
        memory = view.memory
        books: Bookings | None = memory.get("bookings")
        if books is None or books.up_gpus != view.up_gpus:
            books = memory["bookings"] = self._anew(view)
        books.plan.forget(now)
        self._clear_ended(books, now)
        newest = view.waiting.last
        if (
            newest is not None
            and newest.number not in books.start_s
            and view.waiting.size == len(books.start_s) + 1
        ):
            books.book(newest, now)
        elif view.waiting.size != len(books.start_s):
            for state in view.waiting:
                if state.number not in books.start_s:
                    books.book(state, now)
        yield from self._start_due(books, now)

    def _anew(self, view: View) -> Bookings:
        """All bookings from nothing: at the start, and when nodes have come or gone."""
        books = Bookings(Plan(view.up_gpus, view.now_s), view.up_gpus)
        for state in view.running:
            until_s = _until(state, view.now_s)
            books.plan.change(-state.gpus, view.now_s, until_s)
            books.running[state.number] = (state, until_s)
        return books

    def _clear_ended(self, books: Bookings, now: float) -> None:
        ended = [number for number, (state, _) in books.running.items() if not state.running]
        freed_until_s = now
        for number in ended:
            state, until_s = books.running.pop(number)
            books.plan.change(state.job.gpus, now, until_s)
            freed_until_s = max(freed_until_s, until_s)
        if ended:
            books.compress(now, freed_until_s)
        for number, (state, until_s) in books.running.items():
            if until_s <= now:  # overdue: booked on, second by second
                books.plan.change(-state.gpus, now, now + 1.0)
                books.running[number] = (state, now + 1.0)

    def _start_due(self, books: Bookings, now: float) -> Generator[Decision, bool, None]:
        due = books.line[: bisect_right(books.line, (now, math.inf))]
        for number in sorted(number for _, number in due):
            state = books.jobs[number]
            if (yield Start(state)):
                books.begin(state)
