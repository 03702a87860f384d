"""Real steps of real networks: the road test after the bench.

Trains transformers, a convolutional network and a recommender for a few steps, and serves a prefill and decode
steps, on one rank or several (NCCL on devices, Gloo on a CPU, by real processes). Rows have the columns of
published-run tables, so that a prediction reads both alike. The same code runs on a GPU and on a CPU save for the
device and the stopwatch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from calibrate.environment import Machine
from calibrate.measure import StopRule, Warn, median, median_interval
from calibrate.microbenchmarks.common import REFUSALS
from calibrate.microbenchmarks.group import Group, first_only, meet_in_node, ranks_of_node
from calibrate.microbenchmarks.ranks import SILENCE_S, first_line, spawn
from calibrate.step_suite import Step
from calibrate.workloads import Running, make

RULE = StopRule()
LEAST_STEPS, MOST_STEPS, WARM_UP_STEPS = 5, 40, 2
PATIENCE = 3.0
"""A row is several whole steps, on a busy machine minutes: ranks may be silent for so many times longer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the ranks do; the same on all of them."""

    machine: Machine
    ranks: int
    steps: tuple[Step, ...]
    share_s: float
    """Time for each step of the list."""
    seed: int


def measure(
    machine: Machine, steps: Sequence[Step], share_s: float, seed: int, warn: Warn
) -> Iterator[dict[str, Any]]:
    """A row for each of ``steps``, those of one rank first, then those of several, group by group.

    Args:
        machine: device under test.
        steps: what to run.
        share_s: seconds for each; at least :data:`LEAST_STEPS` steps are timed however short.
        seed: of weights, data and order.
        warn: told what could not be run.

    Raises:
        RankError: a rank died, failed or fell silent.
    """
    for ranks in sorted({step.ranks for step in steps}):
        some = tuple(step for step in steps if step.ranks == ranks)
        plan = Plan(machine, ranks, some, share_s, seed)
        if ranks == 1:
            yield from _rows(plan, machine.device, None, warn)
        elif ranks_of_node(machine, ranks, warn) == ranks:
            yield from spawn(ranks, rank_rows, plan, warn, PATIENCE * SILENCE_S + share_s)


def rank_rows(plan: Plan, rank: int, meeting: str, warn: Warn) -> Iterator[dict[str, Any]]:
    """Run the steps as one of several ranks; only rank 0 yields rows and warns."""
    budget_s = plan.share_s * len(plan.steps)
    with meet_in_node(plan.machine, plan.ranks, rank, meeting, budget_s) as group:
        rows = _rows(plan, group.device, group, first_only(rank, warn))
        yield from (row for row in rows if rank == 0)


def _rows(plan: Plan, device: str, group: Group | None, warn: Warn) -> Iterator[dict[str, Any]]:
    import torch

    for step in plan.steps:
        torch.manual_seed(plan.seed)
        fault, run = "", None
        try:
            run = make(torch, step, device, group)
            run.once()
        except REFUSALS as refused:
            fault = first_line(refused)
        if group is not None and group.agree(float(bool(fault)))[0] and not fault:
            fault = "another rank refused"
        if fault or run is None:
            warn(f"{step.name} left out: {fault}")
        else:
            yield _row(plan.machine, step, timed(run, plan.share_s, group))
        run = (
            None  # its memory must be free before the next network is built, also where this one did not fit
        )
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of every step: by the stopwatch of the device, and by the clock on the wall."""

    device_s: tuple[float, ...]
    wall_s: tuple[float, ...]


def timed(run: Running, share_s: float, group: Group | None) -> StepTimes:
    """Time steps until ``share_s`` is spent, the slowest rank's time each.

    On a device the stopwatch is the wall clock around a synchronised step. A rank on one CPU thread has its
    computing timed by its processor time, so that other programs stay out, and its messages by the wall clock
    after all ranks have met; both clocks are kept.
    """
    import torch

    processor = not run.device.startswith("cuda") and torch.get_num_threads() == 1
    for _ in range(WARM_UP_STEPS):
        run.once()
    begin = time.perf_counter()
    device_s: list[float] = []
    wall_s: list[float] = []
    while len(device_s) < MOST_STEPS:
        _meet(run, group)
        first = time.perf_counter()
        own_s = _by_parts(run, group) if processor else _whole(run)
        took = [own_s, time.perf_counter() - first, time.perf_counter() - begin]
        if group is not None and not processor:
            took = group.agree(*took)
        elif group is not None:
            took[1:] = group.agree(*took[1:])
        device_s.append(took[0])
        wall_s.append(took[1])
        if len(device_s) >= LEAST_STEPS and took[2] >= share_s:
            break
    return StepTimes(tuple(device_s), tuple(wall_s))


def _meet(run: Running, group: Group | None) -> None:
    if run.device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(run.device)
    if group is not None:
        group.agree(0.0)


def _whole(run: Running) -> float:
    begin = time.perf_counter()
    run.once()
    if run.device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(run.device)
    return time.perf_counter() - begin


def _by_parts(run: Running, group: Group | None) -> float:
    """Slowest computing by processor time, plus slowest exchange by the wall clock."""
    begin = time.process_time()
    run.before()
    computed_s, sent_s = time.process_time() - begin, 0.0
    if run.exchange is not None and group is not None:
        group.agree(0.0)
        first = time.perf_counter()
        run.exchange()
        sent_s = time.perf_counter() - first
    begin = time.process_time()
    if run.after is not None:
        run.after()
    computed_s += time.process_time() - begin
    return sum(group.agree(computed_s, sent_s)) if group is not None else computed_s


def _row(machine: Machine, step: Step, times: StepTimes) -> dict[str, Any]:
    interval = median_interval(times.device_s)
    return {
        **step.columns(),
        "gpu": machine.gpu,
        "generation": machine.generation,
        "source": f"rackcast calibrate verify, {machine.software}",
        "step_time_s": float(f"{median(times.device_s):.6g}"),
        "low_s": float(f"{interval.low:.6g}"),
        "high_s": float(f"{interval.high:.6g}"),
        "best_s": float(f"{min(times.device_s):.6g}"),
        "wall_s": float(f"{median(times.wall_s):.6g}"),
        "steps": len(times.device_s),
    }
