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
from sim.spec.parameter_count import total_parameters

Trained = Callable[[Programme, System, int], float]
"""Tokens (samples) that one device of a system trains in a second of running time, in a gang of at most so many
devices; 0 = the model does not fit."""
YARDSTICK_MODEL = "llama-3.1-8b"
"""What device-hours are compared by: training an 8B model, like much of a team's work."""


REFERENCE_NODES = 64
"""Size of the gang in which a reference device works on a model."""


def rates(trained: Trained) -> Rate:
    """Units of a programme's work in one device-hour of running time on a system, from ``trained``."""
    catalog = load_catalog()
    yardstick = Programme(name="yardstick", kind="model", model=catalog.model(YARDSTICK_MODEL))
    known: dict[tuple[str, str], float] = {}

    def measured(system: System, precision: str) -> float:
        """The yardstick on one node, tried once for each kind of node and number format."""
        key = system.key, precision
        if key not in known:
            known[key] = trained(replace(yardstick, precision=precision), system, system.gpus_per_node)
        return known[key]

    def rate(programme: Programme, system: System, devices: int) -> float:
        reference = catalog.accelerator(programme.reference)
        if programme.kind == "model":
            return trained(programme, system, devices) * 3600
        if programme.kind in ("chat", "traffic"):
            if not _holds(programme, system, catalog.accelerator(system.accelerator)):
                return 0.0
            served = (programme.tokens_per_s_per_device or TOKENS_PER_S_PER_DEVICE).mid
            return served * 3600 * _bandwidth_ratio(catalog.accelerator(system.accelerator), reference)
        own = measured(home_of(reference), yardstick.precision)
        return measured(system, programme.precision) / own if own > 0 else 0.0

    return rate


def _holds(programme: Programme, system: System, device: Accelerator) -> bool:
    """Whether a node holds the weights of the served model, at two bytes each and with a tenth left for the cache."""
    if programme.model is None:
        return True
    return 2 * total_parameters(programme.model) <= 0.9 * device.memory_bytes * system.gpus_per_node


def reference_rates(programmes: tuple[Programme, ...], rate: Rate) -> dict[str, float]:
    """Units of work of one device-hour on each programme's reference device, by programme."""
    found = {}
    for programme in programmes:
        home = home_of(load_catalog().accelerator(programme.reference))
        found[programme.name] = rate(programme, home, REFERENCE_NODES * home.gpus_per_node)
    return found


def home_of(accelerator: Accelerator) -> System:
    """The first catalogue system with the accelerator (there is one for every reference)."""
    return next(s for s in load_catalog().systems.values() if s.accelerator == accelerator.key)


def _bandwidth_ratio(device: Accelerator, reference: Accelerator) -> float:
    """Decoding reads the weights once a token, bound by memory bandwidth (Pope et al. 2022, arXiv 2211.05102)."""
    return device.memory_bytes_per_s / reference.memory_bytes_per_s
