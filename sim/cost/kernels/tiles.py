"""How a matrix product is cut into tiles and how long the best cut takes: like boards on a floor.

A library covers C[m, n] with tiles, one tile per multiprocessor at a time, and may cut K as well so that all
multiprocessors have work. The time of each cut follows from a few rates of the device; the answer is the
shortest, because libraries choose their kernel by trial or by a heuristic that imitates one.

Sources: tile and wave quantisation, NVIDIA, "Matrix Multiplication Background User's Guide" (2023), sections
2.2 and 3.2; split-K and its reduction, CUTLASS documentation, "Efficient GEMM in CUDA"; roofline, Williams,
Waterman and Patterson, CACM 52(4), 2009.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TILES: tuple[tuple[int, int], ...] = (
    (256, 128),
    (128, 256),
    (128, 192),
    (192, 128),
    (128, 128),
    (256, 64),
    (64, 256),
    (128, 64),
    (64, 128),
    (64, 64),
    (256, 32),
    (32, 256),
    (128, 32),
    (32, 128),
    (64, 32),
    (32, 64),
    (16, 128),
    (16, 64),
)
"""Rows and columns of C that one multiprocessor works on, as in the kernel names of cuBLAS and CUTLASS."""
K_STEP_BYTES = 128.0
"""One step of the main loop: a 128-byte line of each row of A and of each column of B."""
SPLIT_MIN_BYTES = 512.0
"""K is not cut below four such steps."""
ACCUMULATOR_BYTES = 4.0
"""Partial sums are fp32 (or int32)."""
SYSTOLIC_CORES = 1024.0
"""A device that counts more cores than this counts arithmetic slices of one array, not tiles in flight."""
LARGE_CORES = 96.0
"""Chips of far fewer cores have larger cores, which take larger tiles."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What the tiles run on, per device; ``a`` and ``b`` are bytes per element of those matrices."""

    flop_per_s: float
    memory_bytes_per_s: float
    cores: float
    l2_bytes: float
    a: float
    b: float


def tiles_for(cores: float) -> tuple[tuple[int, int], ...]:
    """Candidate tiles for a device of ``cores`` multiprocessors, doubled where these are few and large."""
    scale = int(2 ** max(0, math.floor(math.log2(math.sqrt(LARGE_CORES / min(cores, LARGE_CORES))))))
    return tuple((rows * scale, columns * scale) for rows, columns in TILES)


def best_tile_s(
    rates: Rates, m: Floats, n: Floats, k: Floats, batch: Floats, c_bytes: Floats, p: Mapping[str, float]
) -> Floats:
    """Seconds of the fastest tile and split of K, without launch; all arrays flat and of one length.

    ``c_bytes``: traffic per element of C.
    """
    bandwidth = rates.memory_bytes_per_s * p["memory_frac"]
    l2_bandwidth = rates.memory_bytes_per_s * p["l2_ratio"]
    cores = rates.cores if rates.cores <= SYSTOLIC_CORES else 1.0
    core_flop_per_s = rates.flop_per_s * p["compute_frac"] / cores
    widest = max(rates.a, rates.b)
    per_step = K_STEP_BYTES / widest
    operands = batch * (m * k * rates.a + n * k * rates.b)
    outputs = batch * m * n
    total = operands + outputs * c_bytes
    # Part of the operands is still in the L2 from the call before: a soft step at capacity.
    with np.errstate(divide="ignore"):  # a device without a cache hits nothing
        hit = 1.0 / (1.0 + (total / (rates.l2_bytes * p["resident_frac"])) ** 3)
    miss_s = (1.0 - hit) / bandwidth
    stream_s = total * (hit / l2_bandwidth + miss_s)
    sum_s = outputs * (2 * ACCUMULATOR_BYTES / l2_bandwidth)
    splits_allowed = k * (widest / SPLIT_MIN_BYTES)
    latency = p["k_step_s"] / per_step
    # One line per candidate tile, one column per product.
    rows, columns = (np.array(side, dtype=float)[:, None] for side in zip(*tiles_for(cores), strict=True))
    tiles = batch * np.ceil(m / rows) * np.ceil(n / columns)
    flop_s = 2.0 * rows * columns / core_flop_per_s
    l2_s = (rows * rates.a + columns * rates.b) * (cores / l2_bandwidth)
    step_s = np.sqrt(flop_s**2 + l2_s**2 + latency**2) * per_step
    # A wave is nearly a square of tiles; its panels are read once and, where the L2 forgets them, again.
    panel = (2.0 * widest) * np.sqrt(cores * rows * columns)
    again = np.maximum(np.maximum(tiles / cores, 1.0) * panel * k - operands, 0.0)
    memory_s = stream_s + again * (miss_s * p["reread_frac"])
    seconds = _cut_s(tiles, np.ceil(k / per_step) * step_s, memory_s, cores, p)
    parts = np.maximum(np.floor(np.minimum(cores / tiles, splits_allowed)), 1.0)
    if parts.max(initial=1.0) > 1.0:
        cut = _cut_s(tiles * parts, np.ceil(k / (parts * per_step)) * step_s, memory_s, cores, p)
        cut += (p["split_s"] + parts * sum_s) * (parts > 1.0)
        seconds = np.minimum(seconds, cut)
    return np.asarray(seconds.min(axis=0))


def _cut_s(tiles: Floats, tile_s: Floats, memory_s: Floats, cores: float, p: Mapping[str, float]) -> Floats:
    """Seconds of one cut: waves of tiles against the memory; of the shorter, a share is not hidden.

    ``tile_s``: main loop of one tile.
    """
    share = tiles / cores
    waves = np.maximum(share + p["wave_frac"] * (np.ceil(share) - share), 1.0)
    compute = waves * (p["wave_s"] + tile_s)
    # Few tiles cannot draw the whole bandwidth: each core keeps only so many requests in flight.
    memory = memory_s / np.minimum(share * p["sm_share"], 1.0)
    seconds: Floats = np.maximum(compute, memory) + p["exposed_frac"] * np.minimum(compute, memory)
    return seconds
