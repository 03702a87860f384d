"""Copies between host and device, and between devices: the doors through which everything enters.

Pinned and pageable host memory in both directions on the first device; every ordered pair of devices. On a
CPU there is no such door, and no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, Warn
from calibrate.microbenchmarks.common import Earlier, affordable, point, rows_of

SIZES = (2**26, 2**12, 2**20, 2**28, 2**16, 2**23)
SECONDS_PER_POINT = 0.15
FEWEST = 4


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``copies``: ``op`` is ``host_to_device``, ``device_to_host`` or ``peer``."""
    if not machine.is_cuda:
        return
    torch = import_torch()
    points = [
        _point(torch, machine, op, size, {"pinned": int(pinned)})
        for size in SIZES
        for op in ("host_to_device", "device_to_host")
        for pinned in (True, False)
    ]
    points += [
        _point(torch, machine, "peer", SIZES[0], {"from": a, "to": b})
        for a in range(machine.devices)
        for b in range(machine.devices)
        if a != b
    ]
    yield from rows_of(
        machine,
        affordable(points, budget_s, SECONDS_PER_POINT, FEWEST),
        budget_s,
        seed,
        warn,
        earlier=earlier,
    )


def _point(torch: Any, machine: Machine, op: str, size: int, columns: dict[str, int]) -> Point:
    known = {"op": op, "bytes": size, **columns, "engine": "torch"}
    # a copy between devices runs on the stream of the one it comes from, so there it is timed
    where = replace(machine, device=f"cuda:{columns['from']}") if op == "peer" else machine
    return point(where, known, lambda: _call(torch, machine, op, size, columns))


def _call(torch: Any, machine: Machine, op: str, size: int, columns: dict[str, int]) -> Callable[[], Any]:
    if op == "peer":
        source = torch.ones(size, dtype=torch.uint8, device=f"cuda:{columns['from']}")
        target = torch.empty(size, dtype=torch.uint8, device=f"cuda:{columns['to']}")
        return lambda: target.copy_(source, non_blocking=True)
    host = torch.ones(size, dtype=torch.uint8, pin_memory=bool(columns["pinned"]))
    there = torch.ones(size, dtype=torch.uint8, device=machine.device)
    if op == "host_to_device":
        return lambda: there.copy_(host, non_blocking=True)
    return lambda: host.copy_(there, non_blocking=True)
