"""Prices asked for one by one and worked out all at once.

Like a shopping list: the model's own functions walk through the shop once and only write down what they want, the
whole list is priced in one go, and on the second walk every price is on the list. So a search uses the very functions
that a single step uses, at the speed of arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sim.cost.collectives import collective
from sim.spec.ops import Attention, Gemm, Kernel, MemoryBound, Message, Op
from sim.training.pricing import Group, Pricer

Ask = tuple[Op, Group | None]


@dataclass(slots=True)
class Book:
    """What was asked for, with its seconds once :func:`settle` has worked them out."""

    seconds: dict[Any, float] = field(default_factory=dict)
    asked: dict[Any, Ask] = field(default_factory=dict)
    kept: list[Ask] = field(default_factory=list)
    """Keeps what is known by identity alive, so that no identity is used twice."""


@dataclass(frozen=True, slots=True)
class ListPricer(Pricer):
    """A pricer that writes unknown ops down (and calls them free) instead of pricing them."""

    book: Book = field(default_factory=Book)
    lasting: bool = False
    """Whether the same op is the same object each time: then it is found by identity, which is quicker."""

    def seconds(self, ops: Iterable[Op]) -> float:
        """Seconds of several ops; 0 for those that are still on the list."""
        total, known, lasting = 0.0, self.book.seconds, self.lasting
        for op in ops:
            group = self.groups[op.group] if isinstance(op, Message) else None
            key: Any = (id(op), id(group)) if lasting else (op, group)
            found = known.get(key)
            if found is None:
                self.book.asked[key] = op, group
            else:
                total += found
        return total


def settle(pricer: ListPricer) -> None:
    """Work out everything on the list, arrays of like ops together."""
    book, lots = pricer.book, dict[Any, list[tuple[Any, Ask]]]()
    for key, ask in book.asked.items():
        lots.setdefault(_kind(ask[0]), []).append((key, ask))
    for lot in lots.values():
        prices = _lot_s(pricer, [ask for _, ask in lot])
        book.seconds.update(zip((key for key, _ in lot), map(float, prices), strict=True))
    book.kept += book.asked.values()
    book.asked.clear()


def _kind(op: Op) -> Any:
    """Ops of one kind differ in numbers only."""
    if isinstance(op, Gemm):
        return Gemm, op.dtype, op.quantised, op.c_bytes
    if isinstance(op, MemoryBound):
        return MemoryBound, op.op, op.dtype
    if isinstance(op, Attention):
        return Attention, op.phase, op.causal, op.window, op.kernel, op.queries is None, op.value_dim is None
    if isinstance(op, Message):
        return Message, op.collective
    return id(op)


def _lot_s(pricer: ListPricer, lot: list[Ask]) -> Any:
    first = lot[0][0]
    if isinstance(first, Message):
        return _messages_s(pricer, lot)
    if isinstance(first, Gemm):
        m, n, k, batch = (_column(lot, name) for name in ("m", "n", "k", "batch"))
        pieces = _column(lot, "pieces")
        merged: Kernel = replace(first, m=m, n=n, k=k, batch=batch, pieces=pieces)
    elif isinstance(first, MemoryBound):
        merged = MemoryBound(first.op, _column(lot, "rows"), _column(lot, "cols"), first.dtype)
    elif isinstance(first, Attention):
        merged = Attention(
            first.phase,
            _column(lot, "batch"),
            _column(lot, "heads"),
            _column(lot, "kv_heads"),
            _column(lot, "head_dim"),
            _column(lot, "sequence"),
            causal=first.causal,
            queries=None if first.queries is None else _column(lot, "queries"),
            value_dim=None if first.value_dim is None else _column(lot, "value_dim"),
            window=first.window,
            kernel=first.kernel,
        )
    else:
        return [float(np.sum(pricer.price(op).seconds)) for op, _ in lot]
    return np.broadcast_to(pricer.price_many(merged).seconds, (len(lot),))


def _column(lot: list[Ask], name: str) -> Any:
    return np.array([getattr(op, name) for op, _ in lot], dtype=float)


def _messages_s(pricer: ListPricer, lot: list[Ask]) -> Any:
    """Messages of one collective over groups of any size."""
    if pricer.ideal:
        return np.zeros(len(lot))
    groups = [group or Group(1, 1) for _, group in lot]
    ranks, inside, concurrent, apart = (
        np.array([getattr(group, name) for group in groups], dtype=float)
        for name in ("ranks", "ranks_per_domain", "concurrent", "nodes_apart")
    )
    first = lot[0][0]
    name = first.collective if isinstance(first, Message) else ""
    found = collective(
        pricer.fits,
        pricer.links,
        name,
        _column(lot, "message_bytes"),
        ranks,
        ranks_per_domain=inside,
        concurrent_groups=concurrent,
        nodes_apart=apart,
    )
    return np.where(ranks > 1, found.seconds, 0.0)
