"""What each row of queueing_vectors.csv is on the engine: jobs, nodes and policy of one run, and the run as columns.

The stage directions; what is looked at in the play stands in ``queueing_answers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cluster.failures.spares import of_the_floor
from sim.cluster.failures.stream import outages
from sim.cluster.nodes import Ground, Nodes, Pool
from sim.cluster.placement.scores import GpuPacking
from sim.cluster.placement.shared import WHOLE, NodeKind, SharedNodes
from sim.cluster.placement.whole import Anywhere
from sim.cluster.policies.order import Fifo, Priority, Sjf
from sim.cluster.policies.preemptive import PriorityPreempt, Srtf
from sim.cluster.policy import Cancel, FunctionPolicy, Policy, Start
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.cluster.sharing import EqualTurns
from sim.results.cluster_log import ClusterLog, account
from sim.spec.job import Job
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Cause, Delay, Reliability, Spares
from sim.statistics.streams import Streams

Floats = NDArray[np.float64]
REPAIR_SPAN_S, ENDLESS_SERVERS = 50_000.0, 400


@dataclass(frozen=True, slots=True)
class Setting:
    """One run before it is played; columns by job in order of submission."""

    submit_s: Floats
    service_s: Floats
    gpus: NDArray[np.int64]
    kind: NDArray[np.int64]
    """Class of priority, 0 first."""
    devices: int
    mean_gap_s: float
    """Mean time between two submissions; 0 where all are handed in at once."""
    mean_work_gpu_s: float


@dataclass(frozen=True, slots=True)
class Played:
    """One run after it was played; columns by job in order of submission."""

    setting: Setting
    wait_s: Floats
    start_s: Floats
    end_s: Floats
    """Infinite for who was turned away."""
    refused: NDArray[np.bool_]


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


def service(p: dict[str, Any], draw: np.random.Generator, count: int) -> tuple[Floats, float]:
    """Service times of a row and their mean; "any" law = lognormal with shape 1 (an insensitive quantity must not
    mind), for processor sharing with shape 0.5."""
    if "service_s" in p:
        return np.full(count, float(p["service_s"])), float(p["service_s"])
    law = p.get("service", "exponential")
    if law == "uniform":
        return draw.uniform(p["low"], p["high"], count), (p["low"] + p["high"]) / 2
    if law == "hyperexponential":
        rates = np.array(p["rates"])
        chosen = rates[draw.choice(len(p["probs"]), count, p=p["probs"])]
        return draw.exponential(1.0, count) / chosen, float(np.array(p["probs"]) @ (1 / rates))
    if law == "lognormal":
        mean = float(np.exp(p["mu"] + p["sigma"] ** 2 / 2))
        return draw.lognormal(p["mu"], p["sigma"], count), mean
    if law == "erlang":
        return draw.gamma(p["shape"], 1 / p["rate"], count), p["shape"] / p["rate"]
    if law == "any":
        shape, mean = p.get("shape_of_any", 1.0), float(p.get("mean_service_s", 1.0))
        return draw.lognormal(-(shape**2) / 2, shape, count) * mean, mean
    mean = 1 / p["service_rate"]
    return draw.exponential(mean, count), mean


def setting(model: str, p: dict[str, Any], draw: np.random.Generator, count: int) -> Setting:
    """Jobs and devices of a row."""
    sizes, kinds = np.ones(count, np.int64), np.zeros(count, np.int64)
    devices, rate, mean_gpus = int(p.get("servers", 1)), p.get("arrival_rate"), 1.0
    if model == "M/G/1-PS":
        p = {"shape_of_any": 0.5} | p
    if model == "saturated-gang-FCFS":
        devices, mean_gpus = p["gpus"], float(np.dot(p["job_gpus"], p["probs"]))
        sizes = draw.choice(p["job_gpus"], count, p=p["probs"])
    elif model == "multirate-loss":
        offered = np.array(p["offered_erlangs"])
        rate, devices = float(offered.sum()), p["gpus"]
        sizes = draw.choice(p["job_gpus"], count, p=offered / rate)
        mean_gpus = float(np.dot(p["job_gpus"], offered)) / rate
    elif "arrival_rates" in p:
        rates = np.array(p["arrival_rates"])
        rate = float(rates.sum())
        kinds = draw.choice(len(rates), count, p=rates / rate)
    elif model == "M/G/inf":
        devices = ENDLESS_SERVERS
    if model == "D/M/1":
        gap_s = float(p["interarrival_s"])
        arrivals = np.arange(count) * gap_s
    elif rate is None:
        gap_s, arrivals = 0.0, np.zeros(count)
    else:
        gap_s = 1 / rate
        arrivals = np.cumsum(draw.exponential(gap_s, count))
    times, mean_s = service(p, draw, count)
    return Setting(arrivals, times, sizes, kinds, devices, gap_s, mean_s * mean_gpus)


def policy_for(model: str, p: dict[str, Any]) -> Policy:
    """Who goes next in a row."""
    if model in ("M/G/c/c", "multirate-loss"):
        return FunctionPolicy(loss)
    if model == "M/M/1/K":
        return FunctionPolicy(bounded(int(p["capacity"])))
    if "priority" in model:
        return PriorityPreempt() if "preemptive-resume" in model else Priority()
    return Sjf() if model.endswith("SJF") else Srtf() if model.endswith("SRPT") else Fifo()


def played(model: str, p: dict[str, Any], asked: Setting) -> Played:
    """Play it. A run whose queue breaks Little's law, or whose books do not close to 1e-9, is an error."""
    ground: Ground = Nodes([Pool(1, asked.devices)], Anywhere())
    rules, share = Rules(), 1.0
    if model == "M/G/1-PS":  # one device in equal turns: everybody sits on it
        ground = SharedNodes([NodeKind(10**9, float("inf"), 1)], GpuPacking())
        rules, share = Rules(contention=EqualTurns()), 1 / WHOLE
    columns = zip(
        asked.submit_s.tolist(),
        asked.gpus.tolist(),
        asked.service_s.tolist(),
        asked.kind.tolist(),
        strict=True,
    )
    jobs = (
        Job(str(number), at_s, gpus, time_s, priority=-float(kind), gpu_share_frac=share)
        for number, (at_s, gpus, time_s, kind) in enumerate(columns)
    )
    log = simulate(jobs, ground, policy_for(model, p), rules=rules)
    check(log)
    rows = sorted(log.records, key=lambda row: row.number)
    gone = np.array([row.outcome == "refused" for row in rows])
    return Played(
        asked,
        np.array([row.wait_s for row in rows]),
        np.array([np.inf if row.start_s is None else row.start_s for row in rows]),
        np.array([np.inf if row.end_s is None else row.end_s for row in rows]),
        gone,
    )


def check(log: ClusterLog) -> None:
    """Little's law and closed books, or ``RuntimeError``."""
    waits_s = sum(record.wait_s for record in log.records)
    if abs(log.waiting_job_s - waits_s) > 1e-6 * max(waits_s, 1.0):
        raise RuntimeError(f"Little's law does not hold: {log.waiting_job_s} and {waits_s} job-seconds")
    gap = account(log).gap_frac
    if gap > 1e-9:
        raise RuntimeError(f"the books do not close: {gap:g} of the device-seconds owned")


def steps(p: dict[str, Any], draw: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """``count`` steps of a gang, one after another: tasks' times ``[count, ranks]``, and how long each step took.

    The ranks start together on a device each, and the step is over when the last of them is.
    """
    ranks = int(p["ranks"])
    uniform = p["step"] == "uniform"
    shape = (count, ranks)
    times = draw.uniform(p["low"], p["high"], shape) if uniform else draw.exponential(1 / p["rate"], shape)
    begin_s = np.arange(count) * (float(times.max()) + 1.0)
    jobs = (
        Job(f"{step}-{rank}", at_s, 1, time_s)
        for step, at_s in enumerate(begin_s.tolist())
        for rank, time_s in enumerate(times[step].tolist())
    )
    log = simulate(jobs, [Pool(1, ranks)], Fifo())
    check(log)
    ends = np.zeros(count)
    for row in log.records:
        step = row.number // ranks
        ends[step] = max(ends[step], row.end_s or 0.0)
    return times, ends - begin_s


def repairs(p: dict[str, Any], seed: Iterable[int], batches: int) -> Floats:
    """Mean number of machines away in each of ``batches`` stretches of a run, the first tenth left out."""
    machines, mean_s = int(p["machines"]), 1 / p["repair_rate"]
    section = Reliability(
        Quantiles.exactly(p["failure_rate"] * 86400 * 1000),
        causes=(Cause("node", repair=Delay(mean_s, "exponential")),),
    )
    failing = outages(section, machines, Streams(0, tuple(map(str, seed))))
    log = simulate(
        (),
        [Pool(machines, 1)],
        Fifo(),
        outages=of_the_floor(failing, (), machines, Spares(), crews=int(p["crews"])),
        until_s=REPAIR_SPAN_S,
    )
    check(log)
    begin = np.sort([away.start_s for away in log.downtimes])
    end = np.sort([away.end_s for away in log.downtimes])
    edges = np.linspace(REPAIR_SPAN_S / 10, REPAIR_SPAN_S, batches + 1)
    gone = number_s(begin, edges) - number_s(end, edges)
    return np.asarray(np.diff(gone) / np.diff(edges))


def number_s(moments: Floats, at_s: Floats) -> Floats:
    """Integral from the start to each time of how many of the sorted ``moments`` lie behind it."""
    many = np.searchsorted(moments, at_s, side="right")
    sums = np.concatenate([[0.0], np.cumsum(moments)])
    return np.asarray(many * at_s - sums[many])
