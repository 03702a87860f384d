"""``python -m benchmarks.coverage [draws] [first]``: how often do fits' intervals hold a synthetic device's parameters?

Like firing at a target whose bull's-eye is known. A fake timer answers with the cost function's own seconds, made
worse as real ones are: scatter of each block, stragglers, a clock that wanders from point to point, spells of
throttling, and gross outliers; the very stop rule and fit of calibrate see nothing else. An interval passes where the
draws that it held are no fewer than a true one would hold in 99 of 100 such counts (binomial: 182 of 200 at 95 %).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from calibrate.fit.common import fit_parameters
from calibrate.fit.node import VISIBLE, embedding_parameters
from calibrate.measure import Block, StopRule, measure
from calibrate.microbenchmarks import embedding as embedding_rows
from sim.cost.kernels import embedding as embedding_cost
from sim.cost.kernels import gemm as gemm_cost
from sim.cost.kernels import memory_bound as memory_cost
from sim.cost.parameters import Parameter
from sim.spec.device import Device

Floats = NDArray[np.float64]
DEVICE = Device("synthetic", "hopper", {"bf16": 1e15}, 8e10, 3e12, 132, 5e7)
STATED, WIDE = 0.8, 0.95
"""Confidence of the intervals that profiles state, and that which is asked of 200 draws."""
FALSE_ALARM = 0.01


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a real machine does to a timing."""

    scatter: float = 0.02
    """Log standard deviation of a block."""
    model_scatter: float = 0.03
    """Log standard deviation of a shape: kernels differ from any formula by a few percent, however long one times."""
    wander: float = 0.01
    """Log standard deviation of a node's clock, which stays much the same from one point to the next: what the soak
    before a run lets pass as still (calibrate.conditions.STILL_FRAC)."""
    wander_memory: float = 0.9
    """Correlation of neighbouring points in time (AR(1))."""
    straggler_prob: float = 0.03
    straggler_factor: float = 1.5
    throttled_prob: float = 0.05
    """Of a point being timed while the clock is down."""
    throttle_factor: float = 1.12
    outlier_prob: float = 0.02
    """Of a point whose every block is far off: another program on the machine."""
    outlier_factor: float = 3.0


@dataclass(slots=True)
class FakeTimer:
    """Blocks of known duration and a clock that only they move."""

    rng: np.random.Generator
    trouble: Trouble
    now_s: float = field(default=0.0)
    wandered: float = field(default=0.0)

    def __call__(self) -> float:
        return self.now_s

    def block(self, seconds: float) -> Block:
        """A block as :func:`calibrate.measure.measure` takes it, for a call that truly lasts ``seconds``."""
        worse, rng = self.trouble, self.rng
        kept = worse.wander_memory
        self.wandered = kept * self.wandered + worse.wander * float(
            np.sqrt(1 - kept**2) * rng.standard_normal()
        )
        factor = float(np.exp(worse.model_scatter * rng.standard_normal() + self.wandered))
        factor *= worse.throttle_factor if rng.random() < worse.throttled_prob else 1.0
        factor *= worse.outlier_factor if rng.random() < worse.outlier_prob else 1.0

        def run(calls: int) -> float:
            late = worse.straggler_factor if rng.random() < worse.straggler_prob else 1.0
            took = calls * seconds * factor * late * float(np.exp(worse.scatter * rng.standard_normal()))
            self.now_s += took
            return took

        return run


@dataclass(frozen=True, slots=True)
class Hardware:
    """One cost function, the parameters that are drawn and fitted, and the shapes that are timed."""

    name: str
    parameters: Sequence[Parameter]
    seconds: Callable[[Mapping[str, float]], Floats]
    spread: float = 0.25
    """Log half-width of the draw around each parameter's start."""


def memory_hardware() -> Hardware:
    """Launch and bandwidth of elementwise passes, 16 KB to 2 GB."""
    rows = np.repeat(2.0 ** np.arange(3, 18), 3)
    moved = rows * np.tile([2048.0, 8192.0, 16384.0], 15)
    fitted = [
        p for p in memory_cost.PARAMETERS if p.name in ("launch_s", "memory_eff_frac", "core_bytes_per_s")
    ]
    rest = {p.name: p.start for p in memory_cost.PARAMETERS}

    def seconds(values: Mapping[str, float]) -> Floats:
        return np.asarray(memory_cost.memory_bound_s(DEVICE, moved, rows, **{**rest, **values}))

    return Hardware("memory-bound passes", fitted, seconds)


def product_hardware() -> Hardware:
    """Compute rate, bandwidth and launch of matrix products, 1 to 16,384 rows."""
    rng = np.random.default_rng(1)
    m, n, k = np.exp2(rng.uniform([0, 8, 8], [14, 14, 14], (90, 3)).round()).T
    fitted = [p for p in gemm_cost.PARAMETERS if p.name in ("compute_frac", "memory_frac", "launch_s")]

    def seconds(values: Mapping[str, float]) -> Floats:
        return np.asarray(gemm_cost.gemm_s(DEVICE, m, n, k, "bf16", values))

    return Hardware("matrix products", fitted, seconds, spread=0.12)


def embedding_hardware() -> Hardware:
    """Look-ups and updates of the shapes that calibrate times, with every parameter that it fits to them."""
    bags, each, dim, table_rows = np.array(embedding_rows.calls(accelerator=True), dtype=float).T
    sizes = bags * each, bags, dim, table_rows
    fitted = [replace(p, start=VISIBLE.get(p.name, p.start)) for p in embedding_parameters()]

    def seconds(values: Mapping[str, float]) -> Floats:
        own = {name: value for name, value in values.items() if name not in embedding_cost.UPDATE_ONLY}
        looked_up = embedding_cost.lookup_s(DEVICE, *sizes, **own)
        return np.concatenate([looked_up, embedding_cost.gradient_s(DEVICE, *sizes, **values)])

    return Hardware("embedding bags", fitted, seconds)


def draw(hardware: Hardware, rng: np.random.Generator) -> dict[str, float]:
    """True parameters, near their starts and inside their bounds."""
    return {
        p.name: float(
            np.clip(p.start * np.exp(hardware.spread * rng.uniform(-1, 1)), p.low * 1.05, p.high * 0.95)
        )
        for p in hardware.parameters
    }


def timed(
    hardware: Hardware, truth: Mapping[str, float], rng: np.random.Generator, trouble: Trouble
) -> tuple[NDArray[np.int64], Floats]:
    """Shapes in the random order that they were timed in, and what the measuring tool makes of each: median seconds."""
    timer = FakeTimer(rng, trouble)
    rule = StopRule(max_blocks=20)
    true_s = hardware.seconds(truth)
    order = rng.permutation(len(true_s))
    return order, np.array([measure(timer.block(float(s)), 1e9, rule, timer).median_s for s in true_s[order]])


def hits(hardware: Hardware, seed: int, trouble: Trouble | None = None) -> dict[str, tuple[bool, bool]]:
    """One draw: for each parameter, whether its stated 80 % interval, and its 95 % one, holds the truth."""
    rng = np.random.default_rng([seed, 4711])
    truth = draw(hardware, rng)
    order, seen = timed(hardware, truth, rng, trouble or Trouble())
    answer: dict[str, list[bool]] = {p.name: [] for p in hardware.parameters}
    for confidence_frac in (STATED, WIDE):
        found = fit_parameters(
            hardware.parameters,
            lambda values: hardware.seconds(values)[order],
            seen,
            "x",
            confidence_frac=confidence_frac,
        )
        for name, constant in found.items():
            answer[name].append(bool((constant.low or np.nan) <= truth[name] <= (constant.high or np.nan)))
    return {name: (held[0], held[1]) for name, held in answer.items()}


def coverage(
    hardware: Hardware, draws: int, trouble: Trouble | None = None, *, first: int = 0
) -> dict[str, tuple[float, float]]:
    """Share of draws, numbered from ``first``, in which each parameter's 80 % and 95 % interval held it."""
    seen = [hits(hardware, seed, trouble) for seed in range(first, first + draws)]
    return {
        p.name: (
            float(np.mean([one[p.name][0] for one in seen])),
            float(np.mean([one[p.name][1] for one in seen])),
        )
        for p in hardware.parameters
    }


def fewest_held(draws: int, confidence_frac: float) -> int:
    """Draws that an interval of this confidence holds or exceeds in all but 1 % of such counts."""
    return int(binom.ppf(FALSE_ALARM, draws, confidence_frac))


def main(draws: int = 200, first: int = 0) -> int:
    """Print the table for draws numbered from ``first`` (another number, other draws).

    Returns 1 where an interval holds its parameter in fewer draws than chance explains.
    """
    failed = False
    for hardware in (memory_hardware(), product_hardware(), embedding_hardware()):
        for name, shares in coverage(hardware, draws, first=first).items():
            short = [
                round(share * draws) < fewest_held(draws, confidence_frac)
                for share, confidence_frac in zip(shares, (STATED, WIDE), strict=True)
            ]
            failed |= any(short)
            print(
                f"{hardware.name:20} {name:18} 80 %: {100 * shares[0]:5.1f}   95 %: {100 * shares[1]:5.1f}"
                f"   ({draws} draws){'   too few' if any(short) else ''}"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
