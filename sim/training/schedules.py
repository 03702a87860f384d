"""Pipeline schedules: in which order a pipeline rank takes its forward and backward passes.

A schedule is a sheet of music for one player: a list of (phase, chunk, micro-batch), and nothing about how long a
note lasts.
"""

from __future__ import annotations

from collections import deque
from functools import cache, lru_cache
from typing import NamedTuple

FORWARD, BACKWARD, INPUT, WEIGHT = "forward", "backward", "input", "weight"
"""Phases of a pass. A backward pass is whole, or split into its input gradient (which the stage before waits for) and
its weight gradient (which nobody waits for): Qi et al. 2023, arXiv 2401.10241."""


class Pass(NamedTuple):
    """One pass of one micro-batch through one model chunk."""

    phase: str
    chunk: int
    micro_batch: int
    paired: bool = False
    """A forward that runs interwoven with the backward after it, so that each hides the other's messages."""


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


def zero_bubble_h1(stages: int, micro_batches: int, rank: int) -> list[Pass]:
    """ZB-H1 (Qi et al. 2023, arXiv 2401.10241, section 2.1): 1F1B with the backward split.

    Rank r puts off r weight gradients: the input gradients go ahead, the postponed work fills what was the bubble, and
    every rank holds as many micro-batches as the first one.
    """
    order: list[Pass] = []
    for step in one_f_one_b(stages, micro_batches, rank):
        if step.phase == FORWARD:
            order.append(step)
            continue
        order.append(step._replace(phase=INPUT))
        if step.micro_batch >= rank:
            order.append(Pass(WEIGHT, 0, step.micro_batch - rank))
    return order + [Pass(WEIGHT, 0, m) for m in range(max(micro_batches - rank, 0), micro_batches)]


def interleaved(stages: int, micro_batches: int, rank: int, chunks: int, group: int = 0) -> list[Pass]:
    """Interleaved 1F1B (Narayanan et al. 2021, arXiv 2104.04473, section 2.2): each rank holds ``chunks`` chunks.

    Micro-batches go through the chunks in groups; the last group may be smaller.

    Args:
        group: micro-batches of a group; 0 = :func:`interleaving_group`.

    Raises:
        ValueError: fewer ``micro_batches`` than ``stages``.
    """
    group = group or interleaving_group(stages, micro_batches)
    forward, backward = _interleaved_passes(micro_batches, chunks, group)
    total = len(forward)
    warm_up = warm_up_of(stages, micro_batches, rank, chunks, group)
    order = list(forward[:warm_up])
    for pair in zip(forward[warm_up:], backward, strict=False):
        order += pair
    order += backward[total - warm_up :]
    return order


@lru_cache(maxsize=8)
def _interleaved_passes(
    micro_batches: int, chunks: int, group: int
) -> tuple[tuple[Pass, ...], tuple[Pass, ...]]:
    """All forwards and all backwards in the order in which every rank takes them."""
    table = [
        (chunk, micro_batch)
        for first in range(0, micro_batches, group)
        for chunk in range(chunks)
        for micro_batch in range(first, min(first + group, micro_batches))
    ]
    forward = tuple(Pass(FORWARD, chunk, m) for chunk, m in table)
    return forward, tuple(Pass(BACKWARD, chunks - 1 - chunk, m) for chunk, m in table)


def warm_up_of(stages: int, micro_batches: int, rank: int, chunks: int, group: int = 0) -> int:
    """Forwards of an interleaved rank before its first backward (megatron/core/pipeline_parallel/schedules.py)."""
    total = micro_batches * chunks
    if micro_batches == stages:
        return total
    group = group or interleaving_group(stages, micro_batches)
    return min((stages - rank - 1) * 2 + (chunks - 1) * group, total)


def interleaving_group(stages: int, micro_batches: int) -> int:
    """Micro-batches that go through a chunk before the next chunk's turn: the smallest number that serves.

    As Megatron-Core's ``microbatch_group_size_per_vp_stage`` it is at least ``stages``, and what is left over for the
    last group is nothing or at least ``stages`` (megatron/core/pipeline_parallel/schedules.py).

    Raises:
        ValueError: fewer ``micro_batches`` than ``stages``.
    """
    if micro_batches < stages:
        raise ValueError(
            f"interleaving needs at least as many micro-batches ({micro_batches}) as stages ({stages})"
        )
    sizes = range(stages, micro_batches + 1)
    return next(n for n in sizes if micro_batches % n == 0 or micro_batches % n >= stages)


def dual_pipe(stages: int, micro_batches: int, rank: int) -> list[Pass]:
    """DualPipe (DeepSeek-AI 2024, arXiv 2412.19437, section 3.2.1): micro-batches enter at both ends.

    Rank r holds stage r as chunk 0 and stage p-1-r as chunk 1; the first half of the micro-batches goes down through
    the chunks 0, the second half goes up through the chunks 1. The eight steps are those of deepseek-ai/DualPipe.

    Raises:
        ValueError: ``stages`` or ``micro_batches`` is odd, or ``micro_batches`` is less than twice ``stages``.
    """
    if stages % 2 or micro_batches % 2 or micro_batches < 2 * stages:
        text = f"an even number of stages and of micro-batches, two for each stage: {stages}, {micro_batches}"
        raise ValueError(f"DualPipe needs {text}")
    half = micro_batches // 2
    place = min(rank, stages - 1 - rank)
    outer = stages // 2 - 1 - place  # ranks between this one and the middle
    far = rank >= stages // 2  # the near direction enters at this rank's end of the pipeline
    order: list[Pass] = []
    forwards, backwards = [0, 0], [0, 0]
    put_off: deque[Pass] = deque()

    def forward(direction: int, paired: bool = False) -> None:
        chunk = direction ^ far
        order.append(Pass(FORWARD, chunk, chunk * half + forwards[direction], paired))
        forwards[direction] += 1

    def backward(direction: int, split: bool = False) -> None:
        chunk = direction ^ far
        step = Pass(INPUT if split else BACKWARD, chunk, chunk * half + backwards[direction])
        backwards[direction] += 1
        order.append(step)
        if split:
            put_off.append(step._replace(phase=WEIGHT))

    for _ in range(2 * outer):
        forward(0)
    for _ in range(place + 1):
        forward(0)
        forward(1)
    for _ in range(outer):
        backward(1, split=True)
        order.append(put_off.popleft())
        forward(1)
    for number in range(half - stages + place + 1):
        forward(0, paired=number > 0 or outer > 0)  # the middle ranks start unpaired: a smaller bubble
        backward(1)
        forward(1, paired=True)
        backward(0)
    for _ in range(outer):
        backward(1)
        forward(1, paired=True)
        backward(0)
    for number in range(2 * (place + 1)):
        backward(1 - number % 2, split=number > place)
    for _ in range(outer):
        order.append(put_off.popleft())
        backward(0, split=True)
    return order + list(put_off)


def order_of(
    schedule: str, stages: int, micro_batches: int, rank: int, chunks: int, group: int = 0
) -> list[Pass]:
    """The passes of ``rank`` under a named schedule; ``group``: see :func:`interleaved`."""
    if chunks > 1:
        return interleaved(stages, micro_batches, rank, chunks, group)
    orders = {"gpipe": gpipe, "zb-h1": zero_bubble_h1, "dualpipe": dual_pipe}
    return orders.get(schedule, one_f_one_b)(stages, micro_batches, rank)


def stages_of(schedule: str, stages: int, rank: int, chunks: int) -> list[int]:
    """The (virtual) stages that ``rank`` holds, by chunk."""
    if schedule == "dualpipe":
        return [rank, stages - 1 - rank]
    return [chunk * stages + rank for chunk in range(chunks)]


def in_flight(schedule: str, stages: int, micro_batches: int, rank: int, chunks: int) -> float:
    """Most micro-batches whose activations rank holds at once, in units of one copy of the rank's share of layers.

    Under 1F1B a rank warms up and then holds one more: min(p - rank, m) (Narayanan et al. 2019, PipeDream), or with
    chunks :func:`warm_up_of` of them. A split backward lets go of them with the weight gradient: under ZB-H1 every rank
    holds as many as the first one (Qi et al. 2023, section 2.1).
    """
    if chunks > 1:
        total = micro_batches * chunks
        return min(warm_up_of(stages, micro_batches, rank, chunks) + 1, total) / chunks
    held = {"1f1b": stages - rank, "zb-h1": stages, "gpipe": micro_batches}.get(schedule)
    if held is not None:
        return float(min(held, micro_batches))
    return held_at_most(schedule, stages, micro_batches, rank, chunks)


@cache
def held_at_most(schedule: str, stages: int, micro_batches: int, rank: int, chunks: int) -> float:
    """What :func:`in_flight` says, counted pass by pass."""
    held = worst = 0
    for step in order_of(schedule, stages, micro_batches, rank, chunks):
        held += {FORWARD: 1, INPUT: 0}.get(step.phase, -1)
        worst = max(worst, held)
    return worst / chunks
