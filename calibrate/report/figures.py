"""From rows to one figure for each (node, device, quantity): the best that was reached, where larger is better.

The best of many rows is what the hardware can do; what other programs took from it in between stays out. Latencies
are turned round (1 / s), so that everything reads alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from calibrate.measurements import Measurements, Row
from calibrate.stand_in import busbw_bytes_per_s
from sim.cost.kernels.gemm import canonical, gemm, peak_flop_per_s
from sim.cost.kernels.memory_bound import PASSES, memory_bound
from sim.spec.device import Device
from sim.spec.profile import Fit

SMALL_BYTES = 2**15
"""Up to here a collective is latency."""
LARGE_BYTES = 2**22
"""From here on it is bandwidth. Source: bands of nccl-tests results, docs/validation.md."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of one device (or of a node as a whole)."""

    node: str
    device: str
    """Number of the device in its node; "" where the figure is of the node."""
    quantity: str
    value: float
    """Larger is better; SI."""
    unit: str
    link: bool = False
    """Of a link (judged by 0.9 of the fleet) and not of a device (0.95)."""
    datasheet: float = math.nan
    """What the datasheet promises, same unit."""
    profile_ratio: float = math.nan
    """Median over the rows of measured rate / the rate the shipped profile predicts."""
    gpu: str = ""
    """Kind of device: only figures of one kind are peers."""
    between: str = ""
    """The two nodes of a pair test, joined by a comma."""


def node_name(measurements: Measurements, fallback: str) -> str:
    """The node's name: as recorded, else the file's."""
    environment = measurements.environment
    return str(environment.get("hostname") or environment.get("node") or fallback)


def figures(
    node: str, measurements: Measurements, devices: Mapping[str, Device], fits: tuple[Fit, ...] = ()
) -> list[Figure]:
    """All figures of one measurement file.

    Args:
        node: its name.
        measurements: the file.
        devices: datasheets by ``gpu`` name, of those that are known.
        fits: the shipped profile; empty leaves that comparison out.
    """
    made = _rows(node, measurements, devices, fits)
    best: dict[tuple[str, str, str], list[Figure]] = {}
    for one in made:
        best.setdefault((one.device, one.quantity, one.between), []).append(one)
    kinds = {str(row["gpu"]) for rows in measurements.tables.values() for row in rows}
    gpu = " + ".join(sorted(kinds))
    return [replace(_together(group), gpu=gpu) for group in best.values()]


def _together(group: list[Figure]) -> Figure:
    top = max(group, key=lambda one: one.value)
    ratios = sorted(one.profile_ratio for one in group if not math.isnan(one.profile_ratio))
    middle = ratios[len(ratios) // 2] if ratios else math.nan
    return replace(top, profile_ratio=middle)


def _rows(
    node: str, measurements: Measurements, devices: Mapping[str, Device], fits: tuple[Fit, ...]
) -> Iterator[Figure]:
    for table, rows in measurements.tables.items():
        for row in rows:
            device = devices.get(str(row["gpu"]))
            number = row.get("device")
            place = "" if number is None else f"{number:g}" if isinstance(number, float) else str(number)
            if table == "gemm":
                yield _product(node, place, row, device, fits)
            elif table == "memory":
                yield _pass(node, place, row, device, fits)
            elif table == "launch":
                yield Figure(node, place, f"launches, {row['mode']}", 1e6 / row["time_us"], "1/s")
            elif table == "collectives":
                yield from _exchange(node, row, device)
            elif table == "readings":
                yield _reading(node, place, row)


def _product(node: str, place: str, row: Row, device: Device | None, fits: tuple[Fit, ...]) -> Figure:
    rate = 2e6 * row["m"] * row["n"] * row["k"] / row["time_us"]
    promised = ratio = math.nan
    try:
        dtype = canonical(str(row["dtype"]))
        if device is not None:
            promised = peak_flop_per_s(device, dtype)
            if fits:
                shape = (row["m"], row["n"], row["k"], dtype, str(row["engine"]))
                ratio = float(gemm(fits, device, *shape).seconds) * 1e6 / row["time_us"]
    except (ValueError, KeyError):
        dtype = str(row["dtype"])
    return Figure(node, place, f"matmul {dtype}", rate, "FLOP/s", datasheet=promised, profile_ratio=ratio)


def _pass(node: str, place: str, row: Row, device: Device | None, fits: tuple[Fit, ...]) -> Figure:
    rate = 1e6 * row["bytes"] / row["time_us"]
    if device is None or row["bytes"] < 4 * device.l2_bytes:  # smaller ones show the cache, not the memory
        return Figure(node, place, "memory, small" if device else "memory", rate, "B/s")
    ratio = math.nan
    if fits and row["op"] in PASSES:
        names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
        shape = (
            str(row["op"]),
            row["rows"],
            row["cols"],
            names.get(row["dtype"], row["dtype"]),
            row["engine"],
        )
        ratio = float(memory_bound(fits, device, *shape).seconds) * 1e6 / row["time_us"]
    return Figure(
        node, place, "memory", rate, "B/s", datasheet=device.memory_bytes_per_s, profile_ratio=ratio
    )


def _exchange(node: str, row: Row, device: Device | None) -> Iterator[Figure]:
    between = str(row.get("between") or "")
    name = f"{row['collective']}, {row['gpus']:g} ranks" + (" between two nodes" if between else "")
    if row["size_bytes"] >= LARGE_BYTES:
        promised = device.scale_up_bytes_per_s if device and row["nodes"] == 1 else math.nan
        rate = busbw_bytes_per_s(row)
        yield Figure(node, "", f"{name}, large", rate, "B/s", True, promised or math.nan, between=between)
    elif row["size_bytes"] <= SMALL_BYTES:
        yield Figure(node, "", f"{name}, small", 1e6 / row["time_us"], "1/s", True, between=between)


LINKS = ("loopback", "copy", "host", "pair", "sendrecv", "memcpy")


def _reading(node: str, place: str, row: Row) -> Figure:
    value, unit, quantity = float(row["value"]), str(row["unit"]), str(row["quantity"])
    if unit == "s":
        value, unit = 1 / value, "1/s"
    between: Any = row.get("between") or ""
    link = bool(between) or any(word in quantity.lower() for word in LINKS)
    return Figure(node, place, quantity, value, unit, link, between=str(between))
