"""Fused attention kernels: training forward and backward and inference prefill; decode joins them here.

Think of a square of scores cut into tiles: half of it is masked away, each thread block walks along one row
of tiles, and the matrix units wait whenever the exponentials of the softmax are not ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sim.cost.estimate import Estimate
from sim.cost.kernels.attention_decode import (
    DECODE_CHOICES,
    DECODE_PARAMETERS,
    decode_attention_s,
    decode_coordinates,
)
from sim.cost.kernels.attention_shape import (
    PHASES,
    Floats,
    Shape,
    attention_bytes,
    attention_flop,
    canonical_dtype,
    engine_family,
    rate_dtype,
    shape_of,
    unfused_attention_bytes,
    unfused_attention_stored_bytes,
    value_bytes,
    visible_keys,
)
from sim.cost.parameters import Parameter, complete
from sim.spec.device import Device
from sim.spec.profile import Fit, find

__all__ = [
    "CHOICES",
    "PARAMETERS",
    "PHASES",
    "Shape",
    "attention",
    "attention_bytes",
    "attention_flop",
    "attention_s",
    "choose",
    "coordinates",
    "engine_family",
    "flash_attention_s",
    "lower_bound_s",
    "operation",
    "shape_of",
    "unfused_attention_bytes",
    "unfused_attention_stored_bytes",
    "visible_keys",
]

TILE_KEYS = 128.0
"""Keys a thread block takes at once: FlashAttention-2 and cuDNN kernels step by 64 to 128 (arXiv 2307.08691)."""
EXP_SOURCE = (
    "16 special-function results a clock beside 128 FMA lanes: FlashAttention-3, arXiv 2407.08608, section 3"
)

FLASH_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch_s", "s", "fixed time of a call: launch, scheduling, drain", 8e-6, 5e-7, 3e-4),
    Parameter("mma_efficiency_frac", "1", "share of the matrix peak the inner loop reaches", 0.7, 0.1, 1.2),
    Parameter("wide_head_frac", "1", "matrix rate for head_dim > 128 over that up to 128", 0.95, 0.3, 1.3),
    Parameter("exp_per_flop", "1", "exponentials per vector fp32 FLOP", 1 / 16, 0.005, 1.0, EXP_SOURCE),
    Parameter(
        "serial_frac", "1", "share of the shorter of matrix and exponential work not hidden", 0.2, 0.01, 1.0
    ),
    Parameter(
        "prologue_s", "s", "fixed time of one tile of queries: load Q and first K, store O", 1e-6, 1e-8, 3e-5
    ),
    Parameter("quantise_frac", "1", "how much of a partly filled last wave is lost", 0.5, 0.02, 1.5),
    Parameter("memory_efficiency_frac", "1", "share of the datasheet bandwidth reached", 0.8, 0.1, 1.2),
    Parameter(
        "window_visited_frac",
        "1",
        "share of the tiles outside the window visited all the same",
        1e-3,
        1e-4,
        1.0,
    ),
    Parameter(
        "causal_visited_frac",
        "1",
        "share of the tiles above the diagonal visited all the same",
        3e-3,
        1e-4,
        1.0,
    ),
    Parameter("tile_rows", "1", "queries a thread block holds", 128.0, 64.0, 256.0),
    Parameter("packs_groups", "1", "1 = query heads of a group share a tile", 0.0, 0.0, 1.0),
)
PREFILL_CHOICES: Mapping[str, tuple[float, ...]] = {"tile_rows": (64.0, 128.0), "packs_groups": (0.0, 1.0)}
FORWARD_CHOICES: Mapping[str, tuple[float, ...]] = {"tile_rows": (128.0, 256.0), "packs_groups": (0.0,)}
BACKWARD_CHOICES: Mapping[str, tuple[float, ...]] = {"tile_rows": (128.0,), "packs_groups": (0.0,)}
"""What a kernel's author chose, by phase: a fit tries each and keeps the best (sizes of FlashAttention-2, 3)."""

PARAMETERS: Mapping[str, tuple[Parameter, ...]] = {
    "fwd": FLASH_PARAMETERS,
    "bwd": FLASH_PARAMETERS,
    "prefill": FLASH_PARAMETERS,
    "decode": DECODE_PARAMETERS,
}
"""Parameters of each phase; those named in :data:`CHOICES` take only the values listed there."""
CHOICES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "fwd": FORWARD_CHOICES,
    "bwd": BACKWARD_CHOICES,
    "prefill": PREFILL_CHOICES,
    "decode": DECODE_CHOICES,
}


def operation(phase: str) -> str:
    """Name of the phase in a profile: ``attention_prefill`` and so on."""
    return f"attention_{phase}"


def coordinates(phase: str, shape: Shape, device: Device) -> dict[str, Floats]:
    """Where a call lies on a residual grid: log2 of sizes, and whether a window cuts anything off."""
    if phase == "decode":
        return decode_coordinates(shape, device)
    tiles = shape.batch * shape.heads * np.ceil(shape.q_len / 128)
    return {
        "log2_queries": np.log2(shape.q_len),
        "log2_tiles_per_sm": np.log2(tiles / device.sm_count),
        "log2_group": np.log2(shape.group),
        "log2_head_dim": np.log2(shape.head_dim),
        "windowed": np.asarray((shape.window > 0) & (shape.window < shape.kv_len), dtype=float),
    }


def flash_attention_s(
    values: Mapping[str, float], device: Device, phase: str, shape: Shape, dtype: str, kv_dtype: str
) -> Floats:
    """Seconds of one fused attention call with many queries (fwd, bwd or prefill).

    A tile of queries walks over its keys; a step costs the longer of its matrix products and its
    exponentials, plus what is not hidden of the shorter. The call lasts as long as the longest tile or the
    mean load of a multiprocessor, with the last wave partly lost, and not less than its bytes over the
    bandwidth. Sources: FlashAttention-2 (Dao 2023, arXiv 2307.08691) for tiles, causal skipping and the five
    products of the backward pass; FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608) for the exponential
    bound and packed groups. One query a sequence is always packed: engines send it to a decode kernel.
    """
    v = values
    rows = v["tile_rows"]
    mean, longest = _tile_widths(v, shape, rows)
    packed = (shape.q_len == 1) | (v["packs_groups"] > 0.5)
    strips = np.where(
        packed,
        shape.kv_heads * np.ceil(shape.q_len * shape.group / rows),
        shape.heads * np.ceil(shape.q_len / rows),
    )
    tiles = shape.batch * strips
    peak = device.peak(rate_dtype(dtype))
    wide = np.where(shape.head_dim > 128, v["wide_head_frac"], 1.0)
    sm_flop_per_s = peak / device.sm_count * v["mma_efficiency_frac"] * wide
    sm_exp_per_s = device.flop_per_s.get("fp32", peak / 16) / device.sm_count * v["exp_per_flop"]
    d, dv = shape.head_dim, shape.head_dim_v
    mma_s = rows * (2 * (3 * d + 2 * dv) if phase == "bwd" else 2 * (d + dv)) / sm_flop_per_s
    exp_s = rows / sm_exp_per_s
    step_s = np.maximum(mma_s, exp_s) + v["serial_frac"] * np.minimum(mma_s, exp_s)
    tile_s = v["prologue_s"] + mean * step_s
    waves = tiles / device.sm_count
    load_s = (waves + v["quantise_frac"] * (np.ceil(waves) - waves)) * tile_s
    compute_s = np.maximum(v["prologue_s"] + longest * step_s, load_s)
    moved = attention_bytes(phase, shape, value_bytes(dtype), value_bytes(kv_dtype))
    if phase == "bwd":  # dQ is gathered in fp32 and converted by a second kernel
        moved = moved + 8 * shape.batch * shape.heads * shape.q_len * d
    memory_s = moved / (device.memory_bytes_per_s * v["memory_efficiency_frac"])
    # A 4-norm is within 19 % of the maximum at the corner, where the two do hinder each other.
    return np.asarray(v["launch_s"] + (compute_s**4 + memory_s**4) ** 0.25)


def _tile_widths(v: Mapping[str, float], shape: Shape, rows: float) -> tuple[Floats, Floats]:
    """Mean and longest walk of a query tile, in keys, rounded up to tiles of keys."""
    top = np.ceil(shape.kv_len / TILE_KEYS) * TILE_KEYS
    stagger = np.minimum(rows, shape.q_len) - 1

    def band(reach: Floats) -> tuple[Floats, Floats]:
        before = shape.kv_len - shape.q_len
        ramp = np.clip(reach - before, 0, shape.q_len)
        seen = (ramp * (before + (ramp + 1) / 2) + (shape.q_len - ramp) * reach) / shape.q_len
        # The last row of a tile sees `stagger` keys more than the first; half a tile is lost at the edge.
        mean = np.clip(seen + stagger / 2 + (TILE_KEYS - 1) / 2, TILE_KEYS, top)
        far = np.minimum(np.ceil((reach + stagger) / TILE_KEYS) * TILE_KEYS, top)
        around = np.where(
            reach < shape.kv_len, np.ceil(np.minimum(2 * reach, shape.kv_len) / TILE_KEYS) * TILE_KEYS, top
        )
        return np.where(shape.causal, mean, around), np.where(shape.causal, np.maximum(far, mean), around)

    mean, longest = band(shape.reach)
    mean_open, longest_open = band(shape.kv_len)
    window, causal = v["window_visited_frac"], v["causal_visited_frac"]
    return (
        mean + window * (mean_open - mean) + causal * (top - mean_open),
        longest + window * (longest_open - longest) + causal * (top - longest_open),
    )


def attention_s(
    values: Mapping[str, float], device: Device, phase: str, shape: Shape, dtype: str, kv_dtype: str
) -> Floats:
    """Seconds of one call of any phase for given parameter values (all of :data:`PARAMETERS`).

    Raises:
        KeyError: the device has no datasheet rate for ``dtype``.
    """
    if phase == "decode":
        if (
            device.generation == "cpu"
        ):  # a core takes one query head after another and reads its keys for each
            shape = replace(shape, kv_heads=shape.heads)
        return decode_attention_s(values, device, shape, dtype, kv_dtype)
    return flash_attention_s(values, device, phase, shape, dtype, kv_dtype)


def lower_bound_s(device: Device, phase: str, shape: Shape, dtype: str, kv_dtype: str) -> Floats:
    """What the datasheet alone allows: FLOP / peak or bytes / bandwidth, whichever is longer, seconds."""
    flop_s = attention_flop(phase, shape) / device.peak(rate_dtype(dtype))
    moved = attention_bytes(phase, shape, value_bytes(dtype), value_bytes(kv_dtype))
    return np.maximum(flop_s, moved / device.memory_bytes_per_s)


def attention(
    fits: Sequence[Fit],
    device: Device,
    *,
    phase: str,
    batch: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    seq_len: ArrayLike,
    head_dim_v: ArrayLike | None = None,
    q_len: ArrayLike | None = None,
    causal: ArrayLike = True,
    window: ArrayLike = 0,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
    engine: str = "",
) -> Estimate:
    """Duration of one attention call of one layer on one device, seconds; broadcasts over the sizes.

    ``seq_len`` counts keys (cached tokens in decode); ``heads`` and ``kv_heads`` are those on this device;
    ``window`` 0 = none; ``kv_dtype`` None = ``dtype``. The fit is the nearest by generation, number formats,
    engine, then accelerator. A fit of another generation lends its parameters, not its residual grid.

    Raises:
        ValueError: unknown phase or number format, impossible sizes.
        KeyError: the device has no datasheet rate for ``dtype``.
    """
    shape = shape_of(phase, batch, heads, kv_heads, head_dim, seq_len, head_dim_v, q_len, causal, window)
    kind, kv_kind = canonical_dtype(dtype), canonical_dtype(kv_dtype or dtype)
    fit = choose(fits, device, phase, kind, kv_kind, engine)
    values = complete(PARAMETERS[phase], fit.values() if fit else {})
    seconds = attention_s(values, device, phase, shape, kind, kv_kind)
    leans_on = "parameters" if fit else "assumed defaults"
    if fit and fit.grid is not None and fit.key.get("generation") == device.generation:
        seconds = seconds * fit.grid.factor(coordinates(phase, shape, device))
        leans_on = "parameters and residual grid"
    return Estimate(seconds, lower_bound_s(device, phase, shape, kind, kv_kind), fit, leans_on)


def choose(
    fits: Sequence[Fit], device: Device, phase: str, dtype: str, kv_dtype: str, engine: str = ""
) -> Fit | None:
    """The fit nearest to what is asked: by generation, number formats, engine, then accelerator.

    A fit without a generation holds for all and goes before that of another generation. Half precision runs
    the same kernels at the same rate whichever 16-bit format it is. Prefill and training forward are the same
    arithmetic, so either stands in where the other was not measured. None when nothing is known.
    """
    sixteen = {"fp16": "bf16"}
    kind, kv_kind = canonical_dtype(dtype), canonical_dtype(kv_dtype)
    prefer = (
        ("generation", device.generation),
        ("dtype", sixteen.get(kind, kind)),
        ("kv_dtype", sixteen.get(kv_kind, kv_kind)),
        ("engine", engine_family(engine)),
        ("accelerator", device.key),
    )
    for name in (phase, {"fwd": "prefill", "prefill": "fwd"}.get(phase, phase)):
        found = find(fits, operation(name), prefer)
        if found is not None:
            return found
    return None
