"""Alibaba PAI 2020: jobs told in three tables without headers, joined like the pages of one form.

Source: alibaba/clusterdata cluster-trace-gpu-v2020 README (Weng et al., NSDI 2022): pai_job_table (start_time is the
submission), pai_task_table (inst_num instances of plan_cpu and plan_gpu percent, plan_mem GB each), pai_machine_spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sim.importers.imported import Node, Parts, Tally
from sim.importers.making_jobs import Record, make_job, once_each, outcome_of
from sim.importers.moments import amount
from sim.importers.sources import Source, refuse, table
from sim.spec.job import Job

ZONE_S = 8 * 3600.0
"""The trace's clock is UTC+8 (README, note of ``time``)."""
_TABLES = {
    "job": ("job_name", "inst_id", "user", "status", "start_time", "end_time"),
    "task": (
        [
            "job_name",
            "task_name",
            "inst_num",
            "status",
            "start_time",
            "end_time",
            "plan_cpu",
            "plan_mem",
            "plan_gpu",
            "gpu_type",
        ]
    ),
    "machine": ("machine", "gpu_type", "cap_cpu", "cap_mem", "cap_gpu"),
}
Row = Mapping[str, str]


def read_pai(sources: Sequence[Source], tally: Tally) -> Parts:
    """Jobs of pai_job_table and pai_task_table (both needed), nodes of pai_machine_spec.

    A job is a gang of all instances of its tasks; its start is its first task's. Instances of less than a device
    share theirs: ``gpu_share_frac`` is the mean share. Times are seconds of a shifted clock that keeps hours and
    weekdays (UTC+8).

    Raises:
        ScenarioError: a file that is none of the tables, or tasks without jobs.
    """
    rows: dict[str, list[tuple[str, Row]]] = {"job": [], "task": [], "machine": []}
    for source in sources:
        kind, found = _rows(source, tally)
        rows[kind] += found
    if bool(rows["job"]) != bool(rows["task"]):
        here, other = ("job", "task") if rows["job"] else ("task", "job")
        raise refuse(
            ", ".join(s.name for s in sources), f"pai_{here}_table alone: give pai_{other}_table too"
        )
    tasks: dict[str, list[Row]] = {}
    for _, row in rows["task"]:
        tasks.setdefault(row["job_name"], []).append(row)
    found_jobs = []
    for place, row in rows["job"]:
        job = _job(row, tasks.get(row["job_name"], []), place, tally)
        if job is not None:
            found_jobs.append((place, job))
    nodes = [_node(row) for _, row in rows["machine"] if row["machine"]]
    return Parts(jobs=once_each(found_jobs, tally), nodes=nodes)


def _rows(source: Source, tally: Tally) -> tuple[str, list[tuple[str, Row]]]:
    header, rest = table(source)
    kind = next((name for name, columns in _TABLES.items() if list(columns) == header), "")
    if not kind:  # the released files have no header
        kind = next((name for name, columns in _TABLES.items() if len(columns) == len(header)), "")
        if not kind or (kind != "machine" and amount(header[4] or "0") is None):
            raise refuse(
                source.name,
                "is none of pai_job_table, pai_task_table, pai_machine_spec",
                ",".join(header)[:60],
            )

        def lines() -> Iterator[tuple[int, list[str]]]:
            yield 1, header
            yield from rest
    else:

        def lines() -> Iterator[tuple[int, list[str]]]:
            yield from rest

    found: list[tuple[str, Row]] = []
    for line, cells in lines():
        place = source.place(line)
        tally.records += kind != "task"
        if len(cells) != len(_TABLES[kind]):
            tally.skip("row has another number of cells than the table", place)
            continue
        found.append((place, dict(zip(_TABLES[kind], (cell.strip() for cell in cells), strict=True))))
    return kind, found


def _job(row: Row, tasks: Sequence[Row], place: str, tally: Tally) -> Job | None:
    if not tasks:
        tally.skip("job without a task: what it asks for is not known", place)
        return None
    parts = [(amount(task["inst_num"]) or 1.0, (amount(task["plan_gpu"]) or 0.0) / 100) for task in tasks]
    devices = sum(count * max(round(each), 1) for count, each in parts if each)
    asked = sum(count * each for count, each in parts)
    starts = [start for task in tasks if (start := _clock(task["start_time"])) is not None]
    submit, end = _clock(row["start_time"]), _clock(row["end_time"])
    kinds = {task["gpu_type"] for task in tasks if amount(task["plan_gpu"]) and task["gpu_type"]}
    record = Record(
        name=row["job_name"],
        place=place,
        gpus=int(devices),
        submit_s=submit,
        start_s=min(starts, default=None) if end is not None else None,
        end_s=end,
        outcome=outcome_of(row["status"]),
        state=row["status"],
    )
    return make_job(
        record,
        tally,
        user=row["user"],
        accelerator=kinds.pop() if len(kinds) == 1 else "",
        gpu_share_frac=min(asked / devices, 1.0) if devices else 1.0,
        cpus=sum(
            count * (amount(t["plan_cpu"]) or 0.0) / 100 for (count, _), t in zip(parts, tasks, strict=True)
        ),
        memory_bytes=sum(
            count * (amount(t["plan_mem"]) or 0.0) * 1e9 for (count, _), t in zip(parts, tasks, strict=True)
        ),
    )


def _clock(text: str) -> float | None:
    seconds = amount(text)
    return None if seconds is None else seconds + ZONE_S


def _node(row: Row) -> Node:
    gpus = int(amount(row["cap_gpu"]) or 0)
    return Node(
        row["machine"],
        ((row["gpu_type"], gpus),) if gpus else (),
        amount(row["cap_cpu"]) or 0.0,
        (amount(row["cap_mem"]) or 0.0) * 1e9,
    )
