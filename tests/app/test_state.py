"""What a link, an upload and a command line say, and what is refused of them."""

from __future__ import annotations

import shlex
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.web import state
from app.web.state import Case
from sim.spec.faults import ScenarioError
from sim.spec.loader import MAX_FILE_BYTES

STEP = state.scenario_text("llama-3.1-8b-64-h100")
CLUSTER = state.scenario_text("cluster-university")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"\x00\x01\x02", "binary"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (b"x" * (MAX_FILE_BYTES + 1), "is larger than"),
        (b"#" * 50_000_000, "is larger than"),
        (b"a = " + b"[" * 100_000, "is not valid TOML"),
        (b".".join([b"a"] * 20_000) + b" = 1", "nested too deeply"),
        (b"name = '<script>alert(1)</script>'", "is required"),
        (b"PK\x03\x04 zip", "is not valid TOML"),
    ],
)
def test_a_file_of_any_kind_is_refused_in_words(content: bytes, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        state.uploaded_case(content, "some file.toml")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('profile = "/etc/passwd"\n' + STEP, "profile"),
        (CLUSTER.replace("[jobs]", '[jobs]\ntrace = "/etc/passwd"', 1), "jobs.trace"),
        (CLUSTER.replace('name = "easy"', 'name = "easy"\nfunction = "/tmp/evil.py:go"'), "policy.function"),
    ],
)
def test_an_upload_names_no_file_of_the_server(text: str, field: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        state.uploaded_case(text.encode(), "mine.toml")
    assert [fault.path for fault in caught.value.faults] == [field]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_no_upload_breaks_anything(content: bytes) -> None:
    with pytest.raises(ScenarioError):
        state.uploaded_case(content, "x")


def test_a_name_with_a_path_or_html_becomes_a_harmless_label() -> None:
    case = state.uploaded_case(STEP.encode(), "../../<img src=x>.toml")
    assert not set(case.name) & set("/<>")
    assert case.uploaded


@settings(max_examples=60, deadline=None)
@given(nodes=st.integers(1, 512), batch=st.sampled_from([256, 512, 1024]))
def test_a_packed_case_is_the_same_case_again(nodes: int, batch: int) -> None:
    changes = {"cluster.pools.0.nodes": nodes, "training.global_batch": batch}
    case = state.shipped("llama-3.1-8b-64-h100", changes)
    try:
        state.resolve(case)
    except ScenarioError:
        return  # a batch that the data ranks do not divide
    assert state.unpacked(state.packed(case), changes) == case


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "expected one of"),
        ("uploaded;seed=1", "no link can carry"),
        ("llama-3.1-8b-64-h100;profile=/etc/passwd", "no change that a link can make"),
        ("llama-3.1-8b-64-h100;cluster.pools.0.nodes=many", "nodes"),
        ("", "expected one of"),
    ],
)
def test_a_bad_case_of_a_link_is_refused(text: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        state.unpacked(text, ["cluster.pools.0.nodes"])


def test_the_command_is_safe_in_a_shell_and_says_every_change() -> None:
    case = Case("a b; rm -rf ~.toml", STEP, (("name", "it's; $(x)"),), uploaded=True)
    assert shlex.split(state.command(case)) == ["rackcast", "run", case.name, "--set", "name=it's; $(x)"]


def test_a_downloaded_scenario_holds_the_changes() -> None:
    case = state.shipped("llama-3.1-8b-64-h100", {"cluster.pools.0.nodes": 16})
    again = Case("again", state.toml_text(case))
    assert state.resolve(again).content_hash == state.resolve(case).content_hash
    assert state.toml_text(state.shipped("llama-3.1-8b-64-h100")) == STEP


@given(st.text(max_size=60))
def test_plain_text_keeps_every_character_and_no_mark(text: str) -> None:
    escaped = state.plain(text)
    assert escaped.replace("\\", "") == text.replace("\\", "")
    assert not any(mark in escaped.replace(f"\\{mark}", "") for mark in "<[`*$")


def test_every_shipped_scenario_is_on_some_page() -> None:
    shown = {name for section in state.FIRST for name in state.worked_examples(section)}
    assert shown == set(state.worked_examples())
    for section, name in state.FIRST.items():
        assert section in tomllib.loads(state.scenario_text(name))
