"""A trace of torch.profiler (chrome JSON) as kernel measurements and a measured step.

A stethoscope's recording of real training: each kernel is laid to the operation that launched it, operations of one
shape are averaged by the median, and the step marks tell what the whole should add up to. Shapes need
``record_shapes=True``. Format: PyTorch Kineto, ``export_chrome_trace``.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrate.importers.common import Hints, Imported, LogError, Row, imported, reading
from calibrate.measure import median_interval
from sim.cost.collective_forms import bus_factor

KERNELS = {"kernel", "gpu_memcpy", "gpu_memset", "Kernel", "Memcpy", "Memset"}
OPERATIONS = {"cpu_op", "Operator"}
DTYPES = {
    "float": "float32", "double": "float64", "c10::Half": "float16", "c10::BFloat16": "bfloat16",
    "c10::Float8_e4m3fn": "fp8", "signed char": "int8", "Float": "float32", "BFloat16": "bfloat16", "Half": "float16",
    "float32": "float32", "int8": "int8",
}  # fmt: skip
VALUE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "fp8": 1, "int8": 1}
PASSES = {
    "aten::copy_": ("copy", 2), "aten::add": ("add", 3), "aten::add_": ("add", 3), "aten::mul": ("mulu", 2),
    "aten::native_layer_norm": ("ln", 2), "aten::_softmax": ("softmax", 2), "aten::sum": ("sum", 1),
}  # fmt: skip
"""Operation -> (name in table memory, times each value crosses the memory interface)."""
COLLECTIVES = {
    "allreduce": "all_reduce", "_allgather_base": "all_gather", "allgather_into_tensor_coalesced": "all_gather",
    "_reduce_scatter_base": "reduce_scatter", "all_to_allv": "alltoall", "all_to_all": "alltoall",
    "broadcast": "broadcast",
}  # fmt: skip
LARGEST_OPS = 12


def read(text: str, path: Path, hints: Hints | None = None) -> Imported:
    """Kernels by shape, collectives by size, the step and its largest operations.

    Raises:
        LogError: not a chrome trace of torch.profiler, cut, or without a single operation.
    """
    hints = hints or Hints()
    document = _document(text, path)
    events = [e for e in document["traceEvents"] if isinstance(e, dict) and e.get("ph") == "X" and _timed(e)]
    kernels = [e for e in events if e.get("cat") in KERNELS]
    operations = [e for e in events if e.get("cat") in OPERATIONS]
    if not operations and not kernels:
        raise LogError(
            f"{path}: no operation and no kernel among {len(events)} events; expected a torch.profiler trace"
        )
    properties = document.get("deviceProperties") or [{}]
    gpu = hints.gpu or str(properties[0].get("name") or ("unknown" if kernels else "cpu"))
    source, notes = f"torch.profiler, {path.name}", []
    if operations and not any("Input Dims" in _arguments(e) for e in operations):
        notes.append("no shapes in the trace: record it with record_shapes=True to have kernels measured")
    timed = _on_device(operations, kernels) if kernels else _innermost(operations)
    tables = {
        "gemm": _products(timed, gpu, source),
        "memory": _passes(timed, gpu, source),
        "collectives": _messages(kernels, gpu, hints, source),
        "readings": _readings(events, timed, kernels, gpu, source, notes),
    }
    return imported(path.stem, path, "torch.profiler", tables, notes=notes, environment={"device": gpu})


def _document(text: str, path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as fault:
        raise LogError(f"{path}: cut or malformed JSON ({fault})") from None
    if isinstance(document, list):
        document = {"traceEvents": document}
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise LogError(f"{path}: no traceEvents; expected the chrome trace of torch.profiler")
    return document


def _timed(event: Mapping[str, Any]) -> bool:
    took, begin = event.get("dur"), event.get("ts")
    return isinstance(took, (int, float)) and isinstance(begin, (int, float)) and took >= 0


def _arguments(event: Mapping[str, Any]) -> Mapping[str, Any]:
    found = event.get("args")
    return found if isinstance(found, dict) else {}


def _on_device(
    operations: Sequence[Mapping[str, Any]], kernels: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], float]]:
    """(operation, microseconds of the kernels it launched), matched by external id."""
    took: dict[Any, float] = defaultdict(float)
    for kernel in kernels:
        took[_arguments(kernel).get("External id", _arguments(kernel).get("external id"))] += float(
            kernel["dur"]
        )
    took.pop(None, None)
    return [(op, took[key]) for op in operations if (key := _arguments(op).get("External id")) in took]


def _innermost(operations: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """(operation, microseconds of its own, without those it called): what a processor spent on each."""
    own: list[tuple[Mapping[str, Any], float]] = []
    threads: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for op in operations:
        threads[op.get("pid"), op.get("tid")].append(op)
    for ops in threads.values():
        ops.sort(key=lambda e: (e["ts"], -e["dur"]))
        inner = dict.fromkeys(map(id, ops), 0.0)
        open_ops: list[Mapping[str, Any]] = []
        for op in ops:
            while open_ops and open_ops[-1]["ts"] + open_ops[-1]["dur"] <= op["ts"]:
                open_ops.pop()
            if open_ops:
                inner[id(open_ops[-1])] += op["dur"]
            open_ops.append(op)
        own += [(op, op["dur"] - inner[id(op)]) for op in ops if op["dur"] > inner[id(op)]]
    return own


def _products(timed: Iterable[tuple[Mapping[str, Any], float]], gpu: str, source: str) -> list[Row]:
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for op, time_us in timed:
        dims, kinds = _arguments(op).get("Input Dims") or [], _arguments(op).get("Input type") or []
        at = {"aten::mm": 0, "aten::addmm": 1, "aten::_scaled_mm": 0}.get(str(op.get("name")))
        if at is None or len(dims) < at + 2 or len(kinds) <= at or kinds[at] not in DTYPES:
            continue
        a, b = dims[at], dims[at + 1]
        if len(a) == 2 and len(b) == 2 and a[1] == b[0] and min(*a, *b) > 0:
            groups[DTYPES[kinds[at]], a[0], b[1], a[1]].append(time_us)
    # strides are not in every trace, so the layout of the operands stays unsaid
    fixed = {"gpu": gpu, "layout": "unknown", "engine": "torch eager"}
    return [
        {**fixed, "dtype": dtype, "m": m, "n": n, "k": k, **_timing(times, source)}
        for (dtype, m, n, k), times in sorted(groups.items())
    ]


def _passes(timed: Iterable[tuple[Mapping[str, Any], float]], gpu: str, source: str) -> list[Row]:
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for op, time_us in timed:
        dims, kinds = _arguments(op).get("Input Dims") or [], _arguments(op).get("Input type") or []
        name, passes = PASSES.get(str(op.get("name")), ("", 0))
        if (
            not name
            or not dims
            or not dims[0]
            or not kinds
            or kinds[0] not in DTYPES
            or math.prod(dims[0]) <= 0
        ):
            continue
        if any(dim and dim != dims[0] for dim in dims[1:]) and name in ("add", "copy"):
            continue  # broadcast operands move other bytes
        groups[name, passes, DTYPES[kinds[0]], math.prod(dims[0][:-1]), dims[0][-1]].append(time_us)
    rows = []
    for (name, passes, dtype, count, cols), times in sorted(groups.items()):
        moved = float(passes * count * cols * VALUE_BYTES[dtype])
        shape = {"op": name, "dtype": dtype, "rows": count, "cols": cols, "bytes": moved}
        rows.append({"gpu": gpu, **shape, "engine": "torch eager", **_timing(times, source)})
    return rows


def _messages(kernels: Iterable[Mapping[str, Any]], gpu: str, hints: Hints, source: str) -> list[Row]:
    """Collectives, from kernels that carry their message (PyTorch 2.2 and later)."""
    groups: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for kernel in kernels:
        said = _arguments(kernel)
        name = COLLECTIVES.get(str(said.get("Collective name")))
        values = [_count(said.get(word)) for word in ("In msg nelems", "Out msg nelems", "Group size")]
        value_bytes = VALUE_BYTES.get(DTYPES.get(str(said.get("dtype")), ""), 0)
        if name and value_bytes and all(values) and values[2] > 1:
            groups[name, values[2], max(values[:2]) * value_bytes].append(float(kernel["dur"]))
    rows = []
    for (name, ranks, size_bytes), times in sorted(groups.items()):
        nodes = hints.nodes or 1
        place = {
            "system": hints.system or f"{gpu}, {nodes} x {-(-ranks // nodes)}",
            "gpu": gpu,
            "nodes": nodes,
        }
        timing = _timing(times, source)
        algbw = size_bytes / timing["time_us"] / 1e3
        message = {"gpus": ranks, "fabric": hints.fabric, "collective": name, "size_bytes": size_bytes}
        bandwidths = {
            "algbw_gbps": round(algbw, 4),
            "busbw_gbps": round(algbw * float(bus_factor(name, ranks)), 4),
        }
        rows.append({**place, **message, **timing, **bandwidths, "engine": "in a training step"})
    return rows


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _timing(times_us: Sequence[float], source: str) -> Row:
    bounds = median_interval(times_us)
    return {
        "time_us": statistics.median(times_us),
        "low_us": bounds.low,
        "high_us": bounds.high,
        "confidence_frac": round(bounds.confidence_frac, 4),
        "repeats": len(times_us),
        "source": source,
    }


def _readings(
    events: Sequence[Mapping[str, Any]],
    timed: Sequence[tuple[Mapping[str, Any], float]],
    kernels: Sequence[Mapping[str, Any]],
    gpu: str,
    source: str,
    notes: list[str],
) -> list[Row]:
    """The step (median over its marks), its kernels together, and the operations that take most of it."""
    steps = [e for e in events if str(e.get("name", "")).startswith("ProfilerStep#")]
    steps = [e for e in steps if e.get("cat") in ("user_annotation", "cpu_op", "Operator")] or steps
    if not steps:
        notes.append("no step marks: call profiler.step() in the loop to have a step measured")
        return []
    step_s = statistics.median(float(e["dur"]) for e in steps) * 1e-6
    rows = [reading(gpu, "step", step_s, "s", source)]
    busy_us = sum(float(k["dur"]) for k in kernels)
    if busy_us:
        rows.append(reading(gpu, "kernels of a step", busy_us * 1e-6 / len(steps), "s", source))
    by_name: dict[str, float] = defaultdict(float)
    for op, time_us in timed:
        by_name[str(op.get("name"))] += time_us
    largest = sorted(by_name.items(), key=lambda pair: (-pair[1], pair[0]))[:LARGEST_OPS]
    rows += [
        reading(gpu, f"{name} in a step", us * 1e-6 / len(steps), "s", source)
        for name, us in largest
        if us > 0
    ]
    return rows
