"""A timeline as a trace-event document, which Chrome (chrome://tracing) and Perfetto (ui.perfetto.dev) draw.

Like a tape recording of the step in a format that every player takes: one process a pipeline rank, one thread a
stream, one slice a task. Format: "Trace Event Format", Google 2016, complete events (``ph`` X) and metadata (M).
"""

from __future__ import annotations

from typing import Any

from sim.results.timeline import Task, Timeline

MICROSECONDS = 1e6


def chrome_trace(timeline: Timeline, name: str = "") -> dict[str, Any]:
    """The trace of one step, ready for JSON; times in microseconds from the start of the step.

    Tasks without duration (joins, barriers) are left out. ``name`` says what the trace is of.
    """
    threads = {
        stream: number for number, stream in enumerate(dict.fromkeys(t.stream for t in timeline.tasks))
    }
    start, end = timeline.start_s.tolist(), timeline.end_s.tolist()
    slices = [
        _slice(task, threads[task.stream], start[number], end[number])
        for number, task in enumerate(timeline.tasks)
        if end[number] > start[number]
    ]
    lanes = sorted({(event["pid"], event["tid"]) for event in slices})
    streams = {number: stream for stream, number in threads.items()}
    events = []
    for rank in sorted({pid for pid, _ in lanes}):
        events.append(_label("process_name", rank, 0, {"name": f"pipeline rank {rank}"}))
        events.append(_label("process_sort_index", rank, 0, {"sort_index": rank}))
    for pid, tid in lanes:
        events.append(_label("thread_name", pid, tid, {"name": streams[tid]}))
        events.append(_label("thread_sort_index", pid, tid, {"sort_index": tid}))
    return {
        "traceEvents": events + slices,
        "displayTimeUnit": "ms",
        "otherData": {"name": name, "step_time_s": timeline.step_s},
    }


def _slice(task: Task, thread: int, start_s: float, end_s: float) -> dict[str, Any]:
    arguments = {"micro-batch": task.micro_batch, "chunk": task.chunk}
    return {
        "ph": "X",
        "name": task.kind if task.micro_batch < 0 else f"{task.kind} {task.micro_batch}",
        "cat": task.kind,
        "pid": task.rank,
        "tid": thread,
        "ts": MICROSECONDS * start_s,
        "dur": MICROSECONDS * (end_s - start_s),
        "args": {key: value for key, value in arguments.items() if value >= 0},
    }


def _label(what: str, pid: int, tid: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": arguments}
