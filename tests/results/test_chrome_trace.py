"""The exported trace against the trace-event format and against the timeline it is made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import app
from sim.results.chrome_trace import chrome_trace
from sim.results.timeline import Timeline
from sim.training.engine import play
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, StepCost

SCENARIO = Path(__file__).resolve().parents[2] / "scenarios" / "llama-3.1-8b-64-h100.toml"


def timeline(schedule: str, virtual_stages: int) -> Timeline:
    chunk = ChunkCost(1.0, 2.0, 0.1, 0.2, weight_s=0.8)
    held = 2 if schedule == "dualpipe" else virtual_stages
    cost = StepCost([[chunk] * held] * 4, 0.05, [[0.3] * held] * 4, [0.2] * 4, [0.1] * 4, 0.02)
    return play(build(cost, Options(4, 8, virtual_stages, schedule, prefetch=1)))


def check_format(document: dict) -> tuple[list[dict], list[dict]]:
    """Required keys and types of the trace-event format; returns slices and metadata."""
    assert isinstance(document["traceEvents"], list)
    assert document["displayTimeUnit"] in ("ms", "ns")
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    labels = [event for event in document["traceEvents"] if event["ph"] == "M"]
    assert len(slices) + len(labels) == len(document["traceEvents"])
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
    for event in slices:
        assert isinstance(event["ts"], (int, float))
        assert event["ts"] >= 0
        assert event["dur"] > 0
        assert isinstance(event["cat"], str)
    named = {
        what: {(e["pid"], e["tid"]) for e in labels if e["name"] == what}
        for what in {e["name"] for e in labels}
    }
    assert {(e["pid"], e["tid"]) for e in slices} == named["thread_name"]
    assert {e["pid"] for e in slices} == {pid for pid, _ in named["process_name"]}
    lanes: dict[tuple[int, int], float] = {}
    for event in sorted(slices, key=lambda e: e["ts"]):
        lane = (event["pid"], event["tid"])
        assert event["ts"] >= lanes.get(lane, 0.0) - 1e-3, "slices of a thread overlap"
        lanes[lane] = event["ts"] + event["dur"]
    return slices, labels


@pytest.mark.parametrize(
    ("schedule", "v"), [("1f1b", 1), ("1f1b", 2), ("gpipe", 1), ("zb-h1", 1), ("dualpipe", 1)]
)
def test_a_trace_is_in_the_trace_event_format_and_equals_the_timeline(schedule: str, v: int) -> None:
    log = timeline(schedule, v)
    document = json.loads(json.dumps(chrome_trace(log, "a step"), allow_nan=False))
    slices, _ = check_format(document)
    lasting = [number for number in range(len(log.tasks)) if log.end_s[number] > log.start_s[number]]
    assert len(slices) == len(lasting)
    for event, number in zip(slices, lasting, strict=True):
        task = log.tasks[number]
        assert (event["pid"], event["cat"]) == (task.rank, task.kind)
        assert event["args"].get("micro-batch", -1) == task.micro_batch
        assert event["args"].get("chunk", -1) == task.chunk
    durations = [event["dur"] / 1e6 for event in slices]
    np.testing.assert_allclose(durations, (log.end_s - log.start_s)[lasting], rtol=1e-12)
    assert max(event["ts"] + event["dur"] for event in slices) / 1e6 == pytest.approx(log.step_s)
    assert document["otherData"] == {"name": "a step", "step_time_s": log.step_s}


def test_run_writes_the_trace(tmp_path: Path) -> None:
    file = tmp_path / "new" / "step.json"
    done = CliRunner().invoke(app, ["run", str(SCENARIO), "--json", "--trace", str(file)])
    assert done.exit_code == 0, done.output
    document = json.loads(file.read_text(encoding="utf-8"))
    slices, _ = check_format(document)
    answer = json.loads(done.stdout)
    assert document["otherData"]["step_time_s"] == answer["step_time_s"]
    assert {"forward", "backward", "optimizer"} <= {event["cat"] for event in slices}


def test_a_trace_that_cannot_be_written_is_refused_without_a_traceback(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = CliRunner().invoke(app, ["run", str(SCENARIO), "--trace", str(blocked / "step.json")])
    assert done.exit_code == 2
    assert "cannot be written" in done.output
