"""Convolutions in two and three dimensions, seen as matrix products.

A convolution is a matrix product whose left matrix is never written down: each output pixel is a row, each
tap of the filter a column, and the kernel picks the values out of the image on the fly (implicit GEMM). So
its arithmetic is priced by the matrix-product model and its memory traffic by the tensors themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.estimate import Estimate
from sim.cost.kernels import gemm as products
from sim.cost.kernels.memory_bound import PARAMETERS as STREAM
from sim.cost.kernels.memory_bound import choose as choose_stream
from sim.cost.kernels.memory_bound import memory_bound_s
from sim.cost.parameters import Parameter, complete
from sim.spec.device import BYTES_PER_VALUE, Device
from sim.spec.profile import Fit, find

Floats = NDArray[np.float64]

PASSES = ("forward", "data_gradient", "weight_gradient")

PARAMETERS = (
    Parameter(
        "direct_eff_frac",
        "1",
        "share of the vector peak reached where groups are too thin for matrix units",
        0.25,
        0.02,
        1.0,
        "assumed",
    ),
)
"""What a calibration may turn; dense convolutions use the parameters of matrix products."""

GEMM_RATIO = Parameter(
    "gemm_ratio",
    "1",
    "time over that of the implicit matrix product and its traffic",
    1.0,
    0.05,
    50.0,
    "an implicit product that hides its indexing (Chetlur et al. 2014, arXiv 1410.0759)",
)
"""What a calibration measures apart for each pass, and for one tap against many (see :func:`taps_of`)."""

THIN = 8
"""Channels of a group below which matrix units have nothing to multiply (their instructions take 8 or 16)."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """Shape of one convolution; numbers may be arrays, which then broadcast."""

    batch: ArrayLike
    in_channels: ArrayLike
    out_channels: ArrayLike
    size: Sequence[ArrayLike]
    """Input extent along each spatial dimension: (height, width) or (depth, height, width)."""
    kernel: Sequence[ArrayLike]
    stride: Sequence[ArrayLike] = (1, 1, 1)
    padding: Sequence[ArrayLike] = (0, 0, 0)
    dilation: Sequence[ArrayLike] = (1, 1, 1)
    groups: ArrayLike = 1
    """1 dense, in_channels depthwise."""

    def __post_init__(self) -> None:
        if len(self.kernel) != len(self.size):
            raise ValueError(f"kernel has {len(self.kernel)} dimensions, the input {len(self.size)}")
        for name in ("stride", "padding", "dilation"):
            if len(getattr(self, name)) < len(self.size):
                raise ValueError(f"{name} needs {len(self.size)} values, got {len(getattr(self, name))}")

    @property
    def out_size(self) -> tuple[Floats, ...]:
        """Output extent along each spatial dimension."""
        every = zip(self.size, self.kernel, self.stride, self.padding, self.dilation)  # noqa: B905 - defaults hold 3
        return tuple(output_size(*one) for one in every)


@dataclass(frozen=True, slots=True)
class ConvolutionGemm:
    """The matrix products that one pass of a convolution amounts to, and the bytes it cannot avoid."""

    m: Floats
    n: Floats
    k: Floats
    batch: Floats
    """Independent products: the groups."""
    flop: Floats
    moved_bytes: Floats
    """Input, output and weights once each: the memory side of an implicit GEMM."""


def output_size(
    size: ArrayLike, kernel: ArrayLike, stride: ArrayLike = 1, padding: ArrayLike = 0, dilation: ArrayLike = 1
) -> Floats:
    """floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 (Dumoulin & Visin 2016,
    arXiv:1603.07285).

    Raises:
        ValueError: the filter is larger than the padded input.
    """
    i, k, s, p, d = (np.asarray(x, dtype=float) for x in (size, kernel, stride, padding, dilation))
    out = np.floor((i + 2 * p - d * (k - 1) - 1) / s) + 1
    if np.any(out < 1):
        raise ValueError(f"filter {k} with dilation {d} is larger than input {i} plus padding {p}")
    return np.asarray(out)


def conv_as_gemm(
    conv: Convolution, pass_name: str = "forward", *, bytes_per_value: float = 2.0
) -> ConvolutionGemm:
    """m, n, k of the implicit matrix product of one pass, with FLOP and unavoidable bytes.

    Forward: m = batch x output pixels, n = output channels of a group, k = input channels of a group x taps.
    Data gradient: m = batch x input pixels, n and k with the channels exchanged; a stride leaves only the
    taps that meet an output, so that all three passes have the same FLOP. Weight gradient: m = output
    channels, n = input channels x taps, k = batch x output pixels. Chetlur et al. 2014 (cuDNN,
    arXiv:1410.0759); table of NVIDIA, Convolutional Layers User's Guide.

    Raises:
        ValueError: an unknown pass.
    """
    if pass_name not in PASSES:
        raise ValueError(f"unknown pass {pass_name!r}; known: {', '.join(PASSES)}")
    batch, c_in, c_out, groups = (
        np.asarray(x, dtype=float) for x in (conv.batch, conv.in_channels, conv.out_channels, conv.groups)
    )
    taps, pixels_in = _product(conv.kernel), _product(conv.size)
    pixels_out = _product(conv.out_size)
    into, out = c_in / groups, c_out / groups
    if pass_name == "forward":
        m, n, k = batch * pixels_out, out, into * taps
    elif pass_name == "data_gradient":
        m, n, k = batch * pixels_in, into, out * taps * pixels_out / pixels_in
    else:
        m, n, k = out, into * taps, batch * pixels_out
    values = batch * (pixels_in * c_in + pixels_out * c_out) + groups * into * out * taps
    shape = np.broadcast_shapes(np.shape(m), np.shape(n), np.shape(k), np.shape(groups), np.shape(values))
    m, n, k, groups, values = (np.broadcast_to(x, shape) for x in (m, n, k, groups, values))
    return ConvolutionGemm(m, n, k, groups, 2 * groups * m * n * k, values * bytes_per_value)


def convolution(
    fits: Iterable[Fit],
    device: Device,
    conv: Convolution,
    dtype: str = "bf16",
    *,
    pass_name: str = "forward",
    engine: str = "",
    direct_eff_frac: float = PARAMETERS[0].start,
) -> Estimate:
    """Duration of one pass of a convolution, from the fits of matrix products and memory-bound kernels.

    Dense: the matrix product, but never more than its arithmetic plus the traffic of the tensors themselves
    (the product would read every pixel once per tap; an implicit GEMM finds it in cache), nor less than
    either. Groups thinner than :data:`THIN` channels (depthwise): vector arithmetic or streaming, whichever
    is longer.
    """
    known = list(fits)
    name = products.canonical(dtype)
    width = BYTES_PER_VALUE.get(name, 2.0)
    work = conv_as_gemm(conv, pass_name, bytes_per_value=width)
    stream_fit = choose_stream(known, device, "add")
    stream_values = complete(STREAM, stream_fit.values() if stream_fit else {})
    stream_s = memory_bound_s(device, work.moved_bytes, 1.0, **stream_values)
    peak = products.peak_flop_per_s(device, name)
    vector = device.flop_per_s.get("fp32", peak / 16)
    direct_s = np.maximum(work.flop / (vector * direct_eff_frac) + stream_values["launch_s"], stream_s)
    dense = products.gemm(known, device, work.m, work.n, work.k, dtype, engine, batch=work.batch)
    values = complete(products.PARAMETERS, dense.fit.values() if dense.fit else {})
    most = work.flop / (peak * values["compute_frac"]) + stream_s
    unfolded_s = work.batch * work.m * work.k * width / device.memory_bytes_per_s
    no_reuse = unfolded_s > work.flop / peak
    dense_s = np.maximum(np.where(no_reuse, np.minimum(dense.seconds, most), dense.seconds), stream_s)
    own = _own_fit(known, device, conv, name, pass_name, engine)
    dense_s = dense_s * (own.parameters[GEMM_RATIO.name].value if own else GEMM_RATIO.start)
    thin = np.minimum(
        np.asarray(conv.in_channels, dtype=float), np.asarray(conv.out_channels, dtype=float)
    ) / np.asarray(conv.groups, dtype=float)
    is_thin = (thin < THIN) & (np.asarray(conv.groups) > 1)
    seconds = np.where(is_thin, direct_s, dense_s)
    bound = np.maximum(work.flop / peak, work.moved_bytes / device.memory_bytes_per_s)
    return Estimate(np.asarray(seconds), np.asarray(bound), own or dense.fit, dense.leans_on)


def taps_of(kernel: ArrayLike) -> str:
    """``one`` for a pointwise convolution, which is a plain product, else ``many``."""
    return "one" if bool(np.all(np.asarray(kernel) == 1)) else "many"


def _own_fit(
    fits: Sequence[Fit], device: Device, conv: Convolution, dtype: str, phase: str, engine: str
) -> Fit | None:
    """The measured ratio for this pass on this generation, number format first; None where nobody measured."""
    wanted = (
        ("generation", device.generation),
        ("dtype", dtype),
        ("phase", phase),
        ("taps", taps_of([np.max(side) for side in conv.kernel])),
        ("engine", engine),
        ("accelerator", device.key),
    )
    found = find(fits, "convolution", wanted)
    return found if found is not None and found.key.get("generation") == device.generation else None


def _product(extents: Sequence[ArrayLike]) -> Floats:
    result = np.asarray(1.0)
    for extent in extents:
        result = result * np.asarray(extent, dtype=float)
    return np.asarray(result)
