"""The shape of an attention call and what it must do: scores, FLOP and bytes, whatever the hardware.

Like a bill of quantities: it says how many tiles the floor has, not how fast the tiler works. Everything
broadcasts over NumPy arrays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.spec.device import BYTES_PER_VALUE

Floats = NDArray[np.float64]
PHASES = ("fwd", "bwd", "prefill", "decode")
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float8": "fp8"}
_RATE_OF = {"mxfp8": "fp8", "fp8_block": "fp8", "mxfp4": "fp4", "nvfp4": "fp4"}
"""Block-scaled formats run at the rate of their element type; they keep their own name as key of a fit."""


def canonical_dtype(dtype: str) -> str:
    """Short name of a number format: ``bfloat16`` -> ``bf16``."""
    return _DTYPES.get(dtype, dtype)


def rate_dtype(dtype: str) -> str:
    """The datasheet format whose rate and size a (block-scaled) format has: ``mxfp8`` -> ``fp8``."""
    name = canonical_dtype(dtype)
    return _RATE_OF.get(name, name)


def value_bytes(dtype: str) -> float:
    """Bytes of one value of ``dtype``, scales of block formats left out.

    Raises:
        ValueError: unknown number format.
    """
    name = rate_dtype(dtype)
    if name not in BYTES_PER_VALUE:
        raise ValueError(f"number format {dtype!r} is not one of {', '.join(BYTES_PER_VALUE)}")
    return BYTES_PER_VALUE[name]


def engine_family(engine: str) -> str:
    """The engine without version and options: ``vllm 0.24.0`` -> ``vllm``, ``FA contiguous=True`` -> ``FA``."""
    return re.sub(r"(\s+(v?\d[\w.]*|\w+=\S+))+$", "", engine.strip())


@dataclass(frozen=True, slots=True)
class Shape:
    """One attention call (or an array of them); counts are per device, after tensor parallelism."""

    batch: Floats
    heads: Floats
    kv_heads: Floats
    head_dim: Floats
    head_dim_v: Floats
    """Width of the value (differs from ``head_dim`` in multi-head latent attention)."""
    q_len: Floats
    """Queries of each sequence."""
    kv_len: Floats
    """Keys of each sequence; the queries are the last ``q_len`` of them."""
    causal: NDArray[np.bool_]
    window: Floats
    """Keys a query may look back over, itself included; 0 = all."""

    @property
    def group(self) -> Floats:
        """Query heads that share one key-value head (grouped-query attention)."""
        return np.asarray(self.heads / self.kv_heads)

    @property
    def reach(self) -> Floats:
        """Keys in reach of the last query: the window, or all keys."""
        return np.where(self.window > 0, np.minimum(self.window, self.kv_len), self.kv_len)


def shape_of(
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
) -> Shape:
    """The shape, checked and broadcast. ``seq_len`` counts keys; ``q_len`` is 1 in decode, else ``seq_len``.

    Raises:
        ValueError: unknown phase, sizes below 1, more key-value heads than heads, or more queries than keys
            under a causal mask (all faults are listed).
    """
    faults = [] if phase in PHASES else [f"phase {phase!r} is not one of {', '.join(PHASES)}"]
    queries = q_len if q_len is not None else (1.0 if phase == "decode" else seq_len)
    value = head_dim if head_dim_v is None else head_dim_v
    columns = (batch, heads, kv_heads, head_dim, value, queries, seq_len, window)
    *sizes, win, ca = np.broadcast_arrays(
        *[np.asarray(c, dtype=float) for c in columns], np.asarray(causal, dtype=bool)
    )
    names = ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "q_len", "seq_len")
    for name, column in zip(names, sizes, strict=True):
        if not np.all(column >= 1):
            faults.append(f"{name} must be 1 or more, found {np.min(column):g}")
    if not np.all(win >= 0):
        faults.append(f"window must be 0 (none) or more, found {np.min(win):g}")
    if np.any(sizes[2] > sizes[1]):
        faults.append("kv_heads must not exceed heads")
    if np.any((sizes[5] > sizes[6]) & ca):
        faults.append("q_len must not exceed seq_len under a causal mask")
    if faults:
        raise ValueError("attention: " + "; ".join(faults))
    b, h, hk, d, dv, q, kv = sizes
    return Shape(b, h, hk, d, dv, q, kv, ca, win)


def visible_keys(shape: Shape) -> Floats:
    """Mean keys a query scores: half the square when causal, the band when windowed.

    Causal: query i of q sees min(window, kv - q + i) keys, averaged over i in closed form. Without a causal
    mask a window reaches to both sides.
    """
    before = shape.kv_len - shape.q_len
    ramp = np.clip(shape.reach - before, 0, shape.q_len)
    causal = (ramp * (before + (ramp + 1) / 2) + (shape.q_len - ramp) * shape.reach) / shape.q_len
    around = np.where(shape.window > 0, np.minimum(2 * shape.reach, shape.kv_len), shape.kv_len)
    return np.where(shape.causal, causal, around)


def attention_flop(phase: str, shape: Shape) -> Floats:
    """FLOP of the matrix products, no padding, per call.

    Forward: QK^T and PV, 2 (d + dv) per score. Backward: S, dP, dV, dK, dQ, 2 (3 d + 2 dv) per score: 2.5 x
    forward where d = dv. Source: FlashAttention-2 (Dao 2023, arXiv 2307.08691), section 3.1 and section 4.1.
    """
    d, dv = shape.head_dim, shape.head_dim_v
    each = 2 * (3 * d + 2 * dv) if phase == "bwd" else 2 * (d + dv)
    return shape.batch * shape.heads * shape.q_len * visible_keys(shape) * each


def attention_bytes(phase: str, shape: Shape, q_bytes: float, kv_bytes: float) -> Floats:
    """Bytes that must cross the memory bus: Q, K, V in and O out; backward also dO in and dQ, dK, dV out.

    ``q_bytes`` and ``kv_bytes`` are bytes per value of the activations and of the (cached) keys and values.
    Keys outside the reach of every query are not counted. Source: FlashAttention (Dao et al. 2022, arXiv
    2205.14135), theorem 2, in the limit of a cache that holds a tile.
    """
    queries = shape.batch * shape.heads * shape.q_len * (shape.head_dim + shape.head_dim_v) * q_bytes
    keys = np.minimum(shape.kv_len, shape.reach + shape.q_len - 1)
    cache = shape.batch * shape.kv_heads * keys * (shape.head_dim + shape.head_dim_v) * kv_bytes
    return 2 * (queries + cache) if phase == "bwd" else queries + cache


def unfused_attention_bytes(
    phase: str,
    batch: ArrayLike,
    heads: ArrayLike,
    q_len: ArrayLike,
    seq_len: ArrayLike,
    bytes_per_value: float = 2.0,
    dropout: bool = True,
) -> Floats:
    """Bytes the score square moves through memory where attention is not fused (no flash kernel).

    Per score, with a fused scale-mask-softmax. Forward: scores written and read, probabilities written and
    read (4 values); dropout adds a read, a write and a one-byte mask. Backward: dP written and read, P read,
    dS written and read twice, P read for dV (7 values); dropout adds a read, a write and the mask. Causal
    masks do not shrink the square. Source: counted from the classic layer of Megatron-LM (Korthikanti et al.
    2022, arXiv 2205.05198, fig. 3).
    """
    scores = _scores(batch, heads, q_len, seq_len)
    values = 7.0 if phase == "bwd" else 4.0
    each = values * bytes_per_value + (2 * bytes_per_value + 1.0 if dropout else 0.0)
    return scores * each


def unfused_attention_stored_bytes(
    batch: ArrayLike, heads: ArrayLike, q_len: ArrayLike, seq_len: ArrayLike, dropout: bool = True
) -> Floats:
    """Bytes of 16-bit score tensors kept for the backward pass: 5 a s^2 b, or 2 a s^2 b without dropout.

    Softmax output 2, dropout mask 1, dropout output 2. Source: Korthikanti et al. 2022 (arXiv 2205.05198),
    section 4.1.
    """
    return _scores(batch, heads, q_len, seq_len) * (5.0 if dropout else 2.0)


def _scores(batch: ArrayLike, heads: ArrayLike, q_len: ArrayLike, seq_len: ArrayLike) -> Floats:
    b, h, q, s = (np.asarray(x, dtype=float) for x in (batch, heads, q_len, seq_len))
    return np.asarray(b * h * q * s)
