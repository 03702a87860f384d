"""What computing and sending cost each other: two people at one desk.

A matrix product is timed alone and while an all-reduce of the same ranks is under way; the difference is the
overlap slowdown that a step with hidden communication pays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from calibrate.environment import Machine
from calibrate.measure import Block, Point, StopRule, Warn, sweep
from calibrate.microbenchmarks.common import ENGINE
from calibrate.microbenchmarks.group import Group, Plan, first_only, meet_in_node, ranks_of_node
from calibrate.microbenchmarks.ranks import spawn

RULE = StopRule(block_s=0.02, max_blocks=30, warm_up_blocks=3, max_calls=50)


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, *, processes: int = 0
) -> Iterator[dict[str, Any]]:
    """Rows of table ``overlap``: ``alone`` and ``beside`` an all-reduce, seconds of the same product.

    Raises:
        RankError: a rank died, failed or fell silent.
    """
    ranks = ranks_of_node(machine, processes, warn)
    if ranks < 2:
        return
    yield from spawn(ranks, rank_rows, Plan(machine, ranks, budget_s, seed), warn)


def rank_rows(plan: Plan, rank: int, meeting: str, warn: Warn) -> Iterator[dict[str, Any]]:
    """Measure as one rank; only rank 0 yields rows."""
    machine = plan.machine
    with meet_in_node(machine, plan.ranks, rank, meeting, plan.budget_s) as group:
        group.block(lambda: None)(1)  # starts the clock
        side, size = (4096, 2**27) if machine.is_cuda else (768, 2**23)
        points = [
            Point(
                {"mode": mode, "ranks": plan.ranks, "side": side, "size_bytes": size, "engine": ENGINE},
                lambda mode=mode: _block(group, mode, side, size),
            )
            for mode in ("alone", "beside")
        ]
        for point, timing in sweep(
            points,
            plan.budget_s,
            plan.seed,
            first_only(rank, warn),
            rule=RULE,
            clock=group.clock,
            least=len(points),
        ):
            if rank == 0:
                yield {**machine.columns, **point.columns, **timing.columns()}


def _block(group: Group, mode: str, side: int, size: int) -> Block:
    torch = group.torch
    dtype = torch.float32 if group.device == "cpu" else torch.bfloat16
    a, b = (torch.randn(side, side, device=group.device).to(dtype) for _ in range(2))
    sent = torch.ones(size // 4, device=group.device)

    def wait() -> None:
        if group.device != "cpu":
            torch.cuda.synchronize(group.device)

    def block(calls: int) -> float:
        """Products alone, or each beside an all-reduce that is still under way when it ends (or the reverse)."""
        group.agree(0.0)
        took = 0.0
        for _ in range(calls):
            work = None
            if mode == "beside":
                work = torch.distributed.all_reduce(sent, torch.distributed.ReduceOp.MAX, async_op=True)
            begin = time.perf_counter()
            if group.device == "cpu":
                torch.mm(a, b)
                took += time.perf_counter() - begin
            else:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                torch.mm(a, b)
                last.record()
                last.synchronize()
                took += float(first.elapsed_time(last)) / 1e3
            if work is not None:
                work.wait()
        wait()
        slowest_s, group.clock.now_s = group.agree(took, time.perf_counter() - group.begin_s)
        return slowest_s

    return block
