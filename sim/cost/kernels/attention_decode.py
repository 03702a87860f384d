"""Decode attention: one new query against a cache of keys and values, so reading is nearly all the work.

Like emptying a warehouse through its doors: with few sequences only some doors are used, so the kernel cuts
each cache into splits until every multiprocessor has one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.cost.kernels.attention_shape import Floats, Shape, attention_bytes, rate_dtype, value_bytes
from sim.cost.parameters import Parameter
from sim.spec.device import Device

TILE_KEYS = 128.0
"""Keys of one step of the walk over the cache: assumed, as in the prefill kernels."""
TILE_ROWS = 16.0
"""Rows of the smallest matrix instruction: the query heads of one group are padded up to it."""

DECODE_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch_s", "s", "fixed time of a call: launch, scheduling, drain", 9e-6, 5e-7, 3e-4),
    Parameter(
        "memory_efficiency_frac", "1", "share of the datasheet bandwidth a long read reaches", 0.85, 0.2, 1.1
    ),
    Parameter(
        "l2_gain", "1", "speed of the last-level cache over memory for a cache that fits it", 1.5, 1.0, 8.0
    ),
    Parameter(
        "l2_share_frac", "1", "share of the last-level cache a KV cache may fill and stay", 0.7, 0.1, 2.0
    ),
    Parameter(
        "cta_bytes_per_s",
        "byte/s",
        "rate at which one thread block can stream keys and values",
        4e10,
        3e9,
        5e11,
    ),
    Parameter("mma_efficiency_frac", "1", "share of the matrix peak reached on padded rows", 0.6, 0.02, 1.2),
    Parameter("prologue_s", "s", "fixed time of one thread block", 1e-6, 1e-8, 4e-5),
    Parameter("combine_s", "s", "extra kernel that merges the splits", 2e-6, 1e-7, 5e-5),
    Parameter(
        "window_visited_frac", "1", "share of the keys outside the window read all the same", 1e-3, 1e-4, 1.0
    ),
    Parameter("ctas_in_flight", "1", "thread blocks a multiprocessor runs at once", 2.0, 0.9, 6.0),
    Parameter("quantise_frac", "1", "how much of a partly filled last wave is lost", 0.3, 0.02, 1.0),
    Parameter(
        "serial_frac",
        "1",
        "share of the shorter of reading and block work that is not hidden",
        0.2,
        0.01,
        1.0,
    ),
    Parameter("split_ctas_per_sm", "1", "thread blocks a multiprocessor the split aims at", 1.0, 1.0, 4.0),
    Parameter(
        "splits_plain_only", "1", "1 = packs and splits only grouped heads without window", 0.0, 0.0, 1.0
    ),
)
DECODE_CHOICES: Mapping[str, tuple[float, ...]] = {
    "split_ctas_per_sm": (1.0, 2.0, 4.0),
    "splits_plain_only": (0.0, 1.0),
}
"""Parameters that are a choice of the kernel's author, not a quantity: a fit tries each."""


def decode_coordinates(shape: Shape, device: Device) -> dict[str, Floats]:
    """Where a decode call lies on a residual grid, all in log2."""
    return {
        "log2_keys": np.log2(shape.reach),
        "log2_streams_per_sm": np.log2(shape.batch * shape.kv_heads / device.sm_count),
        "log2_group": np.log2(shape.group),
        "log2_head_dim": np.log2(shape.head_dim),
    }


def decode_attention_s(
    values: Mapping[str, float], device: Device, shape: Shape, dtype: str, kv_dtype: str
) -> Floats:
    """Seconds of one decode call.

    launch + the longer of (KV bytes / bandwidth, with a last-level-cache tier) and (waves of thread blocks,
    each streaming its split and multiplying padded rows) + what is not hidden of the shorter + the merge of
    the splits. Splits fill the multiprocessors: floor(c SMs / (batch kv_heads)), no shorter than one tile of
    keys. Sources: Flash-Decoding (Dao, Haziza, Massa, Sizov 2023, pytorch.org/blog/flash-decoding) for the
    splits; Little's law for the rate of few blocks; ``splits_plain_only`` is the rule of FlashAttention-2's
    variable-length kernel (flash_api.cpp, ``seqlenq_ngroups_swapped``): heads of a group share a block, and
    the cache is split, only for grouped heads without a window.
    """
    v = values
    size = value_bytes(kv_dtype)
    width = (shape.head_dim + shape.head_dim_v) * size
    keys = shape.reach + v["window_visited_frac"] * (shape.kv_len - shape.reach)
    plain = (shape.group > 1) & (shape.window == 0) | (v["splits_plain_only"] < 0.5)
    rows = shape.group * shape.q_len
    streams = shape.batch * np.where(plain, shape.kv_heads * np.ceil(rows / TILE_ROWS), shape.heads)
    blocks = np.ceil(keys / TILE_KEYS)
    fill = np.floor(v["split_ctas_per_sm"] * device.sm_count / streams)
    splits = np.where(plain, np.clip(fill, 1, blocks), 1.0)
    kv_bytes = shape.batch * shape.kv_heads * keys * width
    fits_l2 = 1 / (1 + (kv_bytes / (device.l2_bytes * v["l2_share_frac"])) ** 4)
    rate = device.memory_bytes_per_s * v["memory_efficiency_frac"] * (1 + (v["l2_gain"] - 1) * fits_l2)
    query_bytes = (
        shape.batch * shape.heads * shape.q_len * (shape.head_dim + shape.head_dim_v) * value_bytes(dtype)
    )
    read_s = (kv_bytes + query_bytes) / rate
    sm_flop_per_s = device.peak(rate_dtype(dtype)) / device.sm_count * v["mma_efficiency_frac"]
    flop = 2 * TILE_ROWS * (shape.head_dim + shape.head_dim_v) * TILE_KEYS
    tile_s = TILE_KEYS * width / v["cta_bytes_per_s"] + flop / sm_flop_per_s
    block_s = v["prologue_s"] + np.ceil(blocks / splits) * tile_s
    waves = streams * splits / (device.sm_count * v["ctas_in_flight"])
    work_s = np.maximum(block_s, (waves + v["quantise_frac"] * (np.ceil(waves) - waves)) * block_s)
    busy_s = np.maximum(read_s, work_s) + v["serial_frac"] * np.minimum(read_s, work_s)
    return np.asarray(v["launch_s"] + busy_s + np.where(splits > 1, v["combine_s"], 0.0))


def decode_bytes(shape: Shape, dtype: str, kv_dtype: str) -> Floats:
    """Bytes of the cache in reach, the query and the output."""
    return attention_bytes("decode", shape, value_bytes(dtype), value_bytes(kv_dtype))
