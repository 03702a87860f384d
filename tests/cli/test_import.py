"""``rackcast import``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from sim.importers.job_table import read_jobs
from sim.importers.kinds import KINDS
from sim.spec.loader import resolve

HISTORIES = Path(__file__).resolve().parents[1] / "importers" / "fixtures" / "histories"
RUNNER = CliRunner()


def run(*words: object) -> tuple[int, str, str]:
    result = RUNNER.invoke(app, ["import", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def test_the_report_accounts_for_every_record() -> None:
    code, out, _ = run("sacct", HISTORIES / "sacct.txt")
    assert code == 0
    assert "15 records in 1 file" in out
    assert "10 jobs over" in out
    assert "left out: 1 x record is cut short (sacct.txt:15)" in out


def test_json_is_one_document_and_the_same_every_time() -> None:
    code, out, err = run("sacct", HISTORIES / "sacct.txt", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert out == run("sacct", HISTORIES / "sacct.txt", "--json")[1]
    assert document["records"] == document["jobs"]["count"] + sum(
        item["count"] for item in document["skipped"]
    )
    assert document["jobs"]["by_outcome"]["completed"] == 5


def test_jobs_are_written_in_our_own_columns(tmp_path: Path) -> None:
    for name in ("jobs.csv", "jobs.parquet"):
        assert run("sacct", HISTORIES / "sacct.txt", "--out", tmp_path / name)[0] == 0
    jobs = read_jobs(tmp_path / "jobs.csv")
    assert jobs == read_jobs(tmp_path / "jobs.parquet")
    code, out, _ = run("jobs", tmp_path / "jobs.csv", "--json")
    assert code == 0
    assert json.loads(out)["jobs"]["count"] == len(jobs) == 10
    assert run("sacct", HISTORIES / "sacct.txt", "--out", tmp_path / "log.swf")[0] == 0
    log = json.loads(run("swf", tmp_path / "log.swf", "--json")[1])
    assert log["jobs"]["count"] == 8  # one never started, one has no devices


def test_a_cluster_section_loads_in_a_scenario(tmp_path: Path, small: str) -> None:
    out = tmp_path / "site.toml"
    assert run("kubernetes", HISTORIES / "kubectl.json", "--out", out)[0] == 0
    site = tomllib.loads(out.read_text("utf-8"))
    assert site["jobs"]["trace"] == "site.csv"
    assert len(read_jobs(tmp_path / "site.csv")) == 3
    assert [tier["name"] for tier in site["cluster"]["fabric"]["tiers"]] == ["leaf", "spine"]
    (pool,) = site["cluster"]["pools"]  # the nodes with MIG are down
    assert "# 1 nodes of 7 x 1g.10gb are drained" in out.read_text("utf-8")
    scenario = tomllib.loads(small)
    scenario["cluster"] = {**site["cluster"], "pools": [{**pool, "nodes": 2}]}
    loaded = resolve(scenario)
    assert loaded.cluster.devices == 16
    assert loaded.cluster.pools[0].accelerator.generation == "hopper"


def test_a_history_becomes_a_mix(tmp_path: Path) -> None:
    out = tmp_path / "mix.toml"
    assert run("sacct", HISTORIES / "sacct.txt", "--fit", "--out", out)[0] == 0
    document = tomllib.loads(out.read_text("utf-8"))
    (mix,) = document["jobs"]["mixes"]
    assert "trace" not in document["jobs"]
    assert (
        sum(size.get("weight", 1.0) for size in mix["sizes"]) == 10 - 1
    )  # the one size of which no job has ended is left out
    assert not (tmp_path / "mix.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sact", "x"), "nearest: sacct"),
        (("sacct", "missing.txt"), "missing.txt: cannot be read"),
        (("swf", HISTORIES / "sacct.txt"), "is no SWF log"),
        (("sacct", HISTORIES / "sacct.txt", "--out", "jobs.xlsx"), "expected a name that ends in"),
        (("sacct", HISTORIES / "sacct.txt", "--assume-duration", "5 GB"), "--assume-duration = '5 GB'"),
        (("sacct", HISTORIES / "sacct.txt", "--fit"), "--fit writes a scenario"),
        (("philly", HISTORIES / "philly.json", "--fit", "--out", "x/y.csv"), "--fit writes a scenario"),
        (("sacct", HISTORIES / "sacct.txt", "--out", "/dev/null/folder.csv"), "cannot be written"),
    ],
)
def test_refusals_are_one_message_and_exit_code_2(words: tuple[object, ...], message: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_help_names_every_kind() -> None:
    out = " ".join(run("--help")[1].split())
    assert all(kind in out for kind in (*KINDS, "jobs"))
