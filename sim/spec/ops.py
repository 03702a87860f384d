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
    dtype: str = ""
    """Number format where it is not that of the training."""
    quantised: bool = False
    """Whether A already is in the low-precision format of the products, so that no pass quantises it."""
    c_bytes: float | None = None
    """Memory traffic per element of C; None = it is written once, in 16 bit or the format's own width."""
    pieces: ArrayLike = 1
    """Equal parts that the rows come in or leave by, each multiplied by itself: see ``sim.cost.kernels.gemm.gemm``."""

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
    """Keys of each sequence."""
    causal: bool = True
    name: str = "attention"
    queries: ArrayLike | None = None
    """Queries of each sequence on this device; None = as many as keys."""
    value_dim: ArrayLike | None = None
    """Width of a value head where it differs (MLA)."""
    window: int = 0
    """Keys a query looks back over; 0 = all."""
    kernel: str = "newest"
    """See :mod:`sim.cost.kernels.attention_kernels`."""


@dataclass(frozen=True, slots=True)
class Conv:
    """One pass of a convolution in two or three dimensions over a batch."""

    phase: str
    """``forward``, ``data_gradient`` or ``weight_gradient``."""
    batch: int
    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    """Input extent along each spatial dimension."""
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1
    name: str = "convolution"


@dataclass(frozen=True, slots=True)
class Lookup:
    """Gather rows of an embedding table and pool them into bags (``fwd``), or add gradients into them (``bwd``)."""

    phase: str
    lookups: ArrayLike
    bags: ArrayLike
    dim: int
    table_rows: ArrayLike
    bytes_per_value: float = 4.0
    name: str = "embedding"


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
    """``tensor``, ``pipeline``, ``data``, ``expert`` or ``context``."""
    name: str = "message"
    beside: str = ""
    """Name of the op of the same pass that runs at the same time: only what outlasts it is waited for."""


Kernel: TypeAlias = Gemm | Attention | MemoryBound | Conv | Lookup
Op: TypeAlias = Kernel | Message


@dataclass(frozen=True, slots=True)
class Block:
    """One layer (or the embedding, or the head) on one device: its work for one micro-batch and what it holds.

    Blocks of equal name within one model are equal.
    """

    name: str
    forward: tuple[Op, ...]
    backward: tuple[Op, ...]
    recompute: tuple[Op, ...] = ()
    """Forward work done again during backward."""
    parameters: float = 0.0
    """Trained weights on this device that every data-parallel rank holds."""
    expert_parameters: float = 0.0
    """Trained weights of routed experts on this device: held by the ranks of one expert group once together."""
    frozen_parameters: float = 0.0
    """Weights without gradient and optimizer state (LoRA), those of routed experts apart."""
    table_bytes: float = 0.0
    """Embedding rows on this device with their state, updated in place where touched: no dense gradient."""
    activation_bytes: float = 0.0
    """All that backward needs of one micro-batch: held while the block is recomputed."""
    kept_bytes: float = 0.0
    """What stays between forward and backward of a micro-batch under the plan's recomputation."""
    frozen_expert_parameters: float = 0.0
    """Weights of routed experts without gradient and optimizer state."""
