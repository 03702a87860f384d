"""Seconds for ops: the one place where the step model meets cost functions and calibration.

A ``Pricer`` is the price list of one device in one cluster: hand it an op, get an ``Estimate`` with its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.cost.collectives import collective
from sim.cost.device import BYTES_PER_VALUE, Device
from sim.cost.estimate import Estimate
from sim.cost.kernels.attention import attention, attention_flop
from sim.cost.kernels.gemm import gemm
from sim.cost.kernels.memory_bound import ideal_bytes, memory_bound
from sim.cost.links import Links
from sim.spec.ops import Attention, Gemm, Kernel, MemoryBound, Message, Op
from sim.spec.profile import Fit


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that talk to one another: how many, and how many of them share a scale-up domain."""

    ranks: int
    ranks_per_domain: int
    concurrent: int = 1
    """Groups of the same kind that share a node's cards and send at the same time."""


@dataclass(frozen=True, slots=True)
class Pricer:
    """Prices ops on one device; ``ideal`` prices every kernel at its lower bound and every message at zero."""

    device: Device
    links: Links
    fits: Sequence[Fit]
    dtype: str
    """Number format of the matrix products."""
    groups: Mapping[str, Group]
    ideal: bool = False
    engines: Mapping[str, str] = field(default_factory=dict)
    """Preferred backend by op (``gemm``, ``attention``, ``memory_bound``)."""

    def price(self, op: Op) -> Estimate:
        """Seconds of one op, with its lower bound and the profile entry it leans on."""
        if isinstance(op, Message):
            return self._message(op)
        return self._kernel(op)

    def seconds(self, ops: Iterable[Op]) -> float:
        """Seconds of several ops, one after another."""
        return float(sum(np.sum(self.price(op).seconds) for op in ops))

    def _kernel(self, op: Kernel) -> Estimate:
        if self.ideal:
            return _lower_bound(self.device, op, self.dtype)
        if isinstance(op, Gemm):
            return gemm(
                self.fits, self.device, op.m, op.n, op.k, self.dtype, self.engines.get("gemm", ""), batch=op.batch
            )
        if isinstance(op, Attention):
            dtype = "bf16" if self.dtype.startswith("fp8") else self.dtype
            return attention(
                self.fits,
                self.device,
                phase=op.phase,
                batch=op.batch,
                heads=op.heads,
                kv_heads=op.kv_heads,
                head_dim=op.head_dim,
                seq_len=op.sequence,
                causal=op.causal,
                dtype=dtype,
                kv_dtype=dtype,
                engine=self.engines.get("attention", ""),
            )
        engine = self.engines.get("memory_bound", "")
        return memory_bound(self.fits, self.device, op.op, op.rows, op.cols, op.dtype, engine)

    def _message(self, op: Message) -> Estimate:
        group = self.groups[op.group]
        if self.ideal or group.ranks == 1:
            zero = np.zeros(np.shape(op.message_bytes))
            return Estimate(zero, zero, None, "free by assumption" if self.ideal else "one rank")
        return collective(
            self.fits,
            self.links,
            op.collective,
            op.message_bytes,
            group.ranks,
            ranks_per_domain=group.ranks_per_domain,
            concurrent_groups=group.concurrent,
        )


def _lower_bound(device: Device, op: Kernel, dtype: str) -> Estimate:
    """FLOP at the datasheet peak, or bytes at the datasheet bandwidth."""
    if isinstance(op, MemoryBound):
        seconds = ideal_bytes(op.op, op.rows, op.cols, op.dtype) / device.memory_bytes_per_s
    elif isinstance(op, Gemm):
        m, n, k, batch = (np.asarray(x, dtype=float) for x in (op.m, op.n, op.k, op.batch))
        moved = (m * k + k * n + m * n) * batch * BYTES_PER_VALUE[dtype]
        seconds = np.maximum(2 * m * n * k * batch / device.peak(dtype), moved / device.memory_bytes_per_s)
    else:
        flop = attention_flop(op.phase, op.batch, op.heads, op.head_dim, op.sequence, causal=op.causal)
        seconds = np.asarray(flop / device.peak("bf16" if dtype.startswith("fp8") else dtype))
    return Estimate(np.asarray(seconds), np.asarray(seconds), None, "lower bound by assumption")
