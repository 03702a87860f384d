"""Collectives as the textbooks price them: so many bytes through the narrowest link, so many hops of
latency.

Like moving house by relay: who hands boxes to whom is the algorithm, how long a chain takes to fill is
the latency, and how fast the narrowest door lets boxes through is the bandwidth. Nothing here knows of a
vendor or a profile.

Conventions: ``message_bytes`` is the whole buffer as in nccl-tests (for all-gather and reduce-scatter
the share of a rank times the ranks; for all-to-all and send/recv what one rank sends, its own share
included). ``bytes_per_s`` is one way, per rank; ``latency_s`` is per hop. Every function broadcasts.
Sources: Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH"
(2005); Sanders, Speck and Traeff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan"
(2009); NVIDIA nccl-tests doc/PERFORMANCE.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "broadcast", "reduce", "sendrecv")


def bus_factor(collective: str, ranks: ArrayLike) -> Floats:
    """Bus bandwidth over algorithm bandwidth: the share of the buffer that crosses a rank's link.

    2(n-1)/n for all-reduce, (n-1)/n for all-gather, reduce-scatter and all-to-all, 1 otherwise
    (nccl-tests doc/PERFORMANCE.md).

    Raises:
        ValueError: unknown collective.
    """
    n = np.asarray(ranks, dtype=float)
    check(collective)
    if collective == "all_reduce":
        return np.asarray(2 * (n - 1) / n)
    if collective in ("all_gather", "reduce_scatter", "alltoall"):
        return np.asarray((n - 1) / n)
    return np.ones_like(n)


def check(collective: str) -> None:
    """Refuse a name that is no collective."""
    if collective not in COLLECTIVES:
        raise ValueError(f"collective: found {collective!r}, expected one of {', '.join(COLLECTIVES)}")


def algorithm_bytes_per_s(message_bytes: ArrayLike, seconds: ArrayLike) -> Floats:
    """algbw of nccl-tests: buffer over time, bytes/s."""
    return np.asarray(np.asarray(message_bytes, dtype=float) / np.asarray(seconds, dtype=float))


def bus_bytes_per_s(
    collective: str, message_bytes: ArrayLike, ranks: ArrayLike, seconds: ArrayLike
) -> Floats:
    """busbw of nccl-tests: algbw x :func:`bus_factor`, bytes/s; comparable with the rate of a link."""
    return np.asarray(algorithm_bytes_per_s(message_bytes, seconds) * bus_factor(collective, ranks))


def steps(collective: str, ranks: ArrayLike) -> Floats:
    """Hops that a ring (all-to-all: the pairwise exchange) takes one after another."""
    n = np.asarray(ranks, dtype=float)
    check(collective)
    if collective == "all_reduce":
        return np.asarray(2 * (n - 1))
    return np.ones_like(n) if collective == "sendrecv" else np.asarray(n - 1)


def ring_s(
    collective: str, message_bytes: ArrayLike, ranks: ArrayLike, bytes_per_s: ArrayLike, latency_s: ArrayLike
) -> Floats:
    """Ring of ``ranks``: every hop carries 1/n of the buffer (all-reduce 2(n-1) hops, the others n-1).

    Broadcast and reduce are the pipelined chain: the buffer once, plus the filling of the chain. One
    rank costs nothing.
    """
    n = np.asarray(ranks, dtype=float)
    message = np.asarray(message_bytes, dtype=float)
    seconds = bus_factor(collective, n) * message / bytes_per_s + steps(collective, n) * np.asarray(latency_s)
    return np.asarray(np.where(n > 1, seconds, 0.0))


def ring_all_reduce_s(
    message_bytes: ArrayLike, ranks: ArrayLike, bytes_per_s: ArrayLike, latency_s: ArrayLike
) -> Floats:
    """2(n-1)/n x bytes / rate + 2(n-1) hops."""
    return ring_s("all_reduce", message_bytes, ranks, bytes_per_s, latency_s)


def all_to_all_s(
    message_bytes: ArrayLike, ranks: ArrayLike, bytes_per_s: ArrayLike, latency_s: ArrayLike
) -> Floats:
    """Pairwise exchange in n-1 rounds; (n-1)/n of what a rank sends leaves it."""
    return ring_s("alltoall", message_bytes, ranks, bytes_per_s, latency_s)


def send_recv_s(message_bytes: ArrayLike, bytes_per_s: ArrayLike, latency_s: ArrayLike) -> Floats:
    """One message over one link: latency + bytes / rate (Hockney's model)."""
    return np.asarray(np.asarray(latency_s) + np.asarray(message_bytes, dtype=float) / bytes_per_s)


def tree_passes(ranks: ArrayLike) -> Floats:
    """How many times the buffer leaves the busiest node of a double binary tree all-reduce.

    Each tree carries half the buffer up and down; a node inside one tree is a leaf of the other: 2
    children and a parent for one half, a parent for the other, so 2 in all; with three nodes the root
    has no parent (1.5), with two each sends its half up and the other's half down (1). Sanders et al.
    2009.
    """
    n = np.asarray(ranks, dtype=float)
    return np.asarray(np.select([n <= 1, n <= 2, n <= 3], [0.0, 1.0, 1.5], 2.0))


def tree_all_reduce_s(
    message_bytes: ArrayLike, ranks: ArrayLike, bytes_per_s: ArrayLike, latency_s: ArrayLike
) -> Floats:
    """Double binary tree: :func:`tree_passes` x bytes / rate, and 2 log2(n) hops instead of the ring's
    2(n-1)."""
    n = np.asarray(ranks, dtype=float)
    hops = 2 * np.ceil(np.log2(np.maximum(n, 1)))
    return np.asarray(
        tree_passes(n) * np.asarray(message_bytes, dtype=float) / bytes_per_s + hops * latency_s
    )


def in_switch_passes(ranks: ArrayLike) -> Floats:
    """How many times the buffer passes a rank's link when the switch adds and multicasts (NVLink SHARP).

    A rank gives its whole buffer to the switch to be added and sends its own summed 1/n to be multicast:
    1 + 1/n. Hence a bus bandwidth of up to 2(n-1)/(n+1) link rates.
    """
    n = np.asarray(ranks, dtype=float)
    return np.asarray(np.where(n > 1, 1 + 1 / n, 0.0))


def in_switch_all_reduce_s(
    message_bytes: ArrayLike, ranks: ArrayLike, bytes_per_s: ArrayLike, latency_s: ArrayLike
) -> Floats:
    """All-reduce with additions in the switch: two hops whatever the number of ranks."""
    passes = in_switch_passes(ranks)
    seconds = passes * np.asarray(message_bytes, dtype=float) / bytes_per_s + 2 * np.asarray(latency_s)
    return np.asarray(np.where(passes > 0, seconds, 0.0))


def hierarchical_all_reduce_s(
    message_bytes: ArrayLike,
    ranks_per_domain: ArrayLike,
    domains: ArrayLike,
    inner_bytes_per_s: ArrayLike,
    outer_bytes_per_s: ArrayLike,
    inner_latency_s: ArrayLike,
    outer_latency_s: ArrayLike,
) -> Floats:
    """Reduce-scatter inside, all-reduce of 1/g across, all-gather inside, one after another.

    ``outer_bytes_per_s`` is the network share of one rank. With g ranks a domain and k domains a rank moves
    (g-1)/g inside, 2(k-1)/(kg) across and (g-1)/g inside.
    """
    g, k = np.asarray(ranks_per_domain, dtype=float), np.asarray(domains, dtype=float)
    inside = ring_s("reduce_scatter", message_bytes, g, inner_bytes_per_s, inner_latency_s)
    across = ring_s(
        "all_reduce", np.asarray(message_bytes, dtype=float) / g, k, outer_bytes_per_s, outer_latency_s
    )
    return np.asarray(2 * inside + across)


def torus_all_reduce_s(
    message_bytes: ArrayLike, ranks: ArrayLike, axes: ArrayLike, bytes_per_s: ArrayLike, latency_s: ArrayLike
) -> Floats:
    """All-reduce on a torus of ``axes`` equal axes; ``bytes_per_s`` is all links of a chip together, one
    way.

    Rings run along every axis at once, so bytes cost what one ring over all links costs, while the hops
    are those of the axes one after another (Jouppi et al., ISCA 2023, section 2).
    """
    n, d = np.asarray(ranks, dtype=float), np.asarray(axes, dtype=float)
    side = n ** (1 / d)
    return np.asarray(
        bus_factor("all_reduce", n) * np.asarray(message_bytes, dtype=float) / bytes_per_s
        + 2 * d * (side - 1) * np.asarray(latency_s)
    )


def pipelined_s(bandwidth_s: ArrayLike, latency_s: ArrayLike, depth_frac: ArrayLike) -> Floats:
    """Bytes in chunks through a chain: latency + bytes + depth x 2 sqrt(latency x bytes).

    With the best number of chunks the cost is (sqrt(latency) + sqrt(bytes))^2, which is ``depth_frac``
    1; a chain that is always full is 0 (Sanders et al. 2009, section 2).
    """
    b, a = np.asarray(bandwidth_s, dtype=float), np.asarray(latency_s, dtype=float)
    return np.asarray(a + b + 2 * np.asarray(depth_frac) * np.sqrt(a * b))
