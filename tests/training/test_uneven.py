"""Uneven splits against brute force and against what can be worked out by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.training.uneven import data_shards_step_s, equal_split, proportional_split, split_layers

SPEEDS = st.lists(st.floats(0.01, 10), min_size=1, max_size=4)


def test_one_slow_device_of_two() -> None:
    """A device of half the speed: equal halves take 6 s, thirds take 4."""
    assert equal_split(6, [1.0, 2.0]).step_s == 6.0
    split = proportional_split(6, [1.0, 2.0], exchange_s=0.5)
    assert split.samples.tolist() == [4, 2]
    assert split.step_s == 4.5


@settings(deadline=None)
@given(batch=st.integers(1, 14), speeds=SPEEDS)
def test_no_whole_split_is_faster(batch: int, speeds: list[float]) -> None:
    every = [
        data_shards_step_s(split, speeds)
        for split in product(range(batch + 1), repeat=len(speeds))
        if sum(split) == batch
    ]
    assert proportional_split(batch, speeds).step_s == pytest.approx(min(every))


@given(batch=st.integers(1, 10_000), speeds=st.lists(st.floats(0.01, 10), min_size=1, max_size=64))
def test_between_the_ideal_and_the_equal_split(batch: int, speeds: list[float]) -> None:
    split, even = proportional_split(batch, speeds), equal_split(batch, speeds)
    ideal = batch / np.sum(1 / np.asarray(speeds))
    assert split.samples.sum() == even.samples.sum() == batch
    assert ideal * (1 - 1e-9) <= split.step_s <= even.step_s * (1 + 1e-9)
    assert split.step_s <= ideal + max(speeds) * (1 + 1e-9)


def test_equal_devices_share_equally() -> None:
    assert proportional_split(64, [0.3] * 8).samples.tolist() == [8] * 8


def test_shards_of_unequal_size_wait_for_the_largest() -> None:
    assert data_shards_step_s([10, 30, 20], 0.1, 1.0) == pytest.approx(4.0)


@settings(max_examples=150, deadline=None)
@given(
    layers=st.integers(1, 9),
    stages=st.lists(
        st.tuples(st.floats(0.1, 5), st.floats(0, 2), st.integers(1, 9), st.floats(0, 2)),
        min_size=1,
        max_size=4,
    ),
)
def test_layers_are_dealt_out_as_brute_force_does(
    layers: int, stages: list[tuple[float, float, int, float]]
) -> None:
    each, send, caps, fixed = (list(column) for column in zip(*stages, strict=True))
    every = [
        max(n * t + f + s for n, t, s, f in zip(split, each, send, fixed, strict=True))
        for split in product(range(1, layers + 1), repeat=len(stages))
        if sum(split) == layers and all(n <= cap for n, cap in zip(split, caps, strict=True))
    ]
    found = split_layers(layers, each, send, caps, fixed)  # type: ignore[arg-type]
    if not every:
        assert found is None
        return
    assert found is not None
    assert found.slowest_s == pytest.approx(min(every))
    assert sum(found.layers) == layers
    assert all(1 <= n <= cap for n, cap in zip(found.layers, caps, strict=True))
    times = [n * t + f + s for n, t, s, f in zip(found.layers, each, send, fixed, strict=True)]
    assert max(times) == pytest.approx(found.slowest_s)


def test_layers_follow_speed() -> None:
    """Two A100-like and two H100-like stages, 1 to 2.5: 80 layers as 11 + 11 + 29 + 29."""
    split = split_layers(80, [2.5, 2.5, 1.0, 1.0])
    assert split is not None
    assert split.slowest_s == pytest.approx(29.0)
    assert sum(split.layers) == 80


def test_a_memory_cap_moves_layers() -> None:
    capped = split_layers(80, [2.5, 2.5, 1.0, 1.0], most_layers=[80, 80, 20, 20])
    assert capped is not None
    assert capped.layers == (20, 20, 20, 20)
    assert split_layers(80, [1.0, 1.0], most_layers=[30, 30]) is None
    assert split_layers(1, [1.0, 1.0]) is None


def test_logits_cost_the_last_stage_layers() -> None:
    split = split_layers(32, [1.0] * 4, fixed_s=[0.0, 0.0, 0.0, 2.4])
    assert split is not None
    assert split.layers[-1] == min(split.layers)
    assert split.slowest_s == 9.0
