"""Placement of fractions against the fragmentation paper's program: task by task on the same node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.cluster.placement.fragmentation import FragmentationDescent, typical_tasks
from sim.cluster.placement.scores import BestFit, DotProduct, GpuPacking
from sim.cluster.placement.shared import WHOLE, NodeKind, Score, SharedNodes, ask_of
from sim.spec.job import Job
from sim.validation.tables import Table, read_table

_MIB = 2**20
_MOST_CPU_MILLI, _MOST_GPUS = 128_000, 8
"""The largest node that the peer's scores are scaled by (constants of that program)."""

_SCORES: Mapping[str, Callable[[Sequence[Job]], Score]] = {
    "fgd": lambda jobs: FragmentationDescent(typical_tasks(ask_of(job, job.gpus) for job in jobs)),
    "bestfit": lambda _: BestFit(_MOST_CPU_MILLI, _MOST_GPUS),
    "dotprod": lambda _: DotProduct(_MOST_CPU_MILLI, _MOST_GPUS),
    "gpupacking": lambda _: GpuPacking(),
}


def compare_placement(folder: Path, file: str, policy: str, table: Table) -> dict[str, Any] | str:
    """Tasks, tasks on the peer's node (``identical_jobs``), and the share of devices allocated, ours and the peer's, in
    percent; or the reason why the file is skipped. Nodes stand in ``<name without policy>_nodes.csv.gz``."""
    if policy not in _SCORES:
        return f"no placement {policy!r}"
    beside = folder / f"{file.rsplit('_', 1)[0]}_nodes.csv.gz"
    if not beside.is_file():
        return f"{beside.name} is not there"
    nodes = read_table(beside)
    nodes.need("sn", "cpu_milli", "memory_mib", "gpu", "model", "rank")
    order = sorted(nodes.rows, key=lambda row: nodes.number(row, "rank"))
    kinds = [
        NodeKind(
            int(nodes.number(row, "cpu_milli")),
            nodes.number(row, "memory_mib") * _MIB,
            int(nodes.number(row, "gpu")),
            row["model"],
        )
        for row in order
    ]
    nodes.refuse()
    table.need("order", "name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")
    rows = sorted(table.rows, key=lambda row: table.number(row, "order"))
    jobs = [_job(table, row) for row in rows]
    table.refuse()
    ground = SharedNodes(kinds, _SCORES[policy](jobs))
    identical = ours = theirs = 0
    for job, row in zip(jobs, rows, strict=True):
        placed = ground.place(job, job.gpus)
        node = order[placed.spots[0][0]]["sn"] if placed else ""
        asked = round(job.gpus * job.gpu_share_frac * WHOLE)
        identical += node == row["node"]
        ours += asked if placed else 0
        theirs += asked if row["node"] else 0
    owned = ground.total_gpus * WHOLE / 100
    return {
        "jobs": len(jobs),
        "identical_jobs": identical,
        "mean_wait_error_pct": None,
        "allocated_pct": ours / owned,
        "peer_allocated_pct": theirs / owned,
    }


def _job(table: Table, row: dict[str, str]) -> Job:
    """A task; a share of a device counts only where it asks for one."""
    gpus = int(table.number(row, "num_gpu"))
    return Job(
        row["name"], 0.0, gpus, 0.0,
        accelerator=row["gpu_spec"] or "",
        gpu_share_frac=table.number(row, "gpu_milli") / WHOLE if gpus else 1.0,
        cpus=table.number(row, "cpu_milli") / 1000,
        memory_bytes=table.number(row, "memory_mib") * _MIB,
    )  # fmt: skip
