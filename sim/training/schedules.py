"""Pipeline schedules: in which order a pipeline rank takes its forward and backward passes.

A schedule is a sheet of music for one player: a list of (phase, chunk, micro-batch), and nothing about how long a
note lasts.
"""

from __future__ import annotations

from typing import NamedTuple

FORWARD, BACKWARD = "forward", "backward"


class Pass(NamedTuple):
    """One pass of one micro-batch through one model chunk."""

    phase: str
    chunk: int
    micro_batch: int


def gpipe(stages: int, micro_batches: int, rank: int) -> list[Pass]:  # noqa: ARG001 - one signature for all schedules
    """All forwards, then all backwards in reverse order (Huang et al. 2019, arXiv 1811.06965)."""
    forwards = [Pass(FORWARD, 0, m) for m in range(micro_batches)]
    return forwards + [Pass(BACKWARD, 0, m) for m in reversed(range(micro_batches))]


def one_f_one_b(stages: int, micro_batches: int, rank: int) -> list[Pass]:
    """Warm-up forwards, then one forward and one backward in turn (PipeDream-flush, arXiv 2006.09503)."""
    warm_up = min(stages - 1 - rank, micro_batches)
    order = [Pass(FORWARD, 0, m) for m in range(warm_up)]
    for m in range(micro_batches - warm_up):
        order += [Pass(FORWARD, 0, m + warm_up), Pass(BACKWARD, 0, m)]
    return order + [Pass(BACKWARD, 0, m) for m in range(micro_batches - warm_up, micro_batches)]


def interleaved(stages: int, micro_batches: int, rank: int, chunks: int) -> list[Pass]:
    """Interleaved 1F1B (Narayanan et al. 2021, arXiv 2104.04473, section 2.2): each rank holds ``chunks`` chunks.

    Micro-batches go through the chunks in groups of ``stages``, so ``micro_batches`` is a multiple of ``stages``.

    Raises:
        ValueError: ``micro_batches`` is not a multiple of ``stages``.
    """
    if micro_batches % stages:
        raise ValueError(
            f"interleaving needs micro-batches ({micro_batches}) in multiples of stages ({stages})"
        )
    total = micro_batches * chunks

    def forward(k: int) -> Pass:
        group, place = divmod(k, stages * chunks)
        return Pass(FORWARD, place // stages, group * stages + place % stages)

    def backward(k: int) -> Pass:
        group, place = divmod(k, stages * chunks)
        return Pass(BACKWARD, chunks - 1 - place // stages, group * stages + place % stages)

    warm_up = min((stages - rank - 1) * 2 + (chunks - 1) * stages, total)
    if micro_batches == stages:
        warm_up = total
    order = [forward(k) for k in range(warm_up)]
    for k in range(total - warm_up):
        order += [forward(k + warm_up), backward(k)]
    return order + [backward(k) for k in range(total - warm_up, total)]


def order_of(schedule: str, stages: int, micro_batches: int, rank: int, chunks: int) -> list[Pass]:
    """The passes of ``rank`` under a named schedule."""
    if chunks > 1:
        return interleaved(stages, micro_batches, rank, chunks)
    return (
        gpipe(stages, micro_batches, rank)
        if schedule == "gpipe"
        else one_f_one_b(stages, micro_batches, rank)
    )


def in_flight(schedule: str, stages: int, micro_batches: int, rank: int, chunks: int) -> float:
    """Most micro-batches whose activations rank holds at once, in units of the rank's whole share of layers."""
    held = worst = 0
    for step in order_of(schedule, stages, micro_batches, rank, chunks):
        held += 1 if step.phase == FORWARD else -1
        worst = max(worst, held)
    return worst / chunks
