"""The catalogue on the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from app.cli.catalog import app


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(("kind", "entries"), [("accelerators", 56), ("system", 54), ("Models", 153)])
def test_list_prints_one_line_an_entry(kind, entries):
    answer = call("list", kind)
    assert answer.exit_code == 0
    assert answer.stdout.startswith(f"{entries} ")
    assert len(answer.stdout.splitlines()) == entries + 2


def test_list_as_json_holds_everything():
    answer = json.loads(call("list", "--json").stdout)
    assert {part: len(entries) for part, entries in answer.items()} == {
        "accelerators": 56,
        "systems": 54,
        "models": 153,
    }


def test_show_tells_value_unit_kind_and_source():
    constants = json.loads(call("show", "H100", "--json").stdout)["constants"]
    assert constants["flop_per_s.bf16"] == {
        "value": 989.4e12,
        "unit": "FLOP/s",
        "kind": "datasheet",
        "source": "NVIDIA H100 datasheet (2023-07)",
    }
    assert constants["flop_per_s.int8"]["unit"] == "OP/s"
    assert json.loads(call("show", "t4", "--json").stdout)["constants"]["idle_w"]["kind"] == "assumed"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("h100", ("NVIDIA H100 SXM5 80GB", "80 GiB", "3.35 TB/s", "source: NVIDIA H100 datasheet (2023-07)")),
        ("dgx-b200", ("400 Gbit/s", "14.3 kW")),
        ("deepseek-v3", ("671,026,419,200", "counted difference_pct", "DeepSeek-V3 report")),
        ("resnet-50", ("25,557,032", "are not part of the shape")),
    ],
)
def test_show_reads_well(name, says):
    answer = call("show", name)
    assert answer.exit_code == 0
    for text in says:
        assert text in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "h1000"), "no accelerator, system or model is called 'h1000'; nearest: H100"),
        (
            ("list", "modles"),
            "'modles' is no part of the catalogue; expected accelerators, systems, models; nearest: models",
        ),
    ],
)
def test_a_typo_gets_the_nearest_name_and_exit_code_2(arguments, says):
    answer = call(*arguments)
    assert answer.exit_code == 2
    assert says in answer.stderr
    assert answer.stdout == ""
