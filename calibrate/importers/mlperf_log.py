"""MLPerf Training logs (``:::MLLOG`` lines) as rows of published training runs.

A referee's protocol: who ran what on which machines, when the whistle blew, when it ended. A row has the columns of
rackcast's tables of training runs; the step time is written only where the log's own figures agree. Format:
mlcommons/logging, mllog; time to train is run_stop minus run_start.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.importers.common import Hints, Imported, LogError, imported, reading

DGX_DEVICES = 8
"""Of a DGX A100, H100, H200 or B200. Source: NVIDIA DGX datasheets."""
AGREE_FRAC = 0.2
"""Logged throughput and samples over time may differ so much: evaluation and start-up lie between."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log."""

    time_s: float
    key: str
    value: Any
    metadata: Mapping[str, Any]


def read(text: str, path: Path, hints: Hints | None = None) -> Imported:
    """The run of a log as one published row, and its step time as a reading where it is known.

    Raises:
        LogError: no MLLOG line, or the run never started or ended (cut log).
    """
    hints = hints or Hints()
    events = list(_events(text, path))
    if not events:
        raise LogError(f"{path}: no :::MLLOG line; expected a log of MLPerf Training")
    start, stop = _last(events, "run_start"), _last(events, "run_stop")
    if start is None or stop is None:
        missing = "run_start" if start is None else "run_stop"
        raise LogError(
            f"{path}: no {missing} among {len(events)} MLLOG lines: the run failed or the log was cut"
        )
    said = {event.key: event.value for event in events if event.value is not None}
    status = str(stop.metadata.get("status", said.get("status", "unknown")))
    notes = [] if status == "success" else [f"the run ended with status {status!r}"]
    per_s = _samples_per_s(events, said, stop.time_s - start.time_s, notes)
    batch = said.get("global_batch_size")
    step_s = float(batch) / per_s if per_s and batch else None
    platform, benchmark = (
        str(said.get("submission_platform", "")),
        str(said.get("submission_benchmark", path.stem)),
    )
    nodes, gpus, gpu = _machines(platform, hints)
    if not gpu:
        notes.append(f"platform {platform!r} names no device; --gpu and --gpus say what ran")
    row = {
        "id": path.stem,
        "group": f"mlperf|{benchmark}|{gpu}",
        "measured_quantity": "step_time_s" if step_s else "time_to_train_s",
        "source": f"MLPerf Training log of {said.get('submission_org', 'unknown')}, {path.name}",
        "year": time.gmtime(start.time_s).tm_year,
        "gpu": gpu,
        "num_gpus": gpus or "",
        "gpus_per_node": gpus // nodes if gpus and nodes else "",
        "model_family": benchmark,
        "global_batch": batch or "",
        "step_time_s": float(f"{step_s:.6g}") if step_s else "",
        "evidence": "measured",
        "time_to_train_s": round(stop.time_s - start.time_s, 3),
        "samples_per_s": float(f"{per_s:.6g}") if per_s else "",
        "notes": "; ".join((f"division {said.get('submission_division', 'unknown')}", *notes)),
    }
    readings = []
    if step_s:
        source = f"mlperf log, {path.name}"
        readings.append(reading(gpu or "unknown", f"step of {benchmark}", step_s, "s", source))
    where = {"device": gpu or "unknown"}
    tables = {"readings": readings}
    return imported(path.stem, path, "mlperf-log", tables, notes=notes, environment=where, published=[row])


def _events(text: str, path: Path) -> Iterator[Event]:
    for number, line in enumerate(text.splitlines(), 1):
        if ":::MLLOG" not in line:
            continue
        try:
            entry = json.loads(line[line.index("{") :])
            metadata = entry.get("metadata") or {}
            yield Event(float(entry["time_ms"]) / 1e3, str(entry["key"]), entry.get("value"), metadata)
        except (ValueError, KeyError, TypeError) as fault:
            raise LogError(f"{path}: line {number}: cut or malformed MLLOG line ({fault})") from None


def _last(events: Sequence[Event], key: str) -> Event | None:
    return next((event for event in reversed(events) if event.key == key), None)


def _samples_per_s(
    events: Sequence[Event], said: Mapping[str, Any], run_s: float, notes: list[str]
) -> float | None:
    """Training throughput: as logged where samples over time agree, else the one that is there, else None."""
    logged = [
        float(event.value["throughput"])
        for event in events
        if event.key == "tracked_stats" and isinstance(event.value, Mapping) and "throughput" in event.value
    ]
    begins = [event.time_s for event in events if event.key == "epoch_start"]
    ends = [event.time_s for event in events if event.key == "epoch_stop"]
    each_s = [end - begin for begin, end in zip(begins, ends) if end > begin]  # noqa: B905 - the last may be cut
    span_s = statistics.median(each_s) if len(each_s) > 1 else run_s
    samples = float(said.get("train_samples") or 0.0)
    counted = samples / span_s if samples > float(said.get("global_batch_size") or 0) and span_s > 0 else None
    if not logged:
        told, stop = _last(events, "train_samples"), _last(events, "run_stop")
        if not counted or told is None or stop is None or told.time_s < stop.time_s - 1:
            return None  # a number told before the run is a plan, not a count
        notes.append("samples over run time: evaluation is part of it")
        return counted
    rate = statistics.median(logged)
    if counted and abs(rate / counted - 1) > AGREE_FRAC:
        notes.append(
            f"throughput logged as {rate:.6g}/s, but samples over time give {counted:.6g}/s: "
            "units unclear, so no step time"
        )
        return None
    return rate


def _machines(platform: str, hints: Hints) -> tuple[int, int, str]:
    """(nodes, devices, device name) from ``8xNVIDIA DGX A100`` or ``8xA100_80GB-baseline``; 0 and "" unknown."""
    found = re.match(r"(\d+)x(?:NVIDIA\s+)?(DGX\s+)?(\w+)", platform)
    nodes, gpus, gpu = 0, 0, ""
    if found:
        count, gpu = int(found[1]), found[3].replace("_", "-")
        nodes, gpus = (count, count * DGX_DEVICES) if found[2] else (1, count)
    return hints.nodes or nodes, hints.gpus or gpus, hints.gpu or gpu
