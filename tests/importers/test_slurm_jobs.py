"""sacct and squeue: a fixture with one record of each oddity, and the rules one by one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sim.importers.imported import Imported, counted
from sim.importers.kinds import Options, import_files
from sim.importers.moments import moment, span
from sim.importers.tres import memory_bytes, mig_share_frac, parse_gres, parse_tres
from sim.spec.faults import ScenarioError

Read = Callable[..., Imported]
HISTORIES = Path(__file__).parent / "fixtures" / "histories"


@pytest.fixture(scope="module")
def sacct() -> Imported:
    return import_files("sacct", [HISTORIES / "sacct.txt"])


def test_every_record_is_a_job_or_has_a_reason(sacct: Imported) -> None:
    assert sacct.report.records == 15
    assert sacct.report.records == len(sacct.jobs) + sum(counted(sacct.report.skipped).values())
    assert counted(sacct.report.skipped) == {
        "step of a job that is taken whole": 1,
        "part of a heterogeneous job, counted in its first part": 1,
        "another run of a job under the same name: the last run is kept": 1,
        "never ran (cancelled)": 1,
        "record is cut short": 1,
    }
    cut = next(finding for finding in sacct.report.skipped if finding.reason == "record is cut short")
    assert cut.places == ("sacct.txt:15",)


@pytest.mark.parametrize(
    ("name", "gpus", "duration_s", "limit_s", "outcome", "wait_s"),
    [
        ("100", 8, 7200, 14400, "completed", 600),
        ("101_3", 1, 900, 3600, "cancelled", 1800),  # from Eligible, an hour after Submit
        ("102", 6, 1800, 3600, "completed", 300),  # 102+0 and 102+1 are one gang
        ("103", 2, 3630, 3600, "timeout", 60),
        ("104", 2, 1800, 3600, "failed", 0),
        ("106", 16, 7200, 7200, "completed", 4200),  # the run after the node failed
        ("107", 1, 1800, 7200, "running", 600),
        ("108", 4, 5400, 5400, "pending", None),  # its limit stands for its duration
        ("109", 1, 600, 5400, "completed", 60),  # an unknown state, noted
        ("111", 0, 600, None, "completed", 30),
    ],
)
def test_one_record(
    sacct: Imported,
    name: str,
    gpus: int,
    duration_s: float,
    limit_s: float | None,
    outcome: str,
    wait_s: float | None,
) -> None:
    job = next(job for job in sacct.jobs if job.name == name)
    wait = None if job.recorded_start_s is None else job.recorded_start_s - job.submit_s
    assert (job.gpus, job.duration_s, job.limit_s, job.outcome, wait) == (
        gpus,
        duration_s,
        limit_s,
        outcome,
        wait_s,
    )


def test_times_count_from_the_first_submission(sacct: Imported) -> None:
    assert sacct.origin == "2024-03-04T07:30:00"
    assert sacct.jobs[0].submit_s == 0
    assert counted(sacct.report.notes)["state 'BLORP' is not known: taken as completed"] == 1
    slices = next(job for job in sacct.jobs if job.name == "104")
    assert (slices.accelerator, slices.gpu_share_frac) == ("1g.10gb", pytest.approx(1 / 7))


@given(st.permutations(range(17)))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_columns_means_nothing(read: Read, sacct: Imported, order: list[int]) -> None:
    lines = (HISTORIES / "sacct.txt").read_text("utf-8").splitlines()
    rows = [line.split("|")[:17] for line in lines if line.count("|") == 17]
    text = "\n".join("|#".join(row[column] for column in order) for row in rows)
    assert read("sacct", text).jobs == sacct.jobs


def test_a_pending_array_is_as_many_jobs_as_it_has_tasks(read: Read) -> None:
    head = "JOBID|STATE|SUBMIT_TIME|TIME_LIMIT|TRES_ALLOC\n"
    line = "12_[1-5%2,9]|PENDING|2024-01-01T00:00:00|1-00:00:00|gres/gpu=2\n"
    inside = read("squeue", head + line)
    assert not inside.jobs
    assert counted(inside.report.skipped) == {"array is not readable: [1-5%2] is not a range of numbers": 1}
    got = read("squeue", head + line.replace("1-5%2,9", "1-5,9%2"))
    assert [job.name for job in got.jobs] == [f"12_{task}" for task in (1, 2, 3, 4, 5, 9)]
    assert {(job.gpus, job.duration_s) for job in got.jobs} == {(2, 86400)}
    assert counted(got.report.notes)["array bounds its tasks at once (%): the bound is not carried over"] == 1


def test_columns_of_fixed_width_as_sacct_and_squeue_print_them(read: Read) -> None:
    sacct = (
        "JobID             State              Submit               Start ElapsedRaw                      AllocTRES\n"
        "------------ ---------- ------------------- ------------------- ---------- ------------------------------\n"
        "12             TIMEOUT+ 2024-01-01T00:00:00 2024-01-01T00:05:00         90          cpu=8,gres/gpu=4\n"
        "13           CANCELLED+ 2024-01-01T00:00:00                              0\n"
    )
    got = read("sacct", sacct)
    (job,) = got.jobs
    assert (job.gpus, job.duration_s, job.outcome) == (4, 90, "timeout")
    assert counted(got.report.skipped) == {"never ran (cancelled)": 1}
    squeue = (
        "  JOBID PARTITION ST SUBMIT_TIME         TRES_PER_NODE NODES TIME_LIMIT NODELIST(REASON)\n"
        "     77       gpu PD 2024-01-01T00:00:00 gres/gpu:8        2   01:00:00 (Nodes required for job are DOWN)\n"
    )
    (waiting,) = read("squeue", squeue).jobs
    assert (waiting.gpus, waiting.duration_s, waiting.outcome) == (16, 3600, "pending")


def test_a_job_known_by_its_steps_alone_is_taken_by_the_largest(read: Read) -> None:
    text = (
        "JobID|Submit|Start|ElapsedRaw|State|AllocTRES\n"
        "5.extern|2024-01-01T00:00:00|2024-01-01T00:00:00|90|COMPLETED|gres/gpu=1\n"
        "5.0|2024-01-01T00:00:00|2024-01-01T00:00:00|80|COMPLETED|gres/gpu=16\n"
    )
    (job,) = read("sacct", text).jobs
    assert (job.name, job.gpus, job.duration_s) == ("5", 16, 80)


def test_without_a_header_columns_must_be_given(read: Read) -> None:
    row = "77|GPU job|2024-01-01T00:00:00|2024-01-01T00:01:00|60|COMPLETED|gres/gpu=4\n"
    with pytest.raises(ScenarioError, match="--columns"):
        read("sacct", row)
    columns = ("JobID", "JobName", "Submit", "Start", "ElapsedRaw", "State", "AllocTRES")
    (job,) = read("sacct", row, options=Options(columns)).jobs
    assert (job.gpus, job.duration_s) == (4, 60)


def test_bytes_that_are_not_utf_8_and_broken_records_are_told(read: Read) -> None:
    text = (
        b"JobID|JobName|Submit|Start|ElapsedRaw|State|AllocTRES\n"
        b"1|caf\xe9|2024-01-01T00:00:00|2024-01-01T00:00:00|60|COMPLETED|gres/gpu=1\n"
        b"2|two\nlines|2024-01-01T00:00:00|2024-01-01T00:00:00|60|COMPLETED|gres/gpu=1\n"
        b"3|a|pipe|2024-01-01T00:00:00|2024-01-01T00:00:00|60|COMPLETED|gres/gpu=1\n"
    )
    got = read("sacct", text)
    assert [job.name for job in got.jobs] == ["1", "2"]
    assert counted(got.report.notes) == {"line with bytes that are not UTF-8: they are shown as \ufffd": 1}
    assert counted(got.report.skipped) == {
        "record has more cells than the header (a delimiter inside a cell?)": 1
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("01:02:03", 3723), ("2-03:04:05", 183845), ("30", 1800), ("1-12", 129600), ("05:30", 330),
        ("00:01.112", 1.112), ("UNLIMITED", None), ("Partition_Limit", None), ("", None),
    ],
)  # fmt: skip
def test_spans(text: str, seconds: float | None) -> None:
    assert span(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.datetimes(min_value=datetime(1971, 1, 1)))
@example(datetime(2024, 2, 29, 23, 59, 59))
def test_moments_keep_the_wall_clock_whatever_the_zone(when: datetime) -> None:
    text = when.replace(microsecond=0).isoformat()
    assert moment(text) == moment(text + "+08:00") == moment(text + "Z")


@pytest.mark.parametrize("text", ["Unknown", "None", "", "N/A", "0", "yesterday", "2024-13-01T00:00:00"])
def test_no_moment(text: str) -> None:
    assert moment(text) is None


def test_lists_of_resources() -> None:
    both = parse_tres("billing=9,cpu=64,gres/gpu=8,gres/gpu:h100=8,mem=512G,node=2")
    assert (both.gpus, both.accelerator, both.cpus, both.nodes, both.memory_bytes) == (
        8,
        "h100",
        64,
        2,
        512 * 2**30,
    )
    mixed = parse_tres("gres/gpu=3,gres/gpu:a100=1,gres/gpu:h100=1")
    assert (mixed.gpus, mixed.accelerator) == (3, "")
    assert parse_gres("gpu:h100:8(S:0-1,3),nvme:1,gpu:a30:2") == (("h100", 8), ("a30", 2))
    assert parse_gres("gpu") == (("", 1),)
    assert parse_gres("(null)") == parse_gres("gpu:no_consume:1") == ()
    assert memory_bytes("62.50G") == 62.5 * 2**30
    assert memory_bytes("4000") == 4000 * 2**20
    assert mig_share_frac("a100_3g.20gb") == pytest.approx(3 / 7)
    assert mig_share_frac("h100") == 1


def test_samples_of_sacct_and_squeue(shared: Callable[..., Path]) -> None:
    slurm = ("samples", "slurm")
    night = import_files("sacct", [shared(*slurm, "gcm_sacct-output-midnight-edge-case.txt")])
    assert (night.report.records, len(night.jobs)) == (1186, 306)
    assert night.report.records == len(night.jobs) + sum(counted(night.report.skipped).values())
    large = import_files("sacct", [shared(*slurm, "gcm_sacct-multiple-multiline.txt")])
    assert max(job.gpus for job in large.jobs) == 2048
    foreign = import_files("sacct", [shared(*slurm, "gcm_sacct-output-invalid-utf8.txt")])
    assert next(job for job in foreign.jobs if job.name == "3557891").gpus == 8
    cut = import_files("sacct", [shared(*slurm, "gcm_sacct-output-with-invalid-lines.txt")])
    assert counted(cut.report.skipped) == {"record is cut short": 1}
    named = {
        0: "TRES_PER_NODE",
        2: "JobID",
        5: "TIME_LIMIT",
        9: "STATE",
        10: "USER",
        11: "CPUS",
        12: "NODES",
        14: "TIME",
    }
    named |= {18: "START_TIME", 19: "SUBMIT_TIME", 25: "ACCOUNT", 28: "TRES_ALLOC"}
    columns = [named.get(position, f"COLUMN{position}") for position in range(34)]
    queue = import_files("squeue", [shared(*slurm, "gcm_squeue-output.txt")], Options(tuple(columns)))
    assert {job.name: job.gpus for job in queue.jobs}["42956774_3"] == 256
