"""Matrix products on a CPU: one diligent hand instead of a hundred tiles in flight.

A core keeps a panel of one matrix in registers and cache and streams the other past it; it needs enough rows,
columns and inner steps to fill its vectors, and for thin products the stream is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim.cost.parameters import Parameter

Floats = NDArray[np.float64]

PARAMETERS = (
    Parameter("compute_frac", "1", "share of the best rate seen that large products reach", 0.95, 0.2, 1.3),
    Parameter("memory_frac", "1", "share of the memory bandwidth that streaming reaches", 0.8, 0.1, 2.0),
    Parameter("launch_s", "s", "fixed time of a call", 2e-6, 1e-7, 1e-4),
    Parameter("l2_ratio", "1", "rate of the last cache over that of the memory", 2.0, 1.0, 15.0),
    Parameter("resident_frac", "1", "share of that cache that operands find", 0.5, 0.02, 2.0),
    Parameter("edge_rows", "1", "rows at which half of the rate is reached", 8.0, 0.01, 256.0),
    Parameter("edge_columns", "1", "columns at which half of the rate is reached", 16.0, 0.01, 256.0),
    Parameter("edge_inner", "1", "inner length at which half of the rate is reached", 8.0, 0.01, 256.0),
)
"""What a calibration fits. The halving lengths are those of Hockney's n-half (Hockney and Jesshope, *Parallel
Computers*, 1981); starts assumed: a few vectors of 16 values."""
SOFTNESS = 4.0
"""Exponent of the soft maximum between arithmetic and stream, which hinder each other near balance."""


def product_s(
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    cache_bytes: float,
    sizes: tuple[Floats, Floats, Floats, Floats],
    moved_bytes: Floats,
    p: Mapping[str, float],
) -> Floats:
    """Seconds of ``batch`` products on one CPU device.

    launch + soft maximum of arithmetic at the rate that (m, n, k) reach, r / (1 + h / size) along each of them, and
    ``moved_bytes`` at the rate of the tier they lie in: cache where a product fits there, else memory.

    Args:
        peak_flop_per_s: best rate seen, FLOP/s.
        memory_bytes_per_s: of the memory.
        cache_bytes: last cache.
        sizes: m, n, k and batch, broadcast together.
        moved_bytes: operands and result once, all products together.
        p: values of :data:`PARAMETERS`.
    """
    m, n, k, batch = sizes
    edges = (1 + p["edge_rows"] / m) * (1 + p["edge_columns"] / n) * (1 + p["edge_inner"] / k)
    compute_s = 2.0 * batch * m * n * k / (peak_flop_per_s * p["compute_frac"]) * edges
    hit = 1 / (1 + (moved_bytes / batch / max(p["resident_frac"] * cache_bytes, 1.0)) ** 2)
    rate = memory_bytes_per_s * p["memory_frac"]
    stream_s = moved_bytes * (1 - hit + hit / p["l2_ratio"]) / rate
    return np.asarray(p["launch_s"] + (compute_s**SOFTNESS + stream_s**SOFTNESS) ** (1 / SOFTNESS))
