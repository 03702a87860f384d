"""Which experts get how many tokens: the load of the busiest rank of an expert-parallel group.

Routing is like guests choosing among restaurants: with even taste every kitchen is equally busy, with
skewed taste one is full while others wait, and the street is done only when the fullest kitchen is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BLOCKS = (8, 16, 32, 64, 128, 256)
"""Token blocks that grouped-GEMM kernels are built for."""

DRAWS = 12
"""Random placements of experts on ranks that a skewed load is averaged over."""


@dataclass(frozen=True, slots=True)
class RankLoad:
    """Work of the busiest expert-parallel rank, mean over placements; arrays of the inputs' common shape."""

    pairs: Floats
    """(token, expert) pairs served."""
    active: Floats
    """Distinct experts touched."""
    blocks: Floats
    """Token blocks, for each size of :data:`BLOCKS` (last axis)."""


def touched_experts(tokens: ArrayLike, topk: ArrayLike, experts: ArrayLike) -> Floats:
    """Expected distinct experts when each token picks ``topk`` of ``experts`` at random.

    experts x (1 - (1 - topk / experts)^tokens): each token misses an expert with probability 1 - topk /
    experts.
    """
    e = np.asarray(experts, dtype=float)
    miss = 1 - np.asarray(topk, dtype=float) / e
    return np.asarray(e * (1 - miss ** np.asarray(tokens, dtype=float)))


def rank_load(
    tokens: ArrayLike, topk: ArrayLike, experts: ArrayLike, expert_parallel: ArrayLike, distribution: str
) -> RankLoad:
    """Pairs, experts and token blocks of the busiest rank.

    ``distribution``: ``balanced`` (pairs dealt out evenly), ``random`` (independent uniform choices), or
    ``power_law_A``: expert loads drawn from a density x^-A on 1 .. 0.8 tokens (0.01 .. 2 with fewer pairs
    than experts) and scaled to the number of pairs, no expert above one pair per token; as in the benchmark
    of ai-dynamo/aiconfigurator (collector/helper.py).

    Raises:
        ValueError: an unknown distribution, or experts that do not divide among the ranks.
    """
    columns = np.broadcast_arrays(
        *[np.asarray(c, dtype=float) for c in (tokens, topk, experts, expert_parallel)]
    )
    cases, back = np.unique(np.stack([c.ravel() for c in columns], axis=1), axis=0, return_inverse=True)
    table = np.empty((len(cases), 2 + len(BLOCKS)))
    for row, (t, k, e, ranks) in zip(table, cases, strict=True):
        load = _busiest(expert_loads(t, k, int(e), int(ranks), distribution), int(ranks))
        row[0] = load.sum(axis=1).mean()
        row[1] = (load > 0).sum(axis=1).mean()
        row[2:] = [np.ceil(load / size).sum(axis=1).mean() for size in BLOCKS]
    full = table[back.ravel()].reshape(*columns[0].shape, table.shape[1])
    return RankLoad(full[..., 0], full[..., 1], full[..., 2:])


def expert_loads(tokens: float, topk: float, experts: int, ranks: int, distribution: str) -> Floats:
    """Pairs of each expert in each draw, shape (draws, experts); each row sums to tokens x topk.

    Raises:
        ValueError: an unknown distribution, or experts that do not divide among the ranks.
    """
    if experts % ranks:
        raise ValueError(f"{experts} experts do not divide among {ranks} expert-parallel ranks")
    pairs, tokens = round(tokens * topk), float(np.ceil(tokens))
    if distribution == "balanced":
        # experts hit by few pairs lie evenly spaced, so every rank gets its share
        edges = np.floor(np.arange(experts + 1) * pairs / experts + 1e-9)
        return np.diff(edges)[None, ::-1]
    random = np.random.default_rng(7)
    if distribution == "random":
        return random.multinomial(pairs, np.full(experts, 1 / experts), size=DRAWS).astype(float)
    if not distribution.startswith("power_law_"):
        raise ValueError(f"unknown distribution {distribution!r}; known: balanced, random, power_law_A")
    alpha = float(distribution.removeprefix("power_law_"))
    low, high = (1.0, max(0.8 * tokens, 1.0)) if pairs > experts else (0.01, 2.0)
    # one value from each of `experts` equal slices of probability: same skew, less noise than free draws
    slices = random.permuted(np.tile(np.arange(experts), (DRAWS, 1)), axis=1)
    u = (slices + random.random((DRAWS, experts))) / experts
    p = 1 - alpha
    share = (
        np.exp(np.log(low) + u * np.log(high / low))
        if p == 0
        else ((high**p - low**p) * u + low**p) ** (1 / p)
    )
    return _whole(share / share.sum(axis=1, keepdims=True) * pairs, pairs, tokens, ranks)


def _whole(load: Floats, pairs: int, tokens: float, ranks: int) -> Floats:
    """Round to whole pairs, at most one per token, and hand out what is left or over, rank by rank."""
    if pairs > tokens * load.shape[1]:
        raise ValueError(f"{pairs} pairs do not fit {load.shape[1]} experts of at most {tokens:g} pairs each")
    load = np.minimum(np.round(load), tokens)
    draws, experts = load.shape
    while True:
        left = pairs - load.sum(axis=1)
        if not left.any():
            break
        step = np.where(left > 0, 1.0, -1.0)[:, None]
        may = np.where(step > 0, load < tokens, load > 0)
        # smallest loads take first, largest give first; within each rank, then rank by rank
        local = np.where(may, load * step, np.inf).reshape(draws, ranks, experts // ranks)
        place = np.argsort(np.argsort(local, axis=2, kind="stable"), axis=2, kind="stable")
        turn = (place * ranks + np.arange(ranks)[None, :, None]).reshape(draws, experts)
        turn = np.argsort(np.argsort(np.where(may, turn, turn + experts), axis=1), axis=1)
        rounds = np.maximum(np.floor(np.abs(left) / experts), 1.0)[:, None]
        amount = np.where((turn < np.abs(left)[:, None]) & may, rounds, 0.0)
        load = np.clip(load + step * amount, 0, tokens)
    return load


def _busiest(load: Floats, ranks: int) -> Floats:
    """Loads of the experts on the busiest rank, shape (draws, experts / ranks)."""
    per_rank = load.reshape(load.shape[0], ranks, -1)
    top = per_rank.sum(axis=2).argmax(axis=1)
    return np.asarray(per_rank[np.arange(load.shape[0]), top])
