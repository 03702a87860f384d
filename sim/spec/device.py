"""What a cost function needs to know of an accelerator: its datasheet rates and nothing else.

A ``Device`` is the name plate on the machine. How much of those rates a kernel really reaches is the business of a
calibration profile (``sim.spec.profile``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BYTES_PER_VALUE: Mapping[str, float] = {
    "fp64": 8.0,
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "int4": 0.5,
}
"""Bytes a value takes in memory, by number format; scales of block formats are counted where they are used."""


@dataclass(frozen=True, slots=True)
class Device:
    """Datasheet rates of one accelerator.

    Rates are dense peaks at the boost clock, per device; ``flop_per_s`` is keyed by number format (``bf16``, ``fp8``,
    ...) and lacks the formats the device does not support.
    """

    key: str
    generation: str
    """Architecture name shared by siblings (``ampere``, ``hopper``, ...): what efficiencies are borrowed by."""
    flop_per_s: Mapping[str, float] = field(hash=False)
    memory_bytes: float
    memory_bytes_per_s: float
    sm_count: float
    """Streaming multiprocessors, compute units or cores: the number of tiles in flight at once."""
    l2_bytes: float
    vendor: str = ""
    scale_up_bytes_per_s: float = 0.0
    """One way, all links of the device together (NVLink, Infinity Fabric, ICI); 0 = none."""
    host_bytes_per_s: float = 0.0
    """One way, device to host."""

    def peak(self, dtype: str) -> float:
        """Dense peak for ``dtype`` in FLOP/s.

        Raises:
            KeyError: the device has no datasheet rate for that format.
        """
        return self.flop_per_s[dtype]
