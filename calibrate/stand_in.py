"""A name plate for hardware that has none: the best rates it showed stand in for a datasheet.

Like judging a runner without a record by his best lap: later laps are then a share of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.cost.collective_forms import bus_factor
from sim.cost.kernels.gemm import canonical
from sim.spec.device import BYTES_PER_VALUE, Device

Row = Mapping[str, Any]
STREAMS = ("copy", "mulu", "add", "residual_add", "sum", "relu", "mul")
"""Operations whose ideal bytes are what they really move, so that their best rate is the memory's."""


def stand_in_devices(
    tables: Mapping[str, Sequence[Row]], *, units: int, memory_bytes: float, cache_bytes: float
) -> dict[str, Device]:
    """For hardware without a datasheet: the best FLOP/s and bytes/s seen, by ``gpu`` name.

    Efficiencies fitted against a stand-in are relative to the best observed point, so at most about 1;
    predictions must use the same stand-in. Bandwidths come from operations on more than four times the
    cache, or as far beyond it as there are such. ``units`` and sizes are those of the machine that measured.
    """
    found: dict[str, Device] = {}
    for gpu in dict.fromkeys(row["gpu"] for rows in tables.values() for row in rows):
        mine = {name: [row for row in rows if row["gpu"] == gpu] for name, rows in tables.items()}
        products, passes, exchanges = (mine.get(name, []) for name in ("gemm", "memory", "collectives"))
        rates: dict[str, float] = {}
        for row in products:
            dtype = canonical(row["dtype"])
            rate = 2e6 * row.get("batch", 1) * row["m"] * row["n"] * row["k"] / row["time_us"]
            rates[dtype] = max(rate, rates.get(dtype, 0.0))
        streams_of = [row for row in passes if row["op"] in STREAMS] or passes
        past = (4 * cache_bytes, 2 * cache_bytes, cache_bytes, 0.0)
        large = next((big for least in past if (big := [r for r in streams_of if r["bytes"] > least])), [])
        streams = [1e6 * row["bytes"] / row["time_us"] for row in large]
        link_bytes_per_s = max(map(busbw_bytes_per_s, exchanges), default=0.0)
        generations = [str(row.get("generation") or "") for rows in mine.values() for row in rows]
        found[gpu] = Device(
            key=slug(gpu),
            generation=next(filter(None, generations), "unknown"),
            flop_per_s=rates,
            memory_bytes=memory_bytes,
            memory_bytes_per_s=max(streams or map(_operand_bytes_per_s, products), default=0.0),
            sm_count=units,
            l2_bytes=cache_bytes,
            scale_up_bytes_per_s=link_bytes_per_s,
            host_bytes_per_s=link_bytes_per_s,
        )
    return found


def busbw_bytes_per_s(row: Row) -> float:
    """Bus bandwidth of a collective row."""
    factor = float(bus_factor(str(row["collective"]), int(row["gpus"])))
    return factor * float(row["size_bytes"]) / float(row["time_us"]) * 1e6


def _operand_bytes_per_s(row: Row) -> float:
    """Operand traffic of a product: what stands for the memory's rate where nothing measured that."""
    value_bytes = BYTES_PER_VALUE.get(canonical(row["dtype"]), 1.0)
    values = row["m"] * row["k"] + row["n"] * row["k"] + row["m"] * row["n"]
    return float(values * value_bytes / row["time_us"] * 1e6)


def slug(name: str) -> str:
    """A name as a key: lower case, words joined by ``-``."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
