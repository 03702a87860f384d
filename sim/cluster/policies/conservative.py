"""Conservative backfill: every waiting job has a promise, like tables booked for the whole evening.

Mu'alem and Feitelson, IEEE TPDS 12(6), 2001. Two policies go by that name: one writes the whole plan anew at each pass
(as Slurm's sched/backfill does), the other keeps promises and moves them forward when a job ends early.
"""

from __future__ import annotations

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
        for number, state in enumerate(view.waiting):
            if view.free_gpus <= 0 or (self.depth is not None and number >= self.depth):
                return
            limit_s = state.limit_left_s
            start_s = plan.earliest(state.gpus, limit_s, now)
            if start_s == float("inf"):
                continue  # devices are down: no promise can be given
            if start_s <= now:
                yield Start(state)
            plan.change(-state.gpus, start_s, start_s + limit_s)


def _until(state: JobState, now_s: float) -> float:
    """When a running job is taken to end: by its limit, and an overdue one any moment (one second, assumed)."""
    return state.limit_end_s if state.limit_end_s > now_s else now_s + 1.0


@dataclass
class Bookings:
    """What ``ConservativeCompress`` remembers."""

    plan: Plan
    up_gpus: float
    start_s: dict[int, float] = field(default_factory=dict)
    """Promised start of every waiting job, by number."""
    running: dict[int, tuple[JobState, float]] = field(default_factory=dict)
    """Running jobs with the time until which they are booked."""
    jobs: dict[int, JobState] = field(default_factory=dict)

    def book(self, state: JobState, now_s: float) -> None:
        """Promise the earliest gap."""
        start_s = self.plan.earliest(state.gpus, state.limit_left_s, now_s)
        self.plan.change(-state.gpus, start_s, start_s + state.limit_left_s)
        self.start_s[state.number] = start_s
        self.jobs[state.number] = state

    def unbook(self, state: JobState) -> None:
        """Take a promise back."""
        start_s = self.start_s[state.number]
        self.plan.change(state.gpus, max(start_s, self.plan.times[0]), start_s + state.limit_left_s)

    def compress(self, now_s: float) -> None:
        """Move promises, in order of submission, each to its earliest gap with all others in place."""
        for number in sorted(self.start_s):
            state = self.jobs[number]
            if self.start_s[number] <= now_s:
                continue
            self.unbook(state)
            self.book(state, now_s)


@dataclass(frozen=True)
class ConservativeCompress(Policy):
    """Each job is promised the earliest gap when it arrives and keeps it; when a job ends, promises are moved forward
    one by
    one, in order of submission."""

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
        for number in ended:
            state, until_s = books.running.pop(number)
            books.plan.change(state.job.gpus, now, until_s)
        if ended:
            books.compress(now)
        for number, (state, until_s) in books.running.items():
            if until_s <= now:  # overdue: booked on, second by second
                books.plan.change(-state.gpus, now, now + 1.0)
                books.running[number] = (state, now + 1.0)

    def _start_due(self, books: Bookings, now: float) -> Generator[Decision, bool, None]:
        due = sorted(number for number, start_s in books.start_s.items() if start_s <= now)
        for number in due:
            state = books.jobs[number]
            if (yield Start(state)):
                books.running[number] = (state, books.start_s.pop(number) + state.limit_left_s)
                del books.jobs[number]
