"""The inputs a step time hangs on, each 10 % better: the knobs of a sensitivity table.

Like tapping every board of a bridge with a hammer: the same tap everywhere, and the loudest answer is where it bears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sim.results.step import StepResult
from sim.spec.hardware import Accelerator
from sim.spec.profile import Constant, Fit
from sim.spec.scenario import Scenario
from sim.training.overheads import mlp_kind, overheads

BETTER = 1.10
"""Rates times this, times over this."""

INPUTS = {
    "peak": "peak FLOP/s",
    "memory": "memory bandwidth",
    "scale_up": "scale-up links",
    "network": "network cards",
    "kernels": "kernel efficiency",
    "launch": "host launch time",
    "data": "data path (storage, CPU, host link)",
}
"""Input -> words for people."""

_CONSTANTS = {"kernels": "kernel_factor", "launch": "host_s"}


def better(name: str, result: StepResult, fits: Sequence[Fit]) -> tuple[Scenario, Sequence[Fit]] | None:
    """The scenario and the fits with one of :data:`INPUTS` 10 % better; None where the step does not have that input.

    Efficiencies stay what they are: a chip with a tenth more FLOP/s reaches the same share of them.
    """
    scenario = result.scenario
    pools = scenario.cluster.pools
    if name in _CONSTANTS:
        changed = _better_constant(_CONSTANTS[name], result, fits)
        return None if changed is None else (scenario, changed)
    if name == "data":
        return _better_data(scenario, fits)
    if name == "network":
        pools = tuple(
            replace(pool, system=replace(pool.system, nic_bytes_per_s=pool.system.nic_bytes_per_s * BETTER))
            for pool in pools
        )
    else:
        pools = tuple(replace(pool, accelerator=_better_device(pool.accelerator, name)) for pool in pools)
    return replace(scenario, cluster=replace(scenario.cluster, pools=pools)), fits


def _better_device(device: Accelerator, name: str) -> Accelerator:
    if name == "peak":
        watts = None if device.tdp_w is None else device.tdp_w * BETTER  # the same energy a FLOP
        rates = {key: rate * BETTER for key, rate in device.flop_per_s.items()}
        return replace(device, flop_per_s=rates, tdp_w=watts)
    if name == "memory":
        return replace(device, memory_bytes_per_s=device.memory_bytes_per_s * BETTER)
    if device.scale_up_bytes_per_s is None:  # devices that meet over the host's bus
        return replace(device, host_link_bytes_per_s=device.host_link_bytes_per_s * BETTER)
    return replace(device, scale_up_bytes_per_s=device.scale_up_bytes_per_s * BETTER)


def _better_data(scenario: Scenario, fits: Sequence[Fit]) -> tuple[Scenario, Sequence[Fit]] | None:
    training, storage = scenario.training, scenario.cluster.storage
    if training is None or training.loader is None:
        return None
    loader = replace(
        training.loader,
        sample_serial_s=training.loader.sample_serial_s / BETTER,
        sample_cpu_s=training.loader.sample_cpu_s / BETTER,
        sample_device_bytes=training.loader.sample_device_bytes / BETTER,
    )
    if storage is not None:
        storage = replace(storage, read_bytes_per_s=storage.read_bytes_per_s * BETTER)
    cluster = replace(scenario.cluster, storage=storage)
    return replace(scenario, cluster=cluster, training=replace(training, loader=loader)), fits


def _better_constant(name: str, result: StepResult, fits: Sequence[Fit]) -> Sequence[Fit] | None:
    """The fits behind those of the stack that have this overhead a tenth smaller; None on an ideal machine."""
    training = result.scenario.training
    if training is None or not result.overheads:
        return None
    devices = [pool.accelerator.device() for pool in result.scenario.cluster.pools]
    changed = []
    for generation in dict.fromkeys(device.generation for device in devices):
        mlp = mlp_kind(training)
        constants = overheads(fits, training.stack, generation, training.precision, mlp=mlp).constants
        old = constants[name]
        new = Constant(old.value / BETTER, old.unit, "assumed", f"{old.source}, 10 % better")
        key = {
            "stack": training.stack,
            "generation": generation,
            "precision": training.precision,
            "mlp": mlp,
        }
        changed.append(Fit("stack", key, {**constants, name: new}))
    return (*changed, *fits)
