"""How long a collective takes on given links: protocols and algorithms compete, as in NCCL, and the
fastest runs.

Like a courier who owns a bicycle, a van and a lorry: small parcels go by the one that leaves at once,
large ones by the one that carries most. Inside a domain (NVLink, PCIe ...) three protocols and, where
the switch can add, NVLS compete; between domains the slower of the inner links and the network sets the
pace, and rings compete with trees. Closed forms are in ``collective_forms``; the efficiencies come from
a calibration profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.collective_forms import (
    bus_factor,
    check,
    in_switch_passes,
    pipelined_s,
    steps,
    tree_passes,
)
from sim.cost.estimate import Estimate
from sim.cost.links import Links, Placement, place
from sim.cost.nccl import (
    ALGORITHMS,
    DOMAIN_PARAMETERS,
    FABRIC_STARTS,
    LL128_EXTRA,
    LL128_RATE,
    NETWORK_PARAMETERS,
    RELATIVES,
    SATURATED_BYTES,
)
from sim.cost.parameters import complete
from sim.spec.profile import Fit, find

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Priced:
    """Seconds with their physical floor."""

    seconds: Floats
    floor_s: Floats


def collective(
    fits: Iterable[Fit],
    links: Links,
    collective: str,
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    ranks_per_domain: ArrayLike | None = None,
    *,
    algorithm: str = "",
    concurrent_groups: ArrayLike = 1.0,
    nodes_apart: ArrayLike = 1.0,
) -> Estimate:
    """Seconds that ``collective`` takes on a group of ``ranks``.

    ``message_bytes`` is the whole buffer as in nccl-tests (see ``collective_forms``);
    ``ranks_per_domain`` says how many of the group share a scale-up domain (as many as fit when None);
    ``concurrent_groups`` how many groups send through a node's cards at once; ``nodes_apart`` how far the
    group's next node is. ``algorithm`` forces one of :data:`ALGORITHMS`; empty = the fastest. All numbers
    broadcast. One rank costs nothing.

    Raises:
        ValueError: unknown collective or algorithm, or ranks below 1.
    """
    check(collective)
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"algorithm: found {algorithm!r}, expected one of {', '.join(map(repr, ALGORITHMS))}"
        )
    entries = tuple(fits)
    lying = place(links, ranks, ranks_per_domain)
    message = np.asarray(message_bytes, dtype=float)
    inner_fit = domain_fit(entries, links, collective)
    inside_values = complete(DOMAIN_PARAMETERS, inner_fit.values() if inner_fit else {})
    inside = domain(inside_values, links, collective, message, lying.ranks_per_domain, algorithm)
    inside_s = inside.seconds * _grid(inner_fit, message, lying.ranks_per_domain)
    if not bool(np.any(lying.domains > 1)):
        return _estimate(inside_s, inside.floor_s, inner_fit)
    outer_fit = find(entries, "network", [("fabric", links.scale_out), ("generation", links.generation)])
    outer_values = network_values(outer_fit, links.scale_out)
    inner_values = saturated(inner_fit, lying.ranks_per_domain)
    pairs = collective == "alltoall"  # a send and receive goes to one neighbour, as in a ring
    taper = links.taper_frac(lying.nodes, every_pair=pairs, nodes_apart=nodes_apart)
    across = network(
        outer_values, inner_values, links, collective, message, lying, algorithm, concurrent_groups, taper
    )
    seconds = np.where(lying.domains > 1, across.seconds, inside_s)
    floor = np.where(lying.domains > 1, across.floor_s, inside.floor_s)
    return _estimate(seconds, floor, outer_fit)


def network_values(fit: Fit | None, fabric: str) -> dict[str, float]:
    """Network parameters for ``fabric`` from ``fit``; where it was not fitted on that fabric, its
    latency is assumed."""
    values = complete(NETWORK_PARAMETERS, fit.values() if fit else {})
    if fit is None or fit.key.get("fabric") != fabric:
        values |= FABRIC_STARTS.get(fabric, {})
    return values


def domain_fit(fits: Iterable[Fit], links: Links, collective: str) -> Fit | None:
    """The profile entry for a collective inside one domain of ``links``; a relative's where it has none.

    Same fabric first, then same generation, then same accelerator: an NVLink curve never prices PCIe
    while a PCIe curve of any kind is known.
    """
    entries = tuple(fits)
    wanted = [
        ("fabric", fabric_class(links)),
        ("generation", links.generation),
        ("accelerator", links.accelerator),
    ]
    for op in (collective, *RELATIVES[collective]):
        found = find(entries, op, wanted)
        if found is not None:
            return found
    return None


def saturated(fit: Fit | None, ranks: ArrayLike) -> dict[str, Floats]:
    """Domain parameters with the shares of the link rate that large messages really reach on ``ranks``.

    The residual grid's last row is a correction of those shares; chunks that stream on to a network see
    just that.
    """
    known = complete(DOMAIN_PARAMETERS, fit.values() if fit else {})
    values = {name: np.asarray(value, dtype=float) for name, value in known.items()}
    n = np.maximum(np.asarray(ranks, dtype=float), 2)
    factor = _grid(fit, np.asarray(SATURATED_BYTES), n)
    for name in ("bandwidth_frac", "in_switch_frac"):
        values[name] = np.asarray(np.minimum(values[name] / factor, 1.0))
    return values


def fabric_class(links: Links) -> str:
    """What domain curves are keyed by: ``nvlink`` (any device-to-device fabric), ``pcie`` or ``gloo`` (CPU, TCP)."""
    if links.scale_up == "gloo":
        return "gloo"
    return "pcie" if links.scale_up in ("pcie", "none") else "nvlink"


def domain(
    values: Mapping[str, float],
    links: Links,
    collective: str,
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    algorithm: str = "",
) -> Priced:
    """Seconds inside one scale-up domain, before any residual grid: protocols and NVLS compete.

    ``t = min over protocols (latency + bytes / (share x rate))`` as in NCCL's tuning.cc; ``ranks`` all
    lie in the domain.
    """
    n, message = np.asarray(ranks, dtype=float), np.asarray(message_bytes, dtype=float)
    rate = links.scale_up_rate(n)
    ring_rate = rate * values["bandwidth_frac"]
    if links.scale_up == "pcie" and not links.host_peer_to_peer:
        ring_rate = ring_rate * values["staged_frac"]
    wire_s = bus_factor(collective, n) * message / ring_rate
    start_s = values["base_s"] + values["step_s"] * hops(collective, n, links.wiring)
    extra_s = values["extra_s"]
    seconds = np.minimum(start_s + wire_s / values["ll_frac"], start_s + extra_s + wire_s)
    if links.scale_up != "pcie":
        seconds = np.minimum(seconds, start_s + LL128_EXTRA * extra_s + wire_s / LL128_RATE)
    floor = bus_factor(collective, n) * message / rate
    if links.in_switch_reduction and collective == "all_reduce" and algorithm != "ring":
        pass_s = in_switch_passes(n) * message / rate
        nvls = values["base_s"] + extra_s + pass_s / values["in_switch_frac"]
        seconds = nvls if algorithm in ("nvls", "sharp") else np.minimum(seconds, nvls)
        floor = np.minimum(floor, pass_s)
    return Priced(np.where(n > 1, seconds, 0.0), np.where(n > 1, floor, 0.0))


def hops(collective: str, ranks: ArrayLike, wiring: str = "switch") -> Floats:
    """Hops that count for latency: a ring's, beyond 8 ranks of a reduction or broadcast a tree's.

    NCCL's trees are chains inside a node and double with every node beyond; a torus hops along its axes
    (three).
    """
    n = np.asarray(ranks, dtype=float)
    if wiring == "torus":
        return np.asarray(steps(collective, np.maximum(3 * (n ** (1 / 3) - 1) + 1, 1)))
    ring = steps(collective, n)
    if collective not in ("all_reduce", "broadcast", "reduce"):
        return ring
    passes = 2.0 if collective == "all_reduce" else 1.0
    return np.asarray(np.where(n > 8, passes * (7 + 2 * np.log2(np.maximum(n, 8) / 8)), ring))


def network(
    values: Mapping[str, float],
    inner: Mapping[str, Floats],
    links: Links,
    collective: str,
    message_bytes: ArrayLike,
    lying: Placement,
    algorithm: str = "",
    concurrent_groups: ArrayLike = 1.0,
    taper_frac: ArrayLike = 1.0,
) -> Priced:
    """Seconds of a group on several domains: chunks flow through inner links and network, the slower
    sets the pace.

    All-reduce: ring (2(n-1)/n of the buffer through each domain's cards) against double binary tree (1,
    1.5 or 2 of it), or additions in the network (``sharp``). Others: what must enter or leave a domain
    through its cards.
    """
    message = np.asarray(message_bytes, dtype=float)
    n, r, k = lying.ranks, lying.ranks_per_domain, lying.domains
    per_node = np.minimum(r, links.devices_per_node)
    cards = links.scale_out_rate(per_node, concurrent_groups) * np.maximum(r / per_node, 1.0)
    cards = np.maximum(cards * np.asarray(taper_frac), 1.0)
    rate = np.maximum(links.scale_up_rate(np.maximum(r, 2)), 1.0)
    hop_s = values["hop_s"] + links.tier_latency_s(lying.nodes)
    inner_hops = inner["step_s"] * steps(collective, r)
    chain = values["base_s"] + inner_hops
    ring_inner = np.where(r > 1, bus_factor(collective, n) * message / rate, 0.0)
    ring_outer = _outer_bytes(collective, message, lying) / cards
    reached = values["bandwidth_frac"] * np.where(per_node > 1, 1.0, values["lone_frac"])
    ring_s = pipelined_s(
        np.maximum(ring_inner / inner["bandwidth_frac"], ring_outer / reached),
        chain + hop_s * (steps(collective, k) if collective != "alltoall" else np.sqrt(n)),
        values["depth_frac"],
    )
    floor = np.maximum(ring_inner, ring_outer)
    if collective != "all_reduce":
        return Priced(ring_s, floor)
    passes = in_switch_passes(r) if links.in_switch_reduction else 2.0 * (r > 1)
    share = inner["in_switch_frac"] if links.in_switch_reduction else inner["bandwidth_frac"]
    tree_inner, tree_outer = passes * message / rate, tree_passes(k) * message / cards
    latency = chain + hop_s * 2 * np.log2(np.maximum(k, 1))
    tree_s = pipelined_s(np.maximum(tree_inner / share, tree_outer / reached), latency, values["depth_frac"])
    sharp_s = pipelined_s(
        np.maximum(tree_inner / share, message / cards / values["in_network_frac"]),
        latency,
        values["depth_frac"],
    )
    if algorithm == "sharp":  # NCCL falls back on a ring where the plug-in does not pay
        return Priced(np.minimum(sharp_s, ring_s), np.maximum(tree_inner, message / cards))
    seconds = {"ring": ring_s, "tree": tree_s, "nvls_tree": tree_s}.get(algorithm, np.minimum(ring_s, tree_s))
    return Priced(seconds, np.minimum(floor, np.maximum(tree_inner, tree_outer)))


def _outer_bytes(collective: str, message: Floats, lying: Placement) -> Floats:
    """Bytes that leave a domain through its cards, one way."""
    if collective == "alltoall":
        return np.asarray(
            lying.ranks_per_domain * message * (lying.ranks - lying.ranks_per_domain) / lying.ranks
        )
    return np.asarray(bus_factor(collective, lying.ranks) * message)


def _grid(fit: Fit | None, message: Floats, ranks: Floats) -> Floats:
    if fit is None or fit.grid is None:
        return np.ones(np.broadcast_shapes(message.shape, ranks.shape))
    return fit.grid.factor({"log2_bytes": np.log2(np.maximum(message, 1)), "log2_ranks": np.log2(ranks)})


def _estimate(seconds: Floats, floor: Floats, fit: Fit | None) -> Estimate:
    kind = (
        "assumed defaults"
        if fit is None
        else "parameters"
        if fit.grid is None
        else "parameters and residual grid"
    )
    return Estimate(np.asarray(seconds, dtype=float), np.broadcast_to(floor, np.shape(seconds)), fit, kind)
