"""Runs that are killed and taken up: finished parts stand, others' files are let be, writers never collide."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from calibrate import resume
from calibrate.draft import Draft
from calibrate.environment import Machine
from calibrate.measurements import Measurements, load, save
from calibrate.options import Options

ROW = {"gpu": "Acme", "mode": "graph", "engine": "torch", "time_us": 2.0, "low_us": 1.0, "high_us": 3.0}
ROW |= {"repeats": 7, "source": "test"}
SETTINGS = {
    "seed": 0,
    "parts": ["matmul", "launch"],
    resume.HOST: "a",
    resume.DONE: {"launch": {"launch": 1}},
}
ENVIRONMENT = {"device": "Acme", "torch": "2.9"}
CUT = Measurements(ENVIRONMENT, SETTINGS, {"launch": (ROW,), "gemm": ()}, ("hot",))


def kept(path: Path, **settings: object) -> resume.Kept:
    return resume.kept(path, {**SETTINGS, "parts": ("matmul", "launch"), **settings}, ENVIRONMENT)


def test_only_finished_parts_of_the_same_campaign_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    assert kept(path) == resume.Kept()
    save(CUT, path)
    found = kept(path)
    assert (found.parts, found.warnings, found.why_not) == ({"launch": {"launch": 1}}, ("hot",), "")
    assert [dict(row) for row in found.tables["launch"]] == [ROW]
    assert "gemm" not in found.tables
    assert "seed differ" in kept(path, seed=1).why_not
    assert f"{resume.HOST} differ" in kept(path, **{resume.HOST: "b"}).why_not, (
        "another node's file is not ours"
    )
    save(replace(CUT, environment={"device": "Other"}), path)
    assert "device, torch differ" in kept(path).why_not
    save(replace(CUT, complete=True), path)
    assert kept(path) == resume.Kept(), "a finished run is begun again"
    path.write_text("{")
    assert "no measurement file" in kept(path).why_not


def test_a_part_under_way_is_kept_with_its_rates(tmp_path: Path) -> None:
    """Rows that came since it began are its own, in every table; what takes seconds begins again."""
    path = tmp_path / "m.json"
    cut = {
        "part": "layer",
        "budget_s": 3.0,
        "rates": {"seconds of all ranks": 7.0},
        "before": {"launch": 1, "gemm": 1},
    }
    gemm = {"gpu": "Acme", "dtype": "float32", "engine": "torch", "m": 8, "n": 64, "k": 64, "time_us": 2.0}
    gemm |= {"low_us": 1.0, "high_us": 3.0, "repeats": 7, "source": "test", "batch": 1, "layout": "TN"}
    new = {**gemm, "m": 16}
    tables = {"launch": (ROW, {**ROW, "time_us": 2.5}), "gemm": (gemm, new)}
    save(replace(CUT, settings={**SETTINGS, resume.UNDER_WAY: cut}, tables=tables), path)
    found = kept(path)
    rows = {table: [dict(row) for row in rows] for table, rows in found.under_way["rows"].items()}
    assert rows == {"launch": [{**ROW, "time_us": 2.5}], "gemm": [new]}
    assert [found.under_way[name] for name in ("part", "budget_s", "rates")] == ["layer", 3.0, cut["rates"]]
    assert "gemm" not in found.tables, "of finished parts alone"
    for other in ({**cut, "part": "overlap"}, {**cut, "rates": None}, {**cut, "before": 3}, "layer"):
        save(replace(CUT, settings={**SETTINGS, resume.UNDER_WAY: other}, tables=tables), path)
        assert not kept(path).under_way
        assert kept(path).parts


def test_a_part_taken_up_is_kept_when_the_run_is_killed_again_before_it_measures(tmp_path: Path) -> None:
    """And what a failed part has left in the same table is no row of it."""
    path = tmp_path / "m.json"
    machine = Machine("Acme", "cpu", "cpu", 2, 4e9, 3e7, 1, "torch")

    def run() -> Draft:
        draft = Draft(Options(out=path, parts=("launch", "layer")), machine, dict(ENVIRONMENT))
        draft.take_up(lambda text: None, alone=True)
        return draft

    first = run()
    failed, kept_row = ROW, {**ROW, "time_us": 2.5}
    first.tables["launch"] = [dict(failed)]
    assert first.sitting("layer", 3.0)[1].rows == []
    first.tables["launch"].append(dict(kept_row))
    first.save()
    for _ in range(2):
        again = run()
        again.save()
    budget_s, earlier = again.sitting("layer", 99.0)
    assert (budget_s, earlier.rows) == (3.0, [kept_row])
    assert again.since(again.under_way["before"]) == {"launch": 1}


def test_points_that_were_read_are_left_and_rates_are_asked_once() -> None:
    from calibrate.measure import Point
    from calibrate.microbenchmarks.common import Earlier

    earlier = Earlier(({"m": 8, "n": 64, "time_us": 2.0},), {"copy": 5.0})
    assert earlier.has(Point({"m": 8, "n": 64}, lambda: lambda calls: 1.0))
    assert not earlier.has(Point({"m": 16, "n": 64}, lambda: lambda calls: 1.0))
    assert (earlier.rate("copy", lambda: 7.0), earlier.rate("budget_s", lambda: 9.0)) == (5.0, 9.0)
    assert earlier.rates == {"copy": 5.0, "budget_s": 9.0}, "and kept for the next sitting"


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_left(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    names = [
        f".m.json.{platform.node()}.{int(gone.stdout)}.draft",
        f".m.json.{platform.node()}.{os.getpid()}.draft",
    ]
    names.append(f".m.json.elsewhere.{int(gone.stdout)}.draft")
    for name in names:
        (tmp_path / name).write_text("half")
    resume.sweep_drafts(tmp_path / "m.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from calibrate.measurements import Measurements, save
row = {"gpu": sys.argv[2], "mode": "graph", "engine": "t", "time_us": 1.0, "low_us": 1.0, "high_us": 1.0}
rows = tuple({**row, "repeats": 1, "source": "s"} for _ in range(200))
while True:
    save(Measurements({"node": sys.argv[2]}, {}, {"launch": rows}), Path(sys.argv[1]))
"""


def test_two_writers_killed_at_any_moment_leave_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for delay_s in (0.02, 0.07, 0.13):
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "ab"]
        while not path.exists():
            time.sleep(0.01)
        time.sleep(delay_s)
        for writer in writers:
            writer.kill()
            writer.wait()
        measured = load(path)
        assert {row["gpu"] for row in measured.tables["launch"]} == {measured.environment["node"]}
        assert len(measured.tables["launch"]) == 200


@pytest.mark.torch
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_run_killed_in_the_middle_is_taken_up(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="measuring needs torch (extra: calibrate)")
    out = tmp_path / "m.json"
    words = [sys.executable, "-m", "calibrate", "run", "--only", "matmul,launch,memory", "--out", str(out)]
    process = subprocess.Popen([*words, "--budget", "2s"], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (out.exists() and load(out).settings[resume.DONE]):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = load(out)
    assert not before.complete
    again = subprocess.run([*words, "--budget", "2s"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "taking up" in again.stderr
    after = load(out)
    assert after.complete
    assert set(before.settings[resume.DONE]) <= set(after.settings[resume.DONE])
    assert {"matmul", "memory"} <= set(after.settings[resume.DONE]), "launch may be starved on a busy machine"
    for part in before.settings[resume.DONE]:
        table = {"matmul": "gemm"}.get(part, part)
        assert after.tables[table] == before.tables[table], "what was finished stands to the byte"
    for table, columns in (
        ("gemm", ("dtype", "m", "n", "k")),
        ("memory", ("op", "rows", "cols")),
        ("launch", ("mode",)),
    ):
        keys = [tuple(row[c] for c in columns) for row in after.tables[table]]
        assert len(keys) == len(set(keys)), "no point is there twice"


ON_A_HOST = """
import platform, sys
name = sys.argv[1]
platform.node = lambda: name
from calibrate.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.torch
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_two_hosts_told_to_write_one_file_lose_nothing(tmp_path: Path) -> None:
    """Both begin at once, one is killed in the middle and run again: two whole files, every reading in one of them."""
    pytest.importorskip("torch", reason="measuring needs torch (extra: calibrate)")
    out = tmp_path / "m.json"
    asked = ["run", "--only", "launch,memory", "--budget", "3s", "--device", "cpu", "--out", str(out)]
    hosts = {
        name: subprocess.Popen(
            [sys.executable, "-c", ON_A_HOST, name, *asked], stderr=subprocess.PIPE, text=True
        )
        for name in ("alpha", "beta")
    }
    end = time.monotonic() + 60
    keys = {hashlib.sha256(name.encode()).hexdigest()[:8]: name for name in hosts}
    both = {out, *(tmp_path / f"m-{key}.json" for key in keys)}
    while time.monotonic() < end:
        time.sleep(0.05)
        there = [path for path in both - {out} if path.exists() and load(path).tables.get("memory")]
        if there:
            break
    (beside,) = there
    second = load(beside).settings[resume.HOST]
    killed = hosts.pop(keys[second])
    killed.kill()
    killed.communicate()
    before = load(beside)
    ((first, process),) = hosts.items()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    done = subprocess.run(
        [sys.executable, "-c", ON_A_HOST, keys[second], *asked], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"{out} belongs to another node" in done.stderr
    assert "taking up" in done.stderr
    assert (load(out).complete, keys[load(out).settings[resume.HOST]]) == (True, first)
    after = load(beside)
    assert (after.complete, after.settings[resume.HOST]) == (True, second)
    for table, rows in before.tables.items():
        assert [row for row in rows if row in after.tables[table]] == list(rows), "what was read stands"
    names = {path.name for path in tmp_path.iterdir()}
    assert not {name for name in names if name.endswith(".draft")}
