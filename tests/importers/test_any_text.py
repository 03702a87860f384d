"""No text makes a reader fail: whatever is in a file, it is read with a report, or refused as not of the kind."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.importers.kinds import KINDS, Options, import_files
from sim.spec.faults import ScenarioError

TEXTS = [file.read_bytes() for file in sorted((Path(__file__).parent / "fixtures" / "histories").iterdir())]
TEXTS += [
    b"NodeName=n[1-4] Gres=gpu:h100:8 State=UNKNOWN\nPartitionName=p Nodes=ALL\nSwitchName=s Nodes=n[1-4]\n",
    b"; UnixStartTime: 5\n1 0 0 9 4 -1 -1 4 60 -1 1 1 1 -1 1 -1 -1 -1\n",
    b'{"nodes": [{"name": "n", "gres": "gpu:8"}], "jobs": [{"job_id": 1, "job_state": "RUNNING"}]}',
    b"arrival_s,input_tokens,output_tokens\n0,1,2\n",
]
SPLICES = [
    b"-1",
    b"[1-",
    b"]",
    b"|",
    b",",
    b"=",
    b"\n",
    b"{",
    b"}",
    b'"',
    b"null",
    b"1e999",
    b"\xff",
    b"9" * 30,
]
SPLICES += [b"---\n", b"2024-13-01T"]
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60), st.sampled_from(SPLICES)), max_size=8)


@given(st.sampled_from(TEXTS), EDITS, st.sampled_from(sorted(KINDS)), st.booleans())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_mutilated_file_is_read_or_refused(
    tmp_path: Path, text: bytes, edits: list[tuple[float, int, bytes]], kind: str, told: bool
) -> None:
    raw = bytearray(text)
    for where, cut, put in edits:
        at = int(where * len(raw))
        raw[at : at + cut] = put
    (tmp_path / "file").write_bytes(raw)
    options = Options(("JobID", "State", "NodeList", "Gres"), 60.0) if told else Options()
    with contextlib.suppress(ScenarioError):
        got = import_files(kind, [tmp_path / "file"], options)
        assert all(job.submit_s >= 0 and job.duration_s >= 0 and job.gpus >= 0 for job in got.jobs)
        assert all(finding.count > 0 for finding in (*got.report.skipped, *got.report.notes))
