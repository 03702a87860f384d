"""The rival that has to be beaten: FLOP over peak, and one constant utilisation for each generation, stack and format.

Like a taxi driver's rule of thumb: so many minutes a kilometre in this town, whatever the route.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.spec.scenario import Scenario
from sim.spec.training_flop import training_flop_per_sample
from sim.spec.workload import SampleModel
from sim.validation.middles import Labels, left_out_middles, own_middles

KEYS = ("generation", "stack", "precision")
"""Groups that have a constant, from the widest to the narrowest; those of the stacks' kernel factor, too."""

Floats = NDArray[np.float64]


def labels_of(scenario: Scenario) -> tuple[str, str, str]:
    """The groups of a training scenario.

    Raises:
        ValueError: it has no training section.
    """
    if scenario.training is None:
        raise ValueError("the scenario has no [training] section")
    generation = scenario.cluster.pools[0].accelerator.generation
    return generation, scenario.training.stack, scenario.training.precision


def ideal_s(scenario: Scenario) -> float:
    """FLOP of the step, recomputation included and half of a causal square, over the peak of all devices.

    Raises:
        ValueError: it has no training section.
    """
    training = scenario.training
    if training is None:
        raise ValueError("the scenario has no [training] section")
    peak = scenario.cluster.pools[0].accelerator.device().peak(training.precision) * scenario.cluster.devices
    if isinstance(training.model, SampleModel):
        return training.global_batch * training.model.sample_flop / peak
    sample = training_flop_per_sample(training.model, training, "causal", training.plan.recompute)
    return training.global_batch * sample / peak


def rival_s(labels: Labels, ideal: Floats, measured: Floats) -> Floats:
    """Step times by constants fitted to the same runs."""
    return np.asarray(ideal * np.exp(own_middles(labels, np.log(measured / ideal))))


def left_out_rival_s(labels: Labels, family: NDArray[np.str_], ideal: Floats, measured: Floats) -> Floats:
    """Step times by constants fitted to the runs of other families."""
    slowness = np.log(measured / ideal)
    return np.asarray(ideal * np.exp(left_out_middles(labels, family, slowness)))
