"""A cluster's log for other tools: event tables, the Standard Workload Format, and a trace to look at."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd

from sim.results.cluster_log import ClusterLog

SUFFIXES = (".parquet", ".csv", ".swf")
MAX_TRACE_EVENTS = 200_000


def event_log(log: ClusterLog, suffix: str) -> bytes:
    """The log as a table of stretches (``.parquet``, ``.csv``) or of jobs (``.swf``).

    Raises:
        ValueError: another suffix.
    """
    if suffix not in SUFFIXES:
        raise ValueError(f"expected a name that ends in {', '.join(SUFFIXES)}")
    if suffix == ".swf":
        return _swf(log).encode()
    frame = pd.DataFrame(
        [(*s[:5], s.placed.pool, " ".join(f"{n}:{d}" for n, d in s.placed.spots), *s[6:]) for s in log.segments],
        columns=["job", "number", "gpus", "start_s", "end_s", "pool", "nodes", "why", "useful_s", "checkpoint_s",
                 "lost_s", "restart_s", "overhead_s", "undetected_s", "contention_s", "interference_s"],
    )  # fmt: skip
    if suffix == ".csv":
        return str(frame.to_csv(index=False)).encode()
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _swf(log: ClusterLog) -> str:
    """Standard Workload Format 2.2 (Feitelson's archive): 18 fields a job, -1 = unknown."""
    users = {name: i + 1 for i, name in enumerate(sorted({r.user for r in log.records}))}
    queues = {name: i + 1 for i, name in enumerate(sorted({r.queue for r in log.records}))}
    status = {"completed": 1, "timeout": 5, "refused": 5}
    lines = [
        "; Version: 2.2",
        f"; MaxProcs: {log.devices}",
        "; Note: processors are accelerators; times in seconds",
    ]
    for number, r in enumerate(sorted(log.records, key=lambda r: (r.submit_s, r.number)), start=1):
        run = -1.0 if r.end_s is None else max(r.end_s - r.submit_s - r.wait_s, 0.0)
        fields = (number, _whole(r.submit_s), _whole(r.wait_s), _whole(run), r.gpus, -1, -1, r.gpus, -1, -1,
                  status.get(r.outcome, -1), users[r.user], -1, -1, queues[r.queue], -1, -1, -1)  # fmt: skip
        lines.append(" ".join(map(str, fields)))
    return "\n".join(lines) + "\n"


def _whole(value: float) -> int:
    return round(value)


def chrome_trace(log: ClusterLog, name: str) -> dict[str, Any]:
    """Trace-event document: a process for each node, a slice for each stretch on it, one for each time it was away.

    Format: docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU; times in microseconds, so that a
    second of the cluster is shown as a second.
    """
    events: list[dict[str, Any]] = []
    seen: set[int] = set()
    lanes: dict[tuple[int, int], float] = {}
    for s in sorted(log.segments, key=lambda s: s.start_s):
        for node, devices in s.placed.spots:
            if len(events) >= MAX_TRACE_EVENTS:
                break  # said in otherData
            seen.add(node)
            lane = next(i for i in range(10**6) if lanes.get((node, i), -1.0) <= s.start_s)
            lanes[node, lane] = s.end_s
            events.append(
                {
                    "name": s.job,
                    "cat": s.why,
                    "ph": "X",
                    "ts": 1e6 * s.start_s,
                    "dur": 1e6 * (s.end_s - s.start_s),
                    "pid": node,
                    "tid": lane,
                    "args": {"devices": devices, "gang": s.gpus, "ended": s.why},
                }
            )
    for away in log.downtimes:
        seen.add(away.node)
        events.append(
            {
                "name": f"out of service: {away.cause}",
                "cat": "down",
                "ph": "X",
                "ts": 1e6 * away.start_s,
                "dur": 1e6 * (away.end_s - away.start_s),
                "pid": away.node,
                "tid": 9999,
                "args": {},
            }
        )
    other = {"scenario": name}
    wanted = sum(len(s.placed.spots) for s in log.segments)
    if wanted > MAX_TRACE_EVENTS:
        other["left_out"] = f"{wanted - MAX_TRACE_EVENTS} of {wanted} slices: the latest ones"
    names = [
        {"name": "process_name", "ph": "M", "pid": node, "tid": 0, "args": {"name": f"node {node}"}}
        for node in sorted(seen)
    ]
    return {"traceEvents": names + events, "displayTimeUnit": "ms", "otherData": other}
