"""What a sweep varies, and how a grid and samples spread over it."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.planning.sweep.axes import SAMPLERS, grid, parse_axes, sample, toml, unit_sample
from sim.spec.faults import ScenarioError


def one(text: str, *, ranges: bool = False) -> tuple[str, ...]:
    return parse_axes([text], ranges=ranges)[0].values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1,2,4", ("1", "2", "4")),
        ("a=none,full", ("none", "full")),
        ('a="400 Gbit/s","800 Gbit/s"', ('"400 Gbit/s"', '"800 Gbit/s"')),
        ("a=true,false", ("true", "false")),
        ("a=1:9:4", ("1", "5", "9")),
        ("a=0.1:0.3:0.1", ("0.1", "0.2", "0.3")),
        ("a=1:2:0.5", ("1.0", "1.5", "2.0")),
        ("a=7", ("7",)),
        ("a=[1, 2],[3, 4]", ("[1, 2]", "[3, 4]")),
        ("a=10:30:", ("10:30:",)),
    ],
)
def test_values_of_an_axis(text: str, values: tuple[str, ...]) -> None:
    assert one(text) == values


def test_every_fault_of_the_axes_is_told_at_once() -> None:
    texts = ["nothing", "a=", "b=9:1:1", "c=1:9", "d=1:9:0", "e=1", "e=2", "f=0:1:1e-9"]
    with pytest.raises(ScenarioError) as told:
        parse_axes(texts, ranges=False)
    message = str(told.value)
    for piece in (
        "nothing",
        "low end first",
        "has no step",
        "a step above 0",
        "varied twice",
        "at most 100,000",
    ):
        assert piece in message
    assert len(told.value.faults) == 7


def test_a_grid_has_every_combination_the_last_axis_fastest() -> None:
    points = grid(parse_axes(["x=1,2", "y=a,b,c"], ranges=False))
    assert [tuple(value for _, value in point) for point in points] == [
        ("1", "a"), ("1", "b"), ("1", "c"), ("2", "a"), ("2", "b"), ("2", "c"),
    ]  # fmt: skip


def test_a_grid_too_large_is_refused() -> None:
    axes = parse_axes(["x=1:1000:1", "y=1:1000:1"], ranges=False)
    with pytest.raises(ScenarioError, match="1,000,000 points"):
        grid(axes)


@pytest.mark.parametrize("method", SAMPLERS)
def test_a_sample_stays_inside_and_is_the_seed_s(method: str) -> None:
    axes = parse_axes(["x=2:9", "y=0.5:1.5", "z=a,b"], ranges=True)
    points = sample(axes, 50, method, 3)
    assert points == sample(axes, 50, method, 3)
    assert points != sample(axes, 50, method, 4)
    x, y, z = zip(*([value for _, value in point] for point in points), strict=True)
    assert set(map(int, x)) <= set(range(2, 10))
    assert all(0.5 <= float(value) <= 1.5 for value in y)
    assert set(z) == {"a", "b"}


def test_a_latin_hypercube_has_one_point_in_each_row_and_column() -> None:
    unit = unit_sample(3, 40, "latin-hypercube", 1)
    for column in unit.T:
        assert sorted(np.floor(column * 40).astype(int)) == list(range(40))


def test_sobol_points_are_balanced_in_powers_of_two() -> None:
    unit = unit_sample(4, 64, "sobol", 1)
    for column in unit.T:
        assert sorted(np.floor(column * 64).astype(int)) == list(range(64))


@given(
    st.recursive(
        st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.text(st.characters(codec="ascii", exclude_characters="\x7f")),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_toml_text_reads_back_as_the_value(value: object) -> None:
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value
