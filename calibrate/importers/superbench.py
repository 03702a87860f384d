"""SuperBench: results (one JSON object a node) and the raw outputs of its tools, into readings and collectives.

A results line is a node's school report: one mark for every subject and device, in the tool's own units. Here each
mark gets an SI unit and a plain name; what has no known unit is left out by name. Units: SuperBench documentation,
"Micro Benchmarks" and "Model Benchmarks".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calibrate.importers.common import Hints, Imported, LogError, Row, imported, reading, single_timing
from calibrate.importers.superbench_logs import LOGS
from sim.cost.collective_forms import bus_factor

GB_PER_S, MB_PER_S, MS, GFLOPS = ("B/s", 1e9), ("B/s", 1e6), ("s", 1e-3), ("FLOP/s", 1e9)
METRICS: tuple[tuple[str, str, tuple[str, float]], ...] = (
    (r"gemm-flops/(\w+?)_TC", "matmul {0} matrix unit", GFLOPS),
    (r"gemm-flops/(\w+)", "matmul {0}", GFLOPS),
    (r"mem-bw/h2d(?:_mem)?_bw", "host to device", GB_PER_S),
    (r"mem-bw/d2h(?:_mem)?_bw", "device to host", GB_PER_S),
    (r"mem-bw/d2d(?:_mem)?_bw", "device to device", GB_PER_S),
    (r"gpu-sm-copy-bw/htod", "host to device by kernel", GB_PER_S),
    (r"gpu-sm-copy-bw/dtoh", "device to host by kernel", GB_PER_S),
    (r"kernel-launch/(event|wall)_(?:overhead|time)", "kernel launch, {0} clock", MS),
    (
        r"ib-loopback/IB_(write|read|send)_(\d+)_Avg_(\d+)",
        "InfiniBand {0} loopback, {1} bytes, card {2}",
        GB_PER_S,
    ),
    (r"\w+_models/([\w-]+)/steptime_(\w+?)_(\w+)", "step of {0}, {1} {2}", MS),
    (r"\w+_models/([\w-]+)/throughput_(\w+?)_(\w+)", "samples of {0}, {1} {2}", ("1/s", 1.0)),
    (r"pytorch-computation-communication-overlap/(\w+)_cost", "overlap test, {0}", MS),
    (r"pytorch-sharding-matmul/(\w+)", "sharded matmul, {0}", MS),
    (r"pytorch-matmul/(\w+)", "matmul, {0}", MS),
)
"""(metric, plain name, (SI unit, factor)); the first that matches counts."""
COLLECTIVE = re.compile(r"(?:nccl|rccl)-bw(?::[\w-]+)?/(\w+?)_(\d+)_(time|busbw|algbw)")
NAMES = {"allreduce": "all_reduce", "allgather": "all_gather", "reducescatter": "reduce_scatter"}


def read(text: str, path: Path, hints: Hints | None = None) -> list[Imported]:
    """One measurement file for each node of a results file, or one for a tool's output.

    Raises:
        LogError: another kind of file (monitor samples, a diagnosis, a topology), or malformed.
    """
    hints = hints or Hints()
    if not text.lstrip().startswith("{"):
        return [_tool_log(text, path, hints)]
    found = []
    for number, document in enumerate(_documents(text, path), 1):
        for key, what in (
            ("gpu_power_limit:0", "monitor samples"),
            ("Defective Details", "a diagnosis summary"),
        ):
            if key in document:
                raise LogError(
                    f"{path}: {what}, not measurements; expected results with keys benchmark/metric:rank"
                )
        if not any("/" in key for key in document):
            raise LogError(f"{path}: line {number}: no key of the form benchmark/metric:rank")
        found.append(_node(document, path, hints, f"node {number}"))
    return found


def _documents(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        pass
    documents = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except json.JSONDecodeError as fault:
            raise LogError(f"{path}: line {number}: cut or malformed JSON ({fault})") from None
        if not isinstance(document, dict):
            raise LogError(f"{path}: line {number}: expected an object, found {type(document).__name__}")
        documents.append(document)
    return documents


def _node(document: Mapping[str, Any], path: Path, hints: Hints, unnamed: str) -> Imported:
    node, gpu = str(document.get("node", unnamed)), hints.gpu or "unknown"
    source = f"superbench, {path.name}"
    readings: list[Row] = []
    exchanges: dict[tuple[str, int], float] = {}
    unknown: dict[str, None] = {}
    notes = [] if hints.gpu else ["results name no device; --gpu names it"]
    ranks = {int(key.rpartition(":")[2]) for key in document if re.search(r":\d+$", key)}
    gpus = hints.gpus or len(ranks)
    for key, value in document.items():
        name, _, rank = key.partition(":") if re.search(r":\d+$", key) else (key, "", "")
        name = key.removesuffix(f":{rank}") if rank else key
        if "/" not in name:
            continue
        if name.endswith("return_code"):
            if value:
                notes.append(f"{key}: the benchmark failed with code {value}")
            continue
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not math.isfinite(value)
            or value <= 0
        ):
            if value != 0:
                notes.append(f"{key}: left out, no positive number: {value!r}")
            continue
        if match := COLLECTIVE.fullmatch(name):
            if match[3] == "time" and int(match[2]) > 0:
                exchanges[NAMES.get(match[1], match[1]), int(match[2])] = float(value)
            continue
        row = _reading(name, float(value), gpu, source)
        if row is None:
            unknown[name] = None
        else:
            readings.append(row | ({"device": int(rank)} if rank else {}))
    rows: list[Row] = []
    if exchanges and gpus > 1:
        fixed = {"system": hints.system or node, "gpu": gpu, "nodes": hints.nodes or 1, "gpus": gpus}
        rows = _collectives(exchanges, fixed | {"fabric": hints.fabric}, source)
    elif exchanges:
        notes.append("collectives left out: the number of ranks is not known; give --gpus")
    if unknown:
        notes.append(f"{len(unknown)} metrics of unknown unit left out: {', '.join(list(unknown)[:5])}")
    tables = {"readings": readings, "collectives": rows}
    return imported(node, path, "superbench", tables, notes=notes, environment={"node": node, "device": gpu})


def _reading(name: str, value: float, gpu: str, source: str) -> Row | None:
    for pattern, words, (unit, factor) in METRICS:
        if match := re.fullmatch(pattern, name, re.IGNORECASE):
            return reading(
                gpu, words.format(*(part.lower() for part in match.groups())), value * factor, unit, source
            )
    return None


def _collectives(times_us: Mapping[tuple[str, int], float], fixed: Row, source: str) -> list[Row]:
    rows = []
    for (name, size_bytes), time_us in sorted(times_us.items()):
        algbw = size_bytes / time_us / 1e3
        bandwidths = {"algbw_gbps": round(algbw, 4)}
        bandwidths["busbw_gbps"] = round(algbw * float(bus_factor(name, fixed["gpus"])), 4)
        more = {"collective": name, "size_bytes": size_bytes, **single_timing(time_us, source)}
        rows.append({**fixed, **more, **bandwidths})
    return rows


def _tool_log(text: str, path: Path, hints: Hints) -> Imported:
    for tool, (mark, reader) in LOGS.items():
        if re.search(mark, text, re.MULTILINE):
            rows, notes = _checked(reader, text, hints.gpu or "unknown", f"{tool}, {path.name}")
            if not rows:
                raise LogError(f"{path}: {tool} output without a figure: cut before its first result")
            return imported(path.stem, path, tool, {"readings": rows}, notes=notes)
    for mark, what in (("^Switch", "an ibnetdiscover topology"), ("pattern_type:", "host patterns")):
        if re.search(mark, text, re.MULTILINE):
            raise LogError(f"{path}: {what}, not measurements")
    raise LogError(f"{path}: expected SuperBench results or output of {', '.join(LOGS)}")


def _checked(
    reader: Callable[[str, str, str], list[Row]], text: str, gpu: str, source: str
) -> tuple[list[Row], list[str]]:
    rows = reader(text, gpu, source)
    good = [row for row in rows if math.isfinite(row["value"]) and row["value"] > 0]
    left = len(rows) - len(good)
    return good, [f"{left} figures left out: no positive number"] if left else []
