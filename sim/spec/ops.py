"""The vocabulary of work: every layer of every model is a list of these.

Like the strokes of a script: a matrix product, an attention, a pass over memory, a look-up, a message. Fields may be
numbers or NumPy arrays (one entry per plan), so one description serves a single run and a search over a million plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Gemm:
    """C[m, n] = A[m, k] B[k, n], ``batch`` independent products in one launch."""

    m: ArrayLike
    n: ArrayLike
    k: ArrayLike
    batch: ArrayLike = 1
    name: str = "gemm"

    @property
    def flop(self) -> ArrayLike:
        """2 m n k for each product."""
        return 2.0 * self.m * self.n * self.k * self.batch  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Attention:
    """Fused attention over a batch of sequences; heads are those on this device."""

    phase: str
    """``fwd`` or ``bwd``."""
    batch: ArrayLike
    heads: ArrayLike
    kv_heads: ArrayLike
    head_dim: ArrayLike
    sequence: ArrayLike
    causal: bool = True
    name: str = "attention"


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """An elementwise or row-wise pass over a tensor of ``rows`` x ``cols`` values."""

    op: str
    rows: ArrayLike
    cols: ArrayLike
    dtype: str = "bf16"
    name: str = "elementwise"


@dataclass(frozen=True, slots=True)
class Message:
    """A collective among the ranks of one group; ``message_bytes`` by the convention of nccl-tests."""

    collective: str
    """``all_reduce``, ``all_gather``, ``reduce_scatter``, ``sendrecv``, ..."""
    message_bytes: ArrayLike
    group: str
    """``tensor``, ``pipeline`` or ``data``."""
    name: str = "message"


Kernel: TypeAlias = Gemm | Attention | MemoryBound
Op: TypeAlias = Kernel | Message


@dataclass(frozen=True, slots=True)
class Block:
    """The work of one layer (or of the embedding, or of the head) on one device for one micro-batch."""

    name: str
    forward: tuple[Op, ...]
    backward: tuple[Op, ...]
    recompute: tuple[Op, ...] = ()
    """Forward work done again during backward."""
