"""Our scheduler against others: the same trace, the same rules, job by job.

Like two clerks given one pile of orders: with the other's house rules every stamp must agree; with our own, the
averages.
A folder holds ``cases.csv`` (one row a file: peer, policy, nodes, event rule, overhead, end lag), a CSV of jobs with
the
peer's ``start_s`` and ``end_s`` for each row, and may hold ``reference_cases.json``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sim.cluster.nodes import Nodes, Pool
from sim.cluster.placement.whole import Packed
from sim.cluster.policies.conservative import Conservative, ConservativeCompress
from sim.cluster.policies.easy import BACKFILLS, Easy
from sim.cluster.policies.order import EarliestDeadline, Fifo, Priority, Sjf
from sim.cluster.policies.preemptive import PriorityPreempt, Srtf, Tiresias
from sim.cluster.policies.shares import Drf, FairShare
from sim.cluster.policy import Policy
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.results.cluster_log import JobRecord
from sim.spec.job import Job
from sim.validation.outcome import ValidationError
from sim.validation.peers import EventEasy, TickSrtf, TickTiresias
from sim.validation.placement import compare_placement
from sim.validation.tables import Table, read_table

OWN: Mapping[str, Policy] = {
    "fifo": Fifo(),
    "sjf": Sjf(),
    "srtf": Srtf(),
    "priority": Priority(),
    "priority_preempt": PriorityPreempt(),
    "easy": Easy(),
    **BACKFILLS,
    "conservative": ConservativeCompress(),  # what the peers of this name run
    "conservative_compress": ConservativeCompress(),
    "conservative_rebuild": Conservative(),
    "fairshare": FairShare(),
    "drf": Drf(),
    "tiresias": Tiresias(),
    "edf": EarliestDeadline(),
}
"""Policies by the words of such a folder; those of a peer's file."""
_REFERENCE: Mapping[str, Policy] = {**OWN, "conservative": Conservative()}
_DIALECTS: Mapping[tuple[str, str], Policy] = {
    ("tick", "srtf"): TickSrtf(),
    ("tick", "tiresias"): TickTiresias(),
    ("per-event", "easy"): EventEasy(),
    **{("per-event", name): EventEasy(policy.order, name=name) for name, policy in BACKFILLS.items()},
}
"""(event rule, policy) -> the policy as that peer runs it, where it does more than the rule says."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of ``cases.csv``."""

    file: str
    peer: str
    policy: str
    nodes: int
    gpus_per_node: int
    event_rule: str
    overhead: str
    end_lag_s: float
    interval_s: float


def validate_scheduling(folder: Path) -> dict[str, Any]:
    """Summary of a folder: ``cases``, ``identical_cases``, ``files`` (jobs, identical jobs, and the signed error in
    percent of
    the mean wait under our own default rules) and ``skipped`` (file -> reason)."""
    if not folder.is_dir():
        raise ValidationError(f"{folder}: no such folder")
    cases, skipped = read_cases(folder)
    reference = folder / "reference_cases.json"
    if not cases and not skipped and not reference.is_file():
        raise ValidationError(f"{folder}: neither cases.csv with rows nor reference_cases.json")
    count, identical, unknown = _reference(reference) if reference.is_file() else (0, 0, {})
    files: dict[str, dict[str, Any]] = {}
    for case in cases:
        table, reason = _table(folder, case)
        if table is None:
            skipped[case.file] = reason
        elif case.peer == "fgd":
            answer = compare_placement(folder, case.file, case.policy, table)
            if isinstance(answer, str):
                skipped[case.file] = answer
            else:
                files[case.file] = answer
        else:
            files[case.file] = _compare(case, table)
    return {
        "cases": count,
        "identical_cases": identical,
        "files": files,
        "skipped": {**skipped, **unknown},
    }


def read_cases(folder: Path) -> tuple[list[Case], dict[str, str]]:
    """Rows of ``cases.csv`` that can be played, and file -> reason for the rest."""
    path = folder / "cases.csv"
    if not path.is_file():
        return [], {}
    table = read_table(path)
    table.need("file", "peer", "policy", "event_rule")
    cases: list[Case] = []
    skipped: dict[str, str] = {}
    for row in table.rows:
        peer, file = row["peer"], row["file"]
        if peer == "none":
            continue
        if peer != "fgd" and row["policy"] not in OWN:
            skipped[file] = f"no policy {row['policy']!r}"
            continue
        if peer != "fgd" and not row["event_rule"].startswith(("tick", "per-event")):
            skipped[file] = f"no event rule {row['event_rule']!r}"
            continue
        cases.append(
            Case(
                file, peer, row["policy"],
                int(table.number(row, "nodes", 0)), int(table.number(row, "gpus_per_node", 0)),
                row["event_rule"], row.get("preemption_overhead_s_by_gpus") or "",
                table.number(row, "end_lag_s", 0.0), table.number(row, "scheduling_interval_s", 0.0),
            )
        )  # fmt: skip
    table.refuse()
    return cases, skipped


def _table(folder: Path, case: Case) -> tuple[Table | None, str]:
    path = folder / case.file
    if not path.is_file():
        return None, "the file is not there"
    table = read_table(path)
    wanted = ("node",) if case.peer == "fgd" else ("start_s", "end_s")
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        return None, f"no schedule in it: no column {', '.join(missing)}"
    if case.peer != "fgd" and (case.nodes < 1 or case.gpus_per_node < 1):
        return None, "no nodes given in cases.csv"
    return table, ""


def overhead_s(text: str) -> Callable[[Job], float]:
    """Overhead of a preemption by devices, from text such as ``1:7;2-8:30;9+:60``; nothing = none."""
    steps: list[tuple[float, float, float]] = []
    for part in filter(None, text.split(";")):
        sizes, _, seconds = part.partition(":")
        low, dash, high = sizes.rstrip("+").partition("-")
        try:
            least = float(low)
            most = float("inf") if sizes.endswith("+") else float(high) if dash else least
            steps.append((least, most, float(seconds)))
        except ValueError:
            raise ValidationError(
                f"preemption_overhead_s_by_gpus = {text!r}: expected e.g. 1:7;2-8:30;9+:60"
            ) from None
    return lambda job: next((cost for least, most, cost in steps if least <= job.gpus <= most), 0.0)


def jobs_of(table: Table) -> list[Job]:
    """Jobs of a table, in the order of submission (ties as they stand)."""
    table.need("job_id", "gpus", "submit_s", "duration_s")
    limited = "limit_s" in table.columns
    jobs = [
        Job(
            row["job_id"],
            table.number(row, "submit_s"),
            int(table.number(row, "gpus")),
            table.number(row, "duration_s"),
            table.number(row, "limit_s") if limited else None,
            user=row.get("user") or "",
            queue=row.get("vc") or row.get("queue") or "",
            priority=table.number(row, "priority", 0.0),
        )
        for row in table.rows
    ]
    table.refuse()
    return sorted(jobs, key=lambda job: job.submit_s)


def as_the_peer(case: Case) -> tuple[Policy, Rules]:
    """The policy and the rules of the house as that peer has them (its end lag is added to the durations)."""
    tick = case.event_rule.startswith("tick")
    policy = _DIALECTS.get(("tick" if tick else "per-event", case.policy), OWN[case.policy])
    if isinstance(policy, TickTiresias) and case.interval_s:
        policy = replace(policy, interval_s=case.interval_s)
    return policy, Rules(
        preemption_overhead_s=overhead_s(case.overhead), one_pass=tick, completions_first=tick
    )


def _compare(case: Case, table: Table) -> dict[str, Any]:
    jobs = jobs_of(table)
    policy, rules = as_the_peer(case)
    lagging = [replace(job, duration_s=job.duration_s + case.end_lag_s) for job in jobs]
    theirs = _records(lagging, case, policy, rules)
    identical = 0
    for row in table.rows:
        record = theirs[row["job_id"]]
        same = record.start_s == table.number(row, "start_s") and record.end_s == table.number(row, "end_s")
        if "preemptions" in table.columns:
            same = same and record.preemptions == table.number(row, "preemptions")
        identical += same
    ours = _records(jobs, case, OWN[case.policy], Rules(preemption_overhead_s=rules.preemption_overhead_s))
    peer_s = sum(table.number(row, "start_s") - table.number(row, "submit_s") for row in table.rows)
    ours_s = sum(record.start_s - record.submit_s for record in ours.values() if record.start_s is not None)
    table.refuse()
    return {
        "jobs": len(jobs),
        "identical_jobs": identical,
        "mean_wait_error_pct": 100 * (ours_s / peer_s - 1) if peer_s else (0.0 if not ours_s else None),
    }


def _records(jobs: list[Job], case: Case, policy: Policy, rules: Rules) -> dict[str, JobRecord]:
    ground = Nodes([Pool(case.nodes, case.gpus_per_node)], Packed())
    return {record.job: record for record in simulate(jobs, ground, policy, rules=rules).records}


def _reference(path: Path) -> tuple[int, int, dict[str, str]]:
    """Cases, cases identical in every start, end and stretch, and what was skipped."""
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValidationError(f"{path}: cannot be read: {error}") from None
    count = identical = 0
    skipped: dict[str, str] = {}
    for case in cases:
        if case["policy"] not in _REFERENCE or "schedule" not in case:
            skipped[f"{path.name} case {case['case']}"] = f"no policy {case['policy']!r} or no schedule"
            continue
        count += 1
        identical += same_schedule(case)
    return count, identical, skipped


def same_schedule(case: Mapping[str, Any]) -> bool:
    """Whether our schedule of one reference case (one pool, no overheads) is the one it states."""
    jobs = [
        Job(
            str(job["id"]), job["submit_s"], job["gpus"], job["duration_s"], job["limit_s"],
            priority=job["priority"], queue=job.get("queue", ""),
        )
        for job in sorted(case["jobs"], key=lambda job: (job["submit_s"], job["id"]))
    ]  # fmt: skip
    policy = _REFERENCE[case["policy"]]
    if isinstance(policy, FairShare | Drf):
        policy = replace(policy, weights=case.get("weights") or {})
    log = simulate(jobs, [Pool(1, case["gpus"])], policy)
    stretches: dict[str, list[list[float]]] = defaultdict(list)
    for row in log.segments:
        stretches[row.job].append([row.start_s, row.end_s])
    ends = {record.job: (record.start_s, record.end_s) for record in log.records}
    return len(ends) == len(case["schedule"]) and all(
        stretches[job] == stated["segments"] and ends[job] == (stated["start_s"], stated["end_s"])
        for job, stated in case["schedule"].items()
    )
