"""``rackcast plan`` as a real process: the same bytes twice, files that are whole or absent, refusals, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from app.report import plan_files
from sim import load, plan
from sim.spec.loader import document_of

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "tests" / "planning" / "capacity" / "small-plan.toml"
FILES = {"report.html", "report.md", "tables.xlsx", "results.parquet", "scenario.lock.toml"}


def rackcast(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "plan", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return plan(load(SMALL), 60)


def test_equal_seeds_give_equal_bytes_and_the_lock_gives_the_same_answer(tmp_path: Path) -> None:
    first = rackcast(str(SMALL), "--json", "--worlds", "60", "--seed", "3", "--out", str(tmp_path / "a"))
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    again = rackcast(
        str(tmp_path / "a" / "scenario.lock.toml"), "--json", "--worlds", "60", "--out", str(tmp_path / "b")
    )
    assert again.stdout == first.stdout
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert json.loads(first.stdout)["seed"] == 3


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, made, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, document = made
    before = {"report.md": b"an older report"}
    (tmp_path / "report.md").write_bytes(before["report.md"])
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith(".results.parquet."):
            whole(path, content[:10])
            raise OSError(28, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        plan_files.write(tmp_path, document, answer, document_of(SMALL))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_output_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = rackcast(str(SMALL), "--worlds", "20", "--out", str(tmp_path / "file" / "out"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr


def test_nothing_that_can_be_had_is_an_answer_of_its_own() -> None:
    done = rackcast(str(SMALL), "--worlds", "20", "--set", "supply.site.racks=0")
    assert done.returncode == 2  # a site has at least one rack
    options = "supply.options=[{name='all',parts=[{system='dgx-h100',nodes=400}]}]"
    done = rackcast(str(SMALL), "--worlds", "20", "--set", options)
    assert done.returncode == 3, done.stderr
    assert "cannot be had" in done.stdout or "power: needs" in done.stdout


def history(folder: Path, weeks: int) -> Path:
    rows = ["name,submit_s,gpus,duration_s"]
    rows += [
        f"job{n},{n * 86400.0},{8 if n % 3 else 16},{36000 + 600 * (n % 11)}" for n in range(7 * weeks + 1)
    ]
    (folder / "past.csv").write_text("\n".join(rows) + "\n")
    text = SMALL.read_text().replace('kind = "traffic"\ntokens_per_s = [300, 500, 900]\ntokens_per_s_per_device = 900',
                                     'kind = "history"\nhistory = "past.csv"')  # fmt: skip
    (folder / "plan.toml").write_text(text)
    return folder / "plan.toml"


def test_a_history_beside_the_scenario_becomes_demand_and_is_in_the_lock(tmp_path: Path) -> None:
    first = rackcast(str(history(tmp_path, 10)), "--json", "--worlds", "40", "--out", str(tmp_path / "out"))
    assert first.returncode == 0, first.stderr
    need = next(row for row in json.loads(first.stdout)["demand"] if row["kind"] == "history")
    hours = sum((8 if n % 3 else 16) * (36000 + 600 * (n % 11)) for n in range(70)) / 3600 / 10
    assert need["work"]["p10"] < hours * 8766 / 168 < need["work"]["p90"]
    shutil.move(tmp_path / "past.csv", tmp_path / "gone.csv")
    again = rackcast(str(tmp_path / "out" / "scenario.lock.toml"), "--json", "--worlds", "40")
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout


def test_a_history_that_is_missing_or_short_is_refused_by_name(tmp_path: Path) -> None:
    file = history(tmp_path, 2)
    short = rackcast(str(file))
    assert short.returncode == 2
    assert "spans 2 whole weeks: expected at least 4" in short.stderr
    (tmp_path / "past.csv").unlink()
    missing = rackcast(str(file))
    assert missing.returncode == 2
    assert "past.csv" in missing.stderr
    assert "Traceback" not in short.stderr + missing.stderr


def test_every_world_is_in_the_parquet_and_every_table_in_the_workbook(tmp_path: Path, made) -> None:
    answer, document = made
    plan_files.write(tmp_path, document, answer, document_of(SMALL))
    frame = pd.read_parquet(tmp_path / "results.parquet")
    assert len(frame) == 60 * len(answer.evaluations)
    chosen = frame[frame.option == document["decision"]["option"]]
    assert chosen.cost_usd.quantile(0.5, interpolation="lower") == pytest.approx(
        document["decision"]["cost_usd"]["p50"]
    )
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(tmp_path / "tables.xlsx")
    assert {"decision", "options", "waterfall", "cash", "assumptions", "unit costs"} <= set(book.sheetnames)
    for sheet in book:
        assert sheet.freeze_panes == "A2"
    first = dict(
        zip((cell.value for cell in book["cash"][1]), (cell.value for cell in book["cash"][2]), strict=True)
    )
    for end, value in document["cash_by_quarter"][0]["usd"].items():
        assert first[f"usd_{end}"] == pytest.approx(value)
