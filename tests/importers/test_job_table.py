"""Our own table of jobs: nothing lost on the way out and back, and every fault told at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.importers.job_table import COLUMNS, read_jobs, write_csv, write_parquet
from sim.spec.faults import ScenarioError
from sim.spec.job import Job

TIMES = st.floats(0, 1e9, allow_nan=False)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), max_size=8)
JOBS = st.lists(
    st.builds(
        Job,
        name=st.uuids().map(str),
        submit_s=TIMES,
        gpus=st.integers(0, 10**5),
        duration_s=TIMES,
        limit_s=st.none() | TIMES,
        user=WORDS,
        queue=WORDS,
        priority=st.floats(-1e6, 1e6),
        gpu_share_frac=st.floats(0.001, 1),
        min_gpus=st.none() | st.integers(0, 100),
        deadline_s=st.none() | TIMES,
        preemptible=st.booleans(),
        recorded_start_s=st.none() | TIMES,
    ),
    max_size=12,
)


@given(JOBS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_out_and_back_to_the_last_bit(tmp_path: Path, jobs: list[Job]) -> None:
    jobs.sort(key=lambda job: job.submit_s)
    (tmp_path / "jobs.csv").write_text(write_csv(jobs), encoding="utf-8")
    assert read_jobs(tmp_path / "jobs.csv") == jobs


def test_parquet_is_the_same_table(tmp_path: Path) -> None:
    jobs = [
        Job("a", 0.1, 8, 3.5, limit_s=9.0, user="ü"),
        Job("b", 2.0, 0, 7.0, preemptible=False, max_gpus=4),
    ]
    write_parquet(jobs, tmp_path / "jobs.parquet")
    assert read_jobs(tmp_path / "jobs.parquet") == jobs


def test_columns_are_the_fields_of_a_job() -> None:
    assert tuple(field.name for field in dataclasses.fields(Job)) == COLUMNS


def test_quantities_may_have_units_and_columns_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text(
        "submit_s,name,gpus,duration_s,memory_bytes\n1 h,b,8,2 d,80 GiB\n0,a,1,90 s,\n"
    )
    first, second = read_jobs(tmp_path / "jobs.csv")
    assert (first.name, first.duration_s, first.memory_bytes) == ("a", 90, 0)
    assert (second.submit_s, second.duration_s, second.memory_bytes) == (3600, 172800, 80 * 2**30)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "jobs.csv"
    file.write_text(
        "name,submit_s,gpus,duration_s,gpu_share_frac,preemptible\n"
        "a,0,1.5,10,1,yes\nb,-1,2,10,0,maybe\n,0,2,10,1,no\nc,0,2\na2,0,2,5 GiB,1,no\nd,0,1,1,1,no\nd,0,1,1,1,no\n"
    )
    with pytest.raises(ScenarioError) as refusal:
        read_jobs(file)
    told = [str(fault).removeprefix(f"{file}: ") for fault in refusal.value.faults]
    assert [line.partition(" = ")[0] for line in told] == [
        "line 2: gpus",
        "line 3: submit_s",
        "line 3: gpu_share_frac",
        "line 3: preemptible",
        "line 4: name",
        "line 5",
        "line 6: duration_s",
        "line 8: name",
    ]
    file.write_text("name,submit_s,gpu,duration_s,duration_s\n")
    with pytest.raises(ScenarioError, match="did you mean 'gpus'") as refusal:
        read_jobs(file)
    assert {fault.path for fault in refusal.value.faults} == {"gpus", "gpu", "duration_s"}
