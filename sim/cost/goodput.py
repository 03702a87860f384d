"""How much of a long job's time turns into work that lasts, when nodes fail and checkpoints cost time.

Like climbing with a rope: each piton (checkpoint) costs a minute, and a fall goes back to the last one. With M the mean
time between failures of the whole job, tau the work between two checkpoints, delta the time a checkpoint stops the job
and D the time a failure costs before work goes on, one cycle of tau + delta is a race against an exponential clock.
Unless said otherwise failures are exponential (no ageing), and derivations are short enough to stand here; sources:
Young 1974 (CACM 17, 530), Daly 2006 (FGCS 22, 303), Benoit, Robert et al. for silent errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

DAY_S = 86400.0
"""Seconds of a day, by definition."""


def _floats(*values: ArrayLike) -> tuple[Floats, ...]:
    return tuple(np.asarray(value, dtype=float) for value in values)


def mttf_s(
    nodes: ArrayLike, node_failures_per_day: ArrayLike, job_failures_per_day: ArrayLike = 0.0
) -> Floats:
    """Mean time between failures of a job: ``1 / (N r + r_job)``; independent failures with constant rates add up."""
    n, rate, own = _floats(nodes, node_failures_per_day, job_failures_per_day)
    with np.errstate(divide="ignore"):
        return np.asarray(DAY_S / (n * rate + own))


def survival_frac(time_s: ArrayLike, mean_s: ArrayLike) -> Floats:
    """Probability of no failure for ``time_s``: ``exp(-t / M)``."""
    time, mean = _floats(time_s, mean_s)
    return np.asarray(np.exp(-time / mean))


# --- the interval between checkpoints -------------------------------------------


def optimal_interval_s(mean_s: ArrayLike, stall_s: ArrayLike) -> Floats:
    """Work between checkpoints that gives the most goodput, exactly: ``M [1 + W0(-exp(-1 - delta/M))]``.

    W0 is Lambert's function; the cost of a restart has no say. The derivative of ``tau / (exp((tau + delta)/M) - 1)``
    vanishes where ``u = 1 - exp(-(u + delta/M))`` with u = tau / M = 1 + W0. Newton's rule is run on u: W0 itself loses
    its digits near its branch point, where delta is small. The left side is convex and Young's interval lies right of
    the root, so the iteration falls monotonically. 0 where a checkpoint is free, infinite where nothing fails.
    """
    mean, stall = np.broadcast_arrays(*_floats(mean_s, stall_s))
    ratio = np.where(np.isfinite(mean), stall / np.where(mean > 0, mean, 1.0), 0.0)
    u = np.minimum(np.sqrt(2 * ratio), 1.0)
    for _ in range(60):
        dies = -np.expm1(-(u + ratio))  # of f(u) = u - dies the derivative is dies again
        step = np.where(dies > 0, (u - dies) / np.where(dies > 0, dies, 1.0), 0.0)
        u = u - step
        if np.all(np.abs(step) <= 4e-16 * np.maximum(u, 1e-300)):
            break
    return np.asarray(np.where(np.isfinite(mean), u * np.where(np.isfinite(mean), mean, 0.0), math.inf))


def young_interval_s(mean_s: ArrayLike, stall_s: ArrayLike) -> Floats:
    """``sqrt(2 delta M)``, first order (Young 1974)."""
    mean, stall = _floats(mean_s, stall_s)
    return np.asarray(np.sqrt(2 * stall * mean))


def daly_interval_s(mean_s: ArrayLike, stall_s: ArrayLike, *, higher_order: bool = True) -> Floats:
    """Daly 2006: ``sqrt(2 delta M) [1 + sqrt(delta/2M)/3 + delta/18M] - delta``, and M where delta >= 2M; the first
    order keeps 1 of the bracket."""
    mean, stall = _floats(mean_s, stall_s)
    first = np.sqrt(2 * stall * mean)
    if not higher_order:
        return np.asarray(first - stall)
    half = stall / (2 * mean)
    return np.asarray(np.where(half >= 1, mean, first * (1 + np.sqrt(half) / 3 + half / 9) - stall))


def availability_interval_s(mean_s: ArrayLike, restart_s: ArrayLike, stall_s: ArrayLike) -> Floats:
    """Checkpoint period, the write included, that maximises ``(1 - Ts/Tc) Tf / (Tf + Tr + Tc/2)`` (arXiv 2410.18124):
    ``Ts + sqrt(2 (Tf + Tr) Ts + Ts^2)``."""
    mean, restart, stall = _floats(mean_s, restart_s, stall_s)
    return np.asarray(stall + np.sqrt(2 * (mean + restart) * stall + stall**2))


# --- goodput: lasting work over all time ----------------------------------------


def goodput_frac(
    mean_s: ArrayLike,
    interval_s: ArrayLike,
    stall_s: ArrayLike = 0.0,
    down_s: ArrayLike = 0.0,
    *,
    persist_s: ArrayLike = 0.0,
    fails_while_restarting: bool = False,
) -> Floats:
    """Exact goodput: ``tau exp(-p/M) / [(M + D)(exp((tau + delta)/M) - 1)]``.

    A failure-free stretch lasts M on average and completes ``sum_k exp(-(k (tau + delta) + p)/M)`` bookmarks, each
    worth tau. ``persist_s`` (p, at most one cycle) is how long after its stall an asynchronous checkpoint becomes
    durable; 0 = a blocking write. Waiting in a queue again adds its mean to ``down_s``, whatever its law.

    Args:
        mean_s: M, mean time between failures of the job.
        interval_s: tau, work between checkpoints. stall_s: delta. down_s: D, mean time lost before work goes on.
        fails_while_restarting: the clock also runs during D and D starts anew (Daly): ``M + D`` becomes
            ``M exp(D/M)``.
    """
    mean, tau, stall, down, late = _floats(mean_s, interval_s, stall_s, down_s, persist_s)
    cycle = mean * np.exp(down / mean) if fails_while_restarting else mean + down
    return np.asarray(tau * np.exp(-late / mean) / (cycle * np.expm1((tau + stall) / mean)))


def goodput_first_order_frac(
    mean_s: ArrayLike, interval_s: ArrayLike, stall_s: ArrayLike, down_s: ArrayLike
) -> Floats:
    """``1 - delta/tau - (tau/2 + D)/M``: for display and back-of-envelope; far off once a failure costs much of M."""
    mean, tau, stall, down = _floats(mean_s, interval_s, stall_s, down_s)
    return np.asarray(1 - stall / tau - (tau / 2 + down) / mean)


def goodput_ettr_frac(
    mean_s: ArrayLike, interval_s: ArrayLike, stall_s: ArrayLike, down_s: ArrayLike
) -> Floats:
    """Effective training time ratio as printed for RSC (Kokolis et al., HPCA 2025, arXiv 2410.21680), no queueing:
    ``(1 - (u0 + tau/2)/M) / (1 + w/tau)``. First order too: 0.44 where the exact answer is 0.52 to 0.55 (131,072
    GPUs)."""
    mean, tau, stall, down = _floats(mean_s, interval_s, stall_s, down_s)
    return np.asarray((1 - (down + tau / 2) / mean) / (1 + stall / tau))


def completion_s(mean_s: ArrayLike, work_s: ArrayLike, down_s: ArrayLike = 0.0) -> Floats:
    """Expected time to finish ``work_s`` without any checkpoint, starting again each time: ``(M+D)(exp(T/M) - 1)``."""
    mean, work, down = _floats(mean_s, work_s, down_s)
    return np.asarray((mean + down) * np.expm1(work / mean))


def goodput_two_tier_frac(
    mean_s: float,
    interval_s: float,
    memory_stall_s: float,
    durable_stall_s: float,
    every: int,
    *,
    memory_frac: float,
    memory_down_s: float,
    durable_down_s: float,
) -> float:
    """Exact goodput of snapshots in memory after each ``interval_s`` and a durable write after ``every``-th of them.

    A share ``memory_frac`` of failures restores from memory (the job goes on from its last snapshot), the rest from the
    last durable write. With E_j the expected time to the next durable write from snapshot j, q the chance to fail in
    the segment: ``E_j = M q + (1-q) E_{j+1} + q [phi (D1 + E_j) + (1-phi)(D2 + E_0)]``, E_every = 0; goodput is
    ``every * tau / E_0``, solved backwards. The segment before the durable write pays both stalls.
    """
    fail = -math.expm1(-(interval_s + memory_stall_s + durable_stall_s) / mean_s)  # of the last segment
    cost = mean_s + memory_frac * memory_down_s + (1 - memory_frac) * durable_down_s
    constant = factor = 0.0  # E_j = constant + factor x E_0, from the last segment to the first
    for _ in range(every):
        alone = 1 - fail * memory_frac
        constant = (fail * cost + (1 - fail) * constant) / alone
        factor = (fail * (1 - memory_frac) + (1 - fail) * factor) / alone
        fail = -math.expm1(-(interval_s + memory_stall_s) / mean_s)
    return every * interval_s * (1 - factor) / constant


# --- other laws of life -----------------------------------------------------------


def weibull_scale_s(mean_s: ArrayLike, shape: ArrayLike) -> Floats:
    """Scale of a Weibull law with this mean: ``mean / Gamma(1 + 1/k)``."""
    mean, k = _floats(mean_s, shape)
    gamma = np.vectorize(math.gamma, otypes=[float])
    return np.asarray(mean / gamma(1 + 1 / k))


def goodput_renewed_frac(
    survival: Callable[[Floats], Floats],
    mean_s: float,
    interval_s: float,
    stall_s: float = 0.0,
    down_s: float = 0.0,
) -> float:
    """Goodput where the time to the next failure has any law S and starts anew at each failure of the job.

    ``tau sum_k S(k (tau + delta)) / (E[X] + D)``. ``survival`` maps times (s) to the share that lives longer; the sum
    ends where terms no longer count. Only right where each failure makes the whole job as new, which real parts do not:
    ages of the others go on (:func:`failures_expected`).
    """
    cycle, total, first, chunk = interval_s + stall_s, 0.0, 1, 4096
    while first < 10_000_000:
        terms = survival(cycle * np.arange(first, first + chunk, dtype=float))
        total += float(terms.sum())
        if terms[-1] <= 1e-17 * max(total, 1.0):
            break
        first += chunk
    return interval_s * total / (mean_s + down_s)


def failures_expected(
    parts: ArrayLike, window_s: ArrayLike, mean_s: ArrayLike, variation2: ArrayLike = 1.0
) -> Floats:
    """Failures in a long window of ``parts`` that age on their own and are each renewed when they fail, for any law.

    ``n t / E[X] + n (cv^2 - 1) / 2`` where all are new at the start (Smith 1954); ``variation2`` is cv^2, and 1, the
    exponential law's, leaves the rate alone (elementary renewal theorem; right for a fleet of mixed ages). Many such
    parts together look exponential with mean E[X] / n.
    """
    n, window, mean, squared = _floats(parts, window_s, mean_s, variation2)
    return np.asarray(n * window / mean + n * (squared - 1) / 2)


def first_failure_s(parts: ArrayLike, mean_s: ArrayLike, shape: ArrayLike) -> Floats:
    """Mean time to the first failure of ``parts`` new Weibull parts: ``mean n^(-1/k)``. As a job's MTTF it is wrong
    (it would make all parts new at each failure): right for a cluster switched on for the first time."""
    n, mean, k = _floats(parts, mean_s, shape)
    return np.asarray(mean * n ** (-1 / k))


# --- slow nodes and silent errors ---------------------------------------------------


@cache
def _largest_normal(count: int) -> float:
    """Expected largest of ``count`` standard normal numbers, ``integral of 1[z>0] - Phi(z)^n`` by the trapezium rule,
    whose error vanishes for smooth integrands that die out at both ends (here below 1e-9)."""
    z = np.linspace(-12.0, 12.0, 4801)
    phi = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    return float(12.0 - np.trapezoid(phi**count, z))


def slowest_of_x(ranks: int, variation_frac: float) -> float:
    """Mean of the slowest of ``ranks`` over the mean of one, Gaussian jitter: ``1 + cv E[max Z_n]``, exact."""
    return 1 + variation_frac * _largest_normal(ranks)


def slowest_exponential_s(ranks: int, base_s: float, jitter_s: float) -> float:
    """Mean of the slowest of ``ranks`` that each take ``base_s`` plus an exponential ``jitter_s``: ``base + b H_n``."""
    return base_s + jitter_s * float((1 / np.arange(1, ranks + 1)).sum())


def straggler_speed_frac(
    nodes: ArrayLike, onsets_per_node_day: ArrayLike, detect_s: ArrayLike, slow_speed_frac: ArrayLike
) -> Floats:
    """Mean speed of a job that runs at its slowest node's: ``s + (1-s) exp(-N lambda E[Td])`` (M/G/infinity: slow nodes
    come at random and stay Td until found; any law of Td)."""
    n, rate, stay, slow = _floats(nodes, onsets_per_node_day, detect_s, slow_speed_frac)
    return np.asarray(slow + (1 - slow) * np.exp(-n * rate * stay / DAY_S))


def goodput_silent_frac(
    silent_mean_s: ArrayLike,
    segment_s: ArrayLike,
    verify_s: ArrayLike,
    write_s: ArrayLike,
    restart_s: ArrayLike,
) -> Floats:
    """Goodput under silent errors alone, found by a perfect check at the end of each segment:
    ``W / [(W+V) exp(lW) + (exp(lW)-1) R + C]``; errors strike only while computing."""
    mean, work, verify, write, restart = _floats(silent_mean_s, segment_s, verify_s, write_s, restart_s)
    again = np.expm1(work / mean)
    return np.asarray(work / ((work + verify) * (again + 1) + again * restart + write))


def silent_interval_s(
    silent_mean_s: ArrayLike, failstop_mean_s: ArrayLike, verify_s: ArrayLike, write_s: ArrayLike
) -> Floats:
    """First-order best segment under silent and fail-stop errors: ``sqrt((V + C) / (1/Ms + 1/(2 Mf)))``: a silent error
    costs the whole segment, a loud one half of it."""
    silent, loud, verify, write = _floats(silent_mean_s, failstop_mean_s, verify_s, write_s)
    return np.asarray(np.sqrt((verify + write) / (1 / silent + 0.5 / loud)))
