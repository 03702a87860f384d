"""The engine against every row of queueing_vectors.csv that an open trace can express.

``python -m benchmarks.queueing [ids]``. A long study (minutes to an hour): replications are added until the 99 %
interval is within 1 % of the mean on either side, or 200 are spent.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sim.cluster.nodes import Nodes, Pool
from sim.cluster.placement.whole import Anywhere
from sim.cluster.policies.order import Fifo, Priority, Sjf
from sim.cluster.policies.preemptive import PriorityPreempt, Srtf
from sim.cluster.policy import Cancel, FunctionPolicy, Policy, Start
from sim.cluster.run import simulate
from sim.results.cluster_log import ClusterLog
from sim.spec.job import Job

VECTORS = Path(__file__).resolve().parents[2] / "shared/data/queueing_vectors.csv"
JOBS = 50_000
"""Jobs of a replication; the first fifth is warm-up."""
SKIPPED = {
    "M/G/1-PS": "no processor sharing: devices are given whole",
    "machine-repair": "a closed system: arrivals depend on repairs",
    "gang-straggler": "a step of one job, not a queue",
}


def loss(view: Any) -> Iterator[Any]:
    """Whoever does not fit goes away."""
    for state in view.waiting:
        if not (yield Start(state)):
            yield Cancel(state)


def bounded(room: int) -> Any:
    """One server and a queue with room for so many, the one in service included (M/M/1/K)."""

    def decide(view: Any) -> Iterator[Any]:
        for place, state in enumerate(view.waiting):
            if not (yield Start(state)) and place >= room - 1:
                yield Cancel(state)

    return decide


def service(p: dict[str, Any], draw: np.random.Generator, count: int) -> np.ndarray:
    """Service times of a row; "any" law = lognormal with shape 1 (an insensitive quantity must not mind)."""
    if "service_s" in p:
        return np.full(count, float(p["service_s"]))
    law = p.get("service", "exponential")
    if law == "uniform":
        return draw.uniform(p["low"], p["high"], count)
    if law == "hyperexponential":
        rates = np.array(p["rates"])[draw.choice(len(p["probs"]), count, p=p["probs"])]
        return draw.exponential(1.0, count) / rates
    if law == "lognormal":
        return draw.lognormal(p["mu"], p["sigma"], count)
    if law == "erlang":
        return draw.gamma(p["shape"], 1 / p["rate"], count)
    if law == "any":
        return draw.lognormal(-0.5, 1.0, count) * p.get("mean_service_s", 1.0)
    return draw.exponential(1 / p["service_rate"], count)


def setting(model: str, p: dict[str, Any], draw: np.random.Generator) -> tuple[list[Job], int, Policy]:
    """Jobs, devices and policy of a row."""
    count = JOBS
    sizes, classes = np.ones(count, int), np.zeros(count)
    devices, policy = int(p.get("servers", 1)), Fifo()
    rate = p.get("arrival_rate")
    if model == "D/M/1":
        arrivals = np.arange(count) * float(p["interarrival_s"])
    elif model == "saturated-gang-FCFS":
        arrivals, devices = np.zeros(count), p["gpus"]
        sizes = draw.choice(p["job_gpus"], count, p=p["probs"])
    else:
        if "arrival_rates" in p:
            rates = np.array(p["arrival_rates"])
            rate = rates.sum()
            classes = -draw.choice(len(rates), count, p=rates / rate).astype(float)
            policy = PriorityPreempt() if "preemptive-resume" in model else Priority()
        if model == "multirate-loss":
            offered = np.array(p["offered_erlangs"])
            rate, devices = offered.sum(), p["gpus"]
            sizes = draw.choice(p["job_gpus"], count, p=offered / rate)
        arrivals = np.cumsum(draw.exponential(1 / rate, count))
    if model in ("M/G/c/c", "multirate-loss"):
        policy = FunctionPolicy(loss)
    elif model == "M/M/1/K":
        policy = FunctionPolicy(bounded(int(p["capacity"])))
    elif model == "M/G/inf":
        devices = 400
    elif model.endswith("SJF"):
        policy = Sjf()
    elif model.endswith("SRPT"):
        policy = Srtf()
    times = service(p, draw, count)
    jobs = [
        Job(str(number), float(at), int(size), float(time_s), priority=float(kind))
        for number, (at, size, time_s, kind) in enumerate(zip(arrivals, sizes, times, classes, strict=True))
    ]
    return jobs, devices, policy


def measure(quantity: str, log: ClusterLog, jobs: list[Job]) -> float:
    """The quantity of one replication, after warm-up."""
    rows = sorted(log.records, key=lambda row: row.number)[JOBS // 5 :]
    if quantity in ("utilisation", "jobs_per_s"):
        # an endless queue: from the first end after warm-up until the last start
        until_s = max(row.start_s for row in rows if row.start_s is not None)
        inside = [row for row in log.segments if row.start_s < until_s]
        if quantity == "jobs_per_s":
            return sum(row.end_s <= until_s for row in inside) / until_s
        held = sum(row.gpus * (min(row.end_s, until_s) - row.start_s) for row in inside)
        return held / until_s / log.devices
    if quantity.startswith("prob_block"):
        size = quantity.removeprefix("prob_block").strip("_").removesuffix("gpu")
        chosen = [row for row in rows if not size or row.gpus == int(size)]
        return sum(row.outcome == "refused" for row in chosen) / len(chosen)
    if quantity.endswith(("class1", "class2")):
        kind = 1.0 - int(quantity[-1])
        rows = [row for row in rows if jobs[row.number].priority == kind]
    waits = np.array([row.wait_s for row in rows])
    answers = np.array([(row.end_s or 0.0) - row.submit_s for row in rows])
    if quantity == "prob_wait":
        return float((waits > 1e-12).mean())
    if quantity == "prob_wait_exceeds_2s":
        return float((waits > 2).mean())
    if quantity.startswith("mean_wait_s"):
        return float(waits.mean())
    if quantity.startswith("mean_response_s"):
        return float(answers.mean())
    submits = np.array([row.submit_s for row in rows])
    begin_s, end_s = submits[0], submits[-1]
    if quantity == "mean_number_in_queue":
        return float(waits.sum() / (end_s - begin_s))
    if quantity == "mean_number_in_system":
        return float(answers.sum() / (end_s - begin_s))
    if quantity == "var_number_in_system":
        everybody = sorted(log.records, key=lambda row: row.number)
        starts = np.sort([row.submit_s for row in everybody])
        ends = np.sort([row.end_s for row in everybody if row.end_s is not None])
        at = np.linspace(begin_s, end_s, 200_000)
        number = np.searchsorted(starts, at, side="right") - np.searchsorted(ends, at, side="right")
        return float(number.var())
    raise ValueError(f"no quantity {quantity!r}")


def study(row: dict[str, str], most: int = 200) -> tuple[float, float, int]:
    """Mean, half-width of the 99 % interval, replications."""
    values: list[float] = []
    half = math.inf
    while len(values) < 5 or (half > 0.01 * abs(float(np.mean(values))) and len(values) < most):
        draw = np.random.default_rng([len(values), int(row["id"].lstrip("q"))])
        jobs, devices, policy = setting(row["model"], json.loads(row["params_json"]), draw)
        log = simulate(iter(jobs), Nodes([Pool(1, devices)], Anywhere()), policy)
        little = sum(record.wait_s for record in log.records)
        if abs(log.waiting_job_s - little) > 1e-6 * max(little, 1.0):
            raise RuntimeError(f"{row['id']}: Little's law does not hold: {log.waiting_job_s} and {little}")
        values.append(measure(row["quantity"], log, jobs))
        if len(values) > 1:
            error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
            half = float(stats.t.ppf(0.995, len(values) - 1)) * error
    return float(np.mean(values)), half, len(values)


def main(arguments: list[str]) -> int:
    """Study all rows, or those named; the exit code is 1 when one lies outside its interval widened to 1 %."""
    if not VECTORS.is_file():
        print(f"no {VECTORS.name} beside the repository")
        return 0
    failed = 0
    with VECTORS.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if arguments and row["id"] not in arguments:
                continue
            if row["model"] in SKIPPED:
                print(f"skip {row['id']} {row['model']}: {SKIPPED[row['model']]}")
                continue
            mean, half, count = study(row)
            expected = float(row["expected"])
            good = abs(mean - expected) <= max(half, 0.01 * abs(expected))
            failed += not good
            told = f"{mean:.5g} +- {half:.2g} ({count} runs), expected {expected:.5g}"
            print(
                f"{'ok  ' if good else 'OFF '} {row['id']} {row['model']} {row['quantity']}: {told}",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
