"""Slurm in JSON: slurmrestd's answers and ``--json`` of sinfo, squeue, sacct, scontrol and sdiag.

Sources: Slurm's REST API reference, OpenAPI plugins v0.0.37 (numbers and words plain) to v0.0.40 and later (numbers as
``{"set", "infinite", "number"}``, states as lists). Fields found under any of their names over the versions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sim.importers.imported import Node, Parts, Quota, Tally
from sim.importers.making_jobs import once_each
from sim.importers.slurm_jobs import gangs, job_from
from sim.importers.slurm_nodes import node_state, one_each
from sim.importers.slurm_table import Row
from sim.importers.sources import Source, refuse
from sim.importers.tres import parse_gres, parse_tres
from sim.spec.job import Job

_SECTIONS = ("nodes", "partitions", "jobs", "statistics", "sinfo")


def read_rest(sources: Sequence[Source], tally: Tally) -> Parts:
    """Nodes, partitions (as quotas), jobs, and the scheduler's counters (settings ``sdiag.*``).

    Raises:
        ScenarioError: not JSON, or an object with none of the sections.
    """
    parts = Parts()
    found: list[tuple[str, Job]] = []
    for source in sources:
        document = _document(source)
        for index, item in enumerate(_list(document, "nodes")):
            tally.records += 1
            _keep(_node(item, f"{source.name}: nodes.{index}", tally), parts.nodes)
        for index, item in enumerate(_list(document, "partitions")):
            tally.records += 1
            _keep(_partition(item, f"{source.name}: partitions.{index}", tally), parts.quotas)
        for index, item in enumerate(_list(document, "jobs")):
            tally.records += 1
            place = f"{source.name}: jobs.{index}"
            if isinstance(item, Mapping):
                found += [(place, job) for job in _jobs(item, place, tally)]
            else:
                tally.skip("entry is no object", place)
        parts.settings |= _counters(document.get("statistics"))
    parts.nodes = one_each(parts.nodes, tally)
    parts.jobs = gangs(once_each(found, tally), tally)
    return parts


def _document(source: Source) -> Mapping[str, Any]:
    try:
        document = json.loads(source.text)
    except (json.JSONDecodeError, RecursionError) as fault:
        raise refuse(source.name, f"is not JSON ({fault})") from None
    if not isinstance(document, Mapping) or not any(name in document for name in _SECTIONS):
        raise refuse(
            source.name, f"is no answer of Slurm: expected an object with {', '.join(_SECTIONS[:4])}"
        )
    return document


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _keep(item: Any, kept: list[Any]) -> None:
    if item is not None:
        kept.append(item)


def number(value: Any) -> float | None:
    """A number in either form; None where unset or infinite."""
    if isinstance(value, Mapping):
        value = value.get("number") if value.get("set", True) and not value.get("infinite") else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _words(value: Any) -> str:
    return "+".join(str(item) for item in value) if isinstance(value, list) else str(value or "")


def _node(item: Any, place: str, tally: Tally) -> Node | None:
    if not isinstance(item, Mapping) or not item.get("name"):
        tally.skip("node without a name", place)
        return None
    flags = "+".join(filter(None, (_words(item.get("state")), _words(item.get("state_flags")))))
    features = item.get("features") or item.get("active_features") or []
    return Node(
        name=str(item["name"]),
        devices=parse_gres(str(item.get("gres") or "")) or parse_tres(str(item.get("tres") or "")).devices,
        cpus=number(item.get("cpus")) or 0.0,
        memory_bytes=(number(item.get("real_memory")) or 0.0) * 2**20,
        state=node_state(flags, place, tally),
        partitions=tuple(str(name) for name in item.get("partitions") or []),
        features=tuple(features.split(",") if isinstance(features, str) and features else features or ()),
    )


def _partition(item: Any, place: str, tally: Tally) -> Quota | None:
    if not isinstance(item, Mapping) or not item.get("name"):
        tally.skip("partition without a name", place)
        return None
    tres = item.get("tres")
    configured = tres.get("configured", "") if isinstance(tres, Mapping) else str(tres or "")
    priority = item.get("priority")
    tier = priority.get("tier") if isinstance(priority, Mapping) else item.get("priority_tier")
    maximums = item.get("maximums")
    limit = number(maximums.get("time") if isinstance(maximums, Mapping) else item.get("max_time_limit"))
    gpus = parse_tres(configured).gpus
    return Quota(
        name=str(item["name"]),
        kind="partition",
        ceiling_gpus=float(gpus) if gpus else None,
        priority=number(tier) or 0.0,
        limit_s=limit * 60 if limit and limit > 0 else None,
        rules={"preemptmode": _words(item["preemption_mode"])} if item.get("preemption_mode") else {},
    )


def _jobs(item: Mapping[str, Any], place: str, tally: Tally) -> list[Job]:
    """One job, of slurmctld (``job_state``, ``submit_time``) or of slurmdbd (``time``, ``tres`` as objects)."""
    cells = _accounted(item) if isinstance(item.get("time"), Mapping) else _live(item)
    name = str(item.get("job_id", ""))
    if not name or name == "0":
        tally.skip("no job id", place)
        return []
    array = item.get("array") if isinstance(item.get("array"), Mapping) else {}
    parent = number(array.get("job_id") if array else item.get("array_job_id"))
    task = number(array.get("task_id") if array else item.get("array_task_id"))
    waiting = array.get("task") if array else item.get("array_task_string")
    if parent and task is not None:
        name = f"{parent:.0f}_{task:.0f}"
    elif parent and isinstance(waiting, str) and waiting:
        name = f"{parent:.0f}_[{waiting.strip('[]')}]"
    return job_from(Row(place, {key: value for key, value in cells.items() if value}), name, tally)


def _live(item: Mapping[str, Any]) -> dict[str, str]:
    limit = number(item.get("time_limit"))
    return {
        "STATE": _words(item.get("job_state")).partition("+")[0],
        "SUBMIT": _text(item.get("submit_time")),
        "ELIGIBLE": _text(item.get("eligible_time")),
        "START": _text(item.get("start_time")),
        "END": _text(item.get("end_time")),
        "TIMELIMITRAW": "" if limit is None else f"{limit:.0f}",
        "TRES": str(item.get("tres_alloc_str") or item.get("tres_req_str") or ""),
        "TRES_PER_NODE": str(item.get("tres_per_node") or ""),
        "NNODES": _text(item.get("node_count")),
        "CPUS": _text(item.get("cpus")),
        "USER": str(item.get("user_name") or item.get("user_id") or ""),
        "ACCOUNT": str(item.get("account") or ""),
        "PARTITION": str(item.get("partition") or ""),
        "PRIORITY": _text(item.get("priority")),
        "ELAPSEDRAW": _so_far(item),
    }


def _so_far(item: Mapping[str, Any]) -> str:
    """Running time of a job that runs: up to its last look by the scheduler, the newest time the answer holds."""
    start, seen = number(item.get("start_time")), number(item.get("last_sched_evaluation"))
    running = "RUNNING" in _words(item.get("job_state"))
    return f"{max(seen - start, 0):.0f}" if running and start and seen else ""


def _accounted(item: Mapping[str, Any]) -> dict[str, str]:
    time, tres = item["time"], item.get("tres") or {}
    state = item.get("state")
    current = state.get("current") if isinstance(state, Mapping) else state
    limit = number(time.get("limit"))
    return {
        "STATE": _words(current).partition("+")[0],
        "SUBMIT": _text(time.get("submission")),
        "ELIGIBLE": _text(time.get("eligible")),
        "START": _text(time.get("start")),
        "END": _text(time.get("end")),
        "ELAPSEDRAW": _text(time.get("elapsed"), zero=True),
        "TIMELIMITRAW": "" if limit is None else f"{limit:.0f}",
        "ALLOCTRES": _tres(tres.get("allocated")),
        "REQTRES": _tres(tres.get("requested")),
        "USER": str(item.get("user") or ""),
        "ACCOUNT": str(item.get("account") or ""),
        "PARTITION": str(item.get("partition") or ""),
        "PRIORITY": _text(item.get("priority")),
    }


def _tres(items: Any) -> str:
    """``[{"type": "gres", "name": "gpu:h100", "count": 8}]`` as the text form; memory is in megabytes."""
    found = []
    for item in items if isinstance(items, list) else []:
        kind, name, count = item.get("type", ""), item.get("name") or "", number(item.get("count")) or 0
        found.append(
            f"{kind}/{name}={count:.0f}" if name else f"{kind}={count:.0f}{'M' if kind == 'mem' else ''}"
        )
    return ",".join(found)


def _text(value: Any, zero: bool = False) -> str:
    found = number(value)
    return "" if found is None or (found == 0 and not zero) else f"{found:.10g}"


def _counters(statistics: Any) -> dict[str, str]:
    """Counters of sdiag that tell how well the scheduler keeps up."""
    if not isinstance(statistics, Mapping):
        return {}
    plain = {key: number(value) for key, value in statistics.items()}
    wanted = ("schedule_", "bf_", "jobs_")
    return {
        f"sdiag.{key}": f"{v:.10g}" for key, v in plain.items() if v is not None and key.startswith(wanted)
    }
