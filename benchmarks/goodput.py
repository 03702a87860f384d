"""``python -m benchmarks.goodput``: one large job, simulated, against every exact row that a simulation can play.

Pass rule: the mean of independent runs lies within 4 of its standard errors of the exact value, and the standard error
is at most 0.3 % of the value. ``python -m benchmarks.goodput S3 S4`` studies these rows alone, ``... llama`` prints the
Llama 3 405B study with its inputs, ``... speed`` what a failure costs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simpy

from benchmarks.__main__ import seconds
from sim.cluster.failures.checkpoints import SavedState
from sim.cluster.failures.job_books import PARTS
from sim.cluster.failures.job_run import run_job
from sim.cluster.failures.laws import draw_s
from sim.cluster.failures.long_job import JobRun, LongJob
from sim.cluster.failures.stream import outages, slowdowns
from sim.cluster.failures.study import JobStudy, study_of
from sim.cluster.outage import Outage
from sim.cluster.recovery import NEVER, MemoryTier, Recovery
from sim.cost import goodput as form
from sim.cost import queueing
from sim.cost.storage import Storage
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Cause, Checkpointing, Delay, Reliability, Spares, Stragglers
from sim.statistics.controls import controlled_mean
from sim.statistics.intervals import mean_interval
from sim.statistics.streams import Streams
from sim.units import format_percent

HOUR, DAY = 3600.0, 86400.0
FREE = Spares(cold_swap_s=0.0, hot_swap_s=0.0)


@dataclass(frozen=True, slots=True)
class Study:
    """One exact value and a run that estimates it: ``run(streams, size)`` with size about the failures in it."""

    exact: float
    run: Callable[[Streams, int], float | tuple[float, ...]]
    """Its value, or that and by how much its controls were above their known means."""
    size: int
    """Failures that make the standard error of 20 runs about 0.2 % of the value, if shared among them."""


def plain(rate: float, *, repair: Delay | None = None, **more: float) -> Reliability:
    """One cause ``node`` at a rate per 1,000 node-days, noticed at once."""
    return Reliability(Quantiles.exactly(rate), causes=(Cause("node", repair=repair or Delay()),), **more)  # type: ignore[arg-type]


def steady(rate: float, nodes: int, recovery: Recovery, *, again: bool = False, wait_s: float = 0.0) -> Study:
    """Goodput rows: exponential failures, a blocking or asynchronous checkpoint."""
    mean = float(form.mttf_s(nodes, rate / 1000))
    late = recovery.durable_s - recovery.stall_s
    known = mean, recovery.interval_s, recovery.stall_s, recovery.restart_s + wait_s
    exact = float(form.goodput_frac(*known, persist_s=late, fails_while_restarting=again))

    def run(streams: Streams, size: int) -> float:
        job = LongJob(nodes, recovery, fails_while_restarting=again)
        queue = draws(Delay(wait_s), streams.child("queue")) if wait_s else None
        stream = outages(plain(rate), nodes, streams)
        return checked(run_job(job, stream, size * (mean + known[3]), requeue_s=queue)).goodput_frac

    return Study(exact, run, 60_000)


def checked(run: JobRun) -> JobRun:
    """The run, its books closed to 1e-9."""
    gap = abs(math.fsum(run.parts_s.values()) - run.span_s)
    if gap > 1e-9 * run.span_s or min(run.parts_s.values()) < -1e-9 * run.span_s:
        raise ArithmeticError(f"books do not close: {run.parts_s} of {run.span_s}")
    return run


def draws(delay: Delay, streams: Streams) -> Iterator[float]:
    """Random times without end."""
    random = streams.generator()
    return itertools.chain.from_iterable(iter(lambda: draw_s(delay, random, 1024).tolist(), None))


def two_tier() -> Study:
    mean, phi = 1.802885 * HOUR, 0.9
    recovery = Recovery(1800.0, 30.0, 30.0, 900.0, memory=MemoryTier(60.0, 1.0, 120.0))
    down = {"memory_frac": phi, "memory_down_s": 120.0, "durable_down_s": 900.0}

    def run(streams: Streams, size: int) -> float:
        causes = (Cause("node", share_frac=1 - phi), Cause("software", share_frac=phi, scope="job"))
        section = Reliability(Quantiles.exactly(DAY / mean / 2048 * 1000), causes=causes)
        job = LongJob(2048, recovery, fails_while_restarting=False)
        return checked(
            run_job(job, outages(section, 2048, streams, job_nodes=2048), size * mean)
        ).goodput_frac

    return Study(form.goodput_two_tier_frac(mean, 60.0, 1.0, 30.0, 30, **down), run, 60_000)


def renewed(shape: float) -> Study:
    """All ages start anew at each failure: played as such, with the job itself as the part that fails."""
    mean, tau, stall, down = 1.803 * HOUR, 600.0, 20.0, 300.0
    scale = float(form.weibull_scale_s(mean, shape))

    def weather(streams: Streams) -> Iterator[Outage]:
        random, now = streams.generator("life"), 0.0
        while True:
            now += scale * float(random.weibull(shape))
            yield Outage(now, (), "node", 0.0, 0.0)
            now += down

    def run(streams: Streams, size: int) -> float:
        job = LongJob(1, Recovery(tau, stall, stall, down), fails_while_restarting=False)
        return checked(run_job(job, weather(streams), size * (mean + down))).goodput_frac

    exact = form.goodput_renewed_frac(lambda t: np.exp(-((t / scale) ** shape)), mean, tau, stall, down)
    return Study(exact, run, 60_000)


def ages_kept(parts: int = 400, shape: float = 0.7) -> Study:
    """Failures in 40,000 h of parts that age on their own and are replaced when they fail, their common youth over."""

    def run(streams: Streams, size: int) -> float:
        cause = Cause("gpu", replace_frac=1.0, weibull_shape=shape)
        section = Reliability(Quantiles.exactly(1000 * 24 / 1000), causes=(cause,))
        begin, end = 10_000 * HOUR, (10_000 + 2.5 * size) * HOUR
        stream = itertools.takewhile(lambda outage: outage.at_s < end, outages(section, parts, streams))
        return sum(outage.at_s >= begin for outage in stream) * 40_000 * HOUR / (end - begin)

    return Study(float(form.failures_expected(parts, 40_000, 1000)), run, 320_000)


def stall(spares: int, law: Delay) -> Study:
    exact = queueing.stall_probability(512, spares, 0.0065, law.mean_s / DAY)

    def run(streams: Streams, size: int) -> tuple[float, ...]:
        job = LongJob(512, NEVER, spares=Spares(cold=spares, cold_swap_s=0.0))
        span = size * DAY / (512 * 0.0065)
        count, away_s = 0, 0.0

        def tapped() -> Iterator[Outage]:
            nonlocal count, away_s
            for outage in outages(plain(6.5, repair=law), job.owned, streams):
                if outage.at_s < span:
                    count, away_s = count + 1, away_s + outage.down_s
                yield outage

        got = checked(run_job(job, tapped(), span))
        # more failures, or longer repairs, than is their due: that explains a part of what it stood
        due = job.owned * 0.0065 * span / DAY
        return got.parts_s["waiting"] / got.span_s, count / due - 1, away_s / count / law.mean_s - 1

    many = 13_000_000 if spares > 4 else 10_000_000 if law.law == "lognormal" else 2_500_000
    return Study(exact, run, many)


def elastic() -> Study:
    def run(streams: Streams, size: int) -> float:
        job = LongJob(64, NEVER, min_nodes=1)
        section = plain(1000 * 24 / 80, repair=Delay(1.5 * HOUR))
        return checked(run_job(job, outages(section, 64, streams), size * 80 / 64 * HOUR)).speed_frac

    return Study(queueing.elastic_nodes_frac(80, 1.5), run, 60_000)


def slow_nodes() -> Study:
    def run(streams: Streams, size: int) -> float:
        section = Reliability(Quantiles.exactly(1e-9), stragglers=Stragglers(1.0, 0.8, Delay(2 * HOUR)))
        job = LongJob(2048, NEVER, spares=FREE)
        span = size * DAY / 2.048
        return checked(run_job(job, (), span, slowdowns=slowdowns(section, 2048, streams))).speed_frac

    return Study(float(form.straggler_speed_frac(2048, 0.001, 2 * HOUR, 0.8)), run, 20_000)


def silent_errors() -> Study:
    work, verify, write, back, mean = 2.0 * HOUR, 0.05 * HOUR, 0.01 * HOUR, 0.1 * HOUR, 150 * HOUR

    def run(streams: Streams, size: int) -> float:
        cause = Cause("silent", silent=True)
        job = LongJob(1, Recovery(work, verify + write, verify + write, back, verify))
        section = Reliability(Quantiles.exactly(DAY / mean * 1000), causes=(cause,))
        return checked(run_job(job, outages(section, 1, streams), size * mean)).goodput_frac

    return Study(float(form.goodput_silent_frac(mean, work, verify, write, back)), run, 10_000)


def completion() -> Study:
    mean, work, down = 1.802885 * HOUR, 6.0 * HOUR, 0.1 * HOUR

    def run(streams: Streams, size: int) -> float:
        section = Reliability(Quantiles.exactly(DAY / mean * 1000))
        job = LongJob(1, Recovery(restart_s=down), work_s=work, fails_while_restarting=False)
        count = max(size // 28, 1)
        each = (checked(run_job(job, outages(section, 1, streams.child(i)), math.inf)) for i in range(count))
        return sum(run.span_s for run in each) / count / HOUR

    return Study(float(form.completion_s(mean, work, down)) / HOUR, run, 28 * 110_000)


def blocking(tau: float, stall_s: float, down: float) -> Recovery:
    return Recovery(tau, stall_s, stall_s, down)


def studies() -> dict[str, Study]:
    """Every exact row that has a run to it, by its number in the table of vectors."""
    rows = {
        "G1": (3.7887, 2048, blocking(1116.2964, 60.0, 600.0)),
        "G2": (6.5, 2048, blocking(496.2795, 20.0, 300.0)),
        "G3": (6.5, 2048, blocking(3600.0, 0.0, 300.0)),
        "G4": (6.5, 16384, blocking(201.1006, 30.0, 300.0)),
        "G5": (2.34, 12500, blocking(120.0, 5.0, 120.0)),
    }
    found = {
        row + "ab"[again]: steady(rate, nodes, recovery, again=again)
        for row, (rate, nodes, recovery) in rows.items()
        for again in (False, True)
    }
    rate = DAY / (1.802885 * HOUR) / 2048 * 1000
    laws = {"S1": Delay(DAY), "S2": Delay(DAY, "deterministic"), "S3": Delay(DAY, "lognormal", math.sqrt(2))}
    return found | {
        "G7": steady(6.5, 2048, blocking(600.0, 20.0, 300.0), wait_s=900.0),
        "G8": completion(),
        "A1": steady(rate, 2048, Recovery(600.0, 2.0, 122.0, 180.0)),
        "A2": steady(rate, 2048, Recovery(60.0, 1.0, 46.0, 180.0)),
        "A3": two_tier(),
        "W1": renewed(0.7),
        "W2": renewed(1.5),
        "W3": ages_kept(),
        **{row: stall(4, law) for row, law in laws.items()},
        "S4": stall(7, Delay(DAY)),
        "S6": elastic(),
        "L4": slow_nodes(),
        "C1": silent_errors(),
    }


def judge(
    row: str, study: Study, *, runs: int = 20, share: float = 1.0, seed: int = 1
) -> tuple[float, float, float]:
    """Mean of ``runs`` independent runs, its standard error over the exact value, and its distance in errors."""
    size = max(round(study.size * share / runs), 1)
    values = np.array([np.atleast_1d(study.run(Streams(seed).child(row, k), size)) for k in range(runs)])
    found = controlled_mean(values[:, 0], values[:, 1:])
    mean = found.interval.estimate
    return mean, found.error / study.exact, (mean - study.exact) / found.error


# --- Llama 3 405B ------------------------------------------------------------------------

LLAMA_INPUTS = (
    ("nodes", "2,048 of 8 H100", "published"),
    ("span", "54 days", "published"),
    ("rate of interruptions", "419 / (54 d x 2,048 nodes)", "published"),
    ("causes and their shares", "table 5 of the paper", "published"),
    ("storage", "2 TB/s, writing and reading", "published (sustained rate of its file system)"),
    ("state", "405e9 parameters x 14 bytes", "assumed: bf16 and fp32 weights, two Adam moments"),
    ("checkpoints", "blocking, best interval", "assumed: the paper gives no interval"),
    ("detection", "by cause 1 to 10 min, silent errors 6 h", "assumed"),
    ("requeue and warm-up", "3 min and 2 min", "assumed"),
    ("spares", "128 cold ones, 2 min to swap", "assumed"),
)
"""What goes in, its value, and whether the paper (arXiv 2407.21783) gives it."""


def llama_study() -> JobStudy:
    """54 days of 16,384 H100 at the published rate; the inputs of :data:`LLAMA_INPUTS`."""
    section = Reliability(
        rates="llama-3-405b",
        spares=Spares(cold=128, cold_swap_s=120.0),
        checkpoints=Checkpointing(requeue_s=180.0, warm_up_s=120.0),
    )
    state = SavedState(405e9 * 14, 2048, Storage(2e12, 2e12))
    return study_of(section, 2048, state, 54 * DAY)


def llama(runs: int = 40) -> list[str]:
    """The study as lines of text."""
    study = llama_study()
    answers = [study.answers(number) for number in range(runs)]
    struck, time_frac = ([answer[name] for answer in answers] for name in ("interruptions", "goodput_frac"))
    lines = [f"{name:24s} {value:40s} {kind}" for name, value, kind in LLAMA_INPUTS]
    low, high = np.quantile(struck, [0.05, 0.95])
    lines.append(f"interruptions in 54 days: 90 % of runs between {low:.0f} and {high:.0f} (published 419)")
    effective = mean_interval(time_frac)
    least, most = min(time_frac), max(time_frac)
    lines.append(
        f"effective training time: {effective.estimate:.3f} (runs {least:.3f} to {most:.3f}; published above 0.90)"
    )
    means = {part: np.mean([answer[f"{part}_frac"] for answer in answers]) for part in PARTS}
    return [*lines, "  ".join(f"{part} {format_percent(share, 2)}" for part, share in means.items())]


def speed() -> list[tuple[str, float, float]]:
    """Name, ratio and the most it may be, all of one machine in one run: cost is per failure, not per node or
    second."""

    def of_stream(nodes: int, count: int, shape: float = 1.0) -> float:
        cause = Cause("gpu", replace_frac=1.0, weibull_shape=shape)
        stream = outages(Reliability(Quantiles.exactly(1000.0 / nodes), causes=(cause,)), nodes, Streams(1))
        next(stream)  # ages are drawn before the first
        return seconds(lambda: sum(1 for _ in itertools.islice(stream, count))) / count

    def of_job(days: float) -> float:
        job = LongJob(2048, blocking(496.0, 20.0, 300.0))
        return seconds(lambda: run_job(job, outages(plain(6.5), 2048, Streams(1)), days * DAY)) / days

    def bare() -> None:
        environment = simpy.Environment()

        def ticks() -> Iterator[simpy.Event]:
            for _ in range(20_000):
                yield environment.timeout(1.0)

        environment.process(ticks())
        environment.run()

    failure = of_job(1500.0) / (2048 * 0.0065)
    return [
        (
            "outage among 100,000 nodes over one among 100",
            of_stream(100_000, 20_000) / of_stream(100, 20_000),
            2.0,
        ),
        (
            "ageing outage, 100,000 nodes over 100",
            of_stream(100_000, 20_000, 2.0) / of_stream(100, 20_000, 2.0),
            8.0,
        ),
        ("day of a job in 1,500 days over one in 150", of_job(1500.0) / of_job(150.0), 2.0),
        ("failure of a job over one bare timeout", failure / (seconds(bare) / 20_000), 60.0),
    ]


def main() -> int:
    """Print the whole study; 1 when a row fails the pass rule."""
    rows = studies()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goodput", description=__doc__)
    parser.add_argument(
        "what", nargs="*", metavar="ROW | llama | speed", help=f"rows: {', '.join(rows)}; default: all"
    )
    asked = parser.parse_args().what
    if unknown := set(asked) - {*rows, "llama", "speed"}:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    if "llama" in asked:
        print("\n".join(llama()))
        return 0
    if "speed" in asked:
        ratios = speed()
        print("\n".join(f"{name}: {ratio:.2f} (at most {most:g})" for name, ratio, most in ratios))
        return int(any(ratio > most for _, ratio, most in ratios))
    bad = 0
    for row, study in rows.items():
        if asked and row not in asked:
            continue
        begin = time.perf_counter()
        mean, error, distance = judge(row, study)
        held = abs(distance) <= 4 and error <= 0.003
        bad += not held
        spent = time.perf_counter() - begin
        print(
            f"{row:4s} exact {study.exact:<12.7g} mean {mean:<12.7g} error {format_percent(error, 3)} z {distance:+.2f}"
            f"  {'ok' if held else 'MISSED'}  {spent:.0f} s",
            flush=True,
        )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
