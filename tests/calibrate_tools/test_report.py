"""The fleet report: planted faults are found and the healthy are left in peace; the verb and its files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import app
from calibrate.measurements import Measurements, save
from calibrate.report.figures import Figure, figures
from calibrate.report.verdicts import blame, document, judge, node_verdict
from sim.spec.device import Device

TIMES = {"low_us": 1e-9, "high_us": 1e9, "repeats": 7, "source": "test"}


def node(
    rng: np.random.Generator, *, slow: dict[int, float] | None = None, noise: float = 0.005
) -> Measurements:
    """Eight devices of 100 TFLOP/s and 1 TB/s; ``slow`` gives a device its share of that."""
    products, passes = [], []
    for device in range(8):
        share = (slow or {}).get(device, 1.0)
        for size in (1024, 4096):
            rate = 1e14 * share * np.exp(noise * rng.standard_normal())
            row = {"gpu": "Acme", "dtype": "bfloat16", "m": size, "n": size, "k": size, "layout": "TN"}
            products.append(
                {**row, "engine": "torch", "device": device, "time_us": 2e6 * size**3 / rate, **TIMES}
            )
            rate = 1e12 * np.exp(noise * rng.standard_normal())
            row = {"gpu": "Acme", "op": "copy", "dtype": "bfloat16", "rows": size, "cols": size, "bytes": 1e9}
            passes.append({**row, "engine": "torch", "device": device, "time_us": 1e15 / rate, **TIMES})
    return Measurements(
        {"device": "Acme"}, {}, {"gemm": tuple(products), "memory": tuple(passes)}, complete=True
    )


def fleet(measured: dict[str, Measurements]) -> dict:
    found = [one for name, one in measured.items() for one in figures(name, one, {})]
    return document(judge(found), {name: [] for name in measured})


def failing(answer: dict) -> dict[str, list[str]]:
    return {row["node"]: row["reasons"] for row in answer["nodes"] if not row["passes"]}


@pytest.mark.parametrize("share", [0.92, 0.7])
def test_a_slow_gpu_among_eight_is_named(share: float) -> None:
    rng = np.random.default_rng(5)
    marked = failing(fleet({"a": node(rng, slow={3: share})}))
    assert list(marked) == ["a"]
    (reason,) = marked["a"]
    assert reason.startswith("device 3: matmul bf16: ")


def test_healthy_fleets_are_left_in_peace() -> None:
    """200 fleets of two nodes, 32 figures each, scatter 0.5 to 3 %: at most one false alarm in 100 fleets."""
    rng = np.random.default_rng(6)
    alarms = sum(
        bool(failing(fleet({name: node(rng, noise=0.005 * (1 + number % 6)) for name in "ab"})))
        for number in range(200)
    )
    assert alarms <= 2


def test_a_bad_cable_among_sixteen_nodes_is_laid_to_its_node() -> None:
    rng = np.random.default_rng(7)
    names = [f"n{number}" for number in range(16)]
    pairs = [
        Figure("pairs", "", "all_reduce, 16 ranks", 4e10 * np.exp(0.01 * rng.standard_normal()), "B/s", True)
        for _ in combinations(names, 2)
    ]
    ends = list(combinations(names, 2))
    bad = [
        replace(one, between=f"{a},{b}", value=one.value * (0.6 if "n11" in (a, b) else 1.0))
        for one, (a, b) in zip(pairs, ends, strict=True)
    ]
    reasons = blame(judge(bad))
    assert list(reasons) == ["n11"]
    assert reasons["n11"] == ["all_reduce, 16 ranks: slow in 15 of 15 pairs"]
    one_link = [
        replace(one, between=f"{a},{b}", value=one.value * (0.6 if (a, b) == ("n2", "n9") else 1.0))
        for one, (a, b) in zip(pairs, ends, strict=True)
    ]
    (told,) = blame(judge(one_link)).items()
    assert told[0] == "n2"
    assert told[1][0].startswith("link n2 - n9: ")


def test_devices_of_other_kinds_are_no_peers_and_few_peers_no_judge() -> None:
    quick = [Figure(f"q{i}", "0", "matmul bf16", 1e15, "FLOP/s", gpu="New") for i in range(6)]
    old = [Figure(f"o{i}", "0", "matmul bf16", 1e14, "FLOP/s", gpu="Old") for i in range(6)]
    assert not blame(judge([*quick, *old]))
    assert not blame(judge([*quick[:2], Figure("x", "0", "matmul bf16", 1e13, "FLOP/s", gpu="New")]))


def test_far_below_the_datasheet_fails_without_peers() -> None:
    sheet = Device("acme-1", "hopper", {"bf16": 1e15}, 1e10, 1e12, 100, 1e6)
    (slow,) = [
        one for one in figures("a", node(np.random.default_rng(0)), {"Acme": sheet}) if one.device == "0"
    ][:1]
    assert slow.datasheet == 1e15
    assert blame(judge([slow])) == {"a": ["device 0: matmul bf16: 10 % of the datasheet"]}


def test_the_shipped_profile_stands_beside_the_figures() -> None:
    from sim.cost.kernels.gemm import gemm
    from sim.spec.profiles import fits_for

    fits = fits_for("shipped")
    sheet = Device("h100-sxm", "hopper", {"bf16": 989e12}, 8e10, 3.35e12, 132, 5e7)
    time_us = 1e6 * float(gemm(fits, sheet, 4096, 4096, 4096, "bf16", "torch eager").seconds)
    row = {
        "gpu": "H",
        "dtype": "bfloat16",
        "m": 4096,
        "n": 4096,
        "k": 4096,
        "layout": "TN",
        "engine": "torch eager",
    }
    measured = Measurements({}, {}, {"gemm": ({**row, "time_us": 2 * time_us, **TIMES},)})
    (one,) = figures("a", measured, {"H": sheet}, fits)
    assert one.profile_ratio == pytest.approx(0.5)


def call(*words: object):
    return CliRunner().invoke(app, ["calibrate", "report", *map(str, words)])


def test_the_verb_writes_lists_html_and_one_document(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    for name, slow in (("n1", None), ("n2", {6: 0.5}), ("n10", None)):
        save(node(rng, slow=slow), tmp_path / f"{name}.json")
    files = [tmp_path / f"{name}.json" for name in ("n1", "n2", "n10")]
    done = call(*files, "--json", "--out", tmp_path / "lists", "--html", tmp_path / "r.html")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert [row["node"] for row in answer["nodes"]] == ["n1", "n2", "n10"]
    assert (tmp_path / "lists" / "passing_nodes.txt").read_text() == "n1\nn10\n"
    (line,) = (tmp_path / "lists" / "failing_nodes.txt").read_text().splitlines()
    assert line.startswith("n2  # device 6: matmul bf16: ")
    page = (tmp_path / "r.html").read_text()
    assert "1 of 3 nodes fails." in page
    assert "http" not in page, "opens offline"
    assert "1 of 3 nodes fails." in call(*files).output


def test_cut_runs_and_stopped_devices_fail_and_bad_files_are_refused(tmp_path: Path) -> None:
    healthy = node(np.random.default_rng(9))
    save(replace(healthy, complete=False), tmp_path / "cut.json")
    save(
        replace(
            healthy, environment={"screen": {"0": "measured", "1": "hung: killed after 9 s"}}, complete=False
        ),
        tmp_path / "hung.json",
    )
    answer = json.loads(call(tmp_path / "cut.json", tmp_path / "hung.json", "--json").stdout)
    assert failing(answer) == {
        "cut": ["the run was cut before its end"],
        "hung": ["device 1: hung: killed after 9 s"],
    }
    (tmp_path / "bad.json").write_text("{}")
    done = call(tmp_path / "bad.json", tmp_path / "absent.json")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 2


def pair_log(a: int, b: int, share: float) -> str:
    """An all-reduce between two hosts at ``share`` of 40 GB/s, as nccl-tests prints it."""
    lines = ["# Using devices"]
    lines += [
        f"#  Rank {r} Group 0 Pid {r} on n{host} device 0 [0000:01:00] Acme X1"
        for r, host in enumerate((a, b))
    ]
    lines.append("#  size  count  type  redop  root  time  algbw  busbw #wrong  time  algbw  busbw #wrong")
    for size in (2**24, 2**26):
        cells = f"{size / (4e4 * share):.2f} {40 * share:.2f} {40 * share:.2f} 0"
        lines.append(f" {size} {size // 4} float sum -1 {cells} {cells}")
    return "\n".join(lines)


def test_logs_of_pairs_name_nodes_and_not_their_files(tmp_path: Path) -> None:
    for a, b in combinations(range(6), 2):
        (tmp_path / f"pair-{a}-{b}.log").write_text(pair_log(a, b, share=0.5 if 4 in (a, b) else 1.0))
    words = ["import", "nccl-tests", *map(str, tmp_path.glob("*.log")), "--out", str(tmp_path / "m")]
    assert CliRunner().invoke(app, words).exit_code == 0
    answer = json.loads(call(*sorted((tmp_path / "m").glob("*.json")), "--json").stdout)
    assert [row["node"] for row in answer["nodes"]] == [f"n{i}" for i in range(6)]
    assert list(failing(answer)) == ["n4"]


def test_one_node_is_told_in_a_line_how_near_its_datasheet_it_comes() -> None:
    product = Figure("a", "0", "matmul bf16", 7e14, "FLOP/s", datasheet=1e15, profile_ratio=0.98)
    stream = Figure("a", "0", "memory", 3e12, "B/s", datasheet=4e12)
    said = "this node is well: matmul bf16 70 % of the datasheet, 98 % of what is usual; memory 75 % of the datasheet"
    assert node_verdict(judge([product, stream])) == said
    slow = replace(stream, value=1e12)
    assert (
        node_verdict(judge([product, slow]))
        == "this node is suspect: device 0: memory: 25 % of the datasheet"
    )
    assert node_verdict(judge([replace(product, datasheet=math.nan)])) == "", "nothing to judge it by"
