"""The answer of a cluster study as plain tables: what every face shows and what ``--json`` prints."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from sim.cluster.energy import energy
from sim.cluster.study import COLUMNS, POINTS, ClusterStudy, book, left_to_chance
from sim.results.cluster_log import CAUSES, ClusterLog, account
from sim.results.cluster_stats import by_group
from sim.spec.failure_rates import rate_set
from sim.spec.reliability import Reliability
from sim.spec.scenario import Cluster, Scenario
from sim.units import format_percent, format_seconds

ANSWERS = {
    "mean_wait_s": ("mean wait", "s"),
    "p50_wait_s": ("median wait", "s"),
    "p95_wait_s": ("wait that 95 % stay below", "s"),
    "mean_slowdown": ("mean bounded slowdown", "x"),
    "mean_completion_s": ("mean time from submission to end", "s"),
    "jobs_done_per_day": ("jobs done a day", "/day"),
    "utilisation_frac": ("devices held by jobs", "share"),
    "goodput_frac": ("device-time that became lasting work", "share"),
    "effective_frac": ("of the time jobs held devices, what became lasting work", "share"),
    "spent_on_failures_frac": ("checkpoints, lost work, restarts, undetected faults", "share"),
    "down_frac": ("nodes out of service", "share"),
    "idle_though_jobs_wait_frac": ("idle though jobs wait", "share"),
    "interruptions": ("jobs interrupted, in all", ""),
    "interruptions_per_day": ("jobs interrupted a day", "/day"),
    "fairness": ("Jain's index of the users' slowdowns", ""),
    "left_waiting": ("jobs still waiting at the end", ""),
}
"""Answer -> words for people and unit."""
OF_ENDED_JOBS = (
    "mean_wait_s", "p50_wait_s", "p95_wait_s", "mean_slowdown", "mean_completion_s", "jobs_done_per_day", "fairness",
)  # fmt: skip
"""Answers that say nothing where no job ended."""
OF_FAILURES = (
    "effective_frac",
    "spent_on_failures_frac",
    "down_frac",
    "interruptions",
    "interruptions_per_day",
)
CAUSE_WORDS = {
    "useful": "useful work",
    "checkpoint": "checkpoints",
    "lost": "work lost to failures",
    "restart": "restarts",
    "preemption_overhead": "overhead of preemption",
    "undetected_fault": "faults nobody had noticed",
    "contention": "slowed by narrow or shared links",
    "interference": "slowed by neighbours on the same device",
    "down": "nodes out of service",
    "idle_nobody_waits": "idle, nobody waits",
    "idle_though_jobs_wait": "idle though jobs wait",
}
MAX_ROWS, TIME_BINS, MAX_NODES = 20, 160, 128


def cluster_document(study: ClusterStudy) -> dict[str, Any]:
    """Everything about one study, ready for JSON: same scenario and seed, same bytes."""
    scenario, log = study.scenario, study.log
    books = account(log)
    warm = study.warm_up.span_s
    kinds = [job.kind for job in study.jobs]
    owned = books.owned_gpu_s or 1.0
    return {
        "rackcast": version("rackcast"),
        "scenario": {
            "name": scenario.name,
            "shows": scenario.shows,
            "hash": scenario.content_hash,
            "seed": scenario.seed,
        },
        "cluster": _cluster(scenario.cluster),
        "policy": {
            "name": scenario.policy.function or scenario.policy.name,
            "placement": scenario.policy.placement,
        },
        "span_s": log.span_s,
        "jobs": sum(job.submit_s <= log.span_s for job in study.jobs),
        "jobs_left_out": sum(job.submit_s > log.span_s for job in study.jobs),
        "verdict": {
            "word": study.verdict.word,
            "offered_frac": study.verdict.offered_frac,
            "turns_frac": study.verdict.turns_frac,
        },
        "left_to_chance": left_to_chance(scenario),
        "replications": study.replications.count,
        "not_converged": [name for name in study.replications.not_converged if name in told_answers(study)],
        "answers": [_answer(study, name) for name in told_answers(study)],
        "books": [
            {
                "cause": cause,
                "words": CAUSE_WORDS[cause],
                "device_hours": owned / 3600 * share,
                "share_frac": share,
            }
            for cause, share in shares(study).items()
        ],
        "books_gap_frac": books.gap_frac,
        "idle_though_jobs_wait": {
            "fragments_frac": study.idle.fragments_gpu_s / owned,
            "held_back_frac": study.idle.held_back_gpu_s / owned,
        },
        "warm_up": {
            "span_s": warm,
            "found": study.warm_up.found,
            "too_short": study.warm_up.too_short,
        },
        "energy": energy(log, scenario.cluster, scenario.prices),
        "by_user": by_group(log.records, "user", warm)[:MAX_ROWS],
        "by_queue": by_group(log.records, "queue", warm)[:MAX_ROWS],
        "by_size": by_group(log.records, "gpus", warm)[:MAX_ROWS],
        "by_kind": by_group(log.records, "kind", warm, kinds)[:MAX_ROWS],
        "series": bands(study),
        "nodes": node_map(log, scenario.cluster),
        "outages": [
            {"node": d.node, "start_s": d.start_s, "hours": (d.end_s - d.start_s) / 3600, "cause": d.cause}
            for d in log.downtimes[: 10 * MAX_ROWS]
        ],
        "outages_total": len(log.downtimes),
        "inputs": inputs(scenario),
    }


def told_answers(study: ClusterStudy) -> list[str]:
    """Answers that mean something for this study: none of ended jobs where none ended, none of failures without."""
    ended = any(study.replications.values["jobs_done_per_day"])
    stays = {name for name in OF_FAILURES if study.scenario.reliability is None}
    return [name for name in ANSWERS if name not in stays and (ended or name not in OF_ENDED_JOBS)]


def _answer(study: ClusterStudy, name: str) -> dict[str, Any]:
    interval, runs = study.replications.interval(name), study.replications.values[name]
    words, unit = ANSWERS[name]
    return {"name": name, "words": words, "unit": unit, "mean": interval.estimate,
            "low": interval.low, "high": interval.high,
            "least": min(runs), "most": max(runs)}  # fmt: skip


def _cluster(cluster: Cluster) -> dict[str, Any]:
    return {
        "devices": cluster.devices,
        "pools": [
            {
                "name": pool.name,
                "nodes": pool.nodes,
                "devices": pool.devices,
                "system": pool.system.name,
                "accelerator": pool.accelerator.name,
            }
            for pool in cluster.pools
        ],
    }


def shares(study: ClusterStudy) -> dict[str, float]:
    """Share of the device-time owned by cause, mean over replications; they add up to 1."""
    return {cause: study.replications.interval(book(cause)).estimate for cause in CAUSES}


def bands(study: ClusterStudy) -> list[dict[str, float]]:
    """Devices held and jobs waiting over time: first replication, and P10, P50, P90 over all of them."""
    times = study.log.start_s + np.linspace(0, study.log.span_s, POINTS)
    found: list[dict[str, float]] = [{"time_s": float(at)} for at in times]
    for column in COLUMNS:
        values = np.array([study.replications.values[f"{column}@{i}"] for i in range(POINTS)])
        low, mid, high = np.quantile(values, [0.1, 0.5, 0.9], axis=1)
        for i, row in enumerate(found):
            row |= {
                column: float(values[i, 0]),
                f"{column}_p10": float(low[i]),
                f"{column}_p50": float(mid[i]),
                f"{column}_p90": float(high[i]),
            }
    return found


def node_map(log: ClusterLog, cluster: Cluster) -> dict[str, Any]:
    """Share of each node's devices held, by time: ``held[node][bin]``, and ``down`` likewise; at most ``MAX_NODES``."""
    size = [pool.system.gpus_per_node for pool in cluster.pools for _ in range(pool.nodes)]
    shown = min(len(size), MAX_NODES)
    edge = log.start_s + np.linspace(0, log.span_s, TIME_BINS + 1)
    middle = (edge[:-1] + edge[1:]) / 2
    held, down = np.zeros((shown, TIME_BINS)), np.zeros((shown, TIME_BINS))
    for row in log.segments:
        first, last = np.searchsorted(middle, row.start_s), np.searchsorted(middle, row.end_s)
        for node, devices in row.placed.spots:
            if node < shown:
                held[node, first:last] += devices / size[node]
    for away in log.downtimes:
        if away.node < shown:
            first, last = np.searchsorted(middle, away.start_s), np.searchsorted(middle, away.end_s)
            down[away.node, first:last] = 1.0
    return {
        "shown": shown,
        "total": len(size),
        "time_s": middle.tolist(),
        "held": np.round(held, 3).tolist(),
        "down": down.astype(int).tolist(),
    }


def inputs(scenario: Scenario) -> list[dict[str, Any]]:
    """What the answer leans on, and whether each input is published, assumed or the user's own."""
    rows: list[dict[str, Any]] = []
    reliability = scenario.reliability
    if reliability is not None and reliability.rates:
        found = rate_set(reliability.rates)
        rate = found.node_failures_per_1000_node_days
        rows.append(
            _input(
                "node failures per 1,000 node-days", f"{rate:g}", f"published ({found.status})", found.source
            )
        )
        shares = ", ".join(f"{name} {number}" for name, number in list(found.counts.items())[:6])
        if shares and not reliability.causes:
            rows.append(_input("causes", f"{shares} ...", f"published ({found.status})", found.source))
        told = "detection, repair and replacement times by cause"
        rows.append(_input(told, "see catalogue", "assumed", "failure_rates.toml: published nowhere"))
    elif reliability is not None:
        given = reliability.node_failures_per_1000_node_days
        rows.append(_input("node failures per 1,000 node-days", str(given), "scenario", ""))
    if reliability is not None:
        rows += _own_inputs(scenario, reliability)
    rows += [
        _input(f"step time of {run.name}", "predicted", "modelled", "the step model of rackcast")
        for run in (scenario.jobs.runs if scenario.jobs else ())
    ]
    if scenario.jobs and scenario.jobs.trace:
        rows.append(_input("jobs", scenario.jobs.trace, "history", "as it was recorded"))
    return rows


def _own_inputs(scenario: Scenario, reliability: Reliability) -> list[dict[str, Any]]:
    """What the scenario says itself about failures and recovery; published nowhere."""
    given, kind = "scenario", reliability.checkpoints
    own = "the scenario file or its defaults: assumed"
    words = f"{kind.kind}, {kind.rule} interval"
    if kind.memory_interval_s is not None:
        words += f", snapshots in memory every {format_seconds(kind.memory_interval_s)}"
    again = f"{format_seconds(kind.requeue_s)} + {format_seconds(kind.warm_up_s)}, and loading"
    rows = [_input("checkpoints", words, given, own), _input("restart: requeue + warm-up", again, given, own)]
    storage = scenario.cluster.storage
    if storage is not None:
        speed = f"{storage.read_bytes_per_s / 1e12:g} TB/s read, {storage.write_bytes_per_s / 1e12:g} written"
        rows.append(_input("shared storage", speed, given, "the scenario file"))
    if reliability.job_failures_per_day:
        rate = f"{reliability.job_failures_per_day:g} a day"
        rows.append(_input("failures of a job's own making", rate, given, own))
    spares = reliability.spares
    if spares.cold or spares.hot:
        rows.append(_input("spare nodes", f"{spares.hot} hot, {spares.cold} cold", given, own))
    slow = reliability.stragglers
    if slow is not None:
        rate = f"{slow.onsets_per_1000_node_days:g} per 1,000 node-days"
        rate += f", at {format_percent(slow.slow_speed_frac)} of the speed"
        rows.append(_input("nodes that turn slow", rate, given, own))
    if reliability.maintenance is not None:
        window = reliability.maintenance
        every = f"{format_seconds(window.lasts_s)} every {format_seconds(window.every_s)}"
        rows.append(_input("maintenance", every, given, own))
    level = scenario.study.failures
    if level == "draw":
        rows.append(
            _input("failure rate of a replication", "drawn from low, mid, high", given, "study.failures")
        )
    return rows


def _input(name: str, value: str, kind: str, source: str) -> dict[str, Any]:
    return {"name": name, "value": value, "kind": kind, "source": source}
