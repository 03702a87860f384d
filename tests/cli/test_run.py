"""``rackcast run``, as a real process: answers, refusals, exit codes, the same bytes twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / "scenarios"


def rackcast(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


def test_a_published_run_shows_measured_beside_predicted() -> None:
    done = rackcast("run", "scenarios/gpt3-175b-1024-a100.toml", "--no-suggestions")
    assert done.returncode == 0, done.stderr
    for piece in (
        "step time",
        "bound by",
        "measured",
        "predicted",
        "32 s",
        "pipeline bubble",
        "MFU",
        "optimizer state",
    ):
        assert piece in done.stdout


def test_json_is_one_document_and_the_same_bytes_each_time() -> None:
    first = rackcast("run", "scenarios/llama-3.1-8b-64-h100.toml", "--json", "--seed", "7")
    second = rackcast("run", "scenarios/llama-3.1-8b-64-h100.toml", "--json", "--seed", "7")
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    assert document["scenario"]["seed"] == 7
    assert abs(document["books"]["difference_frac"]) < 1e-9
    assert sum(part["share_frac"] for part in document["parts"]) == pytest.approx(1, abs=1e-9)
    assert first.stderr == ""
    assert document["interval"]["low_s"] < document["step_time_s"] < document["interval"]["high_s"]
    assert document["sensitivities"]


def test_every_fault_of_a_bad_file_is_told_with_exit_code_2_and_no_traceback() -> None:
    done = rackcast(
        "run",
        "scenarios/gpt3-175b-1024-a100.toml",
        "--set",
        "training.plan.tenser=8",
        "--set",
        "cluster.pools.0.nodes=-1",
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "did you mean 'tensor'?" in done.stderr
    assert "cluster.pools.0.nodes = -1" in done.stderr
    assert "2 faults: nothing was run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_that_does_not_fit_exits_3_and_names_what_binds() -> None:
    done = rackcast(
        "run", "scenarios/llama-3.1-8b-64-h100.toml", "--set", "training.plan.tensor=1",
        "--set", "training.plan.sequence_parallel=false", "--set", "training.plan.zero_stage=0",
    )  # fmt: skip
    assert done.returncode == 3
    assert "Does not fit" in done.stdout
    assert "largest part is" in done.stdout
    assert "what makes it fit" in done.stdout
    assert "It fits with" in done.stdout
    assert "--set training.plan.zero_stage=" in done.stdout


def test_without_suggestions_nothing_is_run_again() -> None:
    done = rackcast("run", "scenarios/gpt3-175b-1024-a100.toml", "--no-suggestions", "--json")
    document = json.loads(done.stdout)
    assert document["suggestions"] == document["sensitivities"] == []
    assert document["interval"]["low_s"] < document["step_time_s"]


def test_a_run_of_many_steps_is_told_phase_by_phase() -> None:
    done = rackcast("run", "scenarios/llama-3.1-8b-fsdp-run.toml")
    assert done.returncode == 0, done.stderr
    for piece in (
        "evaluation",
        "waiting for checkpoints",
        "restarts",
        "goodput",
        "what matters most",
        "80 %",
    ):
        assert piece in done.stdout


def test_a_model_without_tokens_counts_samples() -> None:
    done = rackcast("run", "scenarios/dlrm-dcnv2-8-h100.toml", "--no-suggestions")
    assert "samples/s" in done.stdout
    assert "tokens/s" not in done.stdout
    assert "attention square" not in done.stdout


def test_the_report_is_one_offline_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    done = rackcast("run", "scenarios/gpt3-175b-1024-a100.toml", "--report", str(path))
    assert done.returncode == 0, done.stderr
    text = path.read_text(encoding="utf-8")
    assert "GPT-3 175B on 1,024 A100" in text
    assert "<script src=" not in text
    assert 'src="http' not in text
    assert "Measured beside predicted" in text


def test_the_report_escapes_what_a_user_wrote(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    rackcast(
        "run",
        "scenarios/article-eight-devices.toml",
        "--set",
        "name=<script>alert(1)</script>",
        "--report",
        str(path),
    )
    assert "<script>alert(1)" not in path.read_text(encoding="utf-8")


def test_an_unwritable_report_is_refused(tmp_path: Path) -> None:
    done = rackcast("run", "scenarios/article-eight-devices.toml", "--report", str(tmp_path))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("nowhere.json", "cannot be read"),
        ("pyproject.toml", "not JSON"),
        ("scenarios/catalog", "cannot be read"),
    ],
)
def test_a_profile_that_is_none(profile: str, message: str) -> None:
    done = rackcast("run", "scenarios/gpt3-175b-1024-a100.toml", "--set", f"profile={profile}")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_the_verbs_and_stays_light() -> None:
    done = rackcast("--help")
    assert done.returncode == 0
    for verb in ("run", "validate", "calibrate", "catalog", "app"):
        assert verb in done.stdout
    names = ("numpy", "pandas", "scipy", "torch", "streamlit", "plotly", "pydantic", "rich", "simpy")
    heavy = f"import sys; import app.cli; print([name for name in {names} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert loaded.stdout.strip() == "[]"
