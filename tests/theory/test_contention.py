"""Tasks that slow each other down, against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.results.timeline import Task, account
from sim.spec.loader import loads
from sim.training.contention import MESSAGES, NETWORK, Contention
from sim.training.engine import play
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, Program, StepCost


def times(contention: Contention, *tasks: Task) -> list[tuple[float, float]]:
    timeline = play(Program(list(tasks), contention))
    return list(zip(timeline.start_s.tolist(), timeline.end_s.tolist(), strict=True))


def task(stream: str, kind: str, seconds: float, *after: int, rank: int = 0) -> Task:
    return Task(rank, stream, kind, 0, 0, seconds, after)


def test_two_messages_share_the_cards_and_a_third_rank_does_not_care() -> None:
    """3 s and 1 s at half speed: the short one ends at 2 s, the long one has 2 s left and ends at 4 s."""
    found = times(
        Contention(shared_network=True),
        task("gradients", "gradients", 3.0),
        task("send backward", "send", 1.0),
        task("send backward", "send", 1.0, rank=1),
    )
    assert found == [(0, 4), (0, 2), (0, 1)]


def test_a_latecomer_slows_down_what_is_under_way() -> None:
    """After 1 s alone, 2 s are left at half speed; the latecomer's 1 s takes 2 s; then 1 s at full speed."""
    found = times(
        Contention(shared_network=True),
        task("gradients", "gradients", 3.0),
        task("compute", "backward", 1.0),
        task("send backward", "send", 1.0, 1),
    )
    assert found == [(0, 4), (0, 1), (1, 3)]


def test_kernels_are_slower_while_a_message_is_under_way() -> None:
    """2 s of message do 2 / 1.25 s of the kernels' work; the other 2.4 s run at full speed."""
    found = times(
        Contention(False, 0.25), task("gradients", "gradients", 2.0), task("compute", "backward", 4.0)
    )
    assert found[0] == (0, 2)
    assert found[1] == (0, pytest.approx(2 + 4 - 2 / 1.25))


@settings(max_examples=60, deadline=None)
@given(
    p=st.integers(1, 4),
    k=st.integers(1, 3),
    v=st.integers(1, 3),
    send=st.floats(0.01, 1),
    reduce=st.floats(0.1, 8),
    slowdown=st.sampled_from([0.0, 0.2, 1.0]),
    shared=st.booleans(),
)
def test_no_work_is_lost_and_the_books_close(
    p: int, k: int, v: int, send: float, reduce: float, slowdown: float, shared: bool
) -> None:
    v = v if p > 1 else 1
    cost = StepCost([[ChunkCost(1.0, 2.0, 0.1, 0.1)] * v] * p, send, [[reduce] * v] * p, [0.5] * p, [0.3] * p)
    program = build(cost, Options(p, k * p, v, contention=Contention(shared, slowdown)))
    free, busy = play(build(cost, Options(p, k * p, v))), play(program)
    if not shared and slowdown == 0:
        np.testing.assert_array_equal(free.end_s, busy.end_s)
    assert sum(account(busy).values()) == pytest.approx(busy.step_s, rel=1e-9)
    took, work = busy.end_s - busy.start_s, np.array([t.duration_s for t in program.tasks])
    assert np.all(took >= work - 1e-9)
    assert busy.step_s >= free.step_s - 1e-9
    for rank in range(p):
        cuts = np.unique(np.concatenate([busy.start_s, busy.end_s]))
        middle, length = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
        mine = [n for n, t in enumerate(program.tasks) if t.rank == rank and took[n] > 0]
        on = np.array([(busy.start_s[n] < middle) & (middle < busy.end_s[n]) for n in mine])
        kinds = [program.tasks[n].kind for n in mine]
        network = np.array([kind in NETWORK for kind in kinds])
        messages = on[np.array([kind in MESSAGES for kind in kinds])].any(axis=0)
        kernels = np.array([program.tasks[n].stream == "compute" for n in mine])
        assert (
            length * on[kernels].any(axis=0) / np.where(messages, 1 + slowdown, 1)
        ).sum() == pytest.approx(work[mine][kernels].sum())
        if shared and network.any():  # the cards never idle while a message waits
            assert (length * on[network].any(axis=0)).sum() == pytest.approx(work[mine][network].sum())


def test_a_scenario_may_ask_for_it(small: str) -> None:
    one = ["training.plan.tensor=8", "training.plan.pipeline=2"]
    free = sim.run(loads(small, overrides=one))
    slowed = sim.run(loads(small, overrides=[*one, "training.plan.overlap_slowdown_frac=0.2"]))
    assert slowed.step_s > free.step_s
    shared = sim.run(loads(small, overrides=["training.plan.share_network=true"]))
    assert shared.step_s >= sim.run(loads(small)).step_s
