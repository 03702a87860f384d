"""The row tables behind docs/validation.md: measured beside predicted, one file a kind under scenarios/validation.

Written by ``python -m benchmarks.accuracy`` with the document; read by the app's Validation page. Like the raw lap
times kept beside the podium: whoever doubts a median can look up the rows that made it.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pandas as pd

import scenarios

FOLDER = Path(scenarios.__path__[0]) / "validation"
WORDS = {
    "gemm": ("m", "n", "k", "dtype"),
    "attention": ("phase", "batch", "heads", "kv_heads", "head_dim", "seq_len", "dtype"),
    "memory_bound": ("op", "rows", "cols", "dtype"),
    "moe": ("tokens", "hidden", "ffn", "experts", "topk", "dtype"),
    "collectives": ("collective", "gpus", "nodes", "size_bytes"),
    "training": ("num_gpus", "global_batch", "seq_len", "precision"),
}
"""Columns that say what a row is of."""
FIRST = {"stack": ("stack", "engine", "kernel", "fabric"), "model": ("model_family", "system")}
"""Column of the row table -> the first of these that the measurements have."""
SHAPE_ROWS = 2500
"""Rows of a kind of kernel that are kept, evenly through the table: files stay small."""


def row_table(kind: str, held: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: what, gpu, model, stack, source, measured_s, predicted_s, held_out_s, low_s, high_s,
    skipped.

    Args:
        kind: a key of :data:`WORDS`.
        held: outcome of predictions that never saw the row (its source, system or shape).
        own: outcome of the shipped profile, same rows.
    """
    scale = 1.0 if "step_time_s" in own else 1e-6
    measured = own["step_time_s" if "step_time_s" in own else "time_us"]
    words = [name for name in WORDS[kind] if name in own]
    table = pd.DataFrame(
        {
            "what": [
                ", ".join(f"{name} {value}" for name, value in zip(words, row, strict=True) if str(value) != "nan")
                for row in own[words].itertuples(index=False)
            ],
            "gpu": own["gpu"],
            **{name: _first(own, names) for name, names in FIRST.items()},
            "source": own["source"].fillna(""),
            "measured_s": measured * scale,
            "predicted_s": own["predicted"] * scale,
            "held_out_s": held["predicted"].reindex(own.index) * scale,
            "low_s": own.get("low_s"),
            "high_s": own.get("high_s"),
            "skipped": own["skipped"],
        }
    )  # fmt: skip
    return table.iloc[:: max(-(-len(table) // SHAPE_ROWS), 1)]


def _first(table: pd.DataFrame, names: tuple[str, ...]) -> pd.Series | str:
    known = [table[name] for name in names if name in table]
    found = known[0] if known else ""
    for other in known[1:]:
        found = found.fillna(other)
    return found if isinstance(found, str) else found.fillna("")


def keep_rows(kind: str, held: pd.DataFrame, own: pd.DataFrame) -> None:
    """Write scenarios/validation/<kind>.csv.gz; the same rows give the same bytes."""
    FOLDER.mkdir(exist_ok=True)
    text = io.StringIO()
    row_table(kind, held, own).to_csv(text, index=False, float_format="%.6g")
    (FOLDER / f"{kind}.csv.gz").write_bytes(gzip.compress(text.getvalue().encode("utf-8"), mtime=0))
