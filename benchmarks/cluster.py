"""Speed of the cluster engine: against bare SimPy callbacks, and as nodes and the simulated span grow."""

from __future__ import annotations

import csv
import gzip
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simpy

from sim.cluster.nodes import Pool
from sim.cluster.policies.menu import POLICIES
from sim.cluster.run import simulate
from sim.results.cluster_log import account
from sim.results.cluster_stream import ParquetSink
from sim.spec.job import Job

TRACE = (
    Path(__file__).resolve().parents[2] / "shared/data/scheduling/lucid_philly-6214e9-2017-11_6x8_fifo.csv.gz"
)
"""A month of a Philly virtual cluster, beside the repository; absolute rates are told for it where it is there."""


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Best of a few repeats, in time of this process: neighbours on the machine count less."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def philly_like(jobs: int, nodes: int, load: float = 0.8, stretch: float = 1.0) -> list[Job]:
    """Mostly single devices, lognormal durations with a long tail (shape assumed, after Jeon et al., ATC 2019).

    They arrive so that nodes of 8 are loaded as said.
    """
    draw = np.random.default_rng(1)
    gpus = draw.choice([1, 2, 4, 8], jobs, p=[0.8, 0.08, 0.07, 0.05])
    duration_s = np.minimum(draw.lognormal(6.5, 1.5, jobs), 1e5) * stretch
    between_s = (gpus * duration_s).mean() / (8 * nodes * load)
    submit_s = np.cumsum(draw.exponential(between_s, jobs))
    return [
        Job(str(number), float(at), int(count), float(time_s), 2 * float(time_s))
        for number, (at, count, time_s) in enumerate(zip(submit_s, gpus, duration_s, strict=True))
    ]


def run(jobs: list[Job], nodes: int, policy: str) -> None:
    """One run with its log and its books."""
    account(simulate(iter(jobs), [Pool(nodes, 8)], POLICIES[policy]))


def bare(jobs: list[Job]) -> None:
    """One timeout with a callback for each submission and each end, nothing else."""
    environment = simpy.Environment()
    trace = iter(jobs)

    def submit(event: simpy.Event) -> None:
        environment.timeout(event.value.duration_s).callbacks.append(lambda _: None)
        follow()

    def follow() -> None:
        job = next(trace, None)
        if job is not None:
            environment.timeout(job.submit_s - environment.now, job).callbacks.append(submit)

    follow()
    environment.run()


def fifo_over_bare_callbacks() -> tuple[str, float, float]:
    """FIFO with log and books over bare callbacks, a job; at most 10."""
    jobs = philly_like(20_000, 7)
    ratio = seconds(lambda: run(jobs, 7, "fifo"), 5) / seconds(lambda: bare(jobs), 5)
    return "cluster: FIFO with log and books over bare SimPy callbacks", ratio, 10.0


def nodes_growth() -> tuple[str, float, float]:
    """Time a job on 4,096 nodes over 64 nodes; at most the ratio of logarithms (2)."""
    few, many = philly_like(20_000, 64), philly_like(20_000, 4096)
    ratio = seconds(lambda: run(many, 4096, "fifo")) / seconds(lambda: run(few, 64, "fifo"))
    return "cluster: a job on 4,096 nodes over one on 64", ratio, 2.0


def preemptive_growth() -> tuple[str, float, float]:
    """Tiresias with room for all: time a job on 512 nodes over 32; at most 2, though 16 times as many jobs run."""
    few, many = philly_like(4_000, 32, load=0.5), philly_like(4_000, 512, load=0.5)
    ratio = seconds(lambda: run(many, 512, "tiresias")) / seconds(lambda: run(few, 32, "tiresias"))
    return "cluster: Tiresias, a job on 512 nodes over one on 32", ratio, 2.0


def span_growth() -> tuple[str, float, float]:
    """The same jobs stretched to a hundred times the span; at most 1.3 (noise)."""
    short, long = philly_like(20_000, 7), philly_like(20_000, 7, stretch=100.0)
    ratio = seconds(lambda: run(long, 7, "easy")) / seconds(lambda: run(short, 7, "easy"))
    return "cluster: a hundred times the span over the span", ratio, 1.3


def peak_bytes(jobs: int) -> int:
    """Most memory that Python held in a run of so many jobs whose trace is lazy and whose log goes to disk."""
    with tempfile.TemporaryDirectory() as folder:
        tracemalloc.start()
        with ParquetSink(Path(folder)) as sink:
            log = simulate(lazy(jobs), [Pool(7, 8)], POLICIES["easy"], sink=sink)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if sum(1 for _ in sink.jobs()) != jobs or account(log, sink.read()).gap_frac > 1e-9:
            raise RuntimeError("jobs are missing in the log on disk, or its books do not close")
    return peak


def lazy(jobs: int) -> Iterator[Job]:
    """Regular traffic, one job at a time: 50 of 56 devices held, every fourth job larger and longer."""
    for number in range(jobs):
        gpus, lasts_s = (4, 500.0) if number % 4 == 0 else (1, 250.0)
        yield Job(str(number), 13.75 * number, gpus, lasts_s, 2 * lasts_s)


def memory_growth() -> tuple[str, float, float]:
    """Peak memory of 48,000 jobs over 12,000, log to Parquet; at most 1.1: four times the trace, not the memory."""
    peak_bytes(100)  # modules that are loaded on the way
    return "cluster: memory of 48,000 jobs over 12,000", peak_bytes(48_000) / peak_bytes(12_000), 1.1


def rates() -> list[str]:
    """Jobs a second by policy on the Philly month, where it is there, and on a made-up one."""
    made = philly_like(10_000, 7)
    traces = {"Philly-like, 10,000 jobs, 7 x 8": (made, 7)}
    if TRACE.is_file():
        with gzip.open(TRACE, "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        jobs = [
            Job(
                row["job_id"],
                float(row["submit_s"]),
                int(row["gpus"]),
                float(row["duration_s"]),
                float(row["duration_s"]),
            )
            for row in rows
        ]
        traces["Philly 6214e9, 10,710 jobs, 6 x 8"] = (sorted(jobs, key=lambda job: job.submit_s), 6)
    lines = []
    for name, (jobs, nodes) in traces.items():
        told = []
        for policy in ("fifo", "sjf", "easy", "srtf", "tiresias"):
            taken_s = seconds(lambda jobs=jobs, nodes=nodes, policy=policy: run(jobs, nodes, policy), 2)
            told.append(f"{policy} {len(jobs) / taken_s:,.0f}")
        base = len(jobs) / seconds(lambda jobs=jobs: bare(jobs))
        lines.append(f"cluster, {name}: jobs/s: {', '.join(told)} (bare callbacks {base:,.0f})")
    return lines


STUDIES = (
    fifo_over_bare_callbacks,
    nodes_growth,
    preemptive_growth,
    span_growth,
    memory_growth,
)
