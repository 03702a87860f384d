"""What a layer takes in its place over the sum of its kernels timed alone: the price of playing together.

The sum is that of the step model (``sim.training.layers``) for a decoder layer; a test holds the two together.
From the ratio comes the fit of the stack ``torch-eager``: what steps on this node are multiplied by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from calibrate.fit.common import errors
from calibrate.fit.node import SHORT, Row, grouped, need_memory_rate, own_key, seconds, spread_constant
from sim.cost.kernels.attention import attention
from sim.cost.kernels.convolution import Convolution, convolution
from sim.cost.kernels.gemm import gemm
from sim.cost.kernels.memory_bound import memory_bound
from sim.spec.device import Device
from sim.spec.profile import Fit, find

STACK = "torch-eager"
ENGINE = "torch eager"


def layer_kernels_s(fits: Sequence[Fit], device: Device, row: Row) -> tuple[float, int]:
    """Seconds of the kernels of one layer forward and backward, one after another, and their number."""
    if row.get("channels"):
        return residual_kernels_s(fits, device, row)
    size = {
        name: int(row[name]) for name in ("batch", "seq_len", "hidden", "heads", "kv_heads", "ffn_hidden")
    }
    experts, topk = int(row.get("experts") or 0), int(row.get("topk") or 0)
    dtype = SHORT.get(str(row["dtype"]), str(row["dtype"]))
    tokens, h, f = size["batch"] * size["seq_len"], size["hidden"], size["ffn_hidden"]
    width = h // size["heads"]
    products = [(tokens, h + 2 * size["kv_heads"] * width, h, 1), (tokens, h, h, 1)]
    pairs = tokens * topk if experts else tokens
    passes = [
        ("rms_norm_fwd", tokens, h),
        ("rms_norm_bwd", tokens, h),
        *[("residual_add", tokens, h)] * 2,
    ] * 2
    passes += [("silu_and_mul", pairs, f), ("residual_add", pairs, 2 * f)]
    if experts:
        each = max(round(pairs / experts), 1)
        products += [(tokens, experts, h, 1), (each, 2 * f, h, experts), (each, h, f, experts)]
        passes += [("copy", pairs, h)] * 4 + [("softmax", tokens, experts), ("softmax_bwd", tokens, experts)]
    else:
        products += [(tokens, 2 * f, h, 1), (tokens, h, f, 1)]
    total = 0.0
    for m, n, k, batch in products:
        for shape in ((m, n, k), (m, k, n), (k, n, m)):
            total += float(gemm(fits, device, *shape, dtype, ENGINE, batch=batch).seconds)
    for op, rows, cols in passes:
        total += float(memory_bound(fits, device, op, rows, cols, dtype, ENGINE).seconds)
    for phase in ("fwd", "bwd"):
        call = attention(
            fits,
            device,
            phase=phase,
            batch=size["batch"],
            heads=size["heads"],
            kv_heads=size["kv_heads"],
            head_dim=width,
            seq_len=size["seq_len"],
            dtype=dtype,
            engine=ENGINE,
        )
        total += float(call.seconds)
    return total, 3 * len(products) + len(passes) + 2


def residual_kernels_s(fits: Sequence[Fit], device: Device, row: Row) -> tuple[float, int]:
    """The same of a residual block of three convolutions, with a fourth on the shortcut where shapes differ."""
    batch, channels, width, size, stride = (
        int(row[name]) for name in ("batch", "channels", "width", "size", "stride")
    )
    dtype, out = SHORT.get(str(row["dtype"]), str(row["dtype"])), 4 * width
    after = size // stride
    convolutions = [(channels, width, size, 1, 1), (width, width, size, 3, stride), (width, out, after, 1, 1)]
    convolutions += [(channels, out, size, 1, stride)] if stride > 1 or channels != out else []
    passes, total = [("residual_add", batch, out * after**2), ("mul", batch, out * after**2)], 0.0
    for number, (into, outof, side, kernel, step) in enumerate(convolutions):
        shape = Convolution(batch, into, outof, (side,) * 2, (kernel,) * 2, (step,) * 2, (kernel // 2,) * 2)
        for name in ("forward", "data_gradient", "weight_gradient"):
            total += float(convolution(fits, device, shape, dtype, pass_name=name, engine=ENGINE).seconds)
        values = outof * (side // step) ** 2
        passes += [(op, batch, values) for op in ("residual_add", "residual_add", "copy")]
        if number < 3:
            passes += [("relu", batch, values), ("mul", batch, values)]
    for op, rows, cols in passes:
        total += float(memory_bound(fits, device, op, rows, cols, dtype, ENGINE).seconds)
    return total, 3 * len(convolutions) + len(passes)


def fit_layer(
    rows: Sequence[Row], devices: Mapping[str, Device], source: str, known: Sequence[Fit]
) -> list[Fit]:
    """Fits of the stack ``torch-eager``, one for each number of ranks that computed at once and kind of network.

    ``kernel_factor`` from the layers that are not bound by launches, ``host_s`` from the launches, and the share
    of the bandwidth that the fused AdamW of as many ranks reached.
    """
    fits = []
    marked = [dict(row, network="convolutional" if row.get("channels") else "transformer") for row in rows]
    for (gpu, ranks, network), some in grouped(marked, "gpu", "ranks", "network").items():
        device = devices[gpu]
        need_memory_rate(device)
        launch = find(known, "launch", [("accelerator", device.key)])
        host = (
            launch.parameters.get("eager_host_s")
            if launch is not None and launch.key.get("accelerator") == device.key
            else None
        )
        modelled = [layer_kernels_s(known, device, row) for row in some]
        took = seconds(some)
        kernels = np.array([kernels_s for kernels_s, _ in modelled])
        waits = np.array([count for _, count in modelled]) * (host.value if host else 0.0)
        busy = kernels > 2 * waits
        if not busy.any():
            continue
        ratios = (took / kernels)[busy]
        left_out = [np.median(np.delete(ratios, i)) if len(ratios) > 1 else 1.0 for i in range(len(ratios))]
        constants = {"kernel_factor": spread_constant(ratios, "1", source)}
        if host is not None:
            constants["host_s"] = host
        key = own_key(device) | {"stack": STACK, "network": network, "ranks": ranks}
        update = find(known, "optimizer", _wanted(device, ranks))
        if update is not None and update.key.get("accelerator") == device.key:
            constants |= update.parameters
        error = errors(kernels[busy] * left_out, took[busy], "each layer left out in turn")
        fits.append(Fit("stack", key, constants, error=error))
    return fits


def _wanted(device: Device, ranks: str) -> list[tuple[str, str]]:
    return [("accelerator", device.key), ("rule", "adamw"), ("kind", "fused"), ("ranks", ranks)]
