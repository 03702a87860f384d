"""Embedding bags: random rows gathered and summed, and their gradients put back where they came from.

The walk through the table is what costs, so tables are many times larger than the cache, and every call, backward as
forward, names other rows than those that still lie in it from the calls before. A small call tells what one costs
before the first row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, Warn
from calibrate.microbenchmarks.common import ENGINE, Earlier, affordable, in_turn, point, rows_of
from calibrate.microbenchmarks.matmul import normal

SECONDS_PER_POINT = 0.25
FEWEST = 6


class Call(NamedTuple):
    """So many bags of so many rows each, from one table."""

    bags: int
    each: int
    dim: int
    table_rows: int


CALLS = (
    Call(512, 4, 64, 200_000), Call(4096, 4, 64, 400_000), Call(32, 1, 64, 200_000), Call(512, 8, 64, 200_000),
    Call(2048, 1, 128, 200_000), Call(4096, 8, 32, 400_000), Call(256, 20, 128, 100_000), Call(8192, 2, 64, 100_000),
)  # fmt: skip
MOST_DRAWS = 64
"""Different sets of rows at most."""
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
    yield from rows_of(machine, chosen, budget_s, seed, warn, least=FEWEST, earlier=earlier)


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
    weight = normal(torch, call.table_rows, call.dim, machine.device)
    bag = torch.nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode="sum", sparse=True)

    def drawn() -> Any:
        return torch.randint(0, call.table_rows, (call.bags, call.each), device=machine.device)

    touched_bytes = 4.0 * call.dim * call.bags * call.each
    if phase == "fwd":
        another = in_turn(machine, drawn, touched_bytes, MOST_DRAWS)
        return lambda: bag(another()).detach()
    pooled = in_turn(machine, lambda: bag(drawn()), touched_bytes, MOST_DRAWS)
    gradient = torch.randn(call.bags, call.dim, device=machine.device)

    def backward() -> None:
        (rows,) = torch.autograd.grad(pooled(), (bag.weight,), gradient, retain_graph=True)
        with torch.no_grad():
            bag.weight.add_(rows, alpha=-1e-3)

    return backward
