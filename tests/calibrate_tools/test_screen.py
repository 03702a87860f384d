"""Screening with stand-ins for devices: one measures, one hangs, one crashes, one dies, one says nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from calibrate import __main__ as command
from calibrate.measurements import Measurements, load, save, to_json
from calibrate.screen import measuring_command, screen

ROW = {"gpu": "Acme", "mode": "graph", "engine": "torch", "time_us": 2.0, "low_us": 1.0, "high_us": 3.0}
GOOD = Measurements(
    {"device": "Acme"}, {}, {"launch": ({**ROW, "repeats": 7, "source": "test"},)}, complete=True
)
SCRIPTS = {
    "cuda:0": "open(out, 'w').write(good)",
    "cuda:1": "import subprocess; subprocess.run(['sleep', '600'])",
    "cuda:2": "raise SystemExit('ECC error')",
    "cuda:3": "import os; os.kill(os.getpid(), 9)",
    "cuda:4": "pass",
    "cuda:5": "open(out, 'w').write('half a fi')",
}


def stand_in(device: str, out: Path) -> list[str]:
    return [sys.executable, "-c", f"out, good = {str(out)!r}, {to_json(GOOD)!r}\n{SCRIPTS[device]}"]


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_each_device_is_judged_alone_and_none_holds_up_the_round() -> None:
    told: list[str] = []
    begin = time.monotonic()
    found = screen(list(SCRIPTS), stand_in, 1.0, told.append)
    assert time.monotonic() - begin < 15
    states = found.environment["screen"]
    assert states["0"] == "measured"
    assert states["1"] == "hung: killed after 1 s"
    assert states["2"] == "failed with code 1: ECC error"
    assert states["3"] == "killed by SIGKILL"
    assert states["4"] == "ended without a result"
    assert states["5"].startswith("unreadable result: ")
    assert [row["device"] for row in found.tables["launch"]] == [0]
    assert not found.complete
    assert len(told) == len(SCRIPTS)


def test_bad_times_are_refused_together(tmp_path: Path, capsys) -> None:
    assert (
        command.main(["screen", "--budget", "soon", "--timeout", "0s", "--out", str(tmp_path / "n.json")])
        == 2
    )
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["--budget", "--timeout"]
    assert command.main(["screen", "--budget", "1m", "--timeout", "30s"]) == 2
    assert "expected more than --budget" in capsys.readouterr().err


def test_the_probe_is_this_very_tool() -> None:
    words = measuring_command("5s", hostname=True)("cuda:3", Path("x.json"))
    assert words[1:7] == ["-m", "calibrate", "run", "--device", "cuda:3", "--out"]
    assert "--hostname" in words


def test_several_screens_merge_only_where_the_software_agrees(tmp_path: Path) -> None:
    from calibrate.measurements import MeasurementsError
    from calibrate.merge import merged

    other = Measurements({"device": "Acme", "torch": "3.0"}, {}, GOOD.tables)
    mine = Measurements({"device": "Acme", "torch": "2.9"}, {}, GOOD.tables, ("hot",))
    with pytest.raises(MeasurementsError, match=r"torch differs: '2.9' in a; '3.0' in b"):
        merged({"a": mine, "b": other})
    both = merged({"a": mine, "b": mine})
    assert len(both.tables["launch"]) == 2
    assert both.warnings == ["a: hot", "b: hot"]
    save(both, tmp_path / "m.json")
    assert load(tmp_path / "m.json").environment["merged_from"] == ["a", "b"]
