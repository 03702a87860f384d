"""The walk through a program against the same program event by event."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.training.engine import play, play_events
from sim.training.program import build_together
from sim.training.program_parts import ChunkCost, Options, StepCost

SECONDS = st.floats(0, 3, allow_subnormal=False)


@settings(max_examples=120, deadline=None)
@given(
    schedule=st.sampled_from(["1f1b", "gpipe", "zb-h1", "dualpipe"]),
    stages=st.integers(1, 4),
    chunks=st.integers(1, 3),
    micro=st.integers(1, 6),
    passes=st.tuples(SECONDS, SECONDS, SECONDS, SECONDS),
    others=st.tuples(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS),
    gathered=st.booleans(),
    overlap=st.booleans(),
    second=st.floats(0.5, 2),
)
def test_both_ways_of_playing_give_the_same_numbers(
    schedule: str,
    stages: int,
    chunks: int,
    micro: int,
    passes: tuple[float, float, float, float],
    others: tuple[float, float, float, float, float],
    gathered: bool,
    overlap: bool,
    second: float,
) -> None:
    """Bit by bit, also with two unlike copies, ZeRO 3 gathers, buckets, loading, stragglers and host copies."""
    if schedule == "dualpipe":
        stages, micro = 2 * (1 + stages // 2), 2 * stages * (micro + 1) + 4
    chunks = chunks if schedule == "1f1b" and stages > 1 else 1
    held = 2 if schedule == "dualpipe" else chunks
    count = max(micro, stages) if chunks > 1 else micro
    send, reduce, update, load, late = others
    split = schedule in ("zb-h1", "dualpipe")

    def copy(factor: float) -> tuple[StepCost, Options]:
        forward, backward, tensor, offload = (seconds * factor for seconds in passes)
        chunk = ChunkCost(forward, backward, tensor, tensor, backward / 3, 0.0 if split else offload)
        cost = StepCost(
            [[chunk] * held] * stages,
            send,
            [[reduce] * held] * stages,
            [update] * stages,
            [load] * stages,
            load,
            late,
            weights_s=[[reduce] * held] * stages if gathered and not split else (),
            layers=[[3] * held] * stages,
        )
        return cost, Options(
            stages, count, chunks, schedule, overlap, overlap, prefetch=1, gradient_buckets=2
        )

    program = build_together([copy(1.0), copy(second)])
    walked, evented = play(program), play_events(program)
    assert walked.start_s.tolist() == evented.start_s.tolist()
    assert walked.end_s.tolist() == evented.end_s.tolist()
