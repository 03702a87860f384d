"""``rackcast sweep``, ``tune`` and ``compare`` as real processes: answers, refusals, interrupts, the same bytes."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from sim.planning.store import Store

ROOT = Path(__file__).resolve().parents[2]
ARTICLE = "scenarios/article-eight-devices.toml"
LLAMA = "scenarios/llama-3.1-8b-64-h100.toml"
SMALL_PLAN = "tests/planning/capacity/small-plan.toml"
COMMAND = [sys.executable, "-c", "from app.cli import main; main()"]
ENVIRONMENT = {**os.environ, "COLUMNS": "160", "PYTHONWARNINGS": "error"}


def rackcast(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False
    )


def test_a_sweep_s_tables_agree_and_are_the_same_bytes_again(tmp_path: Path) -> None:
    arguments = (
        "sweep", ARTICLE, "--vary", "training.global_batch=32,64,-5", "--vary", "cluster.pools.0.nodes=1,2", "--json",
    )  # fmt: skip
    first = rackcast(*arguments, "--out", str(tmp_path / "a"), "--jobs", "1")
    apart = rackcast(*arguments, "--out", str(tmp_path / "b"), "--jobs", "2")
    assert first.returncode == 0, first.stderr
    assert first.stdout == apart.stdout
    for name in ("table.csv", "table.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = json.loads(first.stdout)["rows"]
    assert [row["outcome"] for row in rows] == ["done"] * 4 + ["refused"] * 2
    assert "training.global_batch = -5" in rows[4]["reason"]
    with (tmp_path / "a" / "table.csv").open(encoding="utf-8") as file:
        plain = list(csv.DictReader(file))
    columns = parquet.read_table(tmp_path / "a" / "table.parquet").to_pylist()
    assert [row["step_time_s"] for row in columns] == [row["step_time_s"] for row in rows]
    assert [row["step_time_s"] for row in plain[:4]] == [repr(row["step_time_s"]) for row in rows[:4]]


def test_every_fault_of_a_sweep_s_options_is_told_at_once(tmp_path: Path) -> None:
    done = rackcast(
        "sweep", ARTICLE, "--vary", "training.global_batch=1:9", "--vary", "x", "--sensitivity", "loud",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    for piece in (
        "has no step",
        "expected PATH=A,B,C",
        "tornado, rank, sobol-indices",
        "3 faults: nothing was run",
    ):
        assert piece in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    vary = ("--vary", "training.global_batch=32,64")
    store = rackcast("sweep", ARTICLE, *vary, "--store", str(tmp_path / "file" / "points.sqlite"))
    table = rackcast("sweep", ARTICLE, *vary, "--out", str(tmp_path / "file"), "--store", str(tmp_path / "s"))
    for done, words in ((store, "cannot be opened"), (table, "cannot be written")):
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    with Store(tmp_path / "s") as kept:
        assert kept._connection.execute("select count(*) from points").fetchone() == (2,)


def test_an_interrupt_leaves_a_store_that_the_same_command_finishes(tmp_path: Path) -> None:
    arguments = [
        "sweep", LLAMA, "--vary", "training.sequence=1024:8192:4", "--jobs", "2", "--json",
        "--store", str(tmp_path / "s"),
    ]  # fmt: skip
    child = subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and stored(tmp_path / "s") < 3:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: parent and workers alike
    output, errors = child.communicate(timeout=30)
    assert child.returncode == 130, errors
    assert output == ""
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert 3 <= stored(tmp_path / "s") < 1793


def stored(file: Path) -> int:
    if not file.exists():
        return 0
    with Store(file) as store:
        return store._connection.execute("select count(*) from points").fetchone()[0]


def test_sensitivities_are_printed_and_part_of_the_document(tmp_path: Path) -> None:
    common = ("sweep", ARTICLE, "--vary", "training.global_batch=32:96", "--store", str(tmp_path / "s"))
    shown = rackcast(*common, "--sensitivity", "tornado")
    assert shown.returncode == 0, shown.stderr
    assert "swing" in shown.stdout
    ranked = rackcast(*common, "--sample", "8", "random", "--sensitivity", "rank", "--json", "--seed", "4")
    document = json.loads(ranked.stdout)
    assert document["sensitivity"]["inputs"][0]["path"] == "training.global_batch"
    assert len(document["rows"]) == 8


def test_tune_prints_plans_and_the_best_one_runs_as_told() -> None:
    done = rackcast(
        "tune", LLAMA, "--set", "cluster.pools.0.nodes=1", "--set", "training.global_batch=16", "--top", "2",
        "--export", "megatron", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    best = document["plans"][0]
    assert "--use-torch-fsdp2" in document["export"]["content"] or best["plan"]["zero_stage"] != 3
    command = shlex.split(document["command"])
    assert command[:3] == ["rackcast", "run", LLAMA]
    again = rackcast(*command[1:], "--json", "--no-suggestions")
    assert json.loads(again.stdout)["step_time_s"] == pytest.approx(best["step_time_s"], rel=3e-3)
    assert json.loads(again.stdout)["memory"]["worst_total_bytes"] == pytest.approx(best["memory_bytes"])


def test_what_is_exported_stands_alone_and_the_command_keeps_the_seed() -> None:
    done = rackcast(
        "tune", LLAMA, "--set", "cluster.pools.0.nodes=1", "--set", "training.global_batch=16", "--top", "1",
        "--export", "deepspeed", "--seed", "7",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train_batch_size"] == 16
    assert "best plans, simulated" in done.stderr
    assert " --seed 7\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((ARTICLE,), 2, "is not cut: there is no plan to tune"),
        ((LLAMA, "--objective", "speed", "--export", "jax", "--nodes", "1,x"), 2, "3 faults: nothing was run"),
        ((LLAMA, "--set", "training.model=llama-3.1-405b", "--set", "cluster.pools.0.nodes=1",
          "--set", "training.global_batch=8"), 3, "No plan fits."),
    ],
)  # fmt: skip
def test_what_tune_refuses_and_what_does_not_fit(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = rackcast("tune", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_compare_marks_what_was_changed_and_writes_an_offline_page(tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    done = rackcast("compare", LLAMA, "--set-b", "training.plan.recompute=full", "--report", str(page))
    assert done.returncode == 0, done.stderr
    assert "training.plan.recompute" in done.stdout
    assert "longer: +" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "What is different" in text
    assert "<script src=" not in text


def test_compare_refuses_one_scenario_against_nothing() -> None:
    done = rackcast("compare", LLAMA)
    assert done.returncode == 2
    assert "nothing changed" in done.stderr


def test_plans_are_compared_world_by_world_and_as_a_page(tmp_path: Path) -> None:
    """Dearer power costs more in every world; what it does not touch does not differ at all."""
    page = tmp_path / "compare.html"
    change = "prices.energy_usd_per_kwh=[0.2, 0.3, 0.5]"
    done = rackcast("compare", SMALL_PLAN, "--set-b", change, "--report", str(page), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    answers = {row["name"]: row["differences"][1] for row in document["answers"]}
    cost, own = answers["cost_usd"], document["answers"][0]["values"][0]
    assert document["paired"]
    assert cost["sure"]
    assert 0 < cost["low"] < cost["mean"] < cost["high"]
    assert cost["less_frac"] == 0
    width, alone = (row["high"] - row["low"] for row in (cost, own))
    assert width < alone / 2  # pairs know more than either plan alone
    assert {value for name, value in answers["useful_device_hours"].items() if name != "sure"} == {0}
    text = page.read_text(encoding="utf-8")
    assert "0.3 (0.2 - 0.5)" in text
    assert "<figure role=" in text
