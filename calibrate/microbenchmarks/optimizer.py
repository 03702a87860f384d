"""Optimizer steps: what closing the books of a training step costs, for the update rules people use.

One step over matrices of ordinary size with fp32 weights, gradients and moments, the gradient buffer zeroed as
part of it. AdaMax is torch's; LAMB, which torch lacks, is written out below with multi-tensor kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, Warn
from calibrate.microbenchmarks.common import Earlier, affordable, point, rows_of

SIDE = 1024
"""Matrices are SIDE x SIDE."""
RULES = (
    ("adamw", "fused"), ("adamw", "foreach"), ("sgd", "foreach"), ("momentum", "foreach"),
    ("lamb", "foreach"), ("adamax", "foreach"), ("adam", "fused"),
)  # fmt: skip
SECONDS_PER_POINT = 0.3
FEWEST = 2


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``optimizer``; ``parameters`` is the number of weights."""
    torch = import_torch()
    torch.manual_seed(seed)
    sizes = (64, 256, 1024) if machine.is_cuda else (12, 24)
    points = [_point(torch, machine, *rule, matrices) for matrices in sizes for rule in RULES]
    points.sort(key=lambda one: one.columns["rule"] != "adamw" or one.columns["kind"] != "fused")
    chosen = affordable(points, budget_s, SECONDS_PER_POINT, FEWEST)
    yield from rows_of(machine, chosen, budget_s, seed, warn, earlier=earlier)


def _point(torch: Any, machine: Machine, rule: str, kind: str, matrices: int) -> Point:
    columns = {
        "rule": rule,
        "kind": kind,
        "dtype": "float32",
        "parameters": matrices * SIDE**2,
        "ranks": 1,
        "engine": f"torch {kind}",
    }
    return point(machine, columns, lambda: step(torch, machine.device, rule, kind, matrices))


def step(torch: Any, device: str, rule: str, kind: str, matrices: int) -> Callable[[], Any]:
    """A call that updates ``matrices`` weights of SIDE x SIDE once and zeroes their gradients."""
    from calibrate.networks import FlatGradients

    weights = [torch.nn.Parameter(torch.randn(SIDE, SIDE, device=device)) for _ in range(matrices)]
    gradients = FlatGradients(weights)
    gradients.values.normal_(std=1e-3)
    update = _lamb(torch, weights) if rule == "lamb" else _torch_rule(torch, weights, rule, kind).step

    def call() -> None:
        update()
        gradients.clear()

    return call


def _torch_rule(torch: Any, weights: list[Any], rule: str, kind: str) -> Any:
    how = {"fused": True} if kind == "fused" else {"foreach": True}
    if rule in ("adam", "adamw"):
        return (torch.optim.Adam if rule == "adam" else torch.optim.AdamW)(weights, lr=1e-4, **how)
    if rule == "adamax":
        return torch.optim.Adamax(weights, lr=1e-4, foreach=True)
    return torch.optim.SGD(weights, lr=1e-4, momentum=0.9 if rule == "momentum" else 0.0, **how)


def _lamb(torch: Any, weights: list[Any]) -> Callable[[], None]:
    """LAMB (You et al. 2020, arXiv 1904.00962, Algorithm 2) by multi-tensor kernels, bias correction left out."""
    first = [torch.zeros_like(weight) for weight in weights]
    second = [torch.zeros_like(weight) for weight in weights]

    @torch.no_grad()
    def call() -> None:
        gradients = [weight.grad for weight in weights]
        torch._foreach_lerp_(first, gradients, 0.1)
        torch._foreach_mul_(second, 0.999)
        torch._foreach_addcmul_(second, gradients, gradients, 0.001)
        root = torch._foreach_sqrt(second)
        torch._foreach_add_(root, 1e-6)
        update = torch._foreach_div(first, root)
        torch._foreach_add_(update, weights, alpha=0.01)
        ratio = torch._foreach_div(torch._foreach_norm(weights), torch._foreach_norm(update))
        torch._foreach_mul_(update, ratio)
        torch._foreach_add_(weights, update, alpha=-1e-4)

    return call
