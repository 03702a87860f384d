"""Other programs' schedules: small cases of our own in the same form, and a few of the shared ones where they are
there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from sim.spec.job import Job
from sim.validation.outcome import ValidationError
from sim.validation.scheduling import overhead_s, same_schedule, validate_scheduling

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "scheduling"
HEADER = (
    "file,peer,trace,policy,rows,nodes,gpus_per_node,placement,event_rule,preemption_overhead_s_by_gpus,end_lag_s,"
    "scheduling_interval_s\n"
)


def job(number: int, submit_s: int, gpus: int, duration_s: int, limit_s: int) -> dict[str, int]:
    return {
        "id": number,
        "submit_s": submit_s,
        "gpus": gpus,
        "duration_s": duration_s,
        "limit_s": limit_s,
        "priority": 0,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """By hand: 2 waits for the whole pool; under EASY job 3 (5 s by its limit) slips past it, job 4 (60 s) does not."""
    jobs = [job(1, 0, 3, 10, 10), job(2, 1, 4, 10, 10), job(3, 2, 1, 5, 5), job(4, 3, 1, 50, 60)]
    schedule = {"1": (0, 10), "2": (10, 20), "3": (2, 7), "4": (20, 70)}
    case = {
        "case": 1, "policy": "easy", "gpus": 4, "jobs": jobs,
        "schedule": {k: {"start_s": a, "end_s": b, "segments": [[a, b]]} for k, (a, b) in schedule.items()},
    }  # fmt: skip
    (tmp_path / "reference_cases.json").write_text(
        json.dumps([case, {**case, "case": 2, "policy": "unheard-of"}])
    )
    rows = "".join(
        f"{j['id']},{j['gpus']},{j['submit_s']},{j['duration_s']},{j['limit_s']},{schedule[str(j['id'])][0]},"
        f"{schedule[str(j['id'])][1]}\n"
        for j in jobs
    )
    (tmp_path / "a_easy.csv").write_text("job_id,gpus,submit_s,duration_s,limit_s,start_s,end_s\n" + rows)
    (tmp_path / "bare.csv").write_text("job_id,gpus,submit_s,duration_s\n1,1,0,1\n")
    (tmp_path / "cases.csv").write_text(
        HEADER
        + "a_easy.csv,pyss,a,easy,4,1,4,pool,per-event,,0,0\n"
        + "bare.csv,pyss,a,fifo,1,1,4,pool,per-event,,0,0\n"
        + "b.csv,pyss,a,magic,1,1,4,pool,per-event,,0,0\n"
    )
    return tmp_path


def test_a_folder_of_our_own(folder: Path) -> None:
    answer = validate_scheduling(folder)
    assert (answer["cases"], answer["identical_cases"]) == (1, 1)
    assert answer["files"] == {"a_easy.csv": {"jobs": 4, "identical_jobs": 4, "mean_wait_error_pct": 0.0}}
    assert answer["skipped"] == {
        "b.csv": "no policy 'magic'",
        "bare.csv": "no schedule in it: no column start_s, end_s",
        "reference_cases.json case 2": "no policy 'unheard-of' or no schedule",
    }


def test_the_verb_prints_one_document(folder: Path) -> None:
    result = CliRunner().invoke(app, ["validate", "scheduling", str(folder), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["identical_cases"] == 1
    assert CliRunner().invoke(app, ["validate", "scheduling", str(folder)]).exit_code == 0


def test_every_fault_of_a_table_is_told_at_once(folder: Path) -> None:
    (folder / "a_easy.csv").write_text(
        "job_id,gpus,submit_s,duration_s,limit_s,start_s,end_s\n1,two,0,1,1,0,1\n2,1,-5,1,1,0,1\n"
    )
    with pytest.raises(ValidationError) as caught:
        validate_scheduling(folder)
    assert "row 1: gpus = 'two'" in str(caught.value)
    assert "row 2: submit_s = '-5'" in str(caught.value)
    result = CliRunner().invoke(app, ["validate", "scheduling", str(folder)])
    assert (result.exit_code, result.stdout) == (2, "")


def test_overhead_by_size_of_the_gang() -> None:
    cost = overhead_s("1:7;2-8:30;9+:60")
    assert [cost(Job("", 0.0, gpus, 1.0)) for gpus in (1, 2, 8, 9, 64)] == [7, 30, 30, 60, 60]
    with pytest.raises(ValidationError, match=r"expected e\.g\."):
        overhead_s("few:7")


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the repository")
    return path


def test_shared_reference_cases_are_identical() -> None:
    cases = json.loads(shared("reference_cases.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in cases if not same_schedule(case)] == []


@pytest.mark.parametrize(
    "file",
    [
        "pyss_lublin256-a_256_easy.csv.gz",
        "lucid_philly-11cb48-2017-11_5x8_srtf.csv.gz",
        "fgd_openb-dev_fgd.csv.gz",
        "fgd_openb-dev_dotprod.csv.gz",
    ],
)
def test_shared_schedules_are_identical(file: str, tmp_path: Path) -> None:
    rows = shared("cases.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "cases.csv").write_text("\n".join([rows[0], *(row for row in rows if row.startswith(file))]))
    (tmp_path / file).symlink_to(shared(file))
    nodes = "fgd_openb-dev_nodes.csv.gz"
    (tmp_path / nodes).symlink_to(shared(nodes))
    answer = validate_scheduling(tmp_path)["files"][file]
    assert answer["identical_jobs"] == answer["jobs"]
