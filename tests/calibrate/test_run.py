"""Whole runs as a person starts them: budget, Ctrl-C, killed children, bad options, and the fit after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from calibrate import __main__ as command
from calibrate.fit import NothingToFitError, fit_measurements, fit_tables
from calibrate.measurements import Measurements, load, save
from calibrate.options import OptionError, parse_budget, parse_options
from calibrate.parts import PARTS
from calibrate.stand_in import stand_in_devices
from sim.spec import profile as profiles
from sim.spec.device import Device

needs_torch = pytest.mark.torch
TIMES = {"repeats": 7, "source": "test"}


def start(*words, **popen):
    return subprocess.Popen(
        [sys.executable, "-m", "calibrate", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **popen,
    )


def await_rows(path: Path, table: str, within_s: float = 60) -> Measurements:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if path.exists() and load(path).tables.get(table):
            return load(path)
        time.sleep(0.1)
    raise TimeoutError(f"no rows of {table} within {within_s} s")


def children_of(process: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


@pytest.fixture
def torch_here():
    pytest.importorskip("torch", reason="measuring needs torch (extra: calibrate)")


@needs_torch
def test_a_run_keeps_its_budget_and_writes_file_and_profile(tmp_path, torch_here, capsys):
    out = tmp_path / "m.json"
    begin = time.monotonic()
    code = command.main(
        ["run", "--budget", "3s", "--only", "memory,launch", "--out", str(out), "--seed", "4"]
    )
    took_s = time.monotonic() - begin
    assert code == 0
    assert took_s < 3 + 12, "budget, and the start of torch on a busy machine"
    measured = load(out)
    assert measured.complete
    assert measured.settings["seed"] == 4
    assert measured.tables.keys() == {"memory", "launch"}
    assert all(measured.tables.values())
    assert "hostname" not in out.read_text()
    fitted = profiles.load(tmp_path / "m.profile.json")
    assert {fit.op for fit in fitted.fits} >= {"launch"}
    assert measured.environment["device"] in fitted.provenance["stand_in_devices"]
    assert capsys.readouterr().out == "", "standard output stays free"


@needs_torch
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX")
def test_ctrl_c_keeps_what_was_measured(tmp_path, torch_here):
    out = tmp_path / "m.json"
    process = start("run", "--budget", "10m", "--only", "memory", "--out", out, start_new_session=True)
    try:
        await_rows(out, "memory")
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "stopped early" in told
    kept = load(out)
    assert kept.tables["memory"]
    assert not kept.complete


@needs_torch
@pytest.mark.skipif(sys.platform != "linux", reason="finds the child through ps")
def test_a_killed_child_ends_the_run_with_one_message(tmp_path, torch_here):
    out = tmp_path / "m.json"
    process = start("run", "--budget", "5m", "--only", "launch,collective", "--out", out)
    try:
        await_rows(out, "collectives")
        killed = children_of(process.pid)
        os.kill(killed[-1], signal.SIGKILL)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Traceback" not in told
    (message,) = [line for line in told.splitlines() if line.startswith("error:")]
    assert f"(process {killed[-1]}) was killed by SIGKILL" in message
    kept = load(out)
    assert kept.tables["launch"]
    assert kept.tables["collectives"]
    assert not kept.complete
    assert any("SIGKILL" in warning for warning in kept.warnings)


def test_help_and_fit_do_not_need_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    save(simulated(), tmp_path / "m.json")
    for words, code, says in (
        (["--help"], 0, "run | fit"),
        (["fit", str(tmp_path / "m.json")], 0, "fits in"),
        (["run", "--out", str(tmp_path / "n.json")], 2, "pip install 'rackcast[calibrate]'"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "calibrate", *words], capture_output=True, text=True, env=environment
        )
        assert done.returncode == code, done.stderr
        assert says in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "n.json").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m", 60), ("90", 90), ("45s", 45), ("1 h", 3600), ("1.5m", 90)]
)
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0s", "-3s", "5 GB", "nan", "inf"])
def test_budgets_that_are_no_time(text):
    with pytest.raises(ValueError, match=r"\S"):
        parse_budget(text)


def test_every_bad_option_is_named_at_once(capsys, tmp_path):
    with pytest.raises(OptionError) as caught:
        parse_options(budget="soon", only="matmul,atention", processes=1)
    faults = str(caught.value).splitlines()
    assert [fault.split(":")[0] for fault in faults] == ["--budget", "--only", "--processes"]
    assert "'atention' not among matmul, memory, attention, layer" in faults[1]
    assert "nearest to 'atention' is 'attention'" in faults[1]
    assert command.main(["run", "--processes", "1", "--out", str(tmp_path / "m.json")]) == 2
    assert "expected 2 or more" in capsys.readouterr().err


def test_parts_share_the_whole_budget():
    assert sum(PARTS.values()) == pytest.approx(1)
    assert parse_options(budget="1m", only=" memory , launch", processes=0).parts == ("memory", "launch")
    assert parse_options(budget="1m", only="", processes=0).parts == tuple(PARTS)


def simulated(bandwidth_bytes_per_s: float = 2e10, launch_s: float = 4e-6) -> Measurements:
    """Rows that a device of known bandwidth and launch time would give."""
    rows = []
    for op, passes in (("copy", 2), ("add", 3), ("ln", 2), ("fold", 1)):
        for power in range(16, 27):
            moved = float(passes * 2**power * 4)
            time_us = (launch_s + moved / bandwidth_bytes_per_s) * 1e6
            rows.append(
                {
                    "gpu": "Example",
                    "generation": "cpu",
                    "op": op,
                    "dtype": "float32",
                    "rows": 2 ** (power - 10),
                }
                | {"cols": 1024, "bytes": moved, "engine": "torch eager", "time_us": time_us}
                | {"low_us": time_us, "high_us": time_us, **TIMES}
            )
    launch = {"gpu": "Example", "generation": "cpu", "mode": "eager_host", "engine": "torch eager"}
    tables = {
        "memory": tuple(rows),
        "launch": ({**launch, "time_us": 4.0, "low_us": 3.5, "high_us": 4.5, **TIMES},),
    }
    devices = stand_in_devices(tables, units=4, memory_bytes=1e10, cache_bytes=1e6)
    return Measurements(
        {"device": "Example", "measured_at": "2026-01-01T00:00:00Z"}, {}, tables, (), devices, True
    )


def test_a_fit_finds_the_device_it_was_simulated_from():
    fitted = fit_measurements(simulated())
    ops = {fit.op for fit in fitted.fits}
    assert ops == {"memory_bound", "launch"}
    for fit in fitted.fits:
        if fit.op == "memory_bound":
            assert fit.error is not None
            assert fit.error.median_ape < 3
    (launch,) = [fit for fit in fitted.fits if fit.op == "launch"]
    host_s = launch.parameters["eager_host_s"]
    assert (host_s.value, host_s.kind, host_s.unit) == (pytest.approx(4e-6), "measured", "s")
    assert (host_s.low, host_s.high) == (pytest.approx(3.5e-6), pytest.approx(4.5e-6))


def test_provenance_says_what_stood_in_and_what_was_left_out():
    fitted = fit_measurements(simulated(), name="mine")
    assert fitted.name == "mine"
    stand_in = fitted.provenance["stand_in_devices"]["Example"]
    assert stand_in["kind"] == "measured"
    assert stand_in["memory_bytes_per_s"] == pytest.approx(2e10, rel=0.02)
    assert fitted.provenance["left_out"] == ["memory: operations without a cost function: fold"]
    constants = [constant for fit in fitted.fits for constant in fit.parameters.values()]
    assert any(c.source == "rackcast calibrate on Example, 2026-01-01T00:00:00Z" for c in constants)


def test_a_datasheet_takes_the_place_of_the_stand_in():
    sheet = Device("example-1", "cpu", {}, 1e10, 4e10, 4, 1e6)
    fitted = fit_measurements(simulated(), {"Example": sheet})
    assert "stand_in_devices" not in fitted.provenance
    mine = [
        fit for fit in fitted.fits if fit.key.get("accelerator") == "example-1" and fit.op == "memory_bound"
    ]
    assert mine
    assert all(fit.values()["memory_eff_frac"] == pytest.approx(0.5, rel=0.1) for fit in mine)


def test_the_same_measurements_give_the_same_profile_which_reads_back():
    text = profiles.to_json(fit_measurements(simulated()))
    assert profiles.to_json(fit_measurements(simulated())) == text
    assert profiles.to_json(profiles.from_json(text)) == text


def test_rows_of_unknown_devices_are_left_out_by_name():
    tables = {"memory": simulated().columns("memory")}
    fits, left_out = fit_tables(tables, {}, "test")
    assert fits == []
    assert "memory: no datasheet and no stand-in for 'Example'" in left_out


def test_nothing_to_fit_is_refused_with_the_reason(tmp_path, capsys):
    few = Measurements({}, {}, {"memory": simulated().tables["memory"][:2]}, (), simulated().devices)
    with pytest.raises(NothingToFitError, match="memory: 2 rows, fewer than 4"):
        fit_measurements(few)
    save(few, tmp_path / "m.json")
    assert command.main(["fit", str(tmp_path / "m.json")]) == 2
    assert "fewer than 4" in capsys.readouterr().err


def test_a_prior_profile_is_read_and_refused_like_any_file(tmp_path, capsys):
    save(simulated(), tmp_path / "m.json")
    (tmp_path / "prior.json").write_text("{}")
    words = ["fit", str(tmp_path / "m.json"), "--prior"]
    assert command.main([*words, str(tmp_path / "prior.json")]) == 2
    assert command.main([*words, str(tmp_path / "absent.json")]) == 2
    told = capsys.readouterr().err
    assert "expected a profile of schema 1" in told
    assert "absent.json: No such file" in told
    assert command.main(["fit", str(tmp_path / "m.json")]) == 0
    assert command.main([*words, str(tmp_path / "m.profile.json"), "--out", str(tmp_path / "p.json")]) == 0
    assert (tmp_path / "p.json").exists()


def test_a_faulty_file_is_refused_with_every_fault(tmp_path, capsys):
    path = tmp_path / "m.json"
    save(simulated(), path)
    document = json.loads(path.read_text())
    document["tables"]["memory"][0]["time_us"] = None
    document["tables"]["memory"][5]["op"] = 3
    path.write_text(json.dumps(document))
    assert command.main(["fit", str(path)]) == 2
    told = capsys.readouterr().err
    assert "memory[0].time_us: missing" in told
    assert "memory[5].op: expected text" in told


def test_collectives_and_products_are_fitted_when_they_are_there():
    rows = []
    for ranks in (2, 4):
        for power in range(10, 27, 2):
            time_us = 20.0 * ranks + 2**power / 1e4
            rows.append(
                {"system": "node", "gpu": "Example", "nodes": 1, "gpus": ranks, "fabric": "pcie"}
                | {"collective": "all_reduce", "size_bytes": float(2**power), "time_us": time_us}
            )
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    device = Device("example-1", "cpu", {}, 1e10, 4e10, 4, 1e6, host_bytes_per_s=1.2e10)
    fits, left_out = fit_tables({"collectives": columns}, {"Example": device}, "test")
    assert left_out == []
    assert {fit.op for fit in fits} == {"all_reduce"}


def campaign(tmp_path, monkeypatch, parts, budget_s=5.0):
    """Run named parts with stand-ins for their measuring; what was told, and the outcome."""
    from calibrate import run as running
    from calibrate.options import Options

    monkeypatch.setattr(running, "_rows", lambda part, *rest: parts[part]())
    told: list[str] = []
    options = Options(tmp_path / "m.json", budget_s, tuple(parts), device="cpu")
    return told, running.run(options, told.append)


def launch_rows(count, name="mode"):
    row = {"gpu": "Acme", "mode": "graph", "engine": "t", "time_us": 1.0, "low_us": 1.0, "high_us": 1.0}
    for number in range(count):
        yield "launch", {**row, "repeats": 1, "source": "s", "mode": f"{name} {number}"}


@needs_torch
def test_a_part_that_fails_costs_the_others_nothing(tmp_path, monkeypatch):
    def out_of_memory():
        yield from launch_rows(1, "cut")
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB\nlong story")

    told, outcome = campaign(
        tmp_path, monkeypatch, {"memory": out_of_memory, "launch": lambda: launch_rows(2)}
    )
    assert outcome.exit_code == 1
    assert "error: memory: RuntimeError: CUDA out of memory. Tried to allocate 20 GiB" in told
    assert outcome.measurements.settings["parts_done"] == {"launch": {"launch": 2}}
    modes = [row["mode"] for row in outcome.measurements.tables["launch"]]
    assert modes == ["mode 0", "mode 1", "cut 0"], "finished rows come first: a rerun keeps so many"
    assert not outcome.measurements.complete


@needs_torch
def test_a_run_that_is_late_cuts_the_part_and_leaves_the_rest(tmp_path, monkeypatch):
    from calibrate import run as running

    monkeypatch.setattr(running, "LATE_FRAC", 0.0)
    monkeypatch.setattr(running, "LATE_S", 0.3)

    def slow():
        for row in launch_rows(50):
            time.sleep(0.2)
            yield row

    parts = {"memory": slow, "launch": lambda: launch_rows(2)}
    told, outcome = campaign(tmp_path, monkeypatch, parts, budget_s=0.5)
    assert any("memory: cut, the budget of 0.5 s is spent" in text for text in told)
    assert any("launch: left out, the budget of 0.5 s is spent" in text for text in told)
    assert 1 <= len(outcome.measurements.tables["launch"]) < 10, "what was measured is kept"
    assert outcome.measurements.settings["parts_done"] == {}
