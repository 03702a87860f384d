"""Mutated scenario files meet neither a traceback nor a silent default.

Each example changes a valid document in one to three places: a key renamed, dropped or added, a value replaced by
something odd. The loader must then refuse with faults that name a place, or accept and mean it: the change shows in
the scenario, and the scenario runs.
"""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sim
from sim.results.step_tables import step_document
from sim.spec.checks import micro_batches
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads, resolve

BASE = tomllib.loads(
    (Path(__file__).parent / "small.toml").read_text() + '\n[training.loader]\nsample_serial_s = "1 ms"\n'
)
MIXED = tomllib.loads((Path(__file__).parent / "mixed.toml").read_text())
TASKS = tomllib.loads((Path(__file__).parent / "tasks.toml").read_text())
BASES = (BASE, MIXED, TASKS)
MAX_PASSES = 3000
"""Accepted scenarios are run up to this size, so that the test stays quick."""

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(
        [0.5, 2, 4, 8, 16, 3.0, "8", "4 GB", "1e400", "inf", "nan", "-1 s", "", " ", "80 Gb", "3 us"]
    ),
    st.text(max_size=12),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(0, 3), max_size=2),
    st.sampled_from(
        ["gpt3-175b", "gpt2", "dgx-h100", "t5-11b", "mixtral-8x7b", "resnet-50", "adam", "fp32", "bf16"]
    ),
    st.sampled_from(
        [{"base": "gpt2", "layers": 4}, {"base": "nope"}, {"sample_flop": "1 GFLOP"}, {"layers": 2}]
    ),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key path in the document."""
    here = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return here + [deeper for key, value in items for deeper in places(value, (*path, key))]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, dict[str, Any], tuple[Any, ...], Any]:
    """(kind, document, place, new value)."""
    document = copy.deepcopy(draw(st.sampled_from(BASES)))
    kind, path, value = "", (), None
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)))
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "replace", "rename", "drop", "add"]))
        value = copy.deepcopy(draw(ODD))  # a shared example would be changed by the next mutation
        if kind == "replace":
            parent[path[-1]] = value
        elif kind == "drop":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            name = draw(st.text(min_size=1, max_size=8))
            parent[name] = parent.pop(path[-1]) if kind == "rename" else value
    return kind, document, path, value


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_mutated_scenarios(mutation: tuple[str, dict[str, Any], tuple[Any, ...], Any]) -> None:
    _, document, _, _ = mutation
    try:
        scenario = resolve(document, "fuzz.toml")
    except ScenarioError as error:
        assert error.faults
        for fault in error.faults:
            assert fault.file == "fuzz.toml"
            assert fault.path
            assert fault.expected
            assert "\n" not in str(fault)
        return
    assert leaves(document) <= accepted_leaves(), "an unknown key was accepted"
    training = scenario.training
    assert training is not None
    passes = micro_batches(scenario.cluster, training) * training.plan.pipeline * training.plan.virtual_stages
    if passes <= MAX_PASSES:
        result = step_document(sim.run(scenario))
        assert result["step_time_s"] > 0
        assert abs(result["books"]["difference_frac"]) < 1e-9


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([(base, path) for base in BASES for path in places(base)]), ODD)
def test_an_accepted_value_is_not_silently_replaced(
    chosen: tuple[dict[str, Any], tuple[Any, ...]], value: Any
) -> None:
    base, path = chosen
    document = copy.deepcopy(base)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    before = parent[path[-1]]
    parent[path[-1]] = value
    try:
        scenario = resolve(document)
    except ScenarioError:
        return
    if scenario.content_hash == resolve(base).content_hash:
        assert same(value, before), f"{path}: {value!r} was accepted and had no effect"


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_refused_with_a_fault(text: str) -> None:
    try:
        loads(text, "fuzz.toml")
    except ScenarioError as error:
        assert error.faults
    else:
        raise AssertionError("random text is no scenario")


def leaves(node: Any) -> set[str]:
    """Names of the top-level keys."""
    return set(node)


def accepted_leaves() -> set[str]:
    """Sections a scenario may have."""
    return {"name", "shows", "cluster", "training", "published", "profile", "seed"}


def same(value: Any, before: Any) -> bool:
    """Whether two spellings mean the same: 8 and 8.0, "10 s" and 10, a name and its alias."""
    if value == before:
        return True
    if isinstance(value, str) and isinstance(before, str):
        return value.strip().casefold() == before.strip().casefold()
    return str(value).split()[:1] == str(before).split()[:1]
