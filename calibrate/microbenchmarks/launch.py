"""Launch cost: how long it takes to say "go", measured with kernels that have next to nothing to do.

A step of many small kernels is bound by this and not by the device. ``eager_host`` is the time the host
needs to enqueue one operation, ``eager_device`` the time from one to the next when the device waits for
nothing else, and ``graph`` the same inside a captured CUDA graph.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from calibrate.blocks import wall_block
from calibrate.environment import Machine, import_torch
from calibrate.measure import Block, Point, StopRule, Warn
from calibrate.microbenchmarks.common import Earlier, rows_of

QUEUE_CALLS = 256
"""Kernels enqueued at once: well under the depth (about 1,000) at which the driver makes the host wait."""
GRAPH_CALLS = 128


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``launch``: seconds an operation, by mode."""
    torch = import_torch()
    modes = {"eager_host": _host_block}  # on a CPU host and device are one: the call returns when it is done
    if machine.is_cuda:
        modes |= {"eager_device": _device_block, "graph": _graph_block}
    points = [
        Point({"mode": mode, "engine": "torch eager"}, partial(make, torch, machine.device))
        for mode, make in modes.items()
    ]
    rule = StopRule(max_calls=QUEUE_CALLS if machine.is_cuda else StopRule().max_calls)
    yield from rows_of(machine, points, budget_s, seed, warn, rule=rule, earlier=earlier)


def _host_block(torch: Any, device: str) -> Block:
    x = torch.zeros(1, device=device)
    if not device.startswith("cuda"):
        return wall_block(lambda: x.add_(1.0))

    def block(calls: int) -> float:
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for _ in range(calls):
            x.add_(1.0)
        took = time.perf_counter() - begin
        torch.cuda.synchronize(device)
        return took

    return block


def _device_block(torch: Any, device: str) -> Block:
    x = torch.zeros(1, device=device)

    def block(calls: int) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(calls):
            x.add_(1.0)
        end.record()
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1e3

    return block


def _graph_block(torch: Any, device: str) -> Block:
    x = torch.zeros(1, device=device)
    graph = torch.cuda.CUDAGraph()
    aside = torch.cuda.Stream(
        device
    )  # as torch's notes on CUDA graphs ask: warm up beside the current stream
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        x.add_(1.0)
    torch.cuda.current_stream(device).wait_stream(aside)
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_CALLS):
            x.add_(1.0)

    def block(calls: int) -> float:
        replays = max(1, round(calls / GRAPH_CALLS))
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1e3 * calls / (replays * GRAPH_CALLS)

    return block
