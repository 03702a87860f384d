"""Hardware nouns: the name plates. ``Accelerator`` is one device as sold, ``System`` one node full of them.

A name plate tells what the maker promises, never what a kernel reaches: efficiencies live in a calibration
profile. Every entry carries its source and a kind (``datasheet``, ``measured`` or ``assumed``); fields named
in ``assumed`` are guesses inside an otherwise sourced entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.spec.device import Device
from sim.spec.profile_faults import KINDS

NUMBER_FORMATS = ("fp64", "fp32", "fp32_matrix", "tf32", "fp16", "bf16", "fp8", "fp4", "int8")
"""Number formats an accelerator may state a peak for. ``fp32_matrix``: full fp32 on matrix units, where the
maker prints it apart from the vector rate (AMD before CDNA3)."""

SCALE_UP_FABRICS = ("nvlink", "xgmi", "ici", "neuronlink", "roce", "upi", "pcie", "gloo")
FABRICS = ("infiniband", "roce", "efa", "ethernet", "slingshot")


class HardwareError(ValueError):
    """A hardware entry that cannot be; the message names the entry and the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator as sold. Rates are dense peaks at the boost clock, for one device."""

    key: str
    name: str
    vendor: str
    generation: str
    """Architecture shared by siblings (``ampere``, ``hopper``, ``cdna3``); siblings share efficiencies."""
    year: int
    flop_per_s: Mapping[str, float] = field(hash=False)
    """Number format -> dense peak; formats that are unsupported or unknown are absent."""
    memory_bytes: float
    memory_bytes_per_s: float
    sm_count: float
    """Streaming multiprocessors, compute units or cores, as the note says."""
    scale_up_fabric: str
    """What joins the devices of a node: one of ``SCALE_UP_FABRICS``; ``pcie`` = nothing of their own."""
    scale_up_domain_size: int
    """Devices reachable over the scale-up links, this one included; 1 = none."""
    host_link_bytes_per_s: float
    """One way, device to host."""
    kind: str
    source: str
    aliases: tuple[str, ...] = ()
    l2_bytes: float | None = None
    """Last-level cache on the device."""
    boost_clock_hz: float | None = None
    """The clock at which the peaks are quoted."""
    tdp_w: float | None = None
    """Board power limit."""
    idle_w: float | None = None
    scale_up_link: str = ""
    """The maker's name for the links, with their number."""
    scale_up_bytes_per_s: float | None = None
    """One way, all links of the device together."""
    assumed: tuple[str, ...] = ()
    """Fields that the source does not give."""
    cross_check: str = ""
    """How other tools' tables agree."""
    note: str = ""

    def __post_init__(self) -> None:
        _check_entry(self.key, self.kind, self.source, self.assumed, tuple(self.__dataclass_fields__))
        _check_choice(self.key, "scale_up_fabric", self.scale_up_fabric, SCALE_UP_FABRICS)
        for number_format, rate in self.flop_per_s.items():
            _check_choice(self.key, "flop_per_s", number_format, NUMBER_FORMATS)
            _check_positive(self.key, f"flop_per_s.{number_format}", rate)
        for name in (
            "memory_bytes",
            "memory_bytes_per_s",
            "sm_count",
            "scale_up_domain_size",
            "host_link_bytes_per_s",
        ):
            _check_positive(self.key, name, getattr(self, name))
        for name in ("l2_bytes", "boost_clock_hz", "tdp_w", "idle_w", "scale_up_bytes_per_s"):
            if getattr(self, name) is not None:
                _check_positive(self.key, name, getattr(self, name))

    def kind_of(self, field_name: str) -> str:
        """``datasheet``, ``measured`` or ``assumed`` for one field."""
        return "assumed" if field_name in self.assumed else self.kind

    def device(self) -> Device:
        """What cost functions read: the rates alone.

        fp32 is the matrix rate where the maker prints one (AMD), because fp32 matrix products use it there.
        An unknown cache or link is 0.
        """
        rates = dict(self.flop_per_s)
        if "fp32_matrix" in rates:
            rates["fp32"] = rates.pop("fp32_matrix")
        return Device(
            key=self.key,
            generation=self.generation,
            flop_per_s=rates,
            memory_bytes=self.memory_bytes,
            memory_bytes_per_s=self.memory_bytes_per_s,
            sm_count=self.sm_count,
            l2_bytes=self.l2_bytes or 0.0,
            vendor=self.vendor,
            scale_up_bytes_per_s=self.scale_up_bytes_per_s or 0.0,
            host_bytes_per_s=self.host_link_bytes_per_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One node type, or the node of a named cluster."""

    key: str
    name: str
    accelerator: str
    """Key of the accelerator."""
    gpus_per_node: int
    nics_per_node: int
    nic_bytes_per_s: float
    """One NIC, one way."""
    fabric: str
    """What joins the nodes: one of ``FABRICS``."""
    fabric_name: str
    """Its product name and generation, ``"InfiniBand NDR"``."""
    topology: str
    scale_up_domain_size: int
    """Devices in one NVLink, xGMI or ICI domain; may exceed a node."""
    kind: str
    source: str
    oversubscription: float | None = None
    """Bandwidth into the most oversubscribed tier divided by the bandwidth out of it; 1 = full bisection."""
    oversubscription_note: str = ""
    full_bisection_nodes: int = 32
    """Neighbouring nodes that meet no oversubscription among themselves: those under one group of leaf switches, where
    nothing is said a scalable unit of NVIDIA's DGX SuperPOD reference architecture (rail-optimised leaves)."""
    node_power_w: float | None = None
    """Maximum of the whole node."""
    host_cpu: str = ""
    assumed: tuple[str, ...] = ()
    """Fields that the source does not give."""
    note: str = ""

    def __post_init__(self) -> None:
        _check_entry(self.key, self.kind, self.source, self.assumed, tuple(self.__dataclass_fields__))
        _check_choice(self.key, "fabric", self.fabric, FABRICS)
        positive = ("gpus_per_node", "nics_per_node", "nic_bytes_per_s", "scale_up_domain_size")
        for name in (*positive, "full_bisection_nodes"):
            _check_positive(self.key, name, getattr(self, name))
        if self.oversubscription is not None and self.oversubscription < 1:
            raise HardwareError(f"{self.key}: oversubscription {self.oversubscription:g} is below 1")
        if self.node_power_w is not None:
            _check_positive(self.key, "node_power_w", self.node_power_w)

    @property
    def node_bytes_per_s(self) -> float:
        """All NICs of a node, one way."""
        return self.nics_per_node * self.nic_bytes_per_s

    @property
    def gpu_bytes_per_s(self) -> float:
        """A GPU's share of its node's NICs, one way."""
        return self.node_bytes_per_s / self.gpus_per_node

    def kind_of(self, field_name: str) -> str:
        """``datasheet``, ``measured`` or ``assumed`` for one field."""
        return "assumed" if field_name in self.assumed else self.kind


def _check_entry(key: str, kind: str, source: str, assumed: tuple[str, ...], fields: tuple[str, ...]) -> None:
    _check_choice(key, "kind", kind, KINDS)
    if not source:
        raise HardwareError(f"{key}: a source is missing")
    for name in assumed:
        _check_choice(key, "assumed", name.partition(".")[0], fields)


def _check_choice(key: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise HardwareError(f"{key}: {name} {value!r} is not one of {', '.join(choices)}")


def _check_positive(key: str, name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise HardwareError(f"{key}: {name} {value!r} must be a finite number above 0")
