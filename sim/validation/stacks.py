"""The one constant that published training runs teach: how much longer kernels take in a long run than alone.

Like an odometer read against milestones: every run tells which ``kernel_factor`` would make its prediction exact, a
software stack on a generation takes the middle of its runs, and few runs are pulled towards the whole generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.spec.catalog import Catalog
from sim.spec.profile import Constant, Fit, FitError
from sim.training.overheads import PARAMETERS
from sim.training.step import predict_step
from sim.validation.outcome import records
from sim.validation.training import NotExpressibleError, scenario_of

KERNEL_FACTOR = next(parameter for parameter in PARAMETERS if parameter.name == "kernel_factor")
FACTORS = (0.75, 0.9, 1.05, 1.25, 1.5)
"""Where each run is simulated; between them its step time is read off in the logarithm."""
PULL_RUNS = 3.0
"""So many runs of a stack weigh as much as the rest of its generation."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Runs:
    """Published runs with their step time at each of ``FACTORS``."""

    stack: NDArray[np.str_]
    generation: NDArray[np.str_]
    family: NDArray[np.str_]
    """Source of the run: the part of ``group`` before the first bar."""
    measured_s: Floats
    log_s: Floats
    """log(step time), shape (runs, factors)."""

    def wanted(self) -> Floats:
        """log of the factor at which each run's prediction is exact, held to the parameter's bounds."""
        at = np.log(FACTORS)
        target = np.log(self.measured_s)
        found = [np.interp(t, line, at) for t, line in zip(target, self.log_s, strict=True)]
        return np.asarray(np.clip(found, np.log(KERNEL_FACTOR.low), np.log(KERNEL_FACTOR.high)))

    def predicted_s(self, log_factor: Floats) -> Floats:
        """Step time of each run at its own factor."""
        at = np.log(FACTORS)
        log_s = [np.interp(f, at, line) for f, line in zip(log_factor, self.log_s, strict=True)]
        return np.asarray(np.exp(log_s))


def simulate(rows: pd.DataFrame, fits: Sequence[Fit], catalog: Catalog) -> Runs:
    """Simulate every run that can be expressed at each of ``FACTORS``."""
    entries = [Fit("stack", {}, {"kernel_factor": _constant(factor, "trial")}) for factor in FACTORS]
    stacks, generations, families, measured, lines = [], [], [], [], []
    for row in records(rows):
        try:
            scenario, _ = scenario_of(row, catalog)
        except NotExpressibleError:
            continue
        times = [predict_step(scenario, (entry, *fits)).step_s for entry in entries]
        stacks.append(str(row["stack"]))
        generations.append(scenario.cluster.pools[0].accelerator.generation)
        families.append(str(row.get("group", "")).split("|")[0])
        measured.append(float(row["step_time_s"]))
        lines.append(np.log(times))
    return Runs(
        np.array(stacks), np.array(generations), np.array(families), np.array(measured), np.array(lines)
    )


def fit_stacks(runs: Runs, source: str) -> list[Fit]:
    """One entry for each stack on each generation, and one for each generation; errors with families left out."""
    held_out = runs.predicted_s(left_out_factors(runs))
    wanted = runs.wanted()
    everything = np.ones(len(wanted), dtype=bool)
    fits = []
    for generation in np.unique(runs.generation):
        of = runs.generation == generation
        value = _middle(wanted[of])
        fits.append(
            _entry(
                {"generation": str(generation)}, value, wanted[of], held_out[of], runs.measured_s[of], source
            )
        )
        for stack in np.unique(runs.stack[of]):
            mine = of & (runs.stack == stack)
            value = factor_of(runs, wanted, everything, str(stack), str(generation))
            key = {"stack": str(stack), "generation": str(generation)}
            fits.append(_entry(key, value, wanted[mine], held_out[mine], runs.measured_s[mine], source))
    return fits


def left_out_factors(runs: Runs) -> Floats:
    """log factor of each run, from the runs of other families alone."""
    wanted = runs.wanted()
    result = np.empty(len(wanted))
    for number in range(len(wanted)):
        seen = runs.family != runs.family[number]
        result[number] = factor_of(runs, wanted, seen, str(runs.stack[number]), str(runs.generation[number]))
    return result


def factor_of(runs: Runs, wanted: Floats, seen: NDArray[np.bool_], stack: str, generation: str) -> float:
    """log factor of a stack on a generation from the runs in ``seen``: its middle, pulled to the generation's."""
    whole = seen & (runs.generation == generation)
    base = _middle(wanted[whole]) if whole.any() else float(np.log(KERNEL_FACTOR.start))
    mine = wanted[whole & (runs.stack == stack)]
    return (len(mine) * _middle(mine) + PULL_RUNS * base) / (len(mine) + PULL_RUNS) if len(mine) else base


def _middle(values: Floats) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _constant(value: float, source: str, low: float | None = None, high: float | None = None) -> Constant:
    return Constant(float(f"{value:.4g}"), KERNEL_FACTOR.unit, "fitted", source, low, high)


def _entry(
    key: dict[str, str], log_factor: float, wanted: Floats, predicted: Floats, measured: Floats, source: str
) -> Fit:
    value = float(f"{np.exp(log_factor):.4g}")
    low, high = (float(f"{np.exp(q):.4g}") for q in np.quantile(wanted, (0.1, 0.9)))
    ratio = predicted / measured
    ape = 100 * np.abs(ratio - 1)
    error = FitError(
        round(float(np.median(ape)), 2),
        round(float(np.quantile(ape, 0.9)), 2),
        round(float(100 * np.expm1(np.mean(np.log(ratio)))), 2),
        len(ratio),
        "source families left out in turn",
    )
    constant = _constant(value, source, min(low, value), max(high, value))
    return Fit("stack", key, {"kernel_factor": constant}, error=error)
