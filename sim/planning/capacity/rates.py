"""How fast each kind of node does each programme's work.

The exchange office of a plan: tokens and device-hours of one machine against those of another, at rates that the
training model of rackcast gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sim.planning.capacity.fluid import Rate
from sim.planning.capacity.needs import TOKENS_PER_S_PER_DEVICE
from sim.spec.catalog import load_catalog
from sim.spec.demand import Programme
from sim.spec.hardware import Accelerator, System

Trained = Callable[[Programme, System], float]
"""Tokens (samples) that one device of a system trains in a second of running time; 0 = the model does not fit."""
YARDSTICK_MODEL = "llama-3.1-8b"
"""What device-hours are compared by: training an 8B model, like much of a team's work."""


def rates(trained: Trained) -> Rate:
    """Units of a programme's work in one device-hour of running time on a system, from ``trained``."""
    catalog = load_catalog()
    yardstick = Programme(name="yardstick", kind="model", model=catalog.model(YARDSTICK_MODEL))

    def rate(programme: Programme, system: System) -> float:
        reference = catalog.accelerator(programme.reference)
        if programme.kind == "model":
            return trained(programme, system) * 3600
        if programme.kind in ("chat", "traffic"):
            served = (programme.tokens_per_s_per_device or TOKENS_PER_S_PER_DEVICE).mid
            return served * 3600 * _bandwidth_ratio(catalog.accelerator(system.accelerator), reference)
        own = trained(yardstick, home_of(reference))
        precision = replace(yardstick, precision=programme.precision)
        return trained(precision, system) / own if own > 0 else 0.0

    return rate


def reference_rates(programmes: tuple[Programme, ...], rate: Rate) -> dict[str, float]:
    """Units of work of one device-hour on each programme's reference device, by programme."""
    catalog = load_catalog()
    return {p.name: rate(p, home_of(catalog.accelerator(p.reference))) for p in programmes}


def home_of(accelerator: Accelerator) -> System:
    """The first catalogue system with the accelerator (there is one for every reference)."""
    return next(s for s in load_catalog().systems.values() if s.accelerator == accelerator.key)


def _bandwidth_ratio(device: Accelerator, reference: Accelerator) -> float:
    """Decoding reads the weights once a token, bound by memory bandwidth (Pope et al. 2022, arXiv 2211.05102)."""
    return device.memory_bytes_per_s / reference.memory_bytes_per_s
