"""How many micro-batches' activations a pipeline rank holds at once, without writing the schedule out.

Like counting the plates on a waiter's arm from the menu alone: the schedule says how many go out before the first one
comes back. Held to :func:`sim.training.schedules.in_flight`, which counts them one by one, by a test.
"""

from __future__ import annotations

from sim.training.schedules import interleaving_group


def in_flight(schedule: str, stages: int, micro_batches: int, rank: int, chunks: int) -> float:
    """Most micro-batches whose activations ``rank`` holds, in units of the rank's share of layers.

    1F1B: the warm-up and one more (arXiv 2006.09503); interleaved likewise in chunks (arXiv 2104.04473, section 2.2);
    ZB-H1: as many on every rank as on the first (arXiv 2401.10241, section 2.1).

    Raises:
        ValueError: ``schedule`` is none of these.
    """
    if schedule == "zb-h1":
        return float(min(stages, micro_batches))
    if schedule != "1f1b":
        raise ValueError(f"schedule {schedule!r}: expected 1f1b or zb-h1")
    if chunks == 1:
        return float(min(stages - rank, micro_batches))
    total = micro_batches * chunks
    group = interleaving_group(stages, micro_batches)
    warm_up = min((stages - rank - 1) * 2 + (chunks - 1) * group, total)
    if micro_batches == stages:
        warm_up = total
    return min(warm_up + 1, total) / chunks
