"""What the update rule costs: bytes kept for each parameter and bytes moved in each step.

The optimizer is a clerk who goes once through the whole ledger at the end of a step: memory bandwidth is all that
counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import Parameter

PARAMETERS = (
    Parameter(
        "optimizer_bandwidth_frac",
        "1",
        "share of memory bandwidth that a fused multi-tensor update reaches",
        0.85,
        0.3,
        1.0,
        "weight streaming on eight devices reaches 0.85 +- 0.03 of the datasheet",
    ),
)


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """Bytes a parameter under mixed precision: 16-bit weight and 32-bit gradient, plus what the rule itself needs."""

    state_bytes: float
    """fp32 master weight and moments; sharded by a distributed optimizer (ZeRO 1)."""
    traffic_bytes: float
    """Read and written a step: gradient in, state in and out, 16-bit weight out."""
    passes: int = 1
    """Sweeps over the parameters (LAMB takes norms of weight and update first)."""


RULES: Mapping[str, UpdateRule] = {
    "sgd": UpdateRule(4.0, 14.0),
    "momentum": UpdateRule(8.0, 22.0),
    "adam": UpdateRule(12.0, 30.0),
    "adamw": UpdateRule(12.0, 30.0),
    "adamax": UpdateRule(12.0, 30.0),
    "lamb": UpdateRule(12.0, 42.0, passes=2),
}
"""Kingma & Ba 2015 (arXiv 1412.6980) for Adam and AdaMax, You et al. 2020 (arXiv 1904.00962) for LAMB; bytes counted
from the tensors each rule touches with an fp32 master copy (Micikevicius et al. 2018, arXiv 1710.03740)."""

WEIGHT_BYTES = 2.0
GRADIENT_BYTES = 4.0
"""Megatron-LM keeps an fp32 main gradient; weights are 16 bit."""


def update_s(
    parameters: ArrayLike, rule: UpdateRule, memory_bytes_per_s: float, bandwidth_frac: float
) -> NDArray[np.float64]:
    """Seconds to update ``parameters`` on one device: traffic over reached bandwidth.

    Gradient norm (4 bytes read), unscale and zero-fill (8 bytes) are added, as every mixed-precision step does them.
    """
    traffic = rule.traffic_bytes + 12.0
    return np.asarray(np.asarray(parameters, dtype=float) * traffic / (memory_bytes_per_s * bandwidth_frac))
