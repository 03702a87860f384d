"""Time of a matrix product C[m, n] = A[m, k] B[k, n]: the workhorse under nearly every layer.

The lower bound is FLOP / peak or bytes / bandwidth. Above it stand whole tiles and whole waves of tiles
(``sim.cost.kernels.tiles``), a launch, and in low precision the pass that quantises A. A profile gives the
efficiencies and, where it pays, a smooth residual over the shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.estimate import Estimate
from sim.cost.kernels import processor
from sim.cost.kernels.tiles import Rates, best_tile_s
from sim.cost.parameters import Parameter, complete
from sim.spec.device import Device
from sim.spec.profile import Fit, find

Floats = NDArray[np.float64]
OP = "gemm"
CPU = "cpu"
"""Generation of devices that are the cores of a processor (see ``sim.cost.kernels.processor``)."""
CHUNK = 512
"""Shapes worked on at once: the intermediate arrays then stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Format:
    """Number formats of one product: what the multiplier works in and what each matrix weighs."""

    compute: tuple[str, ...]
    """Datasheet rates to take, first one the device has: a format it lacks is computed in a wider one."""
    a_bytes: float
    b_bytes: float
    """Per element, block scales included."""
    quantises: bool = False
    """Whether A arrives in 16 bit and is quantised first."""
    c_bytes: float = 2.0
    similar: tuple[str, ...] = ()
    """Formats whose efficiencies to borrow where this one was never measured, nearest first."""


_16 = ("bf16", "fp16", "tf32", "fp32")
_FP8 = ("fp8", "int8", *_16)
_FP4 = ("fp4", *_FP8)
FORMATS: Mapping[str, Format] = {
    "fp64": Format(("fp64", "fp32"), 8.0, 8.0, c_bytes=8.0, similar=("fp32", "bf16")),
    "fp32": Format(("fp32", "tf32"), 4.0, 4.0, c_bytes=4.0, similar=("tf32", "bf16", "fp16")),
    "tf32": Format(("tf32", "fp32"), 4.0, 4.0, c_bytes=4.0, similar=("bf16", "fp16", "fp32")),
    "bf16": Format(_16, 2.0, 2.0, similar=("fp16", "tf32", "fp32")),
    "fp16": Format(("fp16", *_16), 2.0, 2.0, similar=("bf16", "tf32", "fp32")),
    "fp8": Format(_FP8, 1.0, 1.0, True, similar=("fp8_block", "int8", "mxfp8", "bf16")),
    "fp8_block": Format(
        _FP8, 1.0 + 4 / 128, 1.0 + 4 / 128**2, True, similar=("fp8", "mxfp8", "int8", "bf16")
    ),
    "mxfp8": Format(_FP8, 1.0 + 1 / 32, 1.0 + 1 / 32, True, similar=("fp8_block", "fp8", "int8", "bf16")),
    "fp4": Format(_FP4, 0.5 + 1 / 16, 0.5 + 1 / 16, True, similar=("mxfp8", "fp8_block", "fp8", "bf16")),
    "int8": Format(("int8", *_16), 1.0, 1.0, True, similar=("fp8", "bf16", "fp16")),
    "int4": Format(("int4", "int8", *_16), 0.5, 0.5, True, similar=("int8", "fp8", "bf16")),
    "int8_wo": Format(_16, 2.0, 1.0, similar=("int4_wo", "bf16", "fp16")),
    "int4_wo": Format(_16, 2.0, 0.5 + 2 / 128, similar=("int8_wo", "bf16", "fp16")),
    "fp4_wo": Format(_16, 2.0, 0.5 + 1 / 32, similar=("int4_wo", "int8_wo", "bf16", "fp16")),
    "fp4_fp8": Format(_FP8, 1.0 + 1 / 32, 0.5 + 1 / 32, True, similar=("mxfp8", "fp8_block", "fp8", "bf16")),
}
"""By name. ``_wo`` = weights only (A and the arithmetic stay in 16 bit); ``_block`` = 1 x 128 scales on A and
128 x 128 on B (DeepSeek-V3 report, arXiv 2412.19437, section 3.3); mx = OCP microscaling, blocks of 32; fp4 =
NVFP4, blocks of 16 (NVIDIA, "Introducing NVFP4", 2025)."""
ALIASES: Mapping[str, str] = {
    "float64": "fp64",
    "float32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "sq": "int8",
    "w4a16_mxfp4": "fp4_wo",
    "w4a8_mxfp4_mxfp8": "fp4_fp8",
}
LINEAGES = (
    ("pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell", "blackwell-rtx"),
    ("cdna1", "cdna2", "cdna3", "cdna4"),
)
"""Generations of one maker in order: an uncalibrated one borrows from its nearest neighbour."""

PARAMETERS = (
    Parameter(
        "compute_frac",
        "1",
        "share of the peak rate that the multipliers sustain in a large tile",
        0.8,
        0.2,
        1.15,
    ),
    Parameter("memory_frac", "1", "share of the memory bandwidth that streaming reaches", 0.85, 0.3, 1.1),
    Parameter("launch_s", "s", "fixed time of a call: launch, first fetch, drain", 2.5e-6, 3e-7, 1e-4),
    Parameter("k_step_s", "s", "latency of 128 bytes of K in the main loop", 8e-8, 5e-9, 2e-6),
    Parameter("wave_s", "s", "prologue and epilogue of a wave of tiles", 5e-7, 1e-8, 2e-5),
    Parameter("l2_ratio", "1", "bandwidth of the L2 over that of the memory", 3.0, 1.0, 15.0),
    Parameter("sm_share", "1", "bandwidth one core can draw over its even share", 2.0, 1.0, 8.0),
    Parameter("split_s", "s", "fixed time of cutting K: second kernel or semaphore", 2e-6, 1e-7, 3e-4),
    Parameter(
        "wave_frac",
        "1",
        "share of a last, partial wave that is lost; 0 = work spreads evenly",
        0.6,
        0.02,
        1.0,
    ),
    Parameter(
        "exposed_frac", "1", "share of the shorter of compute and memory that is not hidden", 0.2, 0.01, 1.0
    ),
    Parameter(
        "resident_frac", "1", "share of the L2 that keeps operands from before the call", 0.3, 0.02, 2.0
    ),
    Parameter(
        "reread_frac",
        "1",
        "share of panels needed again by a later wave that the L2 has lost",
        0.1,
        0.001,
        1.0,
    ),
    Parameter("quantise_bytes", "byte", "memory traffic of quantising one element of A", 5.0, 0.3, 60.0),
    Parameter(
        "quantise_row_s", "s", "fixed work of quantising one row of A, over all cores", 1e-9, 1e-11, 1e-7
    ),
)
"""What a calibration fits, with the range physics allows. The last two count only where A is quantised."""
TAIL = ("launch_s", "wave_frac")
"""What a product loses before its first wave and in its last, where no other one fills the gap."""


def parameters_of(device: Device) -> tuple[Parameter, ...]:
    """The parameters of matrix products on ``device``: those of tiles, or of a processor's cores."""
    return processor.PARAMETERS if device.generation == CPU else PARAMETERS


def canonical(dtype: str) -> str:
    """The name used here for a number format (``bfloat16`` -> ``bf16``).

    Raises:
        ValueError: unknown format; the message lists the known ones.
    """
    name = ALIASES.get(dtype, dtype)
    if name not in FORMATS:
        raise ValueError(f"number format {dtype!r} is not one of {', '.join(sorted([*FORMATS, *ALIASES]))}")
    return name


def peak_flop_per_s(device: Device, dtype: str) -> float:
    """Datasheet rate that a product in ``dtype`` runs at, FLOP/s; or of a wider format the device has.

    Raises:
        ValueError: unknown format, or the device has no rate for it nor for any wider one.
    """
    name = canonical(dtype)
    compute = FORMATS[name].compute
    if name == "fp32" and device.generation in ("cdna1", "cdna2"):
        compute = ("tf32", "fp32")  # their datasheets list the fp32 matrix rate apart from the vector rate
    for wanted in compute:
        if wanted in device.flop_per_s:
            return device.flop_per_s[wanted]
    raise ValueError(f"{device.key}: no datasheet rate for {dtype!r} nor for {', '.join(compute)}")


def lower_bound_s(
    device: Device,
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    dtype: str,
    *,
    batch: ArrayLike = 1,
    c_bytes: ArrayLike | None = None,
) -> Floats:
    """The longer of 2 m n k / peak and bytes / bandwidth, seconds (roofline; Williams et al., CACM 2009)."""
    form = FORMATS[canonical(dtype)]
    c = form.c_bytes if c_bytes is None else c_bytes
    m, n, k, batch, c = (np.asarray(x, dtype=float) for x in (m, n, k, batch, c))
    moved = batch * (m * k * form.a_bytes + n * k * form.b_bytes + m * n * c)
    flop = 2.0 * batch * m * n * k
    return np.asarray(np.maximum(flop / peak_flop_per_s(device, dtype), moved / device.memory_bytes_per_s))


def gemm_s(
    device: Device,
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    dtype: str,
    parameters: Mapping[str, float],
    *,
    batch: ArrayLike = 1,
    c_bytes: ArrayLike | None = None,
    quantised: bool = False,
) -> Floats:
    """Seconds of ``batch`` independent products in one launch; all arrays broadcast, scalars welcome.

    ``c_bytes`` is the traffic per element of C: 8 where fp32 gradients are accumulated (read and written); by
    default the width of the format's own output. With ``quantised`` A arrives in the format of the product.
    ``parameters`` are values by name (see ``PARAMETERS``); a
    missing one takes its start. Formula and sources: ``sim.cost.kernels.tiles``.

    Raises:
        ValueError: unknown format, or the device has no rate for it.
    """
    form = FORMATS[canonical(dtype)]
    p = complete(parameters_of(device), parameters)
    if device.generation == CPU:
        rows_, outs_, inner_, groups_ = (np.asarray(x, dtype=float) for x in (m, n, k, batch))
        width = np.asarray(form.c_bytes if c_bytes is None else c_bytes, dtype=float)
        moved = rows_ * inner_ * form.a_bytes + outs_ * inner_ * form.b_bytes + rows_ * outs_ * width
        peak = peak_flop_per_s(device, dtype)
        return processor.product_s(
            peak,
            device.memory_bytes_per_s,
            device.l2_bytes,
            (rows_, outs_, inner_, groups_),
            groups_ * moved,
            p,
        )
    rates = Rates(
        peak_flop_per_s(device, dtype),
        device.memory_bytes_per_s,
        device.sm_count,
        device.l2_bytes,
        form.a_bytes,
        form.b_bytes,
    )
    c = form.c_bytes if c_bytes is None else c_bytes
    columns = np.broadcast_arrays(*[np.asarray(x, dtype=float) for x in (m, n, k, batch, c)])
    flat = [np.ascontiguousarray(column).ravel() for column in columns]
    seconds = np.empty(flat[0].shape)
    for start in range(0, seconds.size, CHUNK):
        part = slice(start, start + CHUNK)
        rows, outs, inner, groups, width = (column[part] for column in flat)
        seconds[part] = best_tile_s(rates, rows, outs, inner, groups, width, p) + p["launch_s"]
        if form.quantises and not quantised:
            quantised_s = p["quantise_bytes"] * inner / (device.memory_bytes_per_s * p["memory_frac"])
            seconds[part] += groups * rows * (quantised_s + p["quantise_row_s"])
    return seconds.reshape(columns[0].shape)


def coordinates(m: ArrayLike, n: ArrayLike, k: ArrayLike) -> dict[str, Floats]:
    """Where a shape lies on the residual grid: base-2 logarithms of ``m``, ``n`` and ``k``."""
    return {"log2_m": np.log2(m), "log2_n": np.log2(n), "log2_k": np.log2(k)}


def choose(fits: Iterable[Fit], device: Device, dtype: str, engine: str = "") -> Fit | None:
    """The fit to lean on: first the generation, then the format (or a similar one), engine, accelerator.

    The generation goes first because kernels are written for it; a fit for a whole generation serves one that
    nobody measured. An engine of the same family (``vllm 0.20`` for ``vllm 0.24``) is preferred to any other.
    Where the generation has no usable fit, its nearest neighbour in the maker's line is asked.
    """
    known = [fit for fit in fits if fit.op == OP]
    name = canonical(dtype)
    for generation in _nearest(device.generation):
        for wanted in (name, *FORMATS[name].similar):
            want = {"generation": generation, "dtype": wanted}
            some = [
                fit
                for fit in known
                if all(fit.key.get(field, value) == value for field, value in want.items())
            ]
            if some:
                return find(some, OP, [("engine", _family(some, engine)), ("accelerator", device.key)])
    return find(known, OP, [("dtype", name), ("engine", engine), ("accelerator", device.key)])


def _family(fits: Iterable[Fit], engine: str) -> str:
    """``engine`` where a fit has it, else another version of it, else ``engine`` all the same."""
    engines = {fit.key.get("engine", "") for fit in fits}
    kin = sorted(other for other in engines if other.split(" ")[0] == engine.split(" ")[0])
    return engine if engine in engines or not kin else kin[-1]


def _nearest(generation: str) -> list[str]:
    for line in LINEAGES:
        if generation in line:
            here = line.index(generation)
            return sorted(line, key=lambda other: abs(line.index(other) - here))
    return [generation]


def gemm(
    fits: Iterable[Fit],
    device: Device,
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    dtype: str,
    engine: str = "",
    *,
    batch: ArrayLike = 1,
    c_bytes: ArrayLike | None = None,
    quantised: bool = False,
    pieces: ArrayLike = 1,
) -> Estimate:
    """Duration of ``batch`` products in one launch with what the profile knows (see :func:`choose`).

    A product in ``pieces`` is multiplied a part of its rows at a time, so that messages run beside it. The parts take
    turns on several streams (Transformer Engine, ``CommOverlapP2PBase::split_overlap_ag``): each starts on the cores
    that the last wave of the one before leaves idle, so that only one pays for its launch and for a partial wave.

    Broadcasts. A residual grid counts only on the generation it was measured on: elsewhere kernels differ and
    the physics alone carries over. For ``batch`` products it is read at the rows of all of them together.

    Raises:
        ValueError: unknown format, or the device has no rate for it.
    """
    fit = choose(fits, device, dtype, engine)
    values = {} if fit is None else fit.values()
    bound = lower_bound_s(device, m, n, k, dtype, batch=batch, c_bytes=c_bytes)
    m = m if np.all(np.equal(pieces, 1)) else np.divide(m, pieces)
    seconds = gemm_s(device, m, n, k, dtype, values, batch=batch, c_bytes=c_bytes, quantised=quantised)
    if np.any(np.not_equal(pieces, 1)):
        inner = {**values, **dict.fromkeys(TAIL, 0.0)}
        each = gemm_s(device, m, n, k, dtype, inner, batch=batch, c_bytes=c_bytes, quantised=quantised)
        seconds = seconds + (np.asarray(pieces) - 1) * each
    leans_on = "assumed defaults" if fit is None else "parameters"
    if (
        fit is not None
        and fit.grid is not None
        and fit.key.get("generation", device.generation) == device.generation
    ):
        where = coordinates(np.multiply(m, batch), n, k)
        seconds = np.asarray(seconds * fit.grid.factor(where))
        leans_on = "parameters and residual grid"
    return Estimate(seconds, np.broadcast_to(bound, seconds.shape), fit, leans_on)
