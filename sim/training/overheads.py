"""What a real step carries beside its kernels: launches, cooler clocks in the lab than in the rack, a busy network.

These are the few constants of a software stack. They are the difference between a kernel timed alone on a cool chip
and the same kernel in the thousandth step of a long run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sim.cost.optimizer import PARAMETERS as OPTIMIZER_PARAMETERS
from sim.cost.parameters import Parameter, complete
from sim.spec.profile import Fit, find

PARAMETERS = (
    Parameter(
        "kernel_factor",
        "1",
        "time of a kernel inside a long run over its time alone on a cool chip",
        1.10,
        1.0,
        1.5,
        "sustained against burst rates of the same shapes: 3-13 % on A100, 15-20 % on H100, 26 % on B200",
    ),
    Parameter(
        "message_factor",
        "1",
        "time of a tensor-parallel message inside a step over its time alone",
        1.0,
        0.8,
        2.0,
        "no contention assumed",
    ),
    Parameter(
        "host_s",
        "s",
        "host time to launch one kernel",
        6.0e-6,
        1e-6,
        5e-5,
        "ahrefs/ocannl#488: 6.4 us a launch",
    ),
    *OPTIMIZER_PARAMETERS,
)

SOFTNESS = 4.0
"""Exponent of the soft maximum between device and host: they overlap, but not perfectly near balance."""


@dataclass(frozen=True, slots=True)
class Overheads:
    """Overhead constants of one software stack on one generation of devices."""

    kernel_factor: float
    message_factor: float
    host_s: float
    optimizer_bandwidth_frac: float
    fit: Fit | None

    def block_s(self, kernels_s: float, launches: int) -> float:
        """Seconds of a chain of kernels: soft maximum of what the device needs and what the host needs to launch it."""
        device, host = kernels_s * self.kernel_factor, launches * self.host_s
        if host <= 0:
            return device
        return float((device**SOFTNESS + host**SOFTNESS) ** (1 / SOFTNESS))


def overheads(fits: Iterable[Fit], stack: str, generation: str, *, ideal: bool = False) -> Overheads:
    """The overheads of ``stack`` on ``generation``; none at all for an ideal machine."""
    if ideal:
        return Overheads(1.0, 1.0, 0.0, 1.0, None)
    fit = find(fits, "stack", (("stack", stack), ("generation", generation)))
    return Overheads(**complete(PARAMETERS, fit.values() if fit else {}), fit=fit)
