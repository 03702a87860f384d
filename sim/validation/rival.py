"""The rival that has to be beaten: FLOP over peak, and one constant utilisation for each group of runs.

Like a taxi driver's rule of thumb: so many minutes a kilometre in this town, whatever the route.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.spec.scenario import Scenario
from sim.spec.training_flop import training_flop_per_sample
from sim.spec.workload import SampleModel
from sim.training.overheads import mlp_kind
from sim.validation.middles import Labels, Names, left_out_middles, own_middles

KEYS = ("generation", "stack", "precision", "mlp")
"""Groups that have a constant, from the widest to the narrowest; those of the stacks' kernel factor, too."""

Floats = NDArray[np.float64]


def labels_of(scenario: Scenario) -> tuple[str, str, str, str]:
    """The groups of a training scenario.

    Raises:
        ValueError: it has no training section.
    """
    if scenario.training is None:
        raise ValueError("the scenario has no [training] section")
    generation, training = scenario.cluster.pools[0].accelerator.generation, scenario.training
    return generation, training.stack, training.precision, mlp_kind(training)


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


def rival_s(labels: Labels, family: Names, ideal: Floats, measured: Floats) -> Floats:
    """Step times by constants fitted to the same runs."""
    return np.asarray(ideal * np.exp(own_middles(labels, family, np.log(measured / ideal))))


def left_out_rival_s(labels: Labels, family: Names, ideal: Floats, measured: Floats) -> Floats:
    """Step times by constants fitted to the runs of other families."""
    slowness = np.log(measured / ideal)
    return np.asarray(ideal * np.exp(left_out_middles(labels, family, slowness)))
