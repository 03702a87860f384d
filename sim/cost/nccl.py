"""What is known of NCCL before anything is measured: its protocols, its constants, where its knobs
start.

Like the rule book that comes with a game: which moves there are and what they cost on paper. A
calibration profile replaces the numbers by measured ones; the moves stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from sim.cost.parameters import Parameter

ALGORITHMS = ("", "ring", "tree", "nvls", "nvls_tree", "sharp")

_TUNING = "NVIDIA/nccl@5067397 src/graph/tuning.cc"
_PEAKS = "large-message bus bandwidth of A100, H100 and B200 nodes over the link rate, docs/validation.md"

_STAGED = "each byte crosses the bus twice, out and in (1/2), and reads reach about 0.8 of what writes do"

DOMAIN_PARAMETERS = (
    Parameter(
        "base_s", "s", "launch and first hop", 5e-6, 5e-7, 3e-4, f"{_TUNING}: base latency, ring LL 6.6 us"
    ),
    Parameter(
        "step_s", "s", "each further hop", 1e-6, 1e-8, 3e-5, f"{_TUNING}: hop of ring LL over NVLink 0.6 us"
    ),
    Parameter("extra_s", "s", "full-rate protocol over low-latency protocol", 1e-5, 5e-7, 3e-4, _TUNING),
    Parameter("bandwidth_frac", "1", "share of the link rate a ring reaches", 0.75, 0.05, 1.0, _PEAKS),
    Parameter("ll_frac", "1", "share of that rate the low-latency protocol reaches", 0.3, 0.03, 0.5, _TUNING),
    Parameter(
        "in_switch_frac",
        "1",
        "share of the link rate reached with additions in the switch",
        0.64,
        0.2,
        1.0,
        _PEAKS,
    ),
    Parameter("staged_frac", "1", "share left where bytes go through host memory", 0.4, 0.1, 1.0, _STAGED),
)
"""One domain. A hop's latency counts as often as the algorithm hops; protocols: LL at ``ll_frac``, LL128
at 0.92 of the full rate for 0.42 of the extra latency, Simple at the full rate (NCCL's ratios)."""

NETWORK_PARAMETERS = (
    Parameter(
        "base_s", "s", "launch, proxy and first hop", 1.2e-5, 5e-6, 3e-4, f"{_TUNING}: base + flush, Simple"
    ),
    Parameter("hop_s", "s", "each hop between nodes", 6e-6, 1e-6, 5e-4, f"{_TUNING}: network hop 2.7-14 us"),
    Parameter(
        "bandwidth_frac", "1", "share of the cards' rate reached", 0.9, 0.05, 1.0, "RDMA verbs over line rate"
    ),
    Parameter("depth_frac", "1", "how far chunks fail to fill the chain, 1 = Sanders' bound", 0.7, 0.05, 1.5),
    Parameter("lone_frac", "1", "share left to a rank alone on its node: few channels", 0.75, 0.3, 1.0),
    Parameter(
        "in_network_frac", "1", "share of the cards' rate with additions in the network", 0.5, 0.1, 1.0
    ),
)
"""Between domains, by fabric; shared by all collectives."""

FABRIC_STARTS: Mapping[str, Mapping[str, float]] = {
    "efa": {"hop_s": 1.5e-5},
    "ethernet": {"hop_s": 1e-4, "bandwidth_frac": 0.85},
    "dcn": {"hop_s": 1e-4, "bandwidth_frac": 0.85},
}
"""Starting values that differ from the RDMA ones above: EFA's reliable datagrams (aws-ofi-nccl tells
NCCL 35-75 us a message), kernel TCP sockets (wake-up, copies). Assumed; a fit moves them."""

SATURATED_BYTES = 2.0**33
"""Where every link measured so far has reached its full rate."""

LL128_RATE, LL128_EXTRA = 0.92, 0.42
"""LL128 carries 120 data bytes in 128 (0.94, 0.92 in tuning.cc); its latency over LL is 1 / 2.4 of Simple's, as fits
of measured NVLink sweeps have it."""

RELATIVES: Mapping[str, tuple[str, ...]] = {
    "all_reduce": ("reduce_scatter", "all_gather"),
    "all_gather": ("reduce_scatter", "all_reduce"),
    "reduce_scatter": ("all_gather", "all_reduce"),
    "alltoall": ("all_gather", "reduce_scatter"),
    "broadcast": ("reduce", "all_gather"),
    "reduce": ("broadcast", "reduce_scatter"),
    "sendrecv": ("alltoall", "all_gather"),
}
"""Whose efficiencies a collective borrows where none of its own are known."""
