"""Waiting lines with an exact answer: the tape measures that simulations of queues and spares are held against.

Like a shop with c counters. Whoever finds all taken leaves (Erlang B) or waits (Erlang C); gangs need several at once.
Rates and times may be in any one unit of time, used throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def erlang_b(servers: int, offered: float) -> float:
    """Share of arrivals that find all ``servers`` busy and are lost, whatever the law of service (Erlang 1917).

    ``offered`` = arrival rate x mean service time. Recursion ``B_c = a B_{c-1} / (c + a B_{c-1})``, stable for any
    size.
    """
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked


def erlang_c(servers: int, offered: float) -> float:
    """Share of arrivals that wait (M/M/c): ``B / (1 - rho (1 - B))``; 1 where the queue grows without end."""
    rho = offered / servers
    blocked = erlang_b(servers, offered)
    return 1.0 if rho >= 1 else blocked / (1 - rho * (1 - blocked))


def mean_wait_mmc(servers: int, arrival_rate: float, service_rate: float) -> float:
    """Mean wait in M/M/c: ``C / (c mu - lambda)``; infinite where the queue grows without end."""
    room = servers * service_rate - arrival_rate
    return erlang_c(servers, arrival_rate / service_rate) / room if room > 0 else math.inf


def mean_wait_mg1(arrival_rate: float, mean_service: float, service_cv2: float) -> float:
    """Mean wait in M/G/1 (Pollaczek 1930, Khinchine 1932): ``lambda E[S^2] / 2(1 - rho)``."""
    rho = arrival_rate * mean_service
    return arrival_rate * mean_service**2 * (1 + service_cv2) / (2 * (1 - rho)) if rho < 1 else math.inf


def gang_blocking(nodes: int, sizes: Sequence[int], offered: Sequence[float]) -> Floats:
    """Share of gangs of each size that do not find enough free nodes and are lost, whatever the laws of service.

    Kaufman 1981 and Roberts 1981: with q(j) the weight of j busy nodes, ``j q(j) = sum_k a_k b_k q(j - b_k)``. Returns
    one number for each of ``sizes``.
    """
    weight = np.zeros(nodes + 1)
    weight[0] = 1.0
    for busy in range(1, nodes + 1):
        terms = (a * b * weight[busy - b] for a, b in zip(offered, sizes, strict=True) if b <= busy)
        weight[busy] = sum(terms) / busy
        if weight[busy] > 1e200:  # only ratios count
            weight /= weight[busy]
    weight /= weight.sum()
    return np.array([weight[nodes - size + 1 :].sum() if size <= nodes else 1.0 for size in sizes])


def head_of_line_throughput(
    servers: int, all_share_frac: float, service_rate: float, all_service: float
) -> float:
    """Jobs per time of an endless first-come queue where a share of jobs needs every server, the others one.

    A job for all waits until the n jobs before it have drained: ``(E[n] + 1) / (E[makespan of n] + E[S_all])`` with n
    geometric; n exponential services end after ``(n - c)/(c mu) + H_c / mu`` (``H_n / mu`` for n below c). Renewal
    reward; a measure of head-of-line blocking.
    """
    stay = 1 - all_share_frac
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, servers + 1))])
    count = np.arange(servers + 1)
    few = float((all_share_frac * stay**count * harmonic).sum())
    # n > servers, a geometric rest beyond it: chance stay^(c+1), mean excess 1 / p
    many = float(stay ** (servers + 1)) * (float(harmonic[-1]) + 1 / (all_share_frac * servers))
    mean_jobs = stay / all_share_frac
    return (mean_jobs + 1) / ((few + many) / service_rate + all_service)


def stall_probability(nodes: int, spares: int, failures_per_node: float, repair_time: float) -> float:
    """Share of time a job of ``nodes`` stands still for lack of nodes, with cold spares and repair shops without end.

    Nodes in repair are a loss system: failures come at N lambda until ``spares + 1`` are away, and then stop as the job
    does, so Erlang's B holds for any law of repair (``failures_per_node`` per time, ``repair_time`` its mean).
    """
    return erlang_b(spares + 1, nodes * failures_per_node * repair_time)


def spares_needed(nodes: int, failures_per_node: float, repair_time: float, stall_frac: float) -> int:
    """Fewest cold spares with :func:`stall_probability` at most ``stall_frac``."""
    offered = nodes * failures_per_node * repair_time
    blocked, count = offered / (1 + offered), 1  # B_1
    while blocked > stall_frac:
        count += 1
        blocked = offered * blocked / (count + offered * blocked)
    return count - 1


def elastic_nodes_frac(mean_up: float, mean_down: float) -> float:
    """Mean share of replica groups at work where the job shrinks and grows with them: ``Mu / (Mu + Md)``, any laws."""
    return mean_up / (mean_up + mean_down)
