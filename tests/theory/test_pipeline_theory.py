"""The engine against what can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.results.timeline import account
from sim.training.engine import play
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, StepCost
from sim.training.schedules import (
    BACKWARD,
    FORWARD,
    INPUT,
    WEIGHT,
    held_at_most,
    in_flight,
    interleaving_group,
    order_of,
)


def step(
    p: int,
    m: int,
    v: int = 1,
    schedule: str = "1f1b",
    forward: float = 1.0,
    backward: float = 2.0,
    weight: float = 0.0,
):
    chunk = ChunkCost(forward / v, backward / v, weight_s=weight)
    cost = StepCost([[chunk] * (2 if schedule == "dualpipe" else v)] * p)
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


@settings(max_examples=60, deadline=None)
@given(p=st.integers(2, 8), extra=st.integers(0, 12), v=st.integers(2, 4))
def test_interleaving_any_number_of_micro_batches_has_the_same_bubble(p: int, extra: int, v: int) -> None:
    timeline = step(p, p + extra, v)
    assert timeline.step_s == pytest.approx((p + extra + (p - 1) / v) * 3.0, rel=1e-12)


@pytest.mark.parametrize(("p", "m"), [(2, 2), (4, 4), (4, 8), (8, 16), (16, 40), (5, 7)])
@pytest.mark.parametrize(
    ("forward", "backward", "weight"), [(1.0, 2.0, 1.0), (1.0, 2.5, 0.75), (1.5, 3.0, 1.0)]
)
def test_zb_h1_bubble(p: int, m: int, forward: float, backward: float, weight: float) -> None:
    """(p-1)(F+B-2W), B the whole backward: Qi et al. 2023, Table 2. It holds while W is not the longest part."""
    timeline = step(p, m, 1, "zb-h1", forward, backward, weight)
    bubble = (p - 1) * (forward + backward - 2 * weight)
    assert timeline.step_s == pytest.approx(m * (forward + backward) + bubble, rel=1e-12)
    parts = account(timeline)
    assert parts["bubble"] == pytest.approx(bubble, rel=1e-9)
    assert parts["backward"] == pytest.approx(m * backward)


@settings(max_examples=60, deadline=None)
@given(
    p=st.integers(1, 8),
    extra=st.integers(0, 9),
    f=st.floats(0.1, 3),
    b=st.floats(0.1, 3),
    w=st.floats(0.1, 3),
)
def test_zb_h1_bubble_where_the_weight_gradient_is_long(
    p: int, extra: int, f: float, b: float, w: float
) -> None:
    """(p-1) max(F+B-W, F, B) with B the input gradient: at worst one pass a stage is left of the ramp."""
    m = p + extra
    bubble = (p - 1) * max(f + b - w, f, b)
    assert step(p, m, 1, "zb-h1", f, b + w, w).step_s == pytest.approx(m * (f + b + w) + bubble, rel=1e-12)


@pytest.mark.parametrize(("p", "m"), [(2, 4), (2, 10), (4, 8), (4, 14), (8, 16), (8, 32), (16, 32), (16, 64)])
def test_dualpipe_bubble(p: int, m: int) -> None:
    """(p/2-1)(F&B + B - 3W): deepseek-ai/DualPipe, README. Exact for F = B_in = W, where F&B = F + B."""
    timeline = step(p, m, 1, "dualpipe", 1.0, 2.0, 1.0)
    bubble = (p / 2 - 1) * (3.0 + 2.0 - 3.0)
    assert timeline.step_s == pytest.approx(3.0 * m + bubble, rel=1e-12)
    assert account(timeline)["bubble"] == pytest.approx(bubble, rel=1e-9, abs=1e-12)


def test_a_pair_hides_messages_behind_kernels() -> None:
    """Steady state of DualPipe: a pair takes the longer of its kernels and its messages, a lone pass takes both."""
    chunks = [ChunkCost(1.0, 2.0, 0.5, 0.5, weight_s=1.0)] * 2
    few = play(build(StepCost([chunks] * 4), Options(4, 8, schedule="dualpipe")))
    many = play(build(StepCost([chunks] * 4), Options(4, 28, schedule="dualpipe")))
    assert many.step_s - few.step_s == pytest.approx(20 * 3.0)
    assert account(few)["tensor communication"] > 0
    slow = [ChunkCost(1.0, 2.0, 2.0, 3.0, weight_s=1.0)] * 2
    few = play(build(StepCost([slow] * 4), Options(4, 8, schedule="dualpipe")))
    many = play(build(StepCost([slow] * 4), Options(4, 28, schedule="dualpipe")))
    assert many.step_s - few.step_s == pytest.approx(20 * 5.0)


@pytest.mark.parametrize("p", [2, 4, 8])
def test_split_schedules_hold_the_published_number_of_micro_batches(p: int) -> None:
    """ZB-H1 as many as 1F1B's first rank, on every rank; DualPipe p + 1 (its README)."""
    for rank in range(p):
        assert in_flight("zb-h1", p, 4 * p, rank, 1) == p
        assert in_flight("dualpipe", p, 4 * p, rank, 1) == p + 1


@given(p=st.integers(1, 9), m=st.integers(1, 30), data=st.data())
def test_zb_h1_holds_what_its_schedule_holds(p: int, m: int, data: st.DataObject) -> None:
    """The closed form against the schedule walked pass by pass, with fewer micro-batches than stages, too."""
    rank = data.draw(st.integers(0, p - 1))
    held = worst = 0
    for phase, *_ in order_of("zb-h1", p, m, rank, 1):
        held += {FORWARD: 1, WEIGHT: -1}.get(phase, 0)
        worst = max(worst, held)
    assert (held, in_flight("zb-h1", p, m, rank, 1)) == (0, worst)


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


@settings(max_examples=100, deadline=None)
@given(half=st.integers(1, 5), extra=st.integers(0, 6), schedule=st.sampled_from(["zb-h1", "dualpipe"]))
def test_a_split_backward_makes_every_gradient_once_and_in_order(
    half: int, extra: int, schedule: str
) -> None:
    p, m = 2 * half, 4 * half + 2 * extra
    for rank in range(p):
        order = order_of(schedule, p, m, rank, 1)
        work = {(step.chunk, step.micro_batch): [] for step in order}
        for step in order:
            work[step.chunk, step.micro_batch].append(step.phase)
        assert len(work) == m
        allowed = [[FORWARD, BACKWARD], [FORWARD, INPUT, WEIGHT]]
        assert all(phases in allowed for phases in work.values())


@pytest.mark.parametrize(
    ("p", "m", "group"), [(4, 8, 4), (4, 9, 5), (4, 13, 7), (4, 7, 7), (3, 3, 3), (8, 20, 10)]
)
def test_a_last_group_of_micro_batches_is_none_or_fills_the_pipeline(p: int, m: int, group: int) -> None:
    assert interleaving_group(p, m) == group


def test_orders_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="at least as many"):
        order_of("1f1b", 4, 3, 0, 2)
    for p, m in ((3, 8), (4, 9), (4, 6)):
        with pytest.raises(ValueError, match="DualPipe needs"):
            order_of("dualpipe", p, m, 0, 1)


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
    schedule=st.sampled_from(["1f1b", "gpipe", "zb-h1", "dualpipe"]),
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
    schedule: str,
) -> None:
    if schedule == "dualpipe":
        p, m = p + p % 2, 2 * (p + p % 2) + 2 * m
    chunks = [[ChunkCost(forward * (1 + r), backward, tensor, 2 * tensor, backward / 3)] for r in range(p)]
    if schedule == "dualpipe":
        chunks = [mine + other for mine, other in zip(chunks, reversed(chunks), strict=True)]
    cost = StepCost(
        chunks,
        send,
        [[reduce] * len(chunks[0])] * p,
        [0.1] * p,
        [reduce / 2] * p,
        load,
    )
    options = Options(
        p, m, 1, schedule, overlap_gradients=overlap, overlap_pipeline=overlap, prefetch=prefetch
    )
    program = build(cost, options)
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


@settings(max_examples=200, deadline=None)
@given(
    schedule=st.sampled_from(["1f1b", "gpipe"]),
    p=st.integers(1, 6),
    m=st.integers(1, 20),
    v=st.integers(1, 4),
    rank=st.integers(0, 5),
)
def test_what_a_rank_holds_follows_from_its_warm_up(schedule: str, p: int, m: int, v: int, rank: int) -> None:
    """The closed form of activations in flight is the count over the schedule's own passes."""
    v = v if schedule == "1f1b" and p > 1 and m >= p else 1
    rank = min(rank, p - 1)
    assert in_flight(schedule, p, m, rank, v) == held_at_most(schedule, p, m, rank, v)
