"""``python -m benchmarks``: speed as ratios within one run, so that a busy machine does not change the verdict."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import simpy

from benchmarks import cluster
from sim.results.timeline import account
from sim.training.closed_form import Plans, holds, step_s
from sim.training.engine import play
from sim.training.program import build
from sim.training.program_parts import ChunkCost, Options, StepCost


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Best of a few repeats."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def step_of_405b() -> tuple[StepCost, Options]:
    """A step like Llama 3 405B's: 16 ranks, 8 chunks each, 16 micro-batches, every stream in use."""
    chunk = ChunkCost(0.01, 0.02, 0.001, 0.002)
    cost = StepCost([[chunk] * 8] * 16, 1e-4, [[0.1] * 8] * 16, [0.01] * 16, [0.01] * 16, 1e-3)
    return cost, Options(16, 16, 8, prefetch=2)


def absolute() -> list[str]:
    """Times of this machine, to be read beside the ratios and not judged."""
    cost, options = step_of_405b()
    program = build(cost, options)
    played, whole = seconds(lambda: play(program)), seconds(lambda: account(play(build(cost, options))))
    count = len(program.tasks)
    chunks = np.arange(16384) % 8 + 1
    plans = Plans(16, 16 * chunks, chunks, 0.011, 0.022, 0.0, 1e-4, 0.1, 0.0, 0.01, 0.01)
    timed = seconds(lambda: (step_s(plans), holds(plans)))
    rate = f"{count / played:,.0f} tasks/s"
    search, legal = search_of_405b()
    searched = seconds(search)
    return [
        f"405B-like step (p 16, v 8, m 16): {whole:.3f} s, of which engine {played:.3f} s, {rate}",
        f"closed form: {chunks.size / timed / 1e6:.1f} million plans/s",
        f"best plan of 405B on 16,384 H100: {searched:.3f} s, {legal:,} plans, {searched / legal * 1e6:.1f} us each",
    ]


def engine_over_bare_simpy() -> tuple[str, float, float]:
    """Engine time per task of a 405B-like step over SimPy's own time per timeout; at most 8."""
    program = build(*step_of_405b())

    def bare() -> None:
        environment = simpy.Environment()

        def ticks(count: int):
            for _ in range(count):
                yield environment.timeout(1.0)

        environment.process(ticks(len(program.tasks)))
        environment.run()

    ratio = seconds(lambda: play(program)) / seconds(bare)
    return f"engine, {len(program.tasks):,} tasks, over as many bare SimPy timeouts", ratio, 8.0


def data_parallel_growth() -> tuple[str, float, float]:
    """Run time of a step with 1,024 data-parallel copies over one with a single copy; at most 1.1."""
    import sim

    small = sim.load(
        "scenarios/gpt3-175b-1024-a100.toml", ["cluster.pools.0.nodes=16", "training.global_batch=192"]
    )
    large = sim.load(
        "scenarios/gpt3-175b-1024-a100.toml", ["cluster.pools.0.nodes=16384", "training.global_batch=196608"]
    )
    sim.run(small)
    return (
        "step with dp 1,024 over dp 1",
        seconds(lambda: sim.run(large)) / seconds(lambda: sim.run(small)),
        1.1,
    )


def search_over_one_step() -> tuple[str, float, float]:
    """All plans of Llama 3.1 405B on 16,384 H100 by closed form, over simulating one of them; at most 2."""
    search, plans = search_of_405b()
    import sim
    from sim.training.step import predict_step

    scenario, fits = sim.load("scenarios/llama-3.1-405b-16384-h100.toml", [PLAN_OF_405B]), shipped_fits()
    ratio = seconds(search) / seconds(lambda: predict_step(scenario, fits))
    return f"search of {plans:,} plans of a 405B over one simulated step", ratio, 6.0


PLAN_OF_405B = (
    "training.plan={tensor=8, pipeline=16, virtual_stages=4, sequence_parallel=true, zero_stage=1, context=2}"
)


def shipped_fits():
    """The calibration that ships."""
    from sim.spec.profiles import fits_for

    return fits_for("shipped")


def search_of_405b() -> tuple[Callable[[], object], int]:
    """The closed-form search of Llama 3.1 405B on 16,384 H100, and how many plans it goes through."""
    import sim
    from sim.planning.plans.evaluate import evaluate
    from sim.planning.plans.space import plan_space

    scenario, fits = sim.load("scenarios/llama-3.1-405b-16384-h100.toml"), shipped_fits()
    plans = len(plan_space(scenario).skeleton)
    return lambda: evaluate(scenario, fits, plan_space(scenario)).step_s.argmin(), plans


def help_over_bare_python() -> tuple[str, float, float]:
    """`rackcast --help` over an interpreter that imports typer alone; at most 2."""

    def start(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)

    ours = seconds(
        start(
            "import sys; sys.argv = ['rackcast', '--help']; from app.cli import app; app(standalone_mode=False)"
        )
    )
    return "rackcast --help over importing typer", ours / seconds(start("import typer")), 2.0


def main() -> int:
    """Run every study; the exit code is 1 when a bound is passed."""
    failed = 0
    studies = (engine_over_bare_simpy, data_parallel_growth, search_over_one_step, help_over_bare_python)
    for study in (*studies, *cluster.STUDIES):
        name, ratio, bound = study()
        failed += ratio > bound
        print(f"{'ok  ' if ratio <= bound else 'SLOW'} {ratio:6.2f}  (at most {bound:g})  {name}")
    for line in absolute() + cluster.rates():
        print(f"      {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
