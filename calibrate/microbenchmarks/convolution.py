"""Convolutions, forward and both gradients: the layers of a residual network from the first to the last.

Each pass is timed alone, as the three products that a convolution amounts to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, Warn
from calibrate.microbenchmarks.common import ENGINE, Earlier, affordable, plain_format, point, rows_of

SECONDS_PER_POINT = 0.25
FEWEST = 6


class Call(NamedTuple):
    """A square convolution in two dimensions."""

    in_channels: int
    out_channels: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """Keeps the size at stride 1."""
        return self.kernel // 2


CALLS = (
    Call(64, 64, 56, 3), Call(256, 64, 56, 1), Call(256, 256, 14, 3), Call(1024, 256, 14, 1),
    Call(128, 128, 28, 3), Call(128, 512, 28, 1), Call(3, 64, 224, 7, 2), Call(512, 512, 7, 3),
    Call(512, 2048, 7, 1), Call(64, 256, 56, 1), Call(128, 128, 56, 3, 2), Call(512, 1024, 28, 1, 2),
    Call(96, 96, 28, 3, 1, 96),
)  # fmt: skip
"""ResNet-50 (He et al. 2016, arXiv 1512.03385, Table 1) and one depthwise layer; the most telling first."""


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``convolution``, one for each pass; batch 32 on an accelerator, 2 on a CPU."""
    torch = import_torch()
    torch.manual_seed(seed)
    batch = 32 if machine.is_cuda else 2
    points = [
        _point(torch, machine, batch, call, name)
        for call in CALLS
        for name in ("forward", "data_gradient", "weight_gradient")
        if name != "data_gradient" or call.in_channels > 3
    ]
    chosen = affordable(points, budget_s, SECONDS_PER_POINT, FEWEST)
    yield from rows_of(machine, chosen, budget_s, seed, warn, earlier=earlier, sentinel=points[0])


def _point(torch: Any, machine: Machine, batch: int, call: Call, name: str) -> Point:
    dtype, _ = plain_format(machine)
    columns = {"pass": name, "dtype": dtype, "batch": batch, **call._asdict(), "padding": call.padding}
    columns["engine"] = ENGINE
    return point(machine, columns, lambda: _call(torch, machine, dtype, batch, call, name))


def _call(torch: Any, machine: Machine, dtype: str, batch: int, call: Call, name: str) -> Callable[[], Any]:
    kind, device = getattr(torch, dtype), machine.device
    x = torch.randn(batch, call.in_channels, call.size, call.size, device=device).to(kind)
    weight = torch.randn(
        call.out_channels, call.in_channels // call.groups, call.kernel, call.kernel, device=device
    ).to(kind)
    shape = {"stride": call.stride, "padding": call.padding, "groups": call.groups}
    if name == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, **shape)
    out = torch.nn.functional.conv2d(x, weight, **shape)
    gradient, wanted = torch.randn_like(out), name == "data_gradient"
    pairs = [[call.stride] * 2, [call.padding] * 2, [1, 1]]
    return lambda: torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *pairs, False, [0, 0], call.groups, [wanted, not wanted, False]
    )
