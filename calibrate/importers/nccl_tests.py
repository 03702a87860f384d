"""Logs of nccl-tests and rccl-tests (``all_reduce_perf`` and kin), as text or JSON, into table ``collectives``.

Reads like a patient clerk: prefixes of launchers, warnings of the library and elided rows are stepped over, and
what the table does not say (which collective, how many ranks) is worked out from what it does. Formats:
nccl-tests src/common.cu (text) and src/util.cu (``-J``), README "Performance" for the bandwidth conventions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibrate.importers.common import Hints, Imported, LogError, Row, imported, single_timing
from sim.cost.collective_forms import bus_factor

PREFIX = re.compile(r"^\s*(?:\d+:(?=\s)|\[\d+,\d+\]<std(?:out|err)>:|\[\d+\]:)")
"""``0: `` of srun --label, ``[1,0]<stdout>:`` of Open MPI, ``[0]:`` of mpiexec -prepend-rank."""
DEVICE = re.compile(
    r"#\s+Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s+\d+ on (\S+) device\s+\d+ \[[^\]]*\] (.+?)\s*$"
)
ITERATIONS = re.compile(r"(?<!warmup )(?<!agg )\biters: (\d+)")
VERSION = re.compile(r"(?:NCCL|RCCL) version\s*:?\s*(\d+\.\d+(?:\.\d+)?)")
PROGRAM = re.compile(
    r"\b(all_reduce|all_gather|reduce_scatter|alltoall|broadcast|sendrecv|reduce|gather|scatter)_perf\b"
)
NAME = re.compile(
    r"all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|sendrecv|reduce|gather|scatter"
)
VALUE_BYTES = {
    "int8": 1, "uint8": 1, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8, "half": 2, "float16": 2, "float": 4,
    "float32": 4, "double": 8, "float64": 8, "bfloat16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1, "f8e4m3": 1, "f8e5m2": 1,
}  # fmt: skip
USUAL_DEVICES = 8
"""Devices of a node assumed where a log lists none: the size of most NVLink and Infinity Fabric nodes."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table: both ways of running it."""

    size_bytes: int
    count: int
    dtype: str
    redop: str
    root: int
    times_us: Mapping[str, float]
    """Of ``out_of_place`` and ``in_place``, where printed."""
    ratio: float
    """busbw / algbw of the larger printed value; NaN where both are 0."""
    wrong: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What stands around the table."""

    devices: Sequence[tuple[str, str]] = ()
    """(host, device name) of each rank."""
    iterations: int = 1
    version: str = ""
    collective: str = ""
    library: str = "nccl"
    notes: tuple[str, ...] = ()


def read(text: str, path: Path, hints: Hints | None = None) -> Imported:
    """The rows of a log.

    Raises:
        LogError: not such a log, no rows (truncated, hung), or wrong results only.
    """
    hints = hints or Hints()
    header, lines = _json(text, path) if text.lstrip().startswith("{") else _text(text, path)
    good = [line for line in lines if not line.wrong and line.size_bytes > 0]
    notes = list(header.notes)
    if any(line.wrong for line in lines):
        notes.append(
            f"{sum(bool(line.wrong) for line in lines)} rows left out: their results were wrong (#wrong > 0)"
        )
        if not good:
            raise LogError(f"{path}: every row has wrong results (#wrong > 0): nothing to import")
    if not good:
        devices = len(header.devices)
        raise LogError(
            f"{path}: no data row after the header{f' and {devices} ranks' if devices else ''}: "
            "the run hung, or its output was cut"
        )
    ranks = hints.gpus or len(header.devices) or _ranks(good)
    if not ranks:
        raise LogError(f"{path}: no device list and no row to work the ranks out from; give --gpus")
    name = _collective(hints.collective or header.collective or _from_name(path), good, ranks, notes)
    hosts = list(dict.fromkeys(host for host, _ in header.devices))
    nodes = hints.nodes or len(hosts) or math.ceil(ranks / USUAL_DEVICES)
    if not hints.nodes and not hosts:
        notes.append(
            f"no device list: {nodes} nodes assumed ({USUAL_DEVICES} devices a node); --nodes says otherwise"
        )
    gpu = hints.gpu or (header.devices[0][1] if header.devices else "unknown")
    if gpu == "unknown":
        notes.append("no device list: the device is unknown; --gpu names it")
    system = hints.system or f"{gpu}, {nodes} x {-(-ranks // nodes)}"
    fixed = {
        "system": system,
        "gpu": gpu,
        "nodes": nodes,
        "gpus": ranks,
        "fabric": hints.fabric,
        "collective": name,
    }
    if len(hosts) == 2:
        fixed["between"] = ",".join(hosts)  # a test of one pair: a report lays a slow one to node or link
    fixed |= {"nccl_version": header.version, "engine": header.library}
    rows = [row for line in good for row in _rows(line, fixed, header, ranks, path.name)]
    tool = f"{header.library}-tests"
    return imported(path.stem, path, tool, {"collectives": rows}, notes=notes, environment={"device": gpu})


def _rows(line: Line, fixed: Row, header: Header, ranks: int, file: str) -> list[Row]:
    found = []
    for place, time_us in line.times_us.items():
        algbw = line.size_bytes / time_us / 1e3
        # gather and scatter have no cost function of their own; nccl-tests counts them like all-gather
        like = "all_gather" if fixed["collective"] in ("gather", "scatter") else fixed["collective"]
        factor = float(bus_factor(like, ranks))
        timing = single_timing(time_us, f"{header.library}-tests, {file}", header.iterations)
        more = {"dtype": line.dtype, "place": place, "size_bytes": line.size_bytes}
        bandwidths = {"algbw_gbps": round(algbw, 4), "busbw_gbps": round(algbw * factor, 4)}
        found.append({**fixed, **more, **timing, **bandwidths})
    return found


def _text(text: str, path: Path) -> tuple[Header, list[Line]]:
    header, lines, notes, rows = Header(), [], [], 0
    devices: list[tuple[str, str]] = []
    columns: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = PREFIX.sub("", raw).rstrip()
        words = line.split()
        if not words:
            continue
        if found := DEVICE.match(line.strip()):
            devices.append((found[2], found[3]))
        elif found := PROGRAM.search(line):
            header = replace(header, collective=found[1])
        elif "rccl-tests" in line.lower():
            header = replace(header, library="rccl")
        elif words[0] == "#" and "size" in words and "busbw" in words:
            columns = words[1:]
        elif "..." in line or "truncated" in line:
            notes.append(f"line {number}: output elided")
        elif (
            columns and re.fullmatch(r"-?\d+", words[0]) and len(words) > 1 and re.fullmatch(r"\d+", words[1])
        ):
            rows += 1
            row = _line(words, columns)
            if row is None:
                notes.append(f"line {number}: row cut or malformed, left out: {line.strip()[:60]!r}")
            else:
                lines.append(row)
        if found := ITERATIONS.search(line):
            header = replace(header, iterations=int(found[1]))
        if found := VERSION.search(line):
            header = replace(header, version=found[1])
    if not columns and not devices:
        known = "AWS Neuron nccom-test" if "time:avg(us)" in text else ""
        what = f"this is {known} output" if known else "no table of nccl-tests (size, count, type, ... busbw)"
        raise LogError(f"{path}: {what}; expected the output of an nccl-tests or rccl-tests *_perf program")
    if rows and not lines:
        raise LogError(f"{path}: {rows} rows, none of them whole: {notes[-1]}")
    return replace(header, devices=tuple(devices), notes=tuple(notes)), lines


def _line(words: Sequence[str], columns: Sequence[str]) -> Line | None:
    """One row; its tail is 2 x (time, algbw, busbw, wrong), its head size, count, type and what else is there."""
    tail = 4 if columns.count("time") == 1 else 8
    head, rest = words[: len(words) - tail], words[len(words) - tail :]
    if not 3 <= len(head) <= 5 or head[2] not in VALUE_BYTES:
        return None
    named = dict(zip(columns[3:5], head[3:]))  # noqa: B905 - a blank redop leaves a shorter row
    redop = named.get("redop", "none" if "redop" not in columns else "")
    root = named.get("root", "0" if "root" in columns else "-1")
    times, ratio, most, wrong = {}, math.nan, 0.0, 0
    try:
        for place, at in (("out_of_place", 0), ("in_place", 4)):
            if at >= tail or rest[at] == "N/A":
                continue
            time_us, algbw, busbw = (float(word) for word in rest[at : at + 3])
            if not (math.isfinite(time_us) and time_us > 0):
                return None
            times[place] = time_us
            if algbw > most:
                most, ratio = algbw, busbw / algbw
            if rest[at + 3] != "N/A":
                wrong += int(float(rest[at + 3]))
        return (
            Line(int(head[0]), int(head[1]), head[2], redop, int(root), times, ratio, wrong)
            if times
            else None
        )
    except ValueError:
        return None


def _json(text: str, path: Path) -> tuple[Header, list[Line]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as fault:
        raise LogError(f"{path}: JSON that breaks off or is malformed ({fault})") from None
    if not isinstance(document.get("results"), list) or not isinstance(document.get("config"), dict):
        raise LogError(f"{path}: JSON without 'config' and 'results'; expected the -J output of nccl-tests")
    config, lines, notes = document["config"], [], []
    devices = [
        (str(d.get("hostname", "")), str(d.get("device_info", "unknown"))) for d in config.get("devices", [])
    ]
    for number, result in enumerate(document["results"]):
        try:
            lines.append(_json_line(result))
        except (KeyError, TypeError, ValueError) as fault:
            notes.append(f"results[{number}]: left out, malformed ({fault!r})")
    notes += [f"the log reports an error: {str(fault)[:80]}" for fault in document.get("errors") or []]
    program = PROGRAM.search(" ".join(map(str, document.get("args", []))))
    library = "rccl" if "rccl" in str(document.get("version", "")).lower() else "nccl"
    version = str(document.get("nccl_version", ""))
    name = program[1] if program else ""
    iterations = int(config.get("iterations", 1) or 1)
    return Header(tuple(devices), iterations, version, name, library, tuple(notes)), lines


def _json_line(result: Mapping[str, Any]) -> Line:
    times, ratio, most, wrong = {}, math.nan, 0.0, 0
    for place in ("out_of_place", "in_place"):
        entry = result.get(place)
        if not entry:
            continue
        time_us = float(entry.get("time", entry.get("cpu_time", math.nan)))
        if not (math.isfinite(time_us) and time_us > 0):
            raise ValueError(f"time {time_us!r}")
        times[place] = time_us
        if float(entry["alg_bw"]) > most:
            most, ratio = float(entry["alg_bw"]), float(entry["bus_bw"]) / float(entry["alg_bw"])
        wrong += int(entry.get("nwrong") or 0)
    if not times:
        raise ValueError("no times")
    redop, root = str(result.get("redop") or "none"), int(result.get("root", -1))
    return Line(
        int(result["size"]), int(result["count"]), str(result["type"]), redop, root, times, ratio, wrong
    )


def _from_name(path: Path) -> str:
    found = NAME.search(path.stem.lower().replace("-", "_"))
    return found[0] if found else ""


def _collective(said: str, lines: Sequence[Line], ranks: int, notes: list[str]) -> str:
    """The collective: as said where the rows agree with that, else from reduction, root and size / count."""
    plain = said.replace("_", "").replace("-", "")
    said = {"allreduce": "all_reduce", "allgather": "all_gather", "reducescatter": "reduce_scatter"}.get(
        plain, plain
    )
    last = lines[-1]
    share = last.size_bytes / max(last.count, 1) / VALUE_BYTES.get(last.dtype, 4)
    spread = ranks > 1 and abs(share / ranks - 1) < 0.01
    reduces, rooted = last.redop not in ("none", ""), last.root >= 0
    fits = {
        (True, False): ["reduce_scatter"] if spread else ["all_reduce"],
        (True, True): ["reduce"],
        (False, True): ["gather", "scatter"] if spread else ["broadcast"],
        (False, False): ["all_gather", "alltoall"] if spread else ["sendrecv"],
    }[reduces, rooted]
    if said in fits:
        return said
    if said:
        notes.append(f"called {said}, but the rows are those of {' or '.join(fits)}")
    if len(fits) > 1:
        # in-place is not offered by newer alltoall and gather tests, and older ones leave redop blank
        second = last.redop == "" or "in_place" not in last.times_us
        notes.append(f"rows fit {' and '.join(fits)}: {fits[second]} taken; --collective says otherwise")
        return fits[second]
    return fits[0]


def _ranks(lines: Sequence[Line]) -> int:
    """Ranks from busbw / algbw, which is 2 (n - 1) / n for an all-reduce and (n - 1) / n for a share of peers.

    Source: nccl-tests doc/PERFORMANCE.md. 0 where the ratio says nothing (1 for broadcast, reduce, sendrecv).
    """
    line = max(lines, key=lambda one: one.size_bytes)
    spread = line.size_bytes > 1.5 * line.count * VALUE_BYTES.get(line.dtype, 4)
    if spread:
        return round(line.size_bytes / line.count / VALUE_BYTES.get(line.dtype, 4))
    if line.redop in ("none", "") or line.root >= 0 or not line.ratio < 2:
        return 0
    return round(2 / (2 - line.ratio))
