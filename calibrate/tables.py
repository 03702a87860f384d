"""The forms that readings are written on: which tables a measurement file has, and their columns.

Columns are those of rackcast's own measurement CSVs, so that every fit and every validation reads both alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    kind: str
    """``text``, ``number`` (positive), ``count`` (positive whole) or ``optional`` (may be absent)."""
    meaning: str


_DEVICE = (
    Column("gpu", "text", "device, as its driver names it"),
    Column("generation", "optional", "architecture"),
)
_TIMES = (
    Column("time_us", "number", "median of one call, microseconds"),
    Column("low_us", "number", "lower bound of the median, microseconds"),
    Column("high_us", "number", "upper bound of the median, microseconds"),
    Column("repeats", "count", "blocks timed"),
    Column("source", "text", "what measured it"),
)
_KERNEL = (
    Column("dtype", "text", "number format"),
    Column("engine", "text", "library that ran it"),
    *_TIMES,
)


def _counts(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "count", name.replace("_", " ")) for name in names)


def _moved(what: str) -> tuple[Column, ...]:
    """Columns of a table whose rows are an operation on so many bytes."""
    return (
        *_DEVICE,
        Column("op", "text", what),
        Column("bytes", "number", "moved or worked on"),
        Column("engine", "text", "library that ran it"),
        *_TIMES,
    )


TABLES: Mapping[str, tuple[Column, ...]] = {
    "readings": (
        Column("gpu", "text", "device"),
        Column("quantity", "text", "what was read, e.g. matmul fp16 or host to device"),
        Column("value", "number", "the figure, in SI"),
        Column("unit", "text", "SI unit of the figure"),
        Column("device", "optional", "number of the device in its node"),
        Column("source", "text", "what measured it"),
    ),
    "gemm": (
        Column("gpu", "text", "device, as its driver names it"),
        Column("generation", "optional", "architecture"),
        Column("dtype", "text", "number format of the product"),
        Column("m", "count", "rows of C (tokens)"),
        Column("n", "count", "columns of C (output features)"),
        Column("k", "count", "inner size (input features)"),
        Column("layout", "text", "TN = weights stored n x k"),
        Column("engine", "text", "library that ran it"),
        *_TIMES,
    ),
    "memory": (
        Column("gpu", "text", "device"),
        Column("generation", "optional", "architecture"),
        Column("op", "text", "operation"),
        Column("dtype", "text", "number format"),
        Column("rows", "count", "rows of the tensor"),
        Column("cols", "count", "columns of the tensor"),
        Column("bytes", "number", "read and written in the ideal"),
        Column("engine", "text", "library that ran it"),
        *_TIMES,
    ),
    "launch": (
        Column("gpu", "text", "device"),
        Column("generation", "optional", "architecture"),
        Column("mode", "text", "eager_host, eager_device or graph"),
        Column("engine", "text", "library that ran it"),
        *_TIMES,
    ),
    "collectives": (
        Column("system", "text", "name of the node or cluster"),
        Column("gpu", "text", "device"),
        Column("nodes", "count", "hosts"),
        Column("gpus", "count", "ranks in all"),
        Column("fabric", "optional", "nvlink, pcie, xgmi, infiniband, roce, efa, gloo"),
        Column("collective", "text", "all_reduce, all_gather, reduce_scatter, alltoall, broadcast"),
        Column("size_bytes", "number", "whole buffer, as nccl-tests counts"),
        *_TIMES,
    ),
    "attention": (
        *_DEVICE,
        Column("phase", "text", "fwd, bwd or decode"),
        *_counts("batch", "heads", "kv_heads", "head_dim", "seq_len"),
        *_KERNEL,
    ),
    "convolution": (
        *_DEVICE,
        Column("pass", "text", "forward, data_gradient or weight_gradient"),
        *_counts("batch", "in_channels", "out_channels", "size", "kernel", "stride", "groups"),
        *_KERNEL,
    ),
    "embedding": (
        *_DEVICE,
        Column("phase", "text", "fwd, or bwd with the update of the rows"),
        *_counts("lookups", "bags", "dim", "table_rows"),
        *_KERNEL,
    ),
    "layer": (
        *_DEVICE,
        Column("phase", "text", "fwd_bwd"),
        *_counts("batch", "seq_len", "hidden", "heads", "kv_heads", "ffn_hidden", "ranks"),
        *_KERNEL,
    ),
    "optimizer": (
        *_DEVICE,
        Column("rule", "text", "update rule"),
        *_counts("parameters", "ranks"),
        *_KERNEL,
    ),
    "overlap": (
        *_DEVICE,
        Column("mode", "text", "alone, or beside an all-reduce"),
        *_counts("ranks"),
        Column("engine", "text", "library that ran it"),
        *_TIMES,
    ),
    "copies": _moved("host_to_device, device_to_host or peer"),
    "storage": _moved("write, read, create, open or checkpoint"),
    "loader": _moved("decode"),
    "security": _moved("encrypt"),
    "compression": _moved("method"),
    "power": (
        *_DEVICE,
        Column("load", "text", "idle, matmul or copy"),
        Column("power_w", "number", "mean power"),
        Column("samples", "count", "readings"),
    ),
}
