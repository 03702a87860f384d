"""The engine against what can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.results.timeline import account
from sim.training.engine import play
from sim.training.program import ChunkCost, Options, StepCost, build
from sim.training.schedules import BACKWARD, FORWARD, in_flight, order_of


def step(p: int, m: int, v: int = 1, schedule: str = "1f1b", forward: float = 1.0, backward: float = 2.0):
    cost = StepCost([[ChunkCost(forward / v, backward / v)] * v] * p)
    return play(build(cost, Options(p, m, v, schedule)))


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 2), (4, 8), (8, 8), (8, 64), (16, 20), (5, 3)])
def test_bubble_fraction_of_equal_stages(schedule: str, p: int, m: int) -> None:
    """(p-1)/(m+p-1): Huang et al. 2019, section 2.3."""
    timeline = step(p, m, schedule=schedule)
    assert timeline.step_s == pytest.approx((m + p - 1) * 3.0, rel=1e-12)
    assert account(timeline)["bubble"] / timeline.step_s == pytest.approx(
        (p - 1) / (m + p - 1), rel=1e-12, abs=1e-15
    )


@pytest.mark.parametrize(
    ("p", "m", "v"), [(2, 2, 2), (4, 8, 2), (8, 8, 3), (4, 16, 4), (16, 32, 8), (64, 128, 2)]
)
def test_interleaving_divides_the_bubble_by_the_chunks(p: int, m: int, v: int) -> None:
    """Bubble time (p-1)(F+B)/v: Narayanan et al. 2021, section 2.2.2."""
    timeline = step(p, m, v)
    assert timeline.step_s == pytest.approx((m + (p - 1) / v) * 3.0, rel=1e-12)
    assert account(timeline)["bubble"] == pytest.approx((p - 1) * 3.0 / v, rel=1e-9)


@pytest.mark.parametrize(("p", "m", "rank", "held"), [(4, 8, 0, 4), (4, 8, 3, 1), (8, 4, 0, 4), (1, 5, 0, 1)])
def test_1f1b_holds_at_most_as_many_micro_batches_as_stages_follow(
    p: int, m: int, rank: int, held: int
) -> None:
    assert in_flight("1f1b", p, m, rank, 1) == held


def test_gpipe_holds_every_micro_batch() -> None:
    assert in_flight("gpipe", 4, 8, 0, 1) == 8


@pytest.mark.parametrize(("p", "m", "v"), [(4, 8, 2), (8, 16, 4), (16, 32, 8)])
def test_interleaving_holds_more_by_one_plus_p_minus_1_over_pv(p: int, m: int, v: int) -> None:
    """Korthikanti et al. 2022, section 4.2.3: first stage holds L(1 + (p-1)/(pv)) layers' activations."""
    assert in_flight("1f1b", p, m, 0, v) == pytest.approx(p * (1 + (p - 1) / (p * v)))


@settings(max_examples=150, deadline=None)
@given(
    p=st.integers(1, 6),
    groups=st.integers(1, 4),
    v=st.integers(1, 4),
    schedule=st.sampled_from(["1f1b", "gpipe"]),
)
def test_every_schedule_runs_each_pass_once_and_forward_first(
    p: int, groups: int, v: int, schedule: str
) -> None:
    m, v = groups * p, 1 if schedule == "gpipe" else v
    for rank in range(p):
        order = order_of(schedule, p, m, rank, v)
        assert len(order) == len(set(order)) == 2 * m * v
        place = {step: number for number, step in enumerate(order)}
        for passed in order:
            if passed.phase == FORWARD:
                assert place[passed] < place[passed._replace(phase=BACKWARD)]


@settings(max_examples=60, deadline=None)
@given(
    p=st.integers(1, 5),
    m=st.integers(1, 6),
    forward=st.floats(0.01, 10),
    backward=st.floats(0.01, 10),
    tensor=st.floats(0, 1),
    send=st.floats(0, 1),
    reduce=st.floats(0, 3),
    load=st.floats(0, 2),
    overlap=st.booleans(),
    prefetch=st.integers(0, 1),
)
def test_the_books_close_and_nobody_runs_before_its_input(
    p: int,
    m: int,
    forward: float,
    backward: float,
    tensor: float,
    send: float,
    reduce: float,
    load: float,
    overlap: bool,
    prefetch: int,
) -> None:
    cost = StepCost(
        [[ChunkCost(forward * (1 + r), backward, tensor, 2 * tensor)] for r in range(p)],
        send,
        [[reduce]] * p,
        [0.1] * p,
        [reduce / 2] * p,
        load,
    )
    program = build(
        cost, Options(p, m, overlap_gradients=overlap, overlap_pipeline=overlap, prefetch=prefetch)
    )
    timeline = play(program)
    parts = account(timeline)
    assert sum(parts.values()) == pytest.approx(timeline.step_s, rel=1e-9)
    assert all(seconds >= -1e-12 for seconds in parts.values())
    for number, task in enumerate(program.tasks):
        assert all(timeline.end_s[earlier] <= timeline.start_s[number] + 1e-12 for earlier in task.after)
    assert parts["forward"] == pytest.approx(m * forward * sum(1 + r for r in range(p)) / p)


def test_a_stream_runs_one_task_at_a_time() -> None:
    cost = StepCost([[ChunkCost(1.0, 2.0, 0.1, 0.2)]] * 3, 0.3, [[0.5]] * 3, [0.1] * 3, [0.4] * 3, 0.05)
    program = build(cost, Options(3, 6, prefetch=1))
    timeline = play(program)
    last: dict[tuple[int, str], float] = {}
    for number, task in enumerate(program.tasks):
        key = (task.rank, task.stream)
        assert timeline.start_s[number] >= last.get(key, 0.0) - 1e-12
        last[key] = float(timeline.end_s[number])


def test_overlap_hides_gradients_behind_the_backward_of_the_other_chunk() -> None:
    cost = StepCost([[ChunkCost(1.0, 2.0), ChunkCost(1.0, 2.0)]], 0.0, [[1.5, 1.5]], [0.1])
    late = play(build(cost, Options(1, 1, 2, overlap_gradients=False)))
    early = play(build(cost, Options(1, 1, 2, overlap_gradients=True)))
    assert late.step_s == pytest.approx(6.0 + 3.0 + 0.1)
    assert early.step_s == pytest.approx(6.0 + 1.5 + 0.1)


def test_a_synchronous_send_costs_the_sender_too() -> None:
    cost = StepCost([[ChunkCost(1.0, 2.0)]] * 2, 0.25)
    free = play(build(cost, Options(2, 4)))
    blocking = play(build(cost, Options(2, 4, overlap_pipeline=False)))
    assert blocking.step_s > free.step_s
