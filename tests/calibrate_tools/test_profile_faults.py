"""A profile with bad fields, another version or mixed units is refused with every fault; every shipped one is well."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.spec.profile import Constant, Fit, FitError, Profile, ProfileError, ResidualGrid, from_json, to_json

CONSTANT = Constant(2e-6, "s", "fitted", "test", 1e-6, 3e-6)
FIT = Fit(
    "gemm",
    {"generation": "hopper"},
    {"launch_s": CONSTANT, "memory_frac": Constant(0.8, "1", "assumed", "test")},
    ResidualGrid((("log2_m", (0.0, 4.0)),), (0.1, 0.2)),
    FitError(3.0, 9.0, -1.0, 40, "5 folds"),
)
DOCUMENT = json.loads(to_json(Profile("mine", (FIT, FIT))))


def faults(document: dict) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        from_json(json.dumps(document), "p.json")
    return [line.removeprefix("p.json: ") for line in str(caught.value).splitlines()]


def test_every_fault_of_every_fit_is_told_at_once() -> None:
    bad = copy.deepcopy(DOCUMENT)
    first, second = bad["fits"]
    first["parameters"]["launch_s"] |= {"value": "2 us", "unit": "us", "kind": "guessed", "sourc": "x"}
    del first["parameters"]["launch_s"]["source"]
    first["grid"]["values"] = [0.1]
    second["op"] = ""
    second["parameters"]["memory_frac"] |= {"unit": "%", "interval": [0.9, 0.7]}
    second["grid"]["axes"]["log2_m"] = [4.0, 0.0]
    second["error"]["points"] = None
    told = faults(bad)
    expected = [
        "fits[0].parameters.launch_s.sourc: not one of value, unit, kind, source, interval; nearest is 'source'",
        "fits[0].parameters.launch_s.value: expected a finite number, found '2 us'",
        "fits[0].parameters.launch_s.unit: found 'us', expected 's': the name says so",
        "fits[0].parameters.launch_s.kind: found 'guessed', expected one of measured, datasheet, fitted, assumed",
        "fits[0].parameters.launch_s.source: expected where the value comes from, found nothing",
        "fits[0].grid.values: expected 2 numbers, one a node, found 1",
        "fits[1].op: expected the name of a cost function, found ''",
        "fits[1].parameters.memory_frac.unit: found '%', expected '1': the name says so",
        "fits[1].parameters.memory_frac.interval: expected two numbers around the value, found [0.9, 0.7]",
        "fits[1].grid.axes.log2_m: expected increasing numbers, found [4.0, 0.0]",
        "fits[1].error.points: expected a finite number, found nothing",
    ]
    assert told == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "expected a profile of schema 1, found 2"),
        ({"schema": None}, "expected a profile of schema 1, found None"),
        ({"fits": {}}, "fits: expected a list, found {}"),
        ({"fits": [3]}, "fits[0]: expected an object, found 3"),
        ({"provenance": "me"}, "provenance: expected an object, found 'me'"),
    ],
)
def test_other_versions_and_other_shapes(change: dict, says: str) -> None:
    assert faults({**DOCUMENT, **change}) == [says]


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


@given(place=st.sampled_from([p for p in places(DOCUMENT) if p]), odd=ODD)
def test_any_field_may_be_anything_and_the_answer_is_a_profile_or_its_faults(
    place: tuple, odd: object
) -> None:
    changed = copy.deepcopy(DOCUMENT)
    inside = changed
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = odd
    try:
        again = from_json(json.dumps(changed))
    except ProfileError as fault:
        assert str(fault)
    else:
        assert from_json(to_json(again)) == again


def test_every_shipped_profile_is_in_order() -> None:
    folder = Path(__file__).resolve().parents[2] / "scenarios" / "profiles"
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))]
    assert all(from_json(text).fits for text in texts)
