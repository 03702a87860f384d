"""Seconds for ops: the one place where the step model meets cost functions and calibration.

A ``Pricer`` is the price list of one device in one cluster: hand it an op, get an ``Estimate`` with its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from sim.cost.collectives import collective
from sim.cost.estimate import Estimate
from sim.cost.kernels.attention import attention
from sim.cost.kernels.attention_kernels import slowdown
from sim.cost.kernels.convolution import Convolution, convolution
from sim.cost.kernels.embedding import UPDATE_ONLY, gradient_s, lookup_s, row_bytes, touched_rows
from sim.cost.kernels.gemm import gemm
from sim.cost.kernels.memory_bound import memory_bound
from sim.cost.kernels.sustained import SUSTAINED_ENGINES
from sim.cost.links import Links
from sim.spec.copies import WIDER
from sim.spec.device import Device
from sim.spec.ops import Attention, Conv, Gemm, Kernel, Lookup, Message, Op
from sim.spec.profile import Fit, find

Prices: TypeAlias = dict[tuple[Device, str, Kernel] | tuple[Links, "Group", Message], Estimate]
"""Kernels and messages priced so far; good for one profile."""


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that talk to one another: how many, and how many of them share a scale-up domain."""

    ranks: int
    ranks_per_domain: int
    concurrent: int = 1
    """Groups of the same kind that share a node's cards and send at the same time."""
    nodes_apart: float = 1.0
    """Nodes from one node of the group to its next; those between hold groups of the same kind."""


@dataclass(frozen=True, slots=True)
class Pricer:
    """Prices ops on one device; ``ideal`` takes every kernel at its lower bound and every message as free."""

    device: Device
    links: Links
    fits: Sequence[Fit]
    dtype: str
    """Number format of the matrix products."""
    groups: Mapping[str, Group]
    ideal: bool = False
    engines: Mapping[str, str] = field(default_factory=dict)
    """Preferred backend by op (``gemm``, ``attention``, ``memory_bound``)."""
    stated_frac: float = 0.0
    """Share of the datasheet's rates that kernels reach as the scenario states it; 0 = as calibrated."""
    known: Prices = field(default_factory=dict, compare=False)
    """Prices found so far: the same shapes come again in every layer, on every rank and in every plan that is tried."""
    sustained_frac: float = 1.0
    """Share of their burst rate that the matrix units keep; see :mod:`sim.cost.kernels.sustained`."""

    def price(self, op: Op) -> Estimate:
        """Seconds of one op, with its lower bound and the profile entry it leans on."""
        if isinstance(op, Message):
            return self._message(op)
        key = (self.device, self.dtype, replace(op, name=""))
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = self._kernel(op)
        return self._as_asked(found)

    def price_many(self, op: Kernel) -> Estimate:
        """Like :meth:`price` for one op whose sizes are arrays: many ops that differ in numbers only."""
        return self._as_asked(self._kernel(op))

    def _as_asked(self, found: Estimate) -> Estimate:
        if self.ideal:
            return Estimate(found.lower_bound_s, found.lower_bound_s, None, "lower bound by assumption")
        if self.stated_frac > 0:
            seconds = np.asarray(found.lower_bound_s / self.stated_frac)
            return Estimate(seconds, found.lower_bound_s, None, "efficiency stated in the scenario")
        return found

    def seconds(self, ops: Iterable[Op]) -> float:
        """Seconds of several ops, one after another."""
        return float(sum(np.sum(self.price(op).seconds) for op in ops))

    def _kernel(self, op: Kernel) -> Estimate:
        if isinstance(op, Gemm):
            product = gemm(
                self.fits,
                self.device,
                op.m,
                op.n,
                op.k,
                op.dtype or self.dtype,
                self.engines.get("gemm", ""),
                batch=op.batch,
                c_bytes=op.c_bytes,
                quantised=op.quantised,
                pieces=op.pieces,
            )
            return self._sustained(product)
        if isinstance(op, Attention):
            dtype = self._attention_format()
            found = attention(
                self.fits,
                self.device,
                phase=op.phase,
                batch=op.batch,
                heads=op.heads,
                kv_heads=op.kv_heads,
                head_dim=op.head_dim,
                seq_len=op.sequence,
                head_dim_v=op.value_dim,
                q_len=op.queries,
                window=op.window,
                causal=op.causal,
                dtype=dtype,
                kv_dtype=dtype,
                engine=self.engines.get("attention", ""),
            )
            older = slowdown(op.kernel, self.device.generation, op.phase)
            return self._sustained(replace(found, seconds=found.seconds * older))
        if isinstance(op, Conv):
            shape = Convolution(
                op.batch,
                op.in_channels,
                op.out_channels,
                op.size,
                op.kernel,
                op.stride,
                op.padding,
                groups=op.groups,
            )
            engine = self.engines.get("gemm", "")
            return convolution(self.fits, self.device, shape, self.dtype, pass_name=op.phase, engine=engine)
        if isinstance(op, Lookup):
            return self._lookup(op)
        engine = self.engines.get("memory_bound", "")
        return memory_bound(self.fits, self.device, op.op, op.rows, op.cols, op.dtype, engine)

    def _attention_format(self) -> str:
        """Attention under fp8 or fp4 products stays in 16 bit, or in what wider format the device has."""
        if self.dtype not in ("fp8", "fp4"):
            return self.dtype
        return next((name for name in WIDER if name in self.device.flop_per_s), self.dtype)

    def _sustained(self, found: Estimate) -> Estimate:
        """Seconds at the clock of a long run, where the table was timed at that of a burst."""
        engine = "" if found.fit is None else found.fit.key.get("engine", "")
        if engine in SUSTAINED_ENGINES:
            return found
        return replace(found, seconds=found.seconds / self.sustained_frac)

    def _lookup(self, op: Lookup) -> Estimate:
        """Random reads of rows; the bound is each distinct row once (read and written in backward)."""
        wanted = (("generation", self.device.generation), ("accelerator", self.device.key))
        fit = find(self.fits, "embedding", wanted)
        if fit is not None and fit.key.get("generation") != self.device.generation:
            fit = None
        known = fit.values() if fit else {}
        values = (op.lookups, op.bags, op.dim, op.table_rows)
        if op.phase == "fwd":
            known = {name: value for name, value in known.items() if name not in UPDATE_ONLY}
            seconds = lookup_s(self.device, *values, bytes_per_value=op.bytes_per_value, **known)
        else:
            seconds = gradient_s(self.device, *values, bytes_per_value=op.bytes_per_value, **known)
        rows = touched_rows(op.lookups, op.table_rows) * (1.0 if op.phase == "fwd" else 2.0)
        bound = rows * row_bytes(op.dim, op.bytes_per_value) / self.device.memory_bytes_per_s
        leans_on = "parameters" if fit else "assumed defaults"
        return Estimate(np.asarray(np.sum(seconds)), np.asarray(np.sum(bound)), fit, leans_on)

    def _message(self, op: Message) -> Estimate:
        group = self.groups[op.group]
        if self.ideal or group.ranks == 1:
            zero = np.zeros(np.shape(op.message_bytes))
            return Estimate(zero, zero, None, "free by assumption" if self.ideal else "one rank")
        if not isinstance(op.message_bytes, float | int):
            return self._collective(op, group)
        key = (self.links, group, replace(op, name="", beside=""))
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = self._collective(op, group)
        return found

    def _collective(self, op: Message, group: Group) -> Estimate:
        return collective(
            self.fits,
            self.links,
            op.collective,
            op.message_bytes,
            group.ranks,
            ranks_per_domain=group.ranks_per_domain,
            concurrent_groups=group.concurrent,
            nodes_apart=group.nodes_apart,
        )
