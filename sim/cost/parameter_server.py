"""Parameter servers: everybody hands in homework to a few teachers and takes the corrected copy home.

The class waits either at the teachers' desk (servers' bandwidth) or on its own way to school (each
worker's), and, if all must start the next exercise together, for the slowest pupil.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import Parameter

Floats = NDArray[np.float64]

PARAMETER_SERVER_PARAMETERS = (
    Parameter("latency_s", "s", "one request and its answer", 5e-5, 1e-6, 1e-2, "assumed: RPC over Ethernet"),
    Parameter(
        "bandwidth_frac", "1", "share of the cards' rate reached", 0.9, 0.1, 1.0, "assumed, as other networks"
    ),
)


def exchange_s(
    message_bytes: ArrayLike,
    workers: ArrayLike,
    servers: ArrayLike,
    server_bytes_per_s: ArrayLike,
    worker_bytes_per_s: ArrayLike,
    latency_s: ArrayLike = 0.0,
    *,
    full_duplex: bool = False,
) -> Floats:
    """Push of gradients and pull of weights by all workers at once: max(2wM / (S B), 2M / B_w) + 2 latencies.

    ``message_bytes`` M is one copy of the model; each of S ``servers`` of B bytes/s holds a share. With
    ``full_duplex`` pushes and pulls of different shares overlap and the factor 2 falls away.
    """
    size, w = np.asarray(message_bytes, dtype=float), np.asarray(workers, dtype=float)
    ways = 1.0 if full_duplex else 2.0
    at_servers = ways * w * size / (np.asarray(servers, dtype=float) * server_bytes_per_s)
    at_worker = ways * size / np.asarray(worker_bytes_per_s, dtype=float)
    return np.asarray(np.maximum(at_servers, at_worker) + 2 * np.asarray(latency_s))


def slowest_s(mean_s: ArrayLike, deviation_s: ArrayLike, workers: ArrayLike) -> Floats:
    """Expected time of the slowest of ``workers`` whose times are normal: mean + z deviation.

    z = Phi^-1((n - 0.375) / (n + 0.25)), Blom's approximation of the largest order statistic.
    """
    n = np.asarray(workers, dtype=float)
    z = np.where(n > 1, _normal_quantile((n - 0.375) / (n + 0.25)), 0.0)
    return np.asarray(np.asarray(mean_s, dtype=float) + z * np.asarray(deviation_s, dtype=float))


def synchronous_step_s(
    compute_s: ArrayLike, deviation_s: ArrayLike, workers: ArrayLike, exchange: ArrayLike
) -> Floats:
    """Step of all workers in lock-step: the slowest one's compute, then the exchange."""
    return np.asarray(slowest_s(compute_s, deviation_s, workers) + np.asarray(exchange))


def asynchronous_updates_per_s(
    workers: ArrayLike,
    cycle_s: ArrayLike,
    message_bytes: ArrayLike,
    servers: ArrayLike,
    server_bytes_per_s: ArrayLike,
) -> Floats:
    """Gradients applied a second when nobody waits for anybody: min(w / cycle, S B / (2M)).

    ``cycle_s`` is a worker's own compute and exchange undisturbed.
    """
    demand = np.asarray(workers, dtype=float) / np.asarray(cycle_s, dtype=float)
    supply = (
        np.asarray(servers, dtype=float) * server_bytes_per_s / (2 * np.asarray(message_bytes, dtype=float))
    )
    return np.asarray(np.minimum(demand, supply))


def mean_staleness(workers: ArrayLike) -> Floats:
    """Updates by others between a worker's pull and its push, equal workers, no bound: w - 1."""
    return np.asarray(np.asarray(workers, dtype=float) - 1)


def bounded_staleness_step_s(
    compute_s: ArrayLike, deviation_s: ArrayLike, workers: ArrayLike, bound: ArrayLike, exchange: ArrayLike
) -> Floats:
    """Seconds a step when a worker may lead the slowest by ``bound`` b steps (stale synchronous, Ho et al. 2013).

    Bound 0 is lock-step. With slack the workers are a pack that the bound holds together: lags behind the leader are
    random walks of variance s^2 a step, pressed against it by what it waits, v a step, so that they settle to an
    exponential distribution of mean s^2 / 2v; the largest of w, (ln w + 0.577) s^2 / 2v, is the b steps allowed.
    Hence v = s^2 (ln w + 0.577) / (2 b t). Never more than if all met every b + 1 steps, over which jitter averages:
    z s / sqrt(b + 1). Within 4 % of the step that workers take when they are played (a test does so). A worker that is
    always slow is not helped: give its own time as ``compute_s``.
    """
    spread, slack = np.asarray(deviation_s, dtype=float), np.asarray(bound, dtype=float)
    alone = np.asarray(compute_s, dtype=float) + np.asarray(exchange, dtype=float)
    meeting = slowest_s(0.0, spread / np.sqrt(slack + 1), workers)
    pack = spread**2 * (np.log(np.asarray(workers, dtype=float)) + EULER)
    with np.errstate(divide="ignore", invalid="ignore"):
        pressed = np.where(pack > 0, pack / (2 * slack * alone), 0.0)
    return np.asarray(alone + np.minimum(meeting, pressed))


EULER = 0.5772156649
"""Euler's constant: the largest of w exponential variables has mean ln w + 0.577 in units of theirs."""


def _normal_quantile(p: Floats) -> Floats:
    """Phi^-1 for p in (0.5, 1): Abramowitz and Stegun 26.2.23, within 4.5e-4."""
    t = np.sqrt(-2 * np.log(np.clip(1 - p, 1e-300, 0.5)))
    top = 2.515517 + 0.802853 * t + 0.010328 * t**2
    return np.asarray(t - top / (1 + 1.432788 * t + 0.189269 * t**2 + 0.001308 * t**3))
