"""Whole layers in their place: an orchestra after the soloists, because together they play slower.

A transformer layer, dense or with experts, forward and backward, on one rank and on all ranks of the node at
once; beside it an optimizer step. What a layer takes over the sum of its kernels is the factor that a step needs,
and what all ranks at once take over one alone is what they cost each other (memory, power, heat).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from calibrate.blocks import device_block
from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, StopRule, Warn, sweep
from calibrate.microbenchmarks import optimizer
from calibrate.microbenchmarks.common import ENGINE, Earlier, rows_of
from calibrate.microbenchmarks.group import Group, Plan, first_only, meet_in_node, ranks_of_node
from calibrate.microbenchmarks.ranks import spawn


class Call(NamedTuple):
    """One layer on one micro-batch."""

    batch: int
    seq_len: int
    hidden: int
    heads: int
    kv_heads: int
    ffn_hidden: int
    experts: int = 0
    topk: int = 0


CPU_CALLS = (
    Call(2, 128, 512, 8, 8, 1408), Call(2, 256, 768, 12, 4, 2048), Call(1, 512, 512, 8, 2, 1024),
    Call(2, 128, 256, 4, 4, 512, 4, 2), Call(4, 128, 384, 6, 6, 1536), Call(1, 256, 1024, 16, 16, 2816),
)  # fmt: skip
DEVICE_CALLS = (
    Call(2, 2048, 4096, 32, 8, 14336), Call(4, 2048, 2048, 16, 16, 5632), Call(1, 4096, 4096, 32, 32, 11008),
    Call(4, 1024, 2048, 16, 16, 1408, 16, 2), Call(8, 1024, 1024, 16, 16, 2816), Call(1, 8192, 5120, 40, 8, 13824),
    Call(1, 2048, 4096, 32, 8, 14336, 8, 2), Call(16, 512, 768, 12, 12, 2048),
)  # fmt: skip
BLOCKS = ((256, 64, 56, 1), (512, 128, 28, 1), (1024, 256, 14, 1), (512, 256, 28, 2))
"""Residual blocks (channels in, width, size, stride) of ResNet-50 (He et al. 2016, arXiv 1512.03385, Table 1)."""
SECONDS_PER_POINT = 0.8
FEWEST = 2
OPTIMIZER_MATRICES = 16
ALONE_FRAC = 0.6
"""Share of the budget for one rank alone, where all are measured, too."""


def measure(
    machine: Machine,
    budget_s: float,
    seed: int,
    warn: Warn,
    *,
    processes: int = 0,
    earlier: Earlier | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) of tables ``layer`` and ``optimizer``: one rank alone, then ``processes`` at once.

    Args:
        machine: device under test.
        budget_s: seconds for measuring; starting ranks comes on top.
        seed: of the order of points.
        warn: told what could not be measured.
        processes: ranks that run at once; 0 = one a device, or two on a CPU.
        earlier: what an interrupted sitting has read.

    Raises:
        RankError: a rank died, failed or fell silent.
    """
    torch = import_torch()
    torch.manual_seed(seed)
    begin, earlier = time.perf_counter(), earlier or Earlier()
    ranks = ranks_of_node(machine, processes, warn)
    together = ranks > 1
    alone_s = budget_s * (ALONE_FRAC if together else 1.0)
    for row in rows_of(
        machine,
        _points(torch, machine, alone_s, None),
        alone_s,
        seed,
        warn,
        rule=_rule(machine),
        least=FEWEST,
        earlier=earlier,
    ):
        yield _table(row), row
    if together:
        if machine.is_cuda:
            torch.cuda.empty_cache()  # the ranks are other processes, and one of them has this device
        left_s = earlier.rate(
            "seconds of all ranks", lambda: max(budget_s - (time.perf_counter() - begin), 1.0)
        )
        plan = Plan(machine, ranks, left_s, seed, earlier)
        yield from spawn(ranks, rank_rows, plan, warn)


def rank_rows(plan: Plan, rank: int, meeting: str, warn: Warn) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure as one of several ranks that compute at once; only rank 0 yields rows and warns."""
    machine = plan.machine
    with meet_in_node(machine, plan.ranks, rank, meeting, plan.budget_s) as group:
        from calibrate import networks  # importing takes seconds: before the clock starts

        del networks
        group.torch.manual_seed(plan.seed)
        group.block(lambda: None)(1)
        every = _points(group.torch, machine, plan.budget_s, group)
        points, budget_s, least = plan.earlier.left(every, plan.budget_s, FEWEST)
        timed = sweep(
            points,
            budget_s,
            plan.seed,
            first_only(rank, warn),
            rule=_rule(machine),
            clock=group.clock,
            least=least,
        )
        for point, timing in timed:
            row = {**machine.columns, **point.columns, **timing.columns()}
            if rank == 0:
                yield _table(row), row


def _rule(machine: Machine) -> StopRule:
    return StopRule(block_s=0.05 if machine.is_cuda else 0.02, warm_up_blocks=4, max_calls=50)


def _table(row: dict[str, Any]) -> str:
    return "optimizer" if "rule" in row else "layer"


def _points(torch: Any, machine: Machine, budget_s: float, group: Group | None) -> list[Point]:
    calls = DEVICE_CALLS if machine.is_cuda else CPU_CALLS
    count = max(FEWEST, int(budget_s / SECONDS_PER_POINT) - 3)
    device = machine.device if group is None else group.device
    points = [_point(torch, machine, device, call, group) for call in calls[:count]]
    if group is None:
        points += [_residual(torch, machine, device, *block) for block in BLOCKS[: max(2, count - 2)]]
    columns = {
        "rule": "adamw",
        "kind": "fused",
        "dtype": "float32",
        "parameters": OPTIMIZER_MATRICES * optimizer.SIDE**2,
        "engine": "torch fused",
    }

    def update() -> Any:
        return _block(
            optimizer.step(torch, device, "adamw", "fused", OPTIMIZER_MATRICES), torch, device, group
        )

    points.append(Point(columns, update))
    ranks = 1 if group is None else group.size
    return [Point({**one.columns, "ranks": ranks}, one.prepare) for one in points]


def _point(torch: Any, machine: Machine, device: str, call: Call, group: Group | None) -> Point:
    dtype = "bfloat16" if machine.is_cuda else "float32"
    columns = {"phase": "fwd_bwd", "dtype": dtype, **call._asdict(), "engine": ENGINE}
    return Point(columns, lambda: _block(passes(torch, device, call, dtype), torch, device, group))


def _residual(
    torch: Any, machine: Machine, device: str, channels: int, width: int, size: int, stride: int
) -> Point:
    """A residual block forward and backward; the columns that speak of tokens are 1."""
    dtype = "bfloat16" if machine.is_cuda else "float32"
    batch = 64 if machine.is_cuda else 2
    columns = dict.fromkeys(("seq_len", "hidden", "heads", "kv_heads", "ffn_hidden"), 1)
    columns |= {"batch": batch, "channels": channels, "width": width, "size": size, "stride": stride}

    def make() -> Any:
        from calibrate.networks import Bottleneck

        block = Bottleneck(channels, width, stride).to(device)
        x = torch.randn(batch, channels, size, size, device=device)
        return _block(_both(torch, device, block, x, dtype), torch, device, None)

    return Point({"phase": "fwd_bwd", "dtype": dtype, **columns, "engine": ENGINE}, make)


def _block(call: Callable[[], Any], torch: Any, device: str, group: Group | None) -> Any:
    if group is not None:
        return group.block(call, computes=True)
    if not device.startswith("cuda"):
        return device_block(call, device)

    def block(calls: int) -> float:
        """Wall time of calls in a row: launches count, as they do in a step."""
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    return block


def passes(torch: Any, device: str, call: Call, dtype: str) -> Callable[[], Any]:
    """A call that runs one layer forward and backward, gradients added into one buffer as in a step.

    Under autocast where ``dtype`` is a 16-bit format: weights and gradients stay fp32.

    Raises:
        RuntimeError: the device refuses (memory, a format).
    """
    from calibrate.networks import Layer, Shape

    shape = Shape(call.hidden, call.heads, call.kv_heads, call.ffn_hidden, call.experts, call.topk)
    x = torch.randn(call.batch, call.seq_len, call.hidden, device=device)
    return _both(torch, device, Layer(shape).to(device), x, dtype)


def _both(torch: Any, device: str, module: Any, x: Any, dtype: str) -> Callable[[], Any]:
    from calibrate.networks import FlatGradients

    gradients = FlatGradients(list(module.parameters()))
    kind, mixed = getattr(torch, dtype), dtype != "float32"
    x = x.to(kind).requires_grad_()
    with torch.autocast(device.partition(":")[0], dtype=kind, enabled=mixed):
        direction = torch.randn_like(module(x))

    def once() -> None:
        x.grad, _ = None, gradients  # the buffer lives as long as the call
        with torch.autocast(device.partition(":")[0], dtype=kind, enabled=mixed):
            out = module(x)
        out.backward(direction)

    return once
