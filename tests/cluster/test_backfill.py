"""Backfilling against a slow and obvious restatement: second by second, with free devices counted for every second."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.nodes import Pool
from sim.cluster.policies.easy import BACKFILL_ORDERS, BACKFILLS, Easy, look_ahead
from sim.cluster.policies.plan import Plan
from sim.cluster.run import simulate
from sim.cluster.state import JobState
from sim.spec.job import Job
from sim.validation.scheduling import OWN

GPUS, HORIZON = 4, 400
ROWS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, GPUS), st.integers(1, 9), st.integers(0, 9)),
    min_size=1,
    max_size=14,
)
"""Jobs as (submitted so long after the last, devices, duration, limit beyond it)."""
KEYS = {
    "submit": lambda job: 0,
    "shortest": lambda job: job.limit_s,
    "longest": lambda job: -job.limit_s,
    "narrowest": lambda job: job.gpus,
    "widest": lambda job: -job.gpus,
    "smallest": lambda job: job.gpus * job.limit_s,
    "largest": lambda job: -job.gpus * job.limit_s,
    "reverse": lambda job: -job.submit_s,
}


def jobs_of(rows: list[tuple[int, int, int, int]]) -> list[Job]:
    at, jobs = 0, []
    for number, (between, gpus, duration, slack) in enumerate(rows):
        at += between // 4
        jobs.append(Job(str(number), float(at), gpus, float(duration), float(duration + slack)))
    return jobs


def starts(jobs: list[Job], policy) -> dict[str, float | None]:
    return {record.job: record.start_s for record in simulate(iter(jobs), [Pool(1, GPUS)], policy).records}


def free_by_second(jobs: list[Job], start: dict[str, float], now: int) -> list[int]:
    """Devices free in every second from now on, by the limits of those who run and by promises made."""
    free = [GPUS] * HORIZON
    for job in jobs:
        if job.name in start and start[job.name] + job.duration_s > now:
            for second in range(int(start[job.name]), int(start[job.name] + job.limit_s)):
                free[second] -= job.gpus
    return free


def fits(free: list[int], job: Job, at: int) -> bool:
    return all(count >= job.gpus for count in free[at : at + int(job.limit_s)])


def easy_by_hand(jobs: list[Job], order: str) -> dict[str, float]:
    """The head is promised the first second from which it fits; others start where the promise still holds."""
    start: dict[str, float] = {}
    for now in range(HORIZON // 2):
        line = [job for job in jobs if job.submit_s <= now and job.name not in start]
        while line and fits(free_by_second(jobs, start, now), line[0], now):
            start[line.pop(0).name] = now
        if not line:
            continue
        head, *rest = line
        free = free_by_second(jobs, start, now)
        promised = next(at for at in range(now, HORIZON) if fits(free, head, at))
        for job in sorted(rest, key=KEYS[order]):
            tried = {**start, job.name: now}
            if fits(free_by_second(jobs, start, now), job, now) and fits(
                free_by_second(jobs, tried, now), head, promised
            ):
                start = tried
    return start


@pytest.mark.parametrize("order", [order for order in BACKFILL_ORDERS if order != "lookahead"])
@settings(max_examples=15, deadline=None)
@given(rows=ROWS)
def test_easy_in_every_order_is_the_rule_word_by_word(order: str, rows) -> None:
    jobs = jobs_of(rows)
    assert starts(jobs, Easy(order)) == easy_by_hand(jobs, order)


def compress_by_hand(jobs: list[Job]) -> dict[str, float]:
    """Promises on arrival; at a completion each in turn is taken back and given anew with all others in place."""
    start: dict[str, float] = {}

    def earliest(job: Job, now: int) -> int:
        others = {name: at for name, at in start.items() if name != job.name}
        free = free_by_second(jobs, others, now)
        return next(at for at in range(now, HORIZON) if fits(free, job, at))

    for now in range(HORIZON // 2):
        if any(
            start.get(job.name, now) + job.duration_s == now for job in jobs if start.get(job.name, now) < now
        ):
            for job in jobs:
                if start.get(job.name, -1) > now:
                    start[job.name] = earliest(job, now)
        for job in jobs:
            if job.submit_s == now:
                start[job.name] = earliest(job, now)
    return start


def rebuild_by_hand(jobs: list[Job]) -> dict[str, float]:
    """The whole plan anew at every second at which something happens."""
    start: dict[str, float] = {}
    for now in range(HORIZON // 2):
        happens = any(job.submit_s == now or start.get(job.name, now) + job.duration_s == now for job in jobs)
        planned = dict(start)
        for job in jobs if happens else ():
            if job.submit_s <= now and job.name not in start:
                free = free_by_second(jobs, planned, now)
                planned[job.name] = next(at for at in range(now, HORIZON) if fits(free, job, at))
                if planned[job.name] == now:
                    start[job.name] = now
    return start


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_both_conservative_backfills_are_their_rules_word_by_word(rows) -> None:
    jobs = jobs_of(rows)
    assert starts(jobs, OWN["conservative_compress"]) == compress_by_hand(jobs)
    assert starts(jobs, OWN["conservative_rebuild"]) == rebuild_by_hand(jobs)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), max_size=7),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_look_ahead_is_legal_and_the_best_where_nobody_outlives_the_promise(
    shapes, free: int, extra: int
) -> None:
    found = [
        JobState(Job(str(number), 0.0, gpus, 1.0, float(limit)), number)
        for number, (gpus, limit) in enumerate(shapes)
    ]
    for slack_s in (5.0, 10.0):
        chosen = look_ahead(found, free, slack_s, extra)
        assert sum(state.gpus for state in chosen) <= free
        assert sum(state.gpus for state in chosen if state.limit_left_s > slack_s) <= extra
        assert chosen == sorted(chosen, key=lambda state: state.number)
    sets = (group for size in range(len(found) + 1) for group in combinations(found, size))
    most = max(
        sum(state.gpus * state.limit_left_s for state in group)
        for group in sets
        if sum(state.gpus for state in group) <= free
    )
    assert sum(state.gpus * state.limit_left_s for state in chosen) == most


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30), st.integers(1, 12)), max_size=8),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(0, 10),
)
def test_a_promise_moves_as_if_it_were_taken_back_and_given_anew(held, gpus, lasts, start, now) -> None:
    plan, anew = Plan(4, 0.0), Plan(4, 0.0)
    for taken, begin, length in held:
        for one in (plan, anew):
            one.change(
                -taken, one.earliest(taken, length, begin), one.earliest(taken, length, begin) + length
            )
    start_s = plan.earliest(gpus, lasts, now + start)
    for one in (plan, anew):
        one.change(-gpus, start_s, start_s + lasts)
    anew.change(gpus, start_s, start_s + lasts)
    first_s = anew.earliest(gpus, lasts, now)
    assert plan.earlier(gpus, lasts, now, start_s) == min(first_s, start_s)
    anew.change(-gpus, first_s, first_s + lasts)
    plan.move(gpus, lasts, start_s, first_s)
    assert (plan.times, plan.free) == (anew.times, anew.free)


def test_names_of_the_orders() -> None:
    assert {policy.order for policy in BACKFILLS.values()} == set(BACKFILL_ORDERS) - {"submit"}
    assert OWN["easy_ljbf"].order == "longest"
