"""Gradient compression: what writing the telegram costs, before any wire is saved.

The kernels that shrink a gradient before it is sent: selection of the largest values, thin factors, signs, casts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from calibrate.environment import Machine, import_torch
from calibrate.measure import Warn
from calibrate.microbenchmarks.common import ENGINE, Earlier, affordable, point, rows_of

METHODS = ("fp16", "top-k", "power-sgd", "1-bit", "fp8")
KEEP_FRAC, RANK = 0.01, 4
"""Share of the values that top-k sends and columns of PowerSGD's factors (arXiv 1905.13727, section 5)."""
SECONDS_PER_POINT = 0.3
FEWEST = 2


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``compression``: packing ``values`` fp32 gradients (a square matrix), error kept."""
    torch = import_torch()
    torch.manual_seed(seed)
    side = 8192 if machine.is_cuda else 2048
    points = [
        point(
            machine,
            {"op": method, "values": side**2, "bytes": 4 * side**2, "engine": ENGINE},
            lambda method=method: _call(torch, machine.device, method, side),
        )
        for method in METHODS
    ]
    chosen = affordable(points, budget_s, SECONDS_PER_POINT, FEWEST)
    yield from rows_of(machine, chosen, budget_s, seed, warn, earlier=earlier)


def _call(torch: Any, device: str, method: str, side: int) -> Callable[[], Any]:
    gradient = torch.randn(side, side, device=device)
    error, flat = torch.zeros_like(gradient), gradient.view(-1)
    if method == "fp16":
        return lambda: gradient.half().float()
    if method == "fp8":
        blocks = gradient.view(-1, 128)

        def cast() -> Any:
            scale = blocks.abs().amax(1, keepdim=True).div_(448.0)
            return (blocks / scale).to(torch.float8_e4m3fn).float().mul_(scale)

        return cast
    if method == "top-k":
        kept = int(KEEP_FRAC * flat.numel())

        def select() -> Any:
            total = flat + error.view(-1)
            places = total.abs().topk(kept, sorted=False).indices
            values = total[places]
            error.view(-1).copy_(total).index_fill_(0, places, 0.0)
            return values, places

        return select
    if method == "1-bit":

        def sign() -> Any:
            total = gradient + error
            scale = total.abs().mean()
            bits = total > 0
            torch.sub(total, torch.where(bits, scale, -scale), out=error)
            return bits

        return sign
    right = torch.randn(side, RANK, device=device)

    def factor() -> Any:
        total = gradient + error
        left, _ = torch.linalg.qr(total @ right)
        again = total.t() @ left
        torch.sub(total, left @ again.t(), out=error)
        return left, again

    return factor
