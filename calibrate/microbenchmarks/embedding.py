"""Embedding bags: random rows gathered and summed, and their gradients put back where they came from.

The walk through the table is what costs. As in a model with many features, a call finds its table cold, because others
had their turn since: on a CPU several tables take turns that are together many times larger than the cache, and every
call, backward as forward, names other rows. On an accelerator the flush before each call does that for one table.
A small call tells what one costs
before the first row.
"""

from __future__ import annotations

import itertools
import math
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
    Call(512, 4, 64, 100_000), Call(4096, 4, 64, 100_000), Call(32, 1, 64, 200_000), Call(2048, 2, 64, 400_000),
    Call(2048, 1, 128, 200_000), Call(4096, 8, 32, 400_000), Call(256, 20, 128, 100_000), Call(8192, 4, 64, 100_000),
)  # fmt: skip
MOST_DRAWS = 512
"""Different sets of rows at most."""
TIMES_CACHE = 6.0
"""Tables of a CPU are together so many times its last cache, and as many of its bytes are drawn before a set recurs."""
LARGER = 16
"""Bags and rows on an accelerator are so many times more."""


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``embedding``: ``fwd``, and ``bwd`` = sparse gradient and the update of the rows it names."""
    torch = import_torch()
    torch.manual_seed(seed)
    fit = [
        call
        for call in calls(accelerator=machine.is_cuda)
        if 8.0 * call.dim * call.table_rows < machine.memory_bytes / 4
    ]
    points = [(call, phase) for call in fit for phase in ("fwd", "bwd")]
    some = affordable(points, budget_s, SECONDS_PER_POINT, FEWEST)
    values = max((call.dim * call.table_rows * _tables(machine, call) for call, _ in some), default=0)
    pool = normal(torch, values, 1, machine.device).view(-1)
    chosen = [_point(torch, machine, call, phase, pool) for call, phase in some]
    yield from rows_of(machine, chosen, budget_s, seed, warn, least=FEWEST, earlier=earlier)


def calls(*, accelerator: bool) -> list[Call]:
    """What is timed, on an accelerator with more bags and rows: small calls there are all start."""
    scale = LARGER if accelerator else 1
    return [call._replace(bags=call.bags * scale, table_rows=call.table_rows * scale) for call in CALLS]


def _tables(machine: Machine, call: Call) -> int:
    """Tables that take turns: so many that no cache holds them all."""
    return (
        1
        if machine.is_cuda
        else math.ceil(TIMES_CACHE * machine.cache_bytes / (4.0 * call.dim * call.table_rows))
    )


def _point(torch: Any, machine: Machine, call: Call, phase: str, pool: Any) -> Point:
    columns = {
        "phase": phase,
        "dtype": "float32",
        "lookups": call.bags * call.each,
        "bags": call.bags,
        "dim": call.dim,
        "table_rows": call.table_rows,
        "engine": ENGINE,
    }
    return point(machine, columns, lambda: _call(torch, machine, call, phase, pool))


def _call(torch: Any, machine: Machine, call: Call, phase: str, pool: Any) -> Callable[[], Any]:
    size = call.table_rows * call.dim
    tables = [
        torch.nn.EmbeddingBag.from_pretrained(
            pool[size * number : size * (number + 1)].view(call.table_rows, call.dim),
            freeze=False,
            mode="sum",
            sparse=True,
        )
        for number in range(_tables(machine, call))
    ]
    turn = itertools.cycle(tables)

    def drawn() -> tuple[Any, Any]:
        return next(turn), torch.randint(0, call.table_rows, (call.bags, call.each), device=machine.device)

    def pooled() -> tuple[Any, Any]:
        bag, rows = drawn()
        return bag, bag(rows)

    # in_turn draws twice the cache; TIMES_CACHE of it must pass before a set recurs
    touched_bytes = 4.0 * call.dim * call.bags * call.each * 2 / TIMES_CACHE
    another = in_turn(machine, drawn if phase == "fwd" else pooled, touched_bytes, MOST_DRAWS)
    if phase == "fwd":

        def forward() -> Any:
            bag, rows = another()
            return bag(rows).detach()

        return forward
    gradient = torch.randn(call.bags, call.dim, device=machine.device)

    def backward() -> None:
        bag, found = another()
        (rows,) = torch.autograd.grad(found, (bag.weight,), gradient, retain_graph=True)
        with torch.no_grad():
            bag.weight.add_(rows, alpha=-1e-3)

    return backward
