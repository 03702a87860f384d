"""What a real step carries beside its kernels: launches, cooler clocks in the lab than in the rack, a busy network.

These are the few constants of a software stack. They are the difference between a kernel timed alone on a cool chip
and the same kernel in the thousandth step of a long run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sim.cost.kernels.launch import PARAMETERS as LAUNCH_PARAMETERS
from sim.cost.kernels.launch import eager_s
from sim.cost.optimizer import PARAMETERS as OPTIMIZER_PARAMETERS
from sim.cost.parameters import Parameter, defaults
from sim.spec.profile import Constant, Fit, find
from sim.spec.workload import SampleModel, Training

PARAMETERS = (
    Parameter(
        "kernel_factor",
        "1",
        "time of a kernel inside a training step over its time alone at the sustained clock",
        1.0,
        0.7,
        1.8,
        "assumed: gaps between kernels and what the list of kernels leaves out",
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
        "source_spread",
        "1",
        "standard deviation of the logarithm of a step time from one source of runs to another (release, flags)",
        0.10,
        0.0,
        0.6,
        "assumed; fitted with the stacks",
    ),
    *(parameter for parameter in LAUNCH_PARAMETERS if parameter.name == "host_s"),
    *OPTIMIZER_PARAMETERS,
)


@dataclass(frozen=True, slots=True)
class Overheads:
    """Overhead constants of one software stack on one generation of devices."""

    kernel_factor: float
    message_factor: float
    source_spread: float
    host_s: float
    optimizer_bandwidth_frac: float
    constants: Mapping[str, Constant]
    """The same numbers with unit, kind and source; empty for an ideal machine."""

    def block_s(self, kernels_s: float, launches: int) -> float:
        """Seconds of a chain of kernels that the host launches one by one."""
        return float(eager_s(kernels_s * self.kernel_factor, launches, host_s=self.host_s))


def overheads(
    fits: Iterable[Fit],
    stack: str,
    generation: str,
    precision: str = "",
    *,
    ideal: bool = False,
    ranks: int = 1,
    network: str = "transformer",
    mlp: str = "dense",
    rule: str = "",
) -> Overheads:
    """The overheads of ``stack`` on ``generation`` in a number format; none at all for an ideal machine.

    Where the stack's own fit does not know the host's time a launch, the profile's launch measurement on this
    generation does. ``ranks``: devices of a node that work at once, which slow each other where that was measured.
    ``network``: ``transformer`` or ``convolutional``, where layers of both were. ``mlp``: see :func:`mlp_kind`.
    ``rule``: of the optimizer, whose own measured share of the bandwidth goes before the stack's, which is that of
    AdamW.
    """
    if ideal:
        return Overheads(1.0, 1.0, 0.0, 0.0, 1.0, {})
    known = list(fits)
    wanted = (("stack", stack), ("generation", generation), ("precision", precision))
    fit = find(known, "stack", (*wanted, ("mlp", mlp), ("network", network), ("ranks", str(ranks))))
    constants = {**defaults(PARAMETERS), **measured_launch(known, generation)}
    constants |= fit.parameters if fit else {}
    constants |= measured_update(known, generation, rule, ranks)
    return Overheads(**{name: constant.value for name, constant in constants.items()}, constants=constants)


def mlp_kind(training: Training) -> str:
    """``experts`` or ``dense``: routers, permutations and grouped products leave other gaps than plain layers."""
    model = training.model
    return "dense" if isinstance(model, SampleModel) or not model.experts else "experts"


def measured_update(fits: Iterable[Fit], generation: str, rule: str, ranks: int) -> dict[str, Constant]:
    """``optimizer_bandwidth_frac`` of an update rule, where it was measured on the generation; fused where it can be.

    AdamW's is measured with the layers, beside as many ranks, and comes with the stack.
    """
    some = [
        fit
        for fit in fits
        if fit.key.get("rule") == rule != "adamw" and fit.key.get("generation") == generation
    ]
    fit = find(some, "optimizer", (("kind", "fused"), ("ranks", str(ranks))))
    return {} if fit is None else dict(fit.parameters)


def measured_launch(fits: Iterable[Fit], generation: str) -> dict[str, Constant]:
    """``host_s`` from a launch measurement of the generation (``eager_host_s``); empty where there is none."""
    fit = find(fits, "launch", (("generation", generation),))
    if fit is None or fit.key.get("generation") != generation or "eager_host_s" not in fit.parameters:
        return {}
    return {"host_s": fit.parameters["eager_host_s"]}
