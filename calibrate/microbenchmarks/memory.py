"""Memory-bound kernels: how fast the device empties and fills its memory, from a cupful to many caches full.

The operations are those that training and serving move bytes with (copy, scale, add, sum, layer norm,
soft-max), on tensors from a few kilobytes to many times the last-level cache, wide and narrow.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, StopRule, Warn, device_block, sweep
from calibrate.microbenchmarks.matmul import normal

PASSES: Mapping[str, int] = {"copy": 2, "mulu": 2, "add": 3, "sum": 1, "ln": 2, "softmax": 2}
"""Times each value crosses the memory interface in the ideal: inputs read once, results written once."""
COLUMNS = (256, 1024, 4096, 16384)
SMALLEST_BYTES = 2.0**16
SECONDS_PER_POINT = 0.15
FEWEST_SIZES = 3


def measure(machine: Machine, budget_s: float, seed: int, warn: Warn) -> Iterator[dict[str, Any]]:
    """Rows of table ``memory``, in float32 on a CPU and bfloat16 on an accelerator."""
    torch = import_torch()
    torch.manual_seed(seed)
    dtype, value_bytes = ("bfloat16", 2) if machine.is_cuda else ("float32", 4)
    begin = time.perf_counter()
    rate = _copy_bytes_per_s(torch, machine)
    budget_s -= time.perf_counter() - begin
    sizes = max(FEWEST_SIZES, int(budget_s / SECONDS_PER_POINT / len(PASSES)))
    # a point's share must hold filling the tensors, warm-up and six blocks, each of up to three passes
    cap_bytes = rate * budget_s / (sizes * len(PASSES)) / 32
    most_bytes = min(
        max(cap_bytes, 2 * machine.cache_bytes), 32 * machine.cache_bytes, machine.memory_bytes / 16
    )
    points = [
        _point(torch, machine, op, dtype, *shape, value_bytes)
        for op, shape in itertools.product(PASSES, shapes(sizes, most_bytes / value_bytes))
    ]
    rule = StopRule(block_s=0.02, max_calls=200) if machine.is_cuda else StopRule()
    sentinel = _point(torch, machine, "add", dtype, 1024, 1024, value_bytes)
    for point, timing in sweep(points, budget_s, seed, warn, sentinel=sentinel, rule=rule, sentinel_visits=4):
        yield {**machine.columns, **point.columns, **timing.columns(), "cache": machine.cache_state}


def _copy_bytes_per_s(torch: Any, machine: Machine) -> float:
    values = int(machine.cache_bytes / 2)  # two float32 tensors: four times the cache
    call = _call(torch, machine, "copy", "float32", 1, values)
    block = device_block(call, machine.device)
    block(1)
    return 8 * values / block(2) * 2


def shapes(count: int, most_values: float) -> list[tuple[int, int]]:
    """At most ``count`` (rows, columns), sizes even in the logarithm up to ``most_values``, widths in
    turn."""
    least = SMALLEST_BYTES / 4
    found: dict[tuple[int, int], None] = {}
    for number in range(count):
        values = least * (most_values / least) ** (number / max(count - 1, 1))
        cols = COLUMNS[number % len(COLUMNS)]
        found[max(1, int(values / cols)), cols] = None
    return list(found)


def _point(
    torch: Any, machine: Machine, op: str, dtype: str, rows: int, cols: int, value_bytes: int
) -> Point:
    columns = {
        "op": op,
        "dtype": dtype,
        "rows": rows,
        "cols": cols,
        "bytes": float(PASSES[op] * rows * cols * value_bytes),
        "engine": "torch eager",
    }
    return Point(
        columns,
        lambda: device_block(
            _call(torch, machine, op, dtype, rows, cols), machine.device, 4 * machine.cache_bytes
        ),
    )


def _call(torch: Any, machine: Machine, op: str, dtype: str, rows: int, cols: int) -> Callable[[], Any]:
    kind = getattr(torch, dtype)
    x = normal(torch, rows, cols, machine.device).to(kind)
    out = torch.empty_like(x)  # written in place, so that no call pays for an allocation it does not need
    if op == "copy":
        return lambda: out.copy_(x)
    if op == "mulu":
        return lambda: torch.mul(x, 1.5, out=out)
    if op == "add":
        y = normal(torch, rows, cols, machine.device).to(kind)
        return lambda: torch.add(x, y, out=out)
    if op == "sum":
        return lambda: torch.sum(x)
    if op == "softmax":
        return lambda: torch.softmax(x, dim=-1)
    weight = torch.ones(cols, dtype=kind, device=machine.device)
    bias = torch.zeros(cols, dtype=kind, device=machine.device)
    return lambda: torch.nn.functional.layer_norm(x, (cols,), weight, bias)
