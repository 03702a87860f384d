"""Kernels that only move data: norms, activations, additions, soft-max.

Such a kernel is like emptying a warehouse through one door: a fixed time to open the door (launch), then
the goods at the rate of the door (memory bandwidth, faster while everything still lies on the ramp, the L2
cache), unless the hands that carry them are the slower part (rows handled one after another by each
multiprocessor).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.estimate import Estimate
from sim.cost.parameters import Parameter, complete
from sim.spec.device import BYTES_PER_VALUE, Device
from sim.spec.profile import Fit, find

Floats = NDArray[np.float64]

PASSES: Mapping[str, float] = {
    **dict.fromkeys(
        ("add", "mul", "div", "sub", "pow"), 3.0
    ),  # two operands in (pow: exponent too), one result out
    **dict.fromkeys(("addu", "mulu", "divu", "powu", "relu", "tanh", "gelu", "silu", "sigmoid"), 2.0),
    **dict.fromkeys(("exp", "cast", "copy", "transpose", "dropout"), 2.0),
    **dict.fromkeys(("softmax", "ln", "layer_norm_fwd", "rms_norm", "rms_norm_fwd"), 2.0),
    **dict.fromkeys(("layer_norm_bwd", "rms_norm_bwd", "softmax_bwd"), 3.0),  # x, dy in; dx out
    "fused_add_rms_norm": 4.0,  # x, residual in; sum, norm out
    "residual_add": 3.0,
    "silu_and_mul": 3.0,  # gate, up in; product out; cols = width of the product
    "rope": 2.0,
    "sum": 1.0,
    "cross_entropy": 2.0,  # eager: logits in, log-probabilities out and read again for the chosen ones
}
"""Times each value crosses the memory interface in the ideal: operands read once, results written once,
everything else kept on chip. Counted from the definition of each operation; row statistics and norm weights
are left out (1 / cols and 1 / rows of the traffic)."""

KINDS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "softmax",
            "ln",
            "layer_norm_fwd",
            "rms_norm",
            "rms_norm_fwd",
            "fused_add_rms_norm",
            "cross_entropy",
        ),
        "row",
    ),
    **dict.fromkeys(("layer_norm_bwd", "rms_norm_bwd", "softmax_bwd"), "row backward"),
}
"""Kind of an operation: ``row`` kernels reduce along a row first, all others are ``elementwise``."""

FUSED = ("residual_add", "silu_and_mul", "rope")
"""Elementwise operations that serving engines write as kernels of their own."""

OP = "memory_bound"

PARAMETERS = (
    Parameter("launch_s", "s", "start and drain of one kernel", 3e-6, 5e-7, 4e-5),
    Parameter(
        "memory_eff_frac", "1", "share of the memory bandwidth reached by large tensors", 0.85, 0.1, 1.1
    ),
    Parameter("row_s", "s", "time one multiprocessor needs per row, however short", 1e-8, 1e-10, 1e-5),
    Parameter("core_bytes_per_s", "byte/s", "rate at which one multiprocessor can work", 5e10, 2e9, 4e11),
    Parameter("l2_ratio", "1", "cache rate over memory rate", 3.0, 1.2, 8.0),
    Parameter("l2_frac", "1", "share of the cache that holds last call's tensors", 0.3, 0.05, 2.0),
)
"""What a calibration may turn. Published streaming tests reach 0.8 to 0.9 of the datasheet bandwidth."""

SOFTNESS = 4.0
"""Exponent of the soft maximum between streaming and row work: near balance they overlap imperfectly."""


def kind(op: str) -> str:
    """``elementwise``, ``row`` or ``row backward``."""
    return KINDS.get(op, "elementwise")


def family(op: str) -> str:
    """Operations that share one kernel template: all plain elementwise ones, else the operation itself."""
    plain = kind(op) == "elementwise" and op not in FUSED
    return "elementwise" if plain else op


def passes(op: str, engine: str = "") -> float:
    """Memory crossings per value of ``op`` (see :data:`PASSES`); vLLM's ``rms_norm`` is fused with the
    residual add.

    Raises:
        ValueError: an operation that the table lacks.
    """
    if op not in PASSES:
        raise ValueError(f"unknown memory-bound operation {op!r}; known: {', '.join(sorted(PASSES))}")
    if op == "rms_norm" and engine.startswith("vLLM"):
        return PASSES["fused_add_rms_norm"]
    return PASSES[op]


def ideal_bytes(op: str, rows: ArrayLike, cols: ArrayLike, dtype: str, engine: str = "") -> Floats:
    """Bytes a perfect kernel would read and write: passes x rows x cols x bytes per value."""
    if dtype not in BYTES_PER_VALUE:
        raise ValueError(f"unknown number format {dtype!r}; known: {', '.join(BYTES_PER_VALUE)}")
    values = np.asarray(rows, dtype=float) * np.asarray(cols, dtype=float)
    return np.asarray(passes(op, engine) * values * BYTES_PER_VALUE[dtype])


def memory_bound_s(
    device: Device,
    moved_bytes: ArrayLike,
    rows: ArrayLike,
    *,
    launch_s: float,
    memory_eff_frac: float,
    row_s: float,
    core_bytes_per_s: float,
    l2_ratio: float,
    l2_frac: float,
) -> Floats:
    """Seconds of one memory-bound kernel.

    launch + soft maximum of (bytes at the bandwidth of the tier they live in) and (rows and bytes at the
    rate of the multiprocessors). The roofline is Williams et al. 2009 (doi:10.1145/1498765.1498785); the
    tier follows the share of the tensors that the cache still holds from the call before, 1 / (1 + (bytes /
    usable cache)^2).

    Args:
        device: datasheet rates.
        moved_bytes: bytes read and written in the ideal.
        rows: independent rows (1 for a flat tensor is fine: the row term then vanishes).
        launch_s, memory_eff_frac, row_s, core_bytes_per_s, l2_ratio, l2_frac: see :data:`PARAMETERS`.
    """
    moved = np.asarray(moved_bytes, dtype=float)
    hit = 1 / (1 + (moved / max(l2_frac * device.l2_bytes, 1.0)) ** 2)
    rate = device.memory_bytes_per_s * memory_eff_frac
    stream = moved * (1 - hit + hit / l2_ratio) / rate
    sms = max(device.sm_count, 1.0)
    core = np.asarray(rows, dtype=float) * row_s / sms + moved / (core_bytes_per_s * sms)
    return np.asarray(launch_s + (stream**SOFTNESS + core**SOFTNESS) ** (1 / SOFTNESS))


def choose(fits: Iterable[Fit], device: Device, op: str, engine: str = "") -> Fit | None:
    """The fit to lean on: the same operation before the same kind, the engine before the accelerator.

    Without a named engine the accelerator decides. An accelerator nobody measured gets the entry of its
    generation, else the one that all accelerators of that operation and engine share.
    """
    own = (("accelerator", device.key), ("generation", device.generation))
    prefer = (("engine", engine), *own) if engine else own
    return find(fits, OP, (("kind", kind(op)), ("family", family(op)), *prefer))


def memory_bound(
    fits: Iterable[Fit],
    device: Device,
    op: str,
    rows: ArrayLike,
    cols: ArrayLike,
    dtype: str,
    engine: str = "",
) -> Estimate:
    """Predict one memory-bound kernel from a profile.

    An operation or engine nobody measured borrows the nearest: the same operation of another engine, else
    another operation of its kind; ``leans_on`` then names the lender.

    Raises:
        ValueError: an operation that :data:`PASSES` or a number format that the byte table lacks.
    """
    moved = ideal_bytes(op, rows, cols, dtype, engine)
    fit = choose(fits, device, op, engine)
    seconds = memory_bound_s(device, moved, rows, **complete(PARAMETERS, fit.values() if fit else {}))
    leans_on = "assumed defaults"
    if fit is not None:
        leans_on = "parameters"
        if fit.grid is not None:
            seconds = seconds * fit.grid.factor(coordinates(rows, cols))
            leans_on = "parameters and residual grid"
        lender = fit.key.get("family", family(op)), fit.key.get("engine", engine)
        if lender[0] != family(op) or (engine and lender[1] != engine):
            leans_on += f" borrowed from {lender[0]} ({lender[1] or 'any engine'})"
    bound = np.broadcast_to(moved / device.memory_bytes_per_s, np.shape(seconds))
    return Estimate(np.asarray(seconds), np.asarray(bound), fit, leans_on)


def coordinates(rows: ArrayLike, cols: ArrayLike) -> dict[str, Floats]:
    """Coordinates of the residual grid: kernels are written for row lengths, which physics does not know."""
    return {
        "log2_rows": np.log2(np.maximum(np.asarray(rows, dtype=float), 1)),
        "log2_cols": np.log2(np.maximum(np.asarray(cols, dtype=float), 1)),
    }
