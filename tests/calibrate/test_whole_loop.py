"""The whole loop for real: calibrate this machine, predict steps of one and two processes, run them, compare."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from app.cli.calibrate import app


@pytest.mark.torch
@pytest.mark.timeout(900)  # about 25 s on two quiet cores, minutes on busy ones
def test_steps_of_this_machine_are_predicted_from_its_own_calibration(tmp_path):
    """The target (a median of 10 %) is held by benchmarks/verify_cpu.py; here a bound that no busy machine misses."""
    pytest.importorskip("torch", reason="verify needs torch (extra: calibrate)")
    words = ["verify", "--suite", "smoke", "--budget", "4s", "--processes", "1,2", "--json"]
    answer = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "steps.csv")])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["predicted"] == told["rows"] >= 8
    assert {step["num_gpus"] for step in told["steps"]} == {1, 2}
    assert all(step["predicted"] > 0 for step in told["steps"])
    assert told["median_ape"] < 60
    assert (tmp_path / "steps.csv").read_text().count("\n") == told["rows"] + 1
