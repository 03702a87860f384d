"""Work dealt out to devices that are not alike: samples in proportion to speed, layers to stages under memory caps.

Like loading carts for horses of different strength: equal loads make the strong wait for the weak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DataSplit:
    """Samples for each device and the step they make."""

    samples: NDArray[np.int64]
    step_s: float


def equal_split(batch: int, sample_s: ArrayLike, exchange_s: float = 0.0) -> DataSplit:
    """The same number of samples on every device (the remainder one by one): the slowest device sets the step."""
    seconds = np.asarray(sample_s, dtype=float)
    share, extra = divmod(batch, seconds.size)
    samples = np.full(seconds.size, share)
    samples[np.argsort(seconds, kind="stable")[:extra]] += 1
    return DataSplit(samples, float((samples * seconds).max()) + exchange_s)


def proportional_split(batch: int, sample_s: ArrayLike, exchange_s: float = 0.0) -> DataSplit:
    """Samples in proportion to speed, whole ones: the split with the least largest time.

    Gradients are then averaged with the samples as weights. Each device first gets the samples that speed entitles it
    to, rounded down; the rest go one by one to where they end first. Never slower than the ideal batch / sum(1 / t) by
    more than one sample of the slowest device.

    Args:
        batch: samples of the step.
        sample_s: seconds of one sample, by device.
        exchange_s: seconds of the gradient exchange that follows.
    """
    seconds = np.asarray(sample_s, dtype=float)
    samples = np.floor(batch / np.sum(1 / seconds) / seconds * (1 - 1e-12)).astype(np.int64)
    for _ in range(batch - int(samples.sum())):
        samples[np.argmin((samples + 1) * seconds)] += 1
    return DataSplit(samples, float((samples * seconds).max()) + exchange_s)


def pool_split(
    batches: int,
    copies: Sequence[int],
    batch_s: Sequence[float],
    fixed_s: Sequence[float],
    least: int = 1,
) -> tuple[list[int], list[int]]:
    """Micro-batches of each pool's busiest copy, and of the pool, that make the slowest fastest, max(m_i t_i + f_i).

    The level T at which sum n_i (T - f_i) / t_i = batches gives each copy what it has done by then, rounded down; what
    is left goes one by one to the copy that ends first with it (as :func:`proportional_split`). Every copy has
    ``least`` micro-batches: one since it takes part in the exchange, as many as stages where it interleaves chunks.

    Args:
        batches: micro-batches of the step over all copies, as many as copies times ``least`` at least.
        copies: copies of the model in each pool, n_i.
        batch_s: seconds a copy needs for one more micro-batch, t_i.
        fixed_s: seconds of a copy whatever its micro-batches (filling its pipeline), f_i.
    """
    n, t, f = (np.asarray(values, dtype=float) for values in (copies, batch_s, fixed_s))
    level = (batches + np.sum(n * f / t)) / np.sum(n / t)
    mine = np.maximum(np.floor((level - f) / t * (1 - 1e-12)), least).astype(np.int64)
    done = int(np.sum(mine * n))
    while done > batches:  # the minimum gave too much: take from the copies that end last
        ends = np.where(mine > least, mine * t + f, -np.inf)
        mine[np.argmax(ends)] -= 1
        done = int(np.sum(mine * n))
    pool = 0
    while done < batches:  # one more for (some of) the copies of the pool that ends first with it
        pool = int(np.argmin((mine + 1) * t + f))
        mine[pool] += 1
        done += int(n[pool])
    every = mine * n.astype(np.int64)
    every[pool] -= done - batches
    return mine.tolist(), every.tolist()


def data_shards_step_s(shard_samples: ArrayLike, sample_s: ArrayLike, exchange_s: float = 0.0) -> float:
    """Step in which every device works through its own share of the samples: the largest time sets it."""
    times = np.asarray(shard_samples, dtype=float) * np.asarray(sample_s, dtype=float)
    return float(times.max()) + exchange_s


@dataclass(frozen=True, slots=True)
class StageSplit:
    """Layers for each stage and the seconds of the slowest."""

    layers: tuple[int, ...]
    slowest_s: float


def split_layers(
    layers: int,
    layer_s: Sequence[float],
    send_s: Sequence[float] | None = None,
    most_layers: Sequence[int] | None = None,
    fixed_s: Sequence[float] | None = None,
) -> StageSplit | None:
    """Whole layers for each pipeline stage that make the slowest stage fastest: min max(n_i t_i + fixed_i + send_i).

    Dynamic programming over stages and layers dealt out: best[i][k] = min over n of max(best[i-1][k-n], time_i(n));
    O(stages x layers^2). Every stage gets a layer at least.

    Args:
        layers: layers to deal out.
        layer_s: seconds of one layer on each stage's device.
        send_s: seconds each stage spends sending its output (0 where left out).
        most_layers: layers that each stage's memory holds (all where left out).
        fixed_s: seconds of a stage whatever its layers: embedding, logits.

    Returns:
        None where no split fits: fewer layers than stages, or more than memory holds.
    """
    stages = len(layer_s)
    send, fixed = send_s or [0.0] * stages, fixed_s or [0.0] * stages
    caps = most_layers or [layers] * stages
    best: Floats = np.full(layers + 1, np.inf)
    best[0] = -np.inf
    choices = []
    for each, sent, always, cap in zip(layer_s, send, fixed, caps, strict=True):
        after = np.full(layers + 1, np.inf)
        chosen = np.zeros(layers + 1, dtype=np.int64)
        for count in range(1, min(cap, layers) + 1):
            worst = np.maximum(best[: layers + 1 - count], count * each + always + sent)
            better = worst < after[count:]
            after[count:][better] = worst[better]
            chosen[count:][better] = count
        best = after
        choices.append(chosen)
    if not np.isfinite(best[layers]):
        return None
    dealt, left = [], layers
    for chosen in reversed(choices):
        dealt.append(int(chosen[left]))
        left -= dealt[-1]
    return StageSplit(tuple(reversed(dealt)), float(best[layers]))
