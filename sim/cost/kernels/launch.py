"""Host launch cost against device time: a chain of kernels is as slow as the slower of cook and waiter.

The host hands kernels to the device one by one (the waiter), the device works them off in order (the cook).
With long kernels the queue is always full and launching is free; with short ones the device waits for the
host. Replaying a captured graph hands over the whole menu at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import Parameter

Floats = NDArray[np.float64]

PARAMETERS = (
    Parameter(
        "host_s",
        "s",
        "host time per eager kernel launch, framework dispatch included",
        6e-6,
        1e-6,
        1e-4,
        "assumed: a bare launch takes 2 to 4 us, PyTorch dispatch doubles it",
    ),
    Parameter("graph_launch_s", "s", "host time to replay a captured graph", 1e-5, 2e-6, 2e-4, "assumed"),
    Parameter("graph_node_s", "s", "device gap between nodes of a graph", 1e-6, 1e-7, 1e-5, "assumed"),
)
"""What a calibration may turn (measured with empty kernels: one by one, and as a graph)."""

SOFTNESS = 6.0
"""Exponent of the soft maximum: near balance single kernels still stall although sums would not."""


def eager_s(kernels_s: ArrayLike, launches: ArrayLike, *, host_s: ArrayLike) -> Floats:
    """Seconds of a chain of ``launches`` kernels with device time ``kernels_s`` in all, launched one by one.

    Soft maximum of device time and launches x host_s: the steady state of a two-stage pipeline (host, device)
    is set by its slower stage; the exponent rounds the corner where both are alike.
    """
    device = np.asarray(kernels_s, dtype=float)
    host = np.asarray(launches, dtype=float) * np.asarray(host_s, dtype=float)
    largest = np.maximum(np.maximum(device, host), np.finfo(float).tiny)
    ratio = np.minimum(device, host) / largest
    return np.asarray(largest * (1 + ratio**SOFTNESS) ** (1 / SOFTNESS))


def graph_s(
    kernels_s: ArrayLike, launches: ArrayLike, *, graph_launch_s: ArrayLike, graph_node_s: ArrayLike
) -> Floats:
    """Seconds of the same chain replayed as one graph: one launch, then kernels with small gaps."""
    gaps = np.maximum(np.asarray(launches, dtype=float) - 1, 0) * np.asarray(graph_node_s, dtype=float)
    return np.asarray(np.asarray(graph_launch_s, dtype=float) + np.asarray(kernels_s, dtype=float) + gaps)


def graph_saving_s(
    kernels_s: ArrayLike,
    launches: ArrayLike,
    *,
    host_s: ArrayLike,
    graph_launch_s: ArrayLike,
    graph_node_s: ArrayLike,
) -> Floats:
    """Seconds that a captured graph saves; never negative, since one may always launch eagerly."""
    eager = eager_s(kernels_s, launches, host_s=host_s)
    graph = graph_s(kernels_s, launches, graph_launch_s=graph_launch_s, graph_node_s=graph_node_s)
    return np.maximum(eager - graph, 0.0)
