"""Standard Workload Format: the traps of the archive's logs, and there and back again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.importers.imported import Imported, counted
from sim.importers.swf import write_swf
from sim.spec.faults import ScenarioError
from sim.spec.job import Job

Read = Callable[..., Imported]
HEADER = (
    "; Version: 2.2\n; Computer: Example SP\n; UnixStartTime: 1000000000\n; MaxNodes: 64\n; MaxProcs: 128\n"
)


def test_a_line_is_a_job_with_the_archives_eighteen_fields(read: Read) -> None:
    got = read("swf", HEADER + "7 10 5 100 8 -1 -1 16 600 2048 1 3 2 9 4 1 -1 -1\n")
    (job,) = got.jobs
    assert (job.name, job.gpus, job.duration_s, job.limit_s, job.user, job.queue) == (
        "7",
        16,
        100,
        600,
        "u3",
        "q4",
    )
    assert (job.submit_s, job.recorded_start_s) == (0, 5)
    assert job.memory_bytes == 2048 * 1024 * 16
    assert got.origin == "2001-09-09T01:46:50"  # 1,000,000,010 s after 1970
    assert len(got.nodes) == 64
    assert sum(node.gpus for node in got.nodes) == 128
    assert counted(got.report.notes) == {
        "got another number of processors than it asked for: the asked is taken": 1
    }


def test_traps_of_real_logs_are_counted_by_reason(read: Read) -> None:
    lines = [
        "1 50 0 100 4 -1 -1 4 60 -1 1 1 1 -1 1 -1 -1 -1",  # killed late; out of order
        "2 0 0 0 4 -1 -1 4 60 -1 5 1 1 -1 1 -1 -1 -1",  # cancelled in the queue
        "3 5 0 0 4 -1 -1 4 60 -1 0 1 1 -1 1 -1 -1 -1",  # failed at once
        "4 6 1 10 4 -1 -1 4 60 -1 2 1 1 -1 1 -1 -1 -1",  # a burst
        "5 7 -1 -1 4 -1 -1 4 60 -1 1 1 1 -1 1 -1 -1 -1",  # run time unknown
        "6 8 0 10 -1 -1 -1 -1 60 -1 1 1 1 -1 1 -1 -1 -1",  # size unknown
        "7 9 0 10 4 -1 -1 -1 -1 -1 1 1 1 -1 -1 -1 1 30",  # asks nothing, follows job 1, group for a queue
        "8 10 0 10 4 -1 -1 4",  # cut short
        "9 11 0 abc 4 -1 -1 4 60 -1 1 1 1 -1 1 -1 -1 -1",
        "1 50 0 100 4 -1 -1 4 60 -1 1 1 1 -1 1 -1 -1 -1",  # twice
    ]
    got = read("swf", "\n".join(lines))
    assert [(job.name, job.limit_s, job.queue) for job in got.jobs] == [("7", None, "g1"), ("1", 60, "q1")]
    assert got.jobs[1].submit_s == 41
    assert got.report.records == len(lines) == len(got.jobs) + sum(counted(got.report.skipped).values())
    assert counted(got.report.skipped) == {
        "never ran (failed or cancelled)": 2,
        "a burst of a checkpointed job, which has a line of its own": 1,
        "run time is not known": 1,
        "number of processors is not known": 1,
        "line is not 18 numbers": 2,
        "the same record again": 1,
    }
    assert counted(got.report.notes)["ran past its time limit (ended late): both are kept"] == 2
    assert counted(got.report.notes)["waits for another job: its submission is taken as recorded"] == 1
    assert got.origin == ""  # no UnixStartTime


def test_what_is_no_log_is_refused_in_one_line(read: Read) -> None:
    with pytest.raises(ScenarioError, match="is no SWF log: expected lines of 18 numbers"):
        read("swf", "; a header alone\nJobID|State\n")


JOBS = st.lists(
    st.tuples(*(st.integers(*bounds) for bounds in ((0, 10**6), (1, 512), (1, 10**6), (0, 10**5), (0, 9)))),
    min_size=1,
    max_size=30,
)


@given(JOBS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_written_log_reads_back_as_the_same_jobs(
    read: Read, rows: list[tuple[int, int, int, int, int]]
) -> None:
    rows.sort()
    jobs = [
        Job(str(i), submit, gpus, float(run), run * 2.0, f"user{who}", "q")
        for i, (submit, gpus, run, _, who) in enumerate(rows, 1)
    ]
    starts = [job.submit_s + row[3] for job, row in zip(jobs, rows, strict=True)]
    text = write_swf(jobs, starts, [start + job.duration_s for start, job in zip(starts, jobs, strict=True)])
    got = read("swf", text)
    first = rows[0][0]
    back = {job.name: job for job in got.jobs}
    for job, start in zip(jobs, starts, strict=True):
        again = back[job.name]
        assert (again.submit_s, again.gpus, again.duration_s) == (
            job.submit_s - first,
            job.gpus,
            job.duration_s,
        )
        assert (again.limit_s, again.recorded_start_s) == (job.limit_s, start - first)
    assert len({job.user for job in got.jobs}) == len({job.user for job in jobs})
    assert all(a.submit_s <= b.submit_s for a, b in pairwise(got.jobs))


def test_a_job_that_never_ran_is_written_as_such(read: Read) -> None:
    jobs = [Job("a", 0, 4, 10, outcome="completed"), Job("b", 5, 4, 10, outcome="cancelled")]
    got = read("swf", write_swf(jobs, [2, None], [12, None]))
    assert [job.name for job in got.jobs] == ["1"]
    assert counted(got.report.skipped) == {"never ran (failed or cancelled)": 1}
