"""Gradient compression: fewer bytes on the wire for more work at both ends.

Like posting a letter as a telegram: shorter to send, but somebody must abbreviate and somebody must make
sense of it. Each function says what is sent (by which collectives), what memory traffic and arithmetic
that costs a rank, and what it must remember. Whether it pays is for the step to tell: it often does not
(Agarwal et al., arXiv 2103.00543), because it breaks overlap and turns all-reduces into all-gathers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import Parameter, complete

Floats = NDArray[np.float64]

COMPRESSION_PARAMETERS = (
    Parameter(
        "scale_block", "1", "values that share one fp8 scale", 128.0, 16.0, 1e6, "block-scaled fp8, 1 x 128"
    ),
    Parameter(
        "selection_passes", "1", "passes over the values to find the largest", 2.5, 1.0, 20.0, "2-3 passes"
    ),
    Parameter(
        "memory_frac", "1", "share of memory bandwidth that element-wise kernels reach", 0.85, 0.3, 1.0
    ),
    Parameter(
        "matrix_frac",
        "1",
        "share of the matrix rate that PowerSGD's thin products reach",
        0.5,
        0.05,
        1.0,
        "assumed",
    ),
)


@dataclass(frozen=True, slots=True)
class Compressed:
    """What one compressed reduction costs a rank."""

    messages: tuple[tuple[str, Floats], ...]
    """(collective, whole buffer in bytes as in nccl-tests), one after another."""
    memory_bytes: Floats
    """Read and written to pack, unpack and keep the error."""
    flop: Floats
    state_bytes: Floats
    """Kept between steps (error feedback, moments)."""

    @property
    def message_bytes(self) -> Floats:
        """All messages together."""
        return np.asarray(sum(size for _, size in self.messages))

    def overhead_s(self, memory_bytes_per_s: ArrayLike, flop_per_s: ArrayLike) -> Floats:
        """Seconds of packing and unpacking at the rates really reached: bytes / bandwidth or FLOP / rate."""
        return np.asarray(
            np.maximum(
                self.memory_bytes / np.asarray(memory_bytes_per_s, dtype=float),
                self.flop / np.asarray(flop_per_s, dtype=float),
            )
        )


def packing_s(packed: Compressed, memory_bytes_per_s: float, flop_per_s: float, ratio: float = 1.0) -> Floats:
    """Seconds of packing and unpacking on a device: overhead at the assumed shares of its rates, times ``ratio``.

    ``ratio`` is measured over modelled, as a fit of op ``compression`` has it for a method.
    """
    share = complete(COMPRESSION_PARAMETERS, {})
    rates = memory_bytes_per_s * share["memory_frac"], flop_per_s * share["matrix_frac"]
    return np.asarray(ratio * packed.overhead_s(*rates))


def uncompressed(values: ArrayLike, value_bytes: float = 4.0) -> Compressed:
    """The plain all-reduce of ``values`` numbers."""
    count = np.asarray(values, dtype=float)
    return Compressed((("all_reduce", count * value_bytes),), count * 0, count * 0, count * 0)


def half_cast(values: ArrayLike) -> Compressed:
    """fp16 or bf16 on the wire: 2 bytes a value; the cast reads 4 and writes 2, there and back."""
    count = np.asarray(values, dtype=float)
    return Compressed((("all_reduce", 2 * count),), 12 * count, count * 0, count * 0)


def fp8(values: ArrayLike, ranks: ArrayLike, scale_block: float = 128.0) -> Compressed:
    """fp8 with a 4-byte scale a block: sums need more bits, so shares go round by all-to-all and are
    summed wide.

    All-to-all of the values, wide sum of n shares of 1/n, all-gather of the sums. A rank packs all
    values (read 4, write 1) and its sum (4 + 1 an n-th), reads the n shares, and unpacks all (read 1,
    write 4).
    """
    count, n = np.asarray(values, dtype=float), np.asarray(ranks, dtype=float)
    wire = count * (1 + 4 / scale_block)
    traffic = 5 * count + count + 5 * count / n + 5 * count
    return Compressed((("alltoall", wire), ("all_gather", wire)), traffic, 2 * count, count * 0)


def top_k(
    values: ArrayLike, ranks: ArrayLike, keep_frac: ArrayLike, selection_passes: float = 2.5
) -> Compressed:
    """The largest ``keep_frac`` of the values with their indices, 8 bytes each, gathered from every
    rank.

    Nothing adds up on the way, so a rank receives n times what it sends. Selection reads the values (and
    the error kept from last time, which it writes back) a few times; what is not sent is remembered (4
    bytes a value).
    """
    count, n = np.asarray(values, dtype=float), np.asarray(ranks, dtype=float)
    sent = 8 * count * np.asarray(keep_frac, dtype=float)
    traffic = 4 * count * selection_passes + 8 * count + 2 * n * sent
    return Compressed((("all_gather", n * sent),), traffic, count * 0 + n * sent / 8, 4 * count)


def power_sgd(rows: ArrayLike, columns: ArrayLike, rank: ArrayLike) -> Compressed:
    """A matrix as two thin factors (Vogels et al., arXiv 1905.13727): (a + b) r values in two
    all-reduces.

    6 a b r FLOP for the two products and the reconstruction, 2 a r^2 to make the columns orthogonal; the
    matrix is read twice and the error read and written, 4 bytes each.
    """
    a, b, r = (np.asarray(x, dtype=float) for x in (rows, columns, rank))
    messages = (("all_reduce", 4 * a * r), ("all_reduce", 4 * b * r))
    return Compressed(messages, 20 * a * b, 6 * a * b * r + 2 * a * r**2, 4 * a * b + 4 * b * r)


def one_bit(values: ArrayLike, ranks: ArrayLike) -> Compressed:
    """Signs with one scale (1-bit Adam, arXiv 2102.02888, after its warm-up): 1/32 of fp32.

    Sent as fp8 is: all-to-all, sum, all-gather. Error is kept at both ends: 4 bytes a value and 4 an n-th.
    """
    count, n = np.asarray(values, dtype=float), np.asarray(ranks, dtype=float)
    wire = count / 8
    return Compressed(
        (("alltoall", wire), ("all_gather", wire)),
        12 * count + 12 * count / n + 4 * count,
        4 * count,
        4 * count + 4 * count / n,
    )
