"""Recommenders: a library card index and a small network that reads the cards.

The tables are in ``scenarios/catalog/layer_graphs.toml`` beside the layer graphs of convolutional networks.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Recommender:
    """Shape of a DLRM with low-rank cross layers (DCN v2, Wang et al. 2021, arXiv 2008.13535)."""

    key: str
    source: str
    dim: int
    """Width of a row."""
    rows: tuple[int, ...]
    """Rows of each table."""
    lookups: tuple[int, ...]
    """Rows that a sample looks up in each table, then adds up."""
    bottom: tuple[int, ...]
    """Widths of the MLP over dense features, input first."""
    cross_layers: int
    cross_rank: int
    top: tuple[int, ...]
    """Widths of the last MLP, without its input."""

    @property
    def width(self) -> int:
        """Values that the cross layers see: one row a table and the output of the bottom MLP."""
        return self.dim * (len(self.rows) + 1)

    @property
    def matrices(self) -> tuple[tuple[str, int, int], ...]:
        """(part, columns, inner) of every dense matrix in order; a cross layer has two."""
        bottom = [("bottom", n, k) for k, n in pairwise(self.bottom)]
        cross = [("cross down", self.cross_rank, self.width), ("cross up", self.width, self.cross_rank)]
        top = [("top", n, k) for k, n in pairwise((self.width, *self.top))]
        return (*bottom, *cross * self.cross_layers, *top)

    @property
    def table_parameters(self) -> int:
        """Weights of all tables."""
        return sum(self.rows) * self.dim

    @property
    def dense_parameters(self) -> int:
        """Matrices and biases; a cross layer has one bias."""
        return sum(n * k + (0 if part == "cross down" else n) for part, n, k in self.matrices)

    @property
    def flop(self) -> float:
        """FLOP of the matrices in a forward pass of one sample."""
        return sum(2.0 * n * k for _, n, k in self.matrices)


@functools.cache
def recommenders() -> Mapping[str, Recommender]:
    """The recommenders that ship with rackcast, by the key of their model; read once."""
    folder = importlib.resources.files("scenarios") / "catalog"
    tables = tomllib.loads((folder / "layer_graphs.toml").read_text("utf-8"))
    return {key: recommender_from(key, table) for key, table in tables.items() if "lookups" in table}


def recommender_from(key: str, table: Mapping[str, Any]) -> Recommender:
    """The recommender of one table.

    Raises:
        ValueError: tables without a number of look-ups, or the other way round.
    """
    if len(table["rows"]) != len(table["lookups"]):
        raise ValueError(f"{key}: {len(table['rows'])} tables, but look-ups in {len(table['lookups'])}")
    return Recommender(
        key,
        table["source"],
        table["dim"],
        tuple(table["rows"]),
        tuple(table["lookups"]),
        tuple(table["bottom"]),
        table["cross_layers"],
        table["cross_rank"],
        tuple(table["top"]),
    )
