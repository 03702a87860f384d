"""A model as the kernels that one forward pass of it launches: a score for those who do not know the composer's rules.

Rows are texts such as ``gemm calls=12 batch=1 m=2048 n=3072 k=768 flop=9.66e9``, written by tracing a torch model;
sizes of several dimensions are joined by ``x``. They hold for ``kernel_samples`` samples; the first size that counts
samples grows with the micro-batch.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SIZES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("batch", "m", "n", "k"),
    "conv": (
        "batch", "in_channels", "out_channels", "size", "kernel", "stride", "padding", "groups", "transposed",
    ),
    "attention": ("query", "key", "value_dim"),
    "lookup": ("rows", "dim", "lookups"),
    "pass": ("values", "bytes"),
}  # fmt: skip
"""Kind of a row -> its sizes, all of them needed; ``calls`` and ``flop`` stand beside them."""


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel of a forward pass."""

    kind: str
    calls: int
    flop: float
    """Of one call."""
    sizes: Mapping[str, tuple[int, ...]]

    def one(self, name: str) -> int:
        """A size of one dimension."""
        return self.sizes[name][0]


@functools.lru_cache(maxsize=64)
def kernel_rows(texts: tuple[str, ...]) -> tuple[KernelRow, ...]:
    """The rows of a model.

    Raises:
        ValueError: a row that is none; the message lists every fault.
    """
    faults = [fault for text in texts if (fault := row_fault(text))]
    if faults:
        raise ValueError("; ".join(faults))
    return tuple(map(_row, texts))


def row_fault(text: str) -> str:
    """What is wrong with a row; empty where nothing is."""
    kind, *words = text.split() or [""]
    if kind not in SIZES:
        near = difflib.get_close_matches(kind, SIZES, 1)
        return f"{text!r}: expected one of {', '.join(SIZES)}" + (f", nearest is {near[0]}" if near else "")
    needed = {"calls", "flop", *SIZES[kind]}
    named = dict(word.partition("=")[::2] for word in words)
    if set(named) != needed:
        return f"{text!r}: expected exactly {', '.join(['calls', 'flop', *SIZES[kind]])}, each as name=value"
    try:
        row = _row(text)
    except ValueError:
        return f"{text!r}: expected whole numbers, joined by x where there are several"
    positive = [
        size for name, sizes in row.sizes.items() if name not in ("padding", "transposed") for size in sizes
    ]
    if row.calls < 1 or not 0 <= row.flop < float("inf") or min(positive) < 1:
        return f"{text!r}: expected positive sizes"
    return ""


def _row(text: str) -> KernelRow:
    kind, *words = text.split()
    named = dict(word.partition("=")[::2] for word in words)
    sizes = {name: tuple(int(part) for part in named[name].split("x")) for name in SIZES[kind]}
    return KernelRow(kind, int(named["calls"]), float(named["flop"]), sizes)


def forward_flop(rows: Sequence[KernelRow]) -> float:
    """FLOP of all rows together."""
    return sum(row.flop * row.calls for row in rows)
