"""Embedding tables: gather rows by index, and scatter their gradients back.

Like fetching books from a very large library: the walking (one memory access per row, in whole cache sectors)
costs more than the reading, and books that several readers want are fetched once if they still lie on the
desk (the cache). The first visit to a shelf takes longer than the next ones (the page's address must be found), so
a look-up costs the less the more of them one call makes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import Parameter
from sim.spec.device import Device

Floats = NDArray[np.float64]

PAGE_SOURCE = (
    "assumed: next to nothing, an accelerator's walks are hidden behind other threads; a calibration tells"
)
UPDATE_SOURCE = "assumed: one fused kernel; autograd and a scattered write on a CPU take several times longer"

PARAMETERS = (
    Parameter("launch_s", "s", "start and drain of one kernel", 5e-6, 5e-7, 1e-4),
    Parameter(
        "random_eff_frac",
        "1",
        "share of the memory bandwidth reached by random sectors",
        0.6,
        0.05,
        1.0,
        "assumed: between streaming (0.85) and isolated sectors",
    ),
    Parameter(
        "access_bytes",
        "byte",
        "smallest piece of memory that is read or written",
        64.0,
        16.0,
        512.0,
        "two 32-byte sectors, the burst of HBM and of GDDR6",
    ),
    Parameter("sort_passes", "1", "times the indices cross memory to find equal rows", 8.0, 0.5, 40.0),
    Parameter(
        "page_s", "s", "first visit of a call to a page of a table", 1e-13, 1e-13 / 2, 1e-6, PAGE_SOURCE
    ),
    Parameter(
        "update_ratio",
        "1",
        "start and first visits of an update over a look-up's",
        1.0,
        0.3,
        30.0,
        UPDATE_SOURCE,
    ),
)
"""What a calibration may turn."""
UPDATE_ONLY = ("sort_passes", "update_ratio")
"""Parameters of :func:`gradient_s` alone."""

PAGE_BYTES = 4096.0
"""A page of Linux's ordinary memory on x86-64 (``getconf PAGE_SIZE``); larger ones make ``page_s`` smaller."""
INDEX_BYTES = 8.0
"""One 64-bit index a lookup: torch.nn.EmbeddingBag's own type."""


def touched_rows(lookups: ArrayLike, table_rows: ArrayLike, skew: ArrayLike = 0.0) -> Floats:
    """Expected distinct rows among ``lookups`` independent choices.

    Uniform choice: rows x (1 - (1 - 1/rows)^lookups) (the occupancy problem). ``skew`` in 0 <= skew < 1 sends
    that share of the lookups to the hottest 1 - skew of the rows (skew 0.8: four fifths go to one fifth).
    """
    n, rows, s = (np.asarray(x, dtype=float) for x in (lookups, table_rows, skew))

    def distinct(draws: Floats, kinds: Floats) -> Floats:
        kinds = np.maximum(kinds, 1.0)
        inner = np.log1p(-np.minimum(1 / kinds, 1 - 1e-15))
        return np.asarray(-kinds * np.expm1(draws * inner))

    skewed = s > 0
    hot = np.where(skewed, rows * (1 - s), rows)
    to_hot = np.where(skewed, n * s, n)
    cold = np.where(skewed, distinct(n - to_hot, np.maximum(rows - hot, 1.0)), 0.0)
    return np.asarray(np.minimum(distinct(to_hot, hot) + cold, np.minimum(n, rows)))


def row_bytes(dim: ArrayLike, bytes_per_value: ArrayLike, access_bytes: ArrayLike = 64.0) -> Floats:
    """Bytes that one row really moves: its width in whole accesses."""
    a = np.asarray(access_bytes, dtype=float)
    return np.asarray(
        np.ceil(np.asarray(dim, dtype=float) * np.asarray(bytes_per_value, dtype=float) / a) * a
    )


def touched_pages(
    lookups: ArrayLike, table_rows: ArrayLike, each_row_bytes: ArrayLike, skew: ArrayLike = 0.0
) -> Floats:
    """Expected distinct pages of a table that ``lookups`` visit: :func:`touched_rows` with rows a page holds as one."""
    rows = np.asarray(table_rows, dtype=float)
    pages = np.maximum(np.ceil(rows * np.asarray(each_row_bytes, dtype=float) / PAGE_BYTES), 1.0)
    per_row = np.maximum(pages / np.maximum(rows, 1.0), 1.0)  # a row longer than a page visits several
    return np.asarray(touched_rows(lookups, np.minimum(pages, np.maximum(rows, 1.0)), skew) * per_row)


def lookup_s(
    device: Device,
    lookups: ArrayLike,
    bags: ArrayLike,
    dim: ArrayLike,
    table_rows: ArrayLike,
    *,
    bytes_per_value: ArrayLike = 4.0,
    skew: ArrayLike = 0.0,
    launch_s: float = PARAMETERS[0].start,
    random_eff_frac: float = PARAMETERS[1].start,
    access_bytes: float = PARAMETERS[2].start,
    page_s: float = PARAMETERS[4].start,
) -> Floats:
    """Seconds to gather ``lookups`` rows and pool them into ``bags`` outputs (bags = lookups: no pooling).

    Rows come from memory once each while the cache holds the distinct ones, and once per lookup when it does
    not; between the two by the share of the distinct rows that fits. Outputs and indices stream. Each page that the
    call visits costs ``page_s`` once: the walk for its address, which the translation buffer has forgotten since the
    table's last turn (Hennessy and Patterson, *Computer Architecture*, 6th ed. 2017, section 2.4). The model is
    that of Naumov et al. 2019 (DLRM, arXiv:1906.00091): embedding bags are bound by random reads.
    """
    n, b = np.asarray(lookups, dtype=float), np.asarray(bags, dtype=float)
    row = row_bytes(dim, bytes_per_value, access_bytes)
    fetched = _fetched_rows(device, n, touched_rows(n, table_rows, skew), row)
    rate = device.memory_bytes_per_s
    out = b * np.asarray(dim, dtype=float) * np.asarray(bytes_per_value, dtype=float)
    start_s = launch_s + page_s * touched_pages(n, table_rows, row, skew)
    return np.asarray(start_s + fetched * row / (rate * random_eff_frac) + (out + n * INDEX_BYTES) / rate)


def gradient_s(
    device: Device,
    lookups: ArrayLike,
    bags: ArrayLike,
    dim: ArrayLike,
    table_rows: ArrayLike,
    *,
    bytes_per_value: ArrayLike = 4.0,
    skew: ArrayLike = 0.0,
    launch_s: float = PARAMETERS[0].start,
    random_eff_frac: float = PARAMETERS[1].start,
    access_bytes: float = PARAMETERS[2].start,
    sort_passes: float = PARAMETERS[3].start,
    page_s: float = PARAMETERS[4].start,
    update_ratio: float = PARAMETERS[5].start,
) -> Floats:
    """Seconds to add the gradients of ``bags`` outputs into the rows they came from (sparse update fused in).

    Indices are sorted so that equal rows meet, each lookup reads its bag's gradient, each distinct row is
    read and written once: the exact sparse update of Mudigere et al. 2022 (arXiv:2104.05158, section 4.1). Starting it
    and visiting a page for the first time take ``update_ratio`` times as long as in :func:`lookup_s`.
    """
    n = np.asarray(lookups, dtype=float)
    row = row_bytes(dim, bytes_per_value, access_bytes)
    touched = touched_rows(n, table_rows, skew)
    rate = device.memory_bytes_per_s
    gathered = _fetched_rows(device, n, np.minimum(np.asarray(bags, dtype=float), n), row)
    moved = (gathered + 2 * touched) * row / random_eff_frac + sort_passes * n * INDEX_BYTES
    start_s = launch_s + page_s * touched_pages(n, table_rows, row, skew)
    return np.asarray(update_ratio * start_s + moved / rate)


def _fetched_rows(device: Device, lookups: Floats, distinct: Floats, row: Floats) -> Floats:
    held = np.minimum(1.0, device.l2_bytes / np.maximum(distinct * row, 1.0))
    return np.asarray(distinct + (1 - held) * np.maximum(lookups - distinct, 0.0))
