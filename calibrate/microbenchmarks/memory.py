"""Memory-bound kernels: how fast the device empties and fills its memory, from a cupful to many caches full.

The operations are those that training and serving move bytes with (copies, additions, norms, activations,
soft-max, cross-entropy, and their gradients), on tensors from a few kilobytes to many times the last-level cache,
wide and narrow.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from calibrate.blocks import device_block
from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, Warn
from calibrate.microbenchmarks.common import ENGINE, Earlier, point, rows_of
from calibrate.microbenchmarks.matmul import normal

PASSES: Mapping[str, int] = {
    "residual_add": 3,
    "rms_norm_fwd": 2,
    "silu_and_mul": 3,
    "softmax": 2,
    "copy": 2,
    "rms_norm_bwd": 3,
    "layer_norm_fwd": 2,
    "relu": 2,
    "gelu": 2,
    "layer_norm_bwd": 3,
    "mul": 3,
    "add": 3,
    "softmax_bwd": 3,
    "mulu": 2,
    "cross_entropy": 2,
    "sum": 1,
    "ln": 2,
}
"""Times each value crosses the memory interface in the ideal: inputs read once, results written once. The most
telling operations first; gathering rows of a table is in ``embedding``."""
COLUMNS = (1024, 512, 4096, 2048, 256, 16384)
SMALLEST_BYTES = 2.0**16
SECONDS_PER_POINT = 0.2
FEWEST_OPS, FEWEST_SIZES = 6, 3


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``memory``, in float32 on a CPU and bfloat16 on an accelerator."""
    torch = import_torch()
    torch.manual_seed(seed)
    dtype, value_bytes = ("bfloat16", 2) if machine.is_cuda else ("float32", 4)
    begin, earlier, whole_s = time.perf_counter(), earlier or Earlier(), budget_s
    rate = earlier.rate("copy_bytes_per_s", lambda: _copy_bytes_per_s(torch, machine))
    budget_s = earlier.rate("budget_s", lambda: whole_s - (time.perf_counter() - begin))
    ops = list(PASSES)[: max(FEWEST_OPS, int(budget_s / SECONDS_PER_POINT / FEWEST_SIZES))]
    sizes = max(FEWEST_SIZES, int(budget_s / SECONDS_PER_POINT / len(ops)))
    # a point's share must hold filling the tensors, warm-up and six blocks, each of up to three passes
    cap_bytes = rate * budget_s / (sizes * len(ops)) / 32
    beyond = 32 if machine.is_cuda else 4
    most_bytes = min(
        max(cap_bytes, 2 * machine.cache_bytes), beyond * machine.cache_bytes, machine.memory_bytes / 16
    )
    points = [
        _point(torch, machine, op, dtype, *shape, value_bytes)
        for op, shape in itertools.product(ops, shapes(sizes, most_bytes / value_bytes / 3))
    ]
    sentinel = _point(torch, machine, "add", dtype, 1024, 1024, value_bytes)
    yield from rows_of(
        machine,
        points,
        budget_s,
        seed,
        warn,
        earlier=earlier,
        sentinel=sentinel,
        least=FEWEST_OPS * FEWEST_SIZES,
    )


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
        "engine": ENGINE,
    }
    return point(machine, columns, lambda: _call(torch, machine, op, dtype, rows, cols))


def _call(torch: Any, machine: Machine, op: str, dtype: str, rows: int, cols: int) -> Callable[[], Any]:
    """One eager operation with the allocation of its result, as a framework calls it."""
    kind, functional = getattr(torch, dtype), torch.nn.functional
    x = normal(torch, rows, cols, machine.device).to(kind)
    weight = torch.ones(cols, dtype=kind, device=machine.device)
    simple: dict[str, Callable[[], Any]] = {
        "copy": x.clone,
        "mulu": lambda: torch.mul(x, 1.5),
        "sum": lambda: torch.sum(x),
        "relu": lambda: functional.relu(x),
        "gelu": lambda: functional.gelu(x),
        "softmax": lambda: torch.softmax(x, dim=-1),
        "rms_norm_fwd": lambda: functional.rms_norm(x, (cols,), weight, 1e-5),
    }
    if op in simple:
        return simple[op]
    if op in ("ln", "layer_norm_fwd", "layer_norm_bwd"):
        shift = torch.zeros(cols, dtype=kind, device=machine.device)

        def norm() -> Any:
            return functional.layer_norm(x, (cols,), weight, shift)

        return norm if op != "layer_norm_bwd" else _backward(torch, norm, (x, weight, shift))
    if op == "rms_norm_bwd":
        return _backward(torch, simple["rms_norm_fwd"], (x, weight))
    if op == "softmax_bwd":
        return _backward(torch, simple["softmax"], (x,))
    if op == "cross_entropy":
        wanted = torch.randint(0, cols, (rows,), device=machine.device)
        return lambda: functional.cross_entropy(x, wanted)
    if op == "silu_and_mul":  # both halves of one tensor, as the product of a joint matrix leaves them
        gate, up = normal(torch, rows, 2 * cols, machine.device).to(kind).chunk(2, dim=-1)
        return lambda: functional.silu(gate) * up
    y = normal(torch, rows, cols, machine.device).to(kind)
    return (lambda: torch.mul(x, y)) if op == "mul" else (lambda: torch.add(x, y))


def _backward(torch: Any, forward: Callable[[], Any], inputs: tuple[Any, ...]) -> Callable[[], Any]:
    for tensor in inputs:
        tensor.requires_grad_()
    out = forward()
    gradient = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True)
