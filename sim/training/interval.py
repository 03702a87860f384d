"""How sure a step time is, from what its calibration missed on data it had not seen.

Like the tolerance chain of an assembly: parts of one mould err together, parts of different moulds partly cancel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import exp, log, sqrt
from typing import Any, NamedTuple

from sim.results.step import StepResult
from sim.spec.ops import Message
from sim.spec.profile import Constant, Fit, find
from sim.spec.workload import SampleModel, Training
from sim.training.layers import network
from sim.training.placement import groups

Z80, Z99 = 1.2816, 2.5758
"""Standard deviations on either side that hold 80 % and 99 % of a normal distribution."""
MEDIAN_SIGMA = 0.6745
"""Median of the absolute value of a normal variable, in standard deviations."""
UNMEASURED = 0.20
"""Standard deviation of the logarithm taken where nothing was held out (assumed)."""


PART_OF = (
    ("fit gemm", "matmul"),
    ("fit attention", "attention"),
    ("fit memory_bound", "memory"),
    ("fit convolution", "convolution"),
    ("fit embedding", "embedding"),
    ("overhead kernel_factor", "layer"),
    ("overhead optimizer", "optimizer"),
    ("overhead message_factor", "collective"),
    ("fit all_", "collective"),
    ("fit alltoall", "collective"),
    ("fit reduce_scatter", "collective"),
    ("fit sendrecv", "collective"),
    ("fit network", "collective"),
    ("messages not calibrated", "collective"),
    ("network not calibrated", "collective"),
    ("not calibrated", "matmul"),
    ("data path", "loader"),
)
"""How a term's source begins -> the part of ``rackcast calibrate run`` that measures it."""
OVER_NODES = ("fit network", "network not calibrated")
"""Beginnings of sources that only a calibration of several nodes at once measures."""
NEEDS: Mapping[str, tuple[str, ...]] = {
    "attention": ("matmul", "memory"),
    "convolution": ("matmul", "memory"),
    "embedding": ("memory",),
    "optimizer": ("memory",),
    "layer": ("matmul", "memory", "attention", "convolution", "launch"),
    "loader": ("copies", "storage"),
}
"""Parts to measure with a part: what its fit is relative to, on a device without a datasheet, too."""
DATA_PATH = ("host_to_device_bytes_per_s", "client_read_bytes_per_s", "decode_bytes_per_s")
"""Measured constants that the data path leans on (:mod:`sim.training.node_rates`)."""


class Worth(NamedTuple):
    """A calibration that would narrow the interval."""

    part: str
    variance_frac: float
    """Share of the step's variance that comes from what it measures."""
    command: str


class Term(NamedTuple):
    """One source of error."""

    source: str
    share_frac: float
    """Part of the step that moves with it."""
    sigma: float
    """Standard deviation of the logarithm of that part."""

    @property
    def step_sigma(self) -> float:
        """Its standard deviation in the logarithm of the step."""
        return self.share_frac * self.sigma


def step_interval(result: StepResult, fits: Sequence[Fit], *, between: bool = True) -> dict[str, Any]:
    """80 % interval of the step time, ready for JSON, with its terms from the largest.

    ``sigma^2 = sum_i (share_i sigma_i)^2`` over fits and overhead constants, independent of one another; all ops of one
    fit move together. A fit's ``sigma = median error / 0.6745``; a fitted constant's is its 80 % interval in the
    logarithm over 2 x 1.28; an assumed one's is the range it may have, taken to hold 99 of 100. Bubble and waiting for
    slower devices are shared out over kernels and tensor messages, whose multiples they are. With ``between`` the
    spread from one source of runs to another comes on top: what a plan does not say (release, cluster, flags). The
    bounds are ``step exp(-+1.28 sigma)``. See docs/models.md.
    """
    every = _terms(result, fits, between=between)
    terms = sorted(_merged(every), key=lambda term: -term.step_sigma)
    sigma, worth = sqrt(sum(term.step_sigma**2 for term in terms)), worth_measuring(terms)
    return {
        "low_s": result.step_s * exp(-Z80 * sigma),
        "high_s": result.step_s * exp(Z80 * sigma),
        "level_frac": 0.8,
        "sigma_frac": sigma,
        "terms": [term._asdict() | {"step_sigma_frac": term.step_sigma} for term in terms if term.step_sigma],
        "measure": [one._asdict() for one in worth],
        "measure_command": _command([one.part for one in worth], any("srun" in one.command for one in worth)),
    }


def worth_measuring(terms: Sequence[Term], count: int = 3) -> list[Worth]:
    """The ``count`` calibrations that would narrow the interval most, largest first.

    Terms that the same part of a calibration measures go together; what nothing measures is left out.
    """
    total = sum(term.step_sigma**2 for term in terms)
    by_part: dict[str, float] = {}
    far = False
    for term in terms:
        part = next((part for start, part in PART_OF if term.source.startswith(start)), "")
        if part and term.step_sigma > 0:
            by_part[part] = by_part.get(part, 0.0) + term.step_sigma**2 / total
            far |= term.source.startswith(OVER_NODES)
    ranked = sorted(by_part.items(), key=lambda pair: -pair[1])[:count]
    return [Worth(part, share, _command([part], far and part == "collective")) for part, share in ranked]


def _command(parts: Sequence[str], over_nodes: bool) -> str:
    """What to type for some parts and those they need; over several nodes as a batch system starts it."""
    if not parts:
        return ""
    only = ",".join(dict.fromkeys(name for part in parts for name in (*NEEDS.get(part, ()), part)))
    return f"{'srun ' if over_nodes else ''}rackcast calibrate run --only {only}"


def _merged(terms: Iterator[Term]) -> list[Term]:
    """Terms of the same source as one: they move together."""
    merged: dict[tuple[str, float], float] = {}
    for term in terms:
        key = (term.source, term.sigma)
        merged[key] = merged.get(key, 0.0) + term.share_frac
    return [Term(source, share, sigma) for (source, sigma), share in merged.items()]


def _terms(result: StepResult, fits: Sequence[Fit], *, between: bool) -> Iterator[Term]:
    training = result.scenario.training
    if training is None or result.scenario.profile == "ideal" or result.step_s <= 0:
        return  # an ideal machine is a definition: nothing to be unsure of
    step, parts = result.step_s, result.parts_s
    passes, tensor = parts["forward"] + parts["backward"], parts["tensor communication"]
    apart = ("optimizer", "data communication", "pipeline communication", "loader")
    stretch = (step - sum(parts[name] for name in apart)) / (passes + tensor) if passes + tensor > 0 else 0.0
    kernels, messages = passes * stretch / step, tensor * stretch / step
    yield from _uses(result, training, kernels, messages)
    for cause, group in (("data communication", "data"), ("pipeline communication", "pipeline")):
        if parts[cause] > 0:
            yield _message_term(result, training, fits, cause, group)
    known = [constant_sigma(result.overheads[name]) for name in DATA_PATH if name in result.overheads]
    yield Term("data path", parts["loader"] / step, max(known, default=UNMEASURED))
    moved = {
        "kernel_factor": kernels if result.uses else 0.0,
        "message_factor": messages,
        "optimizer_bandwidth_frac": parts["optimizer"] / step,
    }
    if between and result.uses and "source_spread" in result.overheads:
        yield Term("overhead source_spread", 1.0, result.overheads["source_spread"].value)
    for name, constant in result.overheads.items():
        if name == "kernel_factor" and constant.kind == "fitted":
            continue  # its runs differ by their sources: the spread between these counts that
        if name in moved:
            yield Term(f"overhead {name}", moved[name], constant_sigma(constant))


def constant_sigma(constant: Constant) -> float:
    """Standard deviation of the logarithm of an overhead constant."""
    if constant.low is None or constant.high is None or constant.low <= 0:
        return UNMEASURED
    return log(constant.high / constant.low) / (2 * (Z99 if constant.kind == "assumed" else Z80))


def fit_sigma(fit: Fit | None) -> float:
    """Standard deviation of the logarithm of what a fit predicts."""
    if fit is None or fit.error is None:
        return UNMEASURED
    return fit.error.median_ape / 100 / MEDIAN_SIGMA * few_points_factor(fit.error.points)


def few_points_factor(points: int) -> float:
    """How much wider an 80 % interval is when its spread was seen on ``points`` held-out ones alone; at least 1.

    sqrt(1 + 1/n) for the unknown middle, and Student's t over the normal quantile, 1 + (z^2 + 1) / (4 (n - 1)) (first
    term of the Cornish-Fisher expansion; Abramowitz and Stegun 26.7.5). One point counts as two that agree.
    """
    count = max(points, 2)
    return sqrt(1 + 1 / count) * (1 + (Z80**2 + 1) / (4 * (count - 1)))


def _uses(result: StepResult, training: Training, kernels: float, messages: float) -> Iterator[Term]:
    """Ops of the passes, each with its part of the kernels' or of the tensor messages' share of the step."""
    if isinstance(training.model, SampleModel):
        yield Term("arithmetic of the sample", kernels, UNMEASURED)
        return
    whole = network(training.model, training)
    number = Counter(block.name for block in whole.blocks)
    sent = {
        f"{block.name}: {op.name}"
        for block in whole.kinds
        for op in block.forward + block.recompute + block.backward
        if isinstance(op, Message)
    }
    weights = [use.seconds * number[use.name.partition(": ")[0]] for use in result.uses]
    total = dict.fromkeys((True, False), 0.0)
    for use, weight in zip(result.uses, weights, strict=True):
        total[use.name in sent] += weight
    for use, weight in zip(result.uses, weights, strict=True):
        is_sent = use.name in sent
        if weight > 0:
            share = (messages if is_sent else kernels) * weight / total[is_sent]
            yield Term(_source(use.fit, "messages " if is_sent else ""), share, fit_sigma(use.fit))


def _message_term(
    result: StepResult, training: Training, fits: Sequence[Fit], cause: str, group: str
) -> Term:
    """Messages outside the passes lean on the fit of the network where their group leaves the scale-up domain."""
    pool = result.scenario.cluster.pools[0]
    generation = pool.accelerator.device().generation
    domain = max(pool.system.scale_up_domain_size, pool.system.gpus_per_node)
    talking = groups(training.plan, result.data, domain, pool.system.gpus_per_node)[group]
    share = result.parts_s[cause] / result.step_s
    if training.plan.parameter_server is not None:
        return Term("parameter servers", share, UNMEASURED)
    if talking.ranks > talking.ranks_per_domain:
        wanted = [("fabric", pool.system.fabric), ("generation", generation)]
        return _told(find(fits, "network", wanted), share, "network ")
    wanted = [("generation", generation), ("accelerator", pool.accelerator.key)]
    fit = find(fits, "sendrecv" if group == "pipeline" else "all_reduce", wanted)
    return _told(fit, share, "messages ")


def _told(fit: Fit | None, share: float, of: str) -> Term:
    return Term(_source(fit, of), share, fit_sigma(fit))


def _source(fit: Fit | None, of: str = "") -> str:
    if fit is None:
        return f"{of}not calibrated"
    return " ".join(("fit", fit.op, *(str(value) for value in fit.key.values())))
