"""Embedding bags: random rows gathered and summed, and their gradients put back where they came from.

The walk through the table is what costs, so tables are many times larger than the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, Warn
from calibrate.microbenchmarks.common import ENGINE, Earlier, affordable, point, rows_of

SECONDS_PER_POINT = 0.25
FEWEST = 4


class Call(NamedTuple):
    """So many bags of so many rows each, from one table."""

    bags: int
    each: int
    dim: int
    table_rows: int


CALLS = (
    Call(512, 8, 64, 200_000), Call(2048, 4, 64, 400_000), Call(2048, 1, 128, 200_000),
    Call(4096, 8, 32, 400_000), Call(256, 20, 128, 100_000), Call(8192, 2, 64, 100_000),
)  # fmt: skip
LARGER = 16
"""Bags and rows on an accelerator are so many times more."""


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``embedding``: ``fwd``, and ``bwd`` = sparse gradient and the update of the rows it names."""
    torch = import_torch()
    torch.manual_seed(seed)
    scale = LARGER if machine.is_cuda else 1
    calls = [call._replace(bags=call.bags * scale, table_rows=call.table_rows * scale) for call in CALLS]
    fit = [call for call in calls if 8.0 * call.dim * call.table_rows < machine.memory_bytes / 4]
    points = [_point(torch, machine, call, phase) for call in fit for phase in ("fwd", "bwd")]
    chosen = affordable(points, budget_s, SECONDS_PER_POINT, FEWEST)
    yield from rows_of(machine, chosen, budget_s, seed, warn, earlier=earlier)


def _point(torch: Any, machine: Machine, call: Call, phase: str) -> Point:
    columns = {
        "phase": phase,
        "dtype": "float32",
        "lookups": call.bags * call.each,
        "bags": call.bags,
        "dim": call.dim,
        "table_rows": call.table_rows,
        "engine": ENGINE,
    }
    return point(machine, columns, lambda: _call(torch, machine, call, phase))


def _call(torch: Any, machine: Machine, call: Call, phase: str) -> Callable[[], Any]:
    bag = torch.nn.EmbeddingBag(call.table_rows, call.dim, mode="sum", sparse=True, device=machine.device)
    indices = torch.randint(0, call.table_rows, (8, call.bags, call.each), device=machine.device)
    turn = iter(range(1 << 62))

    def forward() -> Any:
        return bag(indices[next(turn) % 8])  # other rows each time: the last ones are still in the cache

    if phase == "fwd":
        return lambda: forward().detach()
    out = forward()
    gradient = torch.randn_like(out)

    def backward() -> None:
        (rows,) = torch.autograd.grad(out, (bag.weight,), gradient, retain_graph=True)
        with torch.no_grad():
            bag.weight.add_(rows, alpha=-1e-3)

    return backward
