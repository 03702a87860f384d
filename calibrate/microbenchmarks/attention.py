"""Fused attention: forward, backward and decode, as a training framework and a server call it.

Scaled dot-product attention through torch's own dispatch (and, on an accelerator, each of its kernels by name);
shapes run over sequence, width of a head, and how many query heads share one key head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, Warn
from calibrate.microbenchmarks.common import (
    ENGINE,
    Earlier,
    affordable,
    in_turn,
    plain_format,
    point,
    rows_of,
)

KERNELS = {"torch flash": "FLASH_ATTENTION", "torch efficient": "EFFICIENT_ATTENTION", "torch math": "MATH"}
"""Engines beside torch's own choice, by their name in ``torch.nn.attention.SDPBackend``."""
SECONDS_PER_POINT = 0.25
FEWEST = 6


class Call(NamedTuple):
    """One call; ``keys`` are also the queries except in decode."""

    phase: str
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    keys: int
    causal: bool = True


CPU_CALLS = (
    Call("fwd", 1, 8, 8, 64, 256), Call("bwd", 1, 8, 8, 64, 256), Call("decode", 4, 8, 8, 64, 512),
    Call("fwd", 2, 8, 2, 64, 512), Call("bwd", 2, 8, 2, 64, 512), Call("decode", 4, 16, 4, 64, 1024),
    Call("fwd", 1, 8, 8, 128, 1024), Call("bwd", 1, 8, 8, 128, 1024), Call("decode", 16, 8, 8, 128, 512),
    Call("fwd", 4, 16, 16, 64, 128), Call("bwd", 4, 16, 16, 64, 128), Call("decode", 1, 8, 2, 64, 4096),
    Call("fwd", 2, 8, 8, 64, 512), Call("bwd", 2, 8, 8, 64, 512), Call("decode", 2, 12, 12, 64, 256),
    Call("fwd", 1, 12, 12, 64, 768), Call("bwd", 1, 12, 12, 64, 768), Call("decode", 8, 8, 8, 64, 1024),
    Call("fwd", 1, 8, 8, 64, 512, causal=False), Call("bwd", 1, 8, 8, 64, 512, causal=False),
    Call("fwd", 8, 8, 8, 64, 128), Call("bwd", 8, 8, 8, 64, 128),
)  # fmt: skip
DEVICE_CALLS = tuple(
    Call(phase, *sizes)
    for sizes in (
        (2, 32, 32, 128, 2048), (1, 32, 8, 128, 4096), (4, 16, 16, 64, 2048), (8, 16, 16, 64, 1024),
        (1, 32, 8, 128, 8192), (1, 64, 8, 128, 4096), (4, 32, 32, 128, 1024), (16, 12, 12, 64, 512),
        (1, 16, 16, 128, 16384), (32, 16, 16, 64, 256), (2, 24, 8, 128, 2048), (2, 40, 40, 128, 2048),
    )
    for phase in ("fwd", "bwd")
) + tuple(
    Call("decode", *sizes)
    for sizes in (
        (1, 32, 8, 128, 2048), (16, 32, 8, 128, 2048), (64, 32, 8, 128, 1024), (8, 64, 8, 128, 8192),
        (1, 32, 32, 128, 16384), (32, 16, 16, 64, 2048), (128, 32, 8, 128, 512), (4, 32, 8, 128, 32768),
    )
) + tuple(Call(phase, 2, 32, 32, 128, 2048, causal=False) for phase in ("fwd", "bwd"))  # fmt: skip


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``attention``; a backward row is the backward kernel alone."""
    torch = import_torch()
    torch.manual_seed(seed)
    dtype, value_bytes = plain_format(machine)
    calls = DEVICE_CALLS if machine.is_cuda else CPU_CALLS
    fit = [call for call in calls if _bytes(call, value_bytes) < machine.memory_bytes / 8]
    points = [_point(torch, machine, dtype, call, ENGINE) for call in fit]
    if machine.is_cuda:
        points += [_point(torch, machine, dtype, call, engine) for engine in KERNELS for call in fit[:4]]
    chosen = affordable(points, budget_s, SECONDS_PER_POINT, FEWEST)
    yield from rows_of(
        machine, chosen, budget_s, seed, warn, earlier=earlier, sentinel=points[0], least=FEWEST
    )


def _bytes(call: Call, value_bytes: int) -> float:
    return 8.0 * value_bytes * call.batch * call.heads * call.head_dim * call.keys


def _point(torch: Any, machine: Machine, dtype: str, call: Call, engine: str) -> Point:
    columns = {
        "phase": call.phase,
        "dtype": dtype,
        "batch": call.batch,
        "heads": call.heads,
        "kv_heads": call.kv_heads,
        "head_dim": call.head_dim,
        "seq_len": call.keys,
        "causal": int(call.causal),
        "engine": engine,
    }
    return point(machine, columns, lambda: _call(torch, machine, dtype, call, engine))


def _call(torch: Any, machine: Machine, dtype: str, call: Call, engine: str) -> Callable[[], Any]:
    from calibrate.networks import attend

    kind, train = getattr(torch, dtype), call.phase in ("fwd", "bwd")
    queries = 1 if call.phase == "decode" else call.keys

    def operand(heads: int, length: int) -> Any:
        made = torch.randn(call.batch, heads, length, call.head_dim, device=machine.device).to(kind)
        return made.requires_grad_(train)

    query = operand(call.heads, queries)
    chosen = _kernel(engine)

    def pair() -> tuple[Any, Any]:
        return operand(call.kv_heads, call.keys), operand(call.kv_heads, call.keys)

    if call.phase == "decode":
        size = 2.0 * kind.itemsize * call.batch * call.kv_heads * call.keys * call.head_dim
        another = in_turn(machine, pair, size)

        def decode() -> Any:
            with torch.inference_mode(), chosen():
                return attend(query, *another(), causal=False)

        return decode
    key, value = pair()
    causal = call.causal

    def forward() -> Any:
        with chosen():
            return attend(query, key, value, causal=causal)

    if call.phase != "bwd":
        return forward
    out = forward()
    gradient = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, (query, key, value), gradient, retain_graph=True)


def _kernel(engine: str) -> Callable[[], Any]:
    if engine == ENGINE:
        return nullcontext
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        raise NotImplementedError("torch before 2.3 cannot be told which attention kernel to use") from None
    backend = getattr(SDPBackend, KERNELS[engine])
    return lambda: sdpa_kernel(backend)
