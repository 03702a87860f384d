"""A step told from a few of its rounds is the step that is played in full: time, books, streams."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.results.timeline import Timeline, account_ranks
from sim.training.engine import play
from sim.training.program import build_together
from sim.training.program_parts import ChunkCost, Options, StepCost
from sim.training.rounds import LONG, PLAYED, play_rounds, round_of

SECONDS = st.floats(0.1, 3.0)


def cost(stages: int, chunks: list[ChunkCost], send_s: float) -> StepCost:
    ranks = [[chunks[(rank + place) % len(chunks)] for place in range(len(chunks))] for rank in range(stages)]
    return StepCost(ranks, send_s, optimizer_s=[0.5] * stages, straggler_s=0.25)


def assert_same(told: Timeline, whole: Timeline) -> None:
    assert told.step_s == pytest.approx(whole.step_s, rel=1e-9)
    for mine, theirs in zip(account_ranks(told), account_ranks(whole), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-7 * whole.step_s)
    assert told.busy_s() == pytest.approx(whole.busy_s(), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    stages=st.integers(1, 5),
    virtual=st.integers(1, 3),
    rounds=st.integers(LONG, LONG + 8),
    left=st.integers(0, 4),
    passes=st.lists(st.tuples(SECONDS, SECONDS, st.sampled_from([0.0, 0.05])), min_size=3, max_size=3),
    send_s=st.sampled_from([0.0, 0.01, 0.7]),
    overlap=st.booleans(),
)
def test_the_same_step_whatever_its_stages_take(
    stages: int,
    virtual: int,
    rounds: int,
    left: int,
    passes: list[tuple[float, float, float]],
    send_s: float,
    overlap: bool,
) -> None:
    virtual = virtual if stages > 1 else 1
    chunks = [ChunkCost(forward, backward, tensor, tensor) for forward, backward, tensor in passes[:virtual]]
    options = Options(
        stages, rounds * stages + left % stages, virtual, overlap_gradients=False, overlap_pipeline=overlap
    )
    copies = [(cost(stages, chunks, send_s), options)]
    assert_same(play_rounds(copies), play(build_together(copies)))


def test_a_steady_pipeline_is_told_in_a_number_of_tasks_that_does_not_grow() -> None:
    chunk = [ChunkCost(1.0, 2.0, 0.1, 0.2)]
    sizes = []
    for rounds in (20, 2000):
        options = Options(4, rounds * 4)
        told = play_rounds([(cost(4, chunk, 0.05), options)])
        assert told.skipped is not None
        assert told.skipped.rounds == rounds - PLAYED
        # at most p micro-batches are under way: p of them take as long as one takes there and back, messages included
        assert told.skipped.round_s == pytest.approx(4 * (1.0 + 2.0 + 0.1 + 0.2) + 2 * 3 * 0.05)
        sizes.append(len(told.tasks))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("schedule", ["gpipe", "zb-h1", "dualpipe"])
def test_an_order_that_is_not_known_to_repeat_is_played_in_full(schedule: str) -> None:
    chunks = [ChunkCost(1.0, 2.0, weight_s=1.0)] * (2 if schedule == "dualpipe" else 1)
    options = Options(4, 80, schedule=schedule)
    copies = [(cost(4, chunks, 0.05), options)]
    told = play_rounds(copies)
    assert told.skipped is None
    assert_same(told, play(build_together(copies)))


def test_a_bottleneck_that_fills_the_pipeline_slowly_is_not_mistaken_for_steady() -> None:
    """Stages drift apart by a thousandth a micro-batch: what settles only after the rounds played is played in full."""
    chunks = [ChunkCost(1.0, 2.0), ChunkCost(1.001, 2.0), ChunkCost(1.002, 2.003)]
    options = Options(4, 400)
    copies = [(StepCost([[chunks[rank % 3]] for rank in range(4)], 0.0, optimizer_s=[0.5] * 4), options)]
    assert_same(play_rounds(copies), play(build_together(copies)))


@pytest.mark.parametrize(("stages", "left", "size"), [(4, 0, 4), (4, 1, 7), (4, 2, 6), (3, 2, 7)])
def test_interleaving_repeats_after_the_micro_batches_that_go_through_a_chunk_together(
    stages: int, left: int, size: int
) -> None:
    options = Options(
        stages, 20 * stages + left, 2
    )  # 81 leave 4 over by 7, and less than a group of 4 by 4 to 6
    assert round_of(stages, 2, options.micro_batches) == size
    copies = [(cost(stages, [ChunkCost(1.0, 2.0, 0.1, 0.2)] * 2, 0.05), options)]
    told = play_rounds(copies)
    assert told.skipped is not None
    assert_same(told, play(build_together(copies)))
