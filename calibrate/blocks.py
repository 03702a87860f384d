"""Stopwatches: which clock a block is held against, the wall's, the processor's or the device's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from calibrate.measure import Block

MOST_WRITES = 32
"""At most so many writes of the cache before a call, however long the host takes to enqueue it."""


def wall_block(call: Callable[[], Any]) -> Block:
    """A block timed by the host's monotonic clock: for work that is done when the call returns."""

    def block(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - begin

    return block


def processor_block(call: Callable[[], Any]) -> Block:
    """A block timed by the processor time of this process: what the work costs when nobody else takes turns.

    For a CPU what events are for a GPU: other programs that share the cores stay out of the figure. With several
    threads it would add theirs up, so only for one.
    """

    def block(calls: int) -> float:
        begin = time.process_time()
        for _ in range(calls):
            call()
        return time.process_time() - begin

    return block


def _writes_beside(call: Callable[[], Any], write: Callable[[], Any], device: str) -> int:
    """Times ``write`` must run for the device to be busy while the host enqueues ``call``, half as long again."""
    import torch

    took = []
    for enqueue, repeats in ((write, 8), (call, 1)):
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for _ in range(repeats):
            enqueue()
        host_s = time.perf_counter() - begin
        torch.cuda.synchronize(device)
        took.append((host_s, (time.perf_counter() - begin) / repeats))
    write_s, host_s = max(took[0][1], 1e-9), took[1][0]
    return max(2, min(MOST_WRITES, math.ceil(1.5 * host_s / write_s)))


def device_block(call: Callable[[], Any], device: str, flush_bytes: float = 0.0) -> Block:
    """A block of kernel time on a torch device.

    On a CPU this is processor time of one thread, or wall time of several, with warm caches. On CUDA every call
    sits between two events of its own, after a write of ``flush_bytes`` that empties the L2 cache; the write is
    repeated so often that it keeps the device busy while the host enqueues the call (autograd takes the host longer
    than one write lasts), so launch cost stays out of the figure.
    """
    import torch

    if not device.startswith("cuda"):
        return processor_block(call) if torch.get_num_threads() == 1 else wall_block(call)

    flush = torch.empty(max(1, int(flush_bytes)), dtype=torch.int8, device=device)
    writes = 0

    def block(calls: int) -> float:
        nonlocal writes
        if writes == 1:  # after the first block, which loads and compiles
            writes = _writes_beside(call, flush.zero_, device)
        writes = writes or 1
        with torch.cuda.device(device):  # events are made and recorded on the current device's stream
            pairs = [
                (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
                for _ in range(calls)
            ]
            for begin, end in pairs:
                for _ in range(writes):
                    flush.zero_()
                begin.record()
                call()
                end.record()
            torch.cuda.synchronize(device)
        return sum(begin.elapsed_time(end) for begin, end in pairs) / 1000

    return block
