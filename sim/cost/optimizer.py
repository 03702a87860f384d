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

Floats = NDArray[np.float64]

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

HOST_PARAMETERS = (
    Parameter(
        "host_memory_bytes_per_s",
        "B/s",
        "host memory bandwidth that the update of one device gets when its state is off-loaded",
        5e10,
        5e9,
        5e11,
        "assumed: two sockets of 8 DDR4-3200 channels (410 GB/s) shared by eight devices",
    ),
    Parameter(
        "host_link_frac",
        "1",
        "share of the host link's rate that large pinned copies reach",
        0.8,
        0.3,
        1.0,
        "assumed: PCIe headers and flow control leave 0.8-0.9",
    ),
)

NEWTON_SCHULZ_ITERATIONS = 5
"""Jordan et al. 2024, Muon; Liu et al. 2025 (arXiv 2502.16982)."""


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """Bytes a parameter under mixed precision: 16-bit weight and 32-bit gradient, plus what the rule itself needs."""

    state_bytes: float
    """fp32 master weight and moments; sharded by a distributed optimizer (ZeRO 1)."""
    traffic_bytes: float
    """Read and written a step: gradient in, state in and out, 16-bit weight out."""
    passes: int = 1
    """Sweeps over the parameters (LAMB takes norms of weight and update first)."""
    factored: bool = False
    """Keeps a row and a column of second moments for each matrix instead of the matrix."""
    orthogonalised: bool = False
    """Makes the update of each matrix orthogonal, which is arithmetic and not only traffic."""

    def kept_bytes(self, rows: ArrayLike = float("inf"), columns: ArrayLike = float("inf")) -> Floats:
        """State bytes a parameter of a rows x columns matrix: 4 (r + c) / (rc) more where moments are factored."""
        factors = 4.0 * (1 / np.asarray(rows, dtype=float) + 1 / np.asarray(columns, dtype=float))
        return np.asarray(self.state_bytes + factors * self.factored)


RULES: Mapping[str, UpdateRule] = {
    "sgd": UpdateRule(4.0, 14.0),
    "momentum": UpdateRule(8.0, 22.0),
    "adam": UpdateRule(12.0, 30.0),
    "adamw": UpdateRule(12.0, 30.0),
    "adamax": UpdateRule(12.0, 30.0),
    "lamb": UpdateRule(12.0, 42.0, passes=2),
    "adafactor": UpdateRule(4.0, 18.0, passes=2, factored=True),
    "adam-8bit": UpdateRule(6.03, 18.0),
    "muon": UpdateRule(8.0, 22.0, orthogonalised=True),
}
"""Kingma & Ba 2015 (arXiv 1412.6980) for Adam and AdaMax, You et al. 2020 (arXiv 1904.00962) for LAMB, Shazeer & Stern
2018 (arXiv 1804.04235) for Adafactor (gradient read twice), Dettmers et al. 2022 (arXiv 2110.02861) for 8-bit Adam (two
bytes of moments and a 4-byte scale for each block of 256), Jordan et al. 2024 for Muon; bytes counted from the tensors
each rule touches with an fp32 master copy (Micikevicius et al. 2018, arXiv 1710.03740)."""

WEIGHT_BYTES = 2.0
"""Bytes of a 16-bit weight."""
MASTER_BYTES = 4.0
"""Bytes of an fp32 weight: the master copy that is part of every rule's state."""
GRADIENT_BYTES = 4.0
"""Megatron-LM keeps an fp32 main gradient."""


def update_s(
    parameters: ArrayLike, rule: UpdateRule, memory_bytes_per_s: float, bandwidth_frac: float
) -> Floats:
    """Seconds to update ``parameters`` on one device: traffic over reached bandwidth.

    Gradient norm (4 bytes read), unscale and zero-fill (8 bytes) are added, as every mixed-precision step does them.
    """
    traffic = rule.traffic_bytes + 12.0
    return np.asarray(np.asarray(parameters, dtype=float) * traffic / (memory_bytes_per_s * bandwidth_frac))


def muon_flop(rows: ArrayLike, columns: ArrayLike, iterations: int = NEWTON_SCHULZ_ITERATIONS) -> Floats:
    """FLOP that make one rows x columns update orthogonal: iterations of 4 a^2 b + 2 a^3 with a <= b.

    Newton-Schulz: X X^T (2 a^2 b), its square (2 a^3), and their product with X (2 a^2 b). At most 5 a / T of a step
    that trains the matrix on T tokens (6 a b T FLOP).
    """
    r, c = np.asarray(rows, dtype=float), np.asarray(columns, dtype=float)
    a, b = np.minimum(r, c), np.maximum(r, c)
    return np.asarray(iterations * (4 * a**2 * b + 2 * a**3))


def offloaded_update_s(
    parameters: ArrayLike,
    rule: UpdateRule,
    host_bytes_per_s: ArrayLike,
    host_memory_bytes_per_s: ArrayLike,
    host_link_frac: ArrayLike = 1.0,
) -> Floats:
    """Seconds to update ``parameters`` whose state lies in host memory (ZeRO-Offload, arXiv 2101.06840).

    Gradients go down the host link, weights come back up the other way, and the host's memory carries the traffic of
    the rule; pieces of the model follow one another through the three, so the slowest sets the pace.

    Args:
        host_bytes_per_s: one way, device to host.
    """
    count = np.asarray(parameters, dtype=float)
    link = np.asarray(host_bytes_per_s, dtype=float) * np.asarray(host_link_frac, dtype=float)
    copied = max(GRADIENT_BYTES, WEIGHT_BYTES) * count / link
    updated = count * rule.traffic_bytes / np.asarray(host_memory_bytes_per_s, dtype=float)
    return np.asarray(np.maximum(copied, updated))
