"""One mixture-of-experts layer on one GPU: gather tokens by expert, two grouped products, scatter back.

It is like a kitchen with many cooks, each with a heavy cookbook: with few orders the time goes into opening
the books (weights of every expert that got a token), with many into the cooking (FLOP, in batches of a
tile), and the slowest kitchen of the chain (the busiest expert-parallel rank) sets the pace.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.estimate import Estimate
from sim.cost.kernels.gemm import FORMATS, canonical, peak_flop_per_s
from sim.cost.kernels.routing import BLOCKS, RankLoad, rank_load
from sim.cost.parameters import Parameter, complete
from sim.spec.device import Device
from sim.spec.profile import Fit, find

Floats = NDArray[np.float64]

OP = "moe"
BACKENDS = ("marlin", "cutlass", "trtllm", "deepgemm", "triton", "xpu")

UNGATED_EXPERTS = ((1856, 6, 128), (2688, 22, 512), (5120, 22, 512))
"""(ffn, topk, experts) of the Nemotron 3 models, whose experts are up, squared ReLU, down (``mlp_hidden_act``
``relu2`` in their configurations); measured times agree with two matrices, not three."""

PARAMETERS = (
    Parameter("launch_s", "s", "start of all kernels of the layer", 1.5e-5, 1e-6, 3e-4),
    Parameter("compute_eff_frac", "1", "share of the peak reached by full tiles", 0.6, 0.02, 1.1),
    Parameter(
        "memory_eff_frac", "1", "share of the memory bandwidth reached when streaming weights", 0.75, 0.1, 1.1
    ),
    Parameter(
        "block_max", "tokens", "largest token block; an expert's tokens are padded to blocks", 128, 16, 256
    ),
    Parameter("block_ratio", "1", "token block over the mean tokens of a touched expert", 1.5, 0.25, 16),
    Parameter(
        "fill_frac", "1", "tiles per multiprocessor at which half of the bandwidth is reached", 0.3, 0.01, 8
    ),
    Parameter(
        "pair_eff_frac", "1", "share of the bandwidth reached by gather, activation, scatter", 0.5, 0.03, 2.0
    ),
    Parameter(
        "idle_pair_frac", "1", "cost of a pair routed elsewhere, relative to one served here", 0.05, 1e-3, 1
    ),
    Parameter("expert_s", "s", "scheduling time per expert touched", 2e-8, 1e-10, 1e-5),
    Parameter("l2_frac", "1", "share of the cache that holds weights between calls", 0.3, 0.02, 2.0),
)
"""What a calibration may turn."""

TILE_N = 128
"""Output columns of a tile, as in CUTLASS and Triton grouped GEMM defaults; only ratios to it matter."""
SOFTNESS = 3.0
"""Exponent of the soft maximum between multiplying and reading weights: assumed, they overlap but not perfectly."""
L2_RATIO = 3.0
"""Cache rate over memory rate: assumed, of the order seen on NVIDIA parts; the share of hits is fitted."""


def moe_s(
    device: Device,
    load: RankLoad,
    tokens: ArrayLike,
    topk: ArrayLike,
    hidden: ArrayLike,
    ffn: ArrayLike,
    dtype: str,
    *,
    matrices: ArrayLike = 3,
    launch_s: float,
    compute_eff_frac: float,
    memory_eff_frac: float,
    block_max: float,
    block_ratio: float,
    fill_frac: float,
    pair_eff_frac: float,
    idle_pair_frac: float,
    expert_s: float,
    l2_frac: float,
) -> Floats:
    """Seconds of one fused MoE layer.

    launch + experts + soft maximum of (padded FLOP in whole waves of tiles) and (weights of the experts
    touched) + activation traffic. Padding to blocks and grouped tiles: Gale et al. 2022 (MegaBlocks,
    arXiv:2211.15841); waves: NVIDIA, Matrix Multiplication Background User's Guide; roofline: Williams et
    al. 2009.

    Args:
        device: datasheet rates.
        load: work of the busiest rank, from :func:`rank_load`.
        tokens: entering the layer, on all ranks of the group together.
        topk: experts of each token.
        hidden: model width.
        ffn: width of one expert on this GPU (after tensor sharding).
        dtype: quantisation kind, a name of ``sim.cost.kernels.gemm.FORMATS`` or its aliases.
        matrices: 3 for gated experts (gate, up, down), 2 otherwise.
        launch_s and the rest: see :data:`PARAMETERS`.
    """
    form = FORMATS[canonical(dtype)]
    h, f = np.asarray(hidden, dtype=float), np.asarray(ffn, dtype=float)
    up = (np.asarray(matrices, dtype=float) - 1) * f
    rate = device.memory_bytes_per_s * memory_eff_frac
    sms = max(device.sm_count, 1.0)
    block, blocks = _block(load, block_max, block_ratio)
    columns = np.ceil(up / TILE_N), np.ceil(h / TILE_N)
    tiles = blocks * (columns[0] + columns[1]) / 2
    peak = peak_flop_per_s(device, dtype) * compute_eff_frac
    compute = sum(
        2 * block * TILE_N * depth / (peak / sms) * _waves(blocks * n / sms)
        for n, depth in ((columns[0], h), (columns[1], f))
    )
    weights = load.active * h * (up + f) * form.b_bytes
    hit = 1 / (1 + (weights / max(l2_frac * device.l2_bytes, 1.0)) ** 2)
    fill = tiles / (tiles + fill_frac * sms)
    stream = weights * (1 - hit + hit / L2_RATIO) / (rate * fill)
    t, pairs = np.asarray(tokens, dtype=float), load.pairs
    idle = np.maximum(t * np.asarray(topk, dtype=float) - pairs, 0)
    per_pair = h * form.a_bytes + up * 2 + f * (2 + form.a_bytes) + h * 2 * 2
    moved = t * h * 2 * 2 + (pairs + idle_pair_frac * idle) * per_pair
    gemm = (compute**SOFTNESS + stream**SOFTNESS) ** (1 / SOFTNESS)
    return np.asarray(
        launch_s + expert_s * load.active + gemm + moved / (device.memory_bytes_per_s * pair_eff_frac)
    )


def _waves(tiles_per_sm: Floats) -> Floats:
    """Waves of tiles: the first whole, then half-way to whole: persistent kernels even out the tail."""
    return np.asarray(np.maximum(1.0, 0.5 * (tiles_per_sm + np.ceil(tiles_per_sm))))


def _block(load: RankLoad, block_max: float, block_ratio: float) -> tuple[Floats, Floats]:
    """Token block the kernel takes for this load, and their number, interpolated between built sizes."""
    mean = load.pairs / np.maximum(load.active, 1e-9)
    size = np.clip(block_ratio * mean, BLOCKS[1], max(block_max, BLOCKS[1]))
    place = np.log2(size / BLOCKS[0])
    left = np.minimum(np.floor(place), len(BLOCKS) - 2).astype(int)
    part = (place - left)[..., None]
    index = left[..., None]
    low, high = (np.take_along_axis(load.blocks, index + i, axis=-1) for i in (0, 1))
    return size, np.asarray((low * (1 - part) + high * part)[..., 0])


def expert_matrices(ffn: ArrayLike, topk: ArrayLike, experts: ArrayLike, kernel: ArrayLike = "") -> Floats:
    """Matrices of an expert where a measurement does not say: 3 (gated), or 2 for models known to be ungated.

    The benchmark behind kernel ``vllm_fused_moe`` builds gated experts whatever the model.
    """
    shape = np.broadcast_arrays(*[np.asarray(c, dtype=float) for c in (ffn, topk, experts)])
    ungated = np.zeros(shape[0].shape, dtype=bool)
    for model in UNGATED_EXPERTS:
        ungated |= np.all([column == value for column, value in zip(shape, model)], axis=0)  # noqa: B905
    return np.where(ungated & (np.asarray(kernel) != "vllm_fused_moe"), 2.0, 3.0)


def backend(kernel: str) -> str:
    """The library a kernel name points to: triton, cutlass, trtllm, marlin, deepgemm, xpu, or nothing."""
    lower = kernel.lower()
    return next((name for name in BACKENDS if name in lower), "")


def choose(fits: Iterable[Fit], device: Device, dtype: str, kernel: str = "") -> Fit | None:
    """The fit to lean on: of the device's generation and the format (or a similar one), else of the format
    alone.

    Among those the same kernel goes first, then the same library, then the best documented (earliest) one.
    """
    known = [fit for fit in fits if fit.op == OP]
    name = canonical(dtype)
    prefer = (("kernel", kernel), ("backend", backend(kernel)), ("accelerator", device.key))
    formats = (name, *FORMATS[name].similar)
    for own in (True, False):
        for wanted in formats:
            some = [
                fit
                for fit in known
                if fit.key.get("dtype", wanted) == wanted
                and (fit.key.get("generation") == device.generation if own else "generation" not in fit.key)
            ]
            if some:
                return find(some, OP, prefer)
    return find(known, OP, (("dtype", name), *prefer))


def moe(
    fits: Iterable[Fit],
    device: Device,
    tokens: ArrayLike,
    hidden: ArrayLike,
    ffn: ArrayLike,
    topk: ArrayLike,
    experts: ArrayLike,
    *,
    tensor: ArrayLike = 1,
    expert_parallel: ArrayLike = 1,
    distribution: str = "balanced",
    dtype: str = "bf16",
    kernel: str = "",
    matrices: ArrayLike = 3,
) -> Estimate:
    """Predict one GPU's share of an MoE layer (no router, no all-to-all) from a profile.

    ``ffn`` and ``experts`` are those of the whole layer: a GPU holds experts / expert_parallel experts of
    width ffn / tensor. An unmeasured kernel, format or accelerator borrows the nearest entry.

    Raises:
        ValueError: an unknown format or distribution, or a device without a rate for the format or a wider
            one.
    """
    form = FORMATS[canonical(dtype)]
    load = rank_load(tokens, topk, experts, expert_parallel, distribution)
    own = np.asarray(ffn, dtype=float) / np.asarray(tensor, dtype=float)
    fit = choose(fits, device, dtype, kernel)
    values = complete(PARAMETERS, fit.values() if fit else {})
    seconds = moe_s(device, load, tokens, topk, hidden, own, dtype, matrices=matrices, **values)
    leans_on = "assumed defaults" if fit is None else "parameters"
    if fit is not None and fit.grid is not None and fit.key.get("generation", "") == device.generation:
        seconds = seconds * fit.grid.factor(coordinates(load, tokens, hidden, own))
        leans_on = "parameters and residual grid"
    if fit is not None and kernel and fit.key.get("kernel") != kernel:
        leans_on += f" borrowed from {fit.key.get('kernel', 'all kernels of the format')}"
    h = np.asarray(hidden, dtype=float)
    work = np.asarray(matrices, dtype=float) * h * own
    flop = 2 * load.pairs * work
    weights = load.active * work * form.b_bytes
    bound = np.maximum(flop / peak_flop_per_s(device, dtype), weights / device.memory_bytes_per_s)
    return Estimate(np.asarray(seconds), np.asarray(bound), fit, leans_on)


def coordinates(load: RankLoad, tokens: ArrayLike, hidden: ArrayLike, ffn: ArrayLike) -> dict[str, Floats]:
    """Coordinates of the residual grid: tokens of an expert, experts touched, width of an expert."""
    return {
        "log2_tokens_per_expert": np.log2(np.maximum(load.pairs / np.maximum(load.active, 1e-9), 1.0)),
        "log2_active": np.log2(np.maximum(load.active, 1.0)),
        "log2_ffn": np.log2(np.asarray(ffn, dtype=float)) + 0 * load.active,
        "log2_hidden": np.log2(np.asarray(hidden, dtype=float)) + 0 * load.active,
        "log2_tokens": np.log2(np.maximum(np.asarray(tokens, dtype=float), 1.0)) + 0 * load.active,
    }
