"""A model given as its kernels: each row of the list forward, and its gradients in reverse order backward.

Nothing is known of how layers hang together, so the model is one block that cannot be cut, and every output is kept
for backward: memory is an upper bound where frameworks fuse or recompute.
"""

from __future__ import annotations

import math

from sim.spec.kernel_list import KernelRow, kernel_rows
from sim.spec.model import Model
from sim.spec.ops import Attention, Block, Conv, Gemm, Lookup, MemoryBound, Op
from sim.spec.workload import Training
from sim.training.layers.network import Network
from sim.training.layers.parts import activation_dtype, gradients, value_bytes

TRACED_VALUE_BYTES = 4
"""Bytes of a value in the traced passes: models are traced in float32, torch's default."""


def listed_network(model: Model, training: Training) -> Network:
    """Start, the block of all kernels, end; start and end do nothing."""
    samples, batch = model.kernel_samples, training.plan.micro_batch
    forward: list[Op] = []
    backward: list[Op] = []
    values = 0.0
    for row in kernel_rows(model.kernels):
        ahead, back, out = _ops(row, batch, samples, activation_dtype(training.precision))
        forward += ahead * row.calls
        backward[:0] = back * row.calls
        values += out * row.calls
    kept = value_bytes(training) * values
    full = training.plan.recompute == "full"
    block = Block(
        "kernels",
        tuple(forward),
        tuple(backward),
        tuple(forward) if full else (),
        parameters=float(model.params_total),
        activation_bytes=kept,
        kept_bytes=0.0 if full else kept,
    )
    return Network(Block("start", (), ()), (block,), Block("end", (), ()), 0.0)


def _ops(row: KernelRow, micro_batch: int, samples: int, dtype: str) -> tuple[list[Op], list[Op], float]:
    """Forward and backward of one row for a micro-batch, and the values it writes."""

    def scaled(size: int) -> int:
        return max(1, round(size * micro_batch / samples))

    if row.kind == "gemm":
        count, m = row.one("batch"), row.one("m")
        count, m = (scaled(count), m) if count > 1 else (1, scaled(m))
        product = Gemm(m, row.one("n"), row.one("k"), count, "product")
        return [product], list(gradients(product)), float(count * m * row.one("n"))
    if row.kind == "conv":
        return _convolution(row, scaled(row.one("batch")))
    if row.kind == "attention":
        batch, heads, queries, head_dim = row.sizes["query"]
        keys, kv_heads = row.sizes["key"][-2], row.sizes["key"][1]
        fixed = (scaled(batch), heads, kv_heads, head_dim, keys)
        more = {"causal": False, "queries": queries, "value_dim": row.one("value_dim")}
        out = float(scaled(batch) * heads * queries * row.one("value_dim"))
        return [Attention("fwd", *fixed, **more)], [Attention("bwd", *fixed, **more)], out  # type: ignore[arg-type]
    if row.kind == "lookup":
        count, dim = scaled(row.one("lookups")), row.one("dim")
        both = [Lookup(phase, count, count, dim, row.one("rows")) for phase in ("fwd", "bwd")]
        return [both[0]], [both[1]], float(count * dim)
    cols = max(
        1, round(row.one("bytes") / TRACED_VALUE_BYTES / 2 / samples)
    )  # as many bytes as a copy of so many
    one = MemoryBound("copy", micro_batch, cols, dtype, "pass")
    # backward reads the gradient and what forward kept, and writes a gradient
    back = MemoryBound("mul", micro_batch, max(1, round(row.one("values") / samples)), dtype, "pass gradient")
    return [one], [back], float(scaled(row.one("values")))


def _convolution(row: KernelRow, batch: int) -> tuple[list[Op], list[Op], float]:
    """A convolution and its two gradients; a transposed one is a convolution run backwards."""
    inside, outside, groups = (row.one(name) for name in ("in_channels", "out_channels", "groups"))
    size, kernel, stride, padding = (row.sizes[name] for name in ("size", "kernel", "stride", "padding"))
    axes = tuple(zip(size, kernel, stride, padding, strict=True))
    if row.one("transposed"):
        out = tuple((n - 1) * s - 2 * p + k for n, k, s, p in axes)
        phases, fixed = ("data_gradient", "forward"), (outside, inside, out)
    else:
        out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in axes)
        phases, fixed = ("forward", "data_gradient"), (inside, outside, size)

    def one(phase: str, label: str) -> Conv:
        return Conv(phase, batch, *fixed, kernel, stride, padding, groups, f"convolution{label}")

    back: list[Op] = [one(phases[1], " dgrad"), one("weight_gradient", " wgrad")]
    return [one(phases[0], "")], back, float(batch * outside * math.prod(out))
