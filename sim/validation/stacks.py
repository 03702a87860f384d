"""The one constant that published training runs teach: how much longer kernels take in a training step than alone.

Like an odometer read against milestones: every run tells which ``kernel_factor`` would make its prediction exact; a
software stack on a generation takes the centre of its runs, each of its number formats the centre of that format's
runs, dense models and mixtures of experts apart, and few sources are pulled towards the wider group they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.spec.catalog import Catalog
from sim.spec.profile import Constant, Fit, FitError
from sim.training.interval import step_interval
from sim.training.overheads import PARAMETERS
from sim.training.step import predict_step
from sim.validation.middles import left_out_middles, members, middle_of
from sim.validation.outcome import outcome, records, source_family
from sim.validation.rival import KEYS, ideal_s, labels_of, left_out_rival_s
from sim.validation.training import NotExpressibleError, scenario_of

KERNEL_FACTOR = next(parameter for parameter in PARAMETERS if parameter.name == "kernel_factor")
SOURCE_SPREAD = next(parameter for parameter in PARAMETERS if parameter.name == "source_spread")
FACTORS = (0.7, 1.0, 1.3, 1.8)
"""Where each run is simulated; between them its step time is read off in the logarithm."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Runs:
    """Published runs with their step time at each of ``FACTORS``."""

    labels: NDArray[np.str_]
    """Generation, stack, number format and kind of MLP, shape (runs, 4): see ``KEYS``."""
    family: NDArray[np.str_]
    """Source of the run: the part of ``group`` before the first bar."""
    measured_s: Floats
    log_s: Floats
    """log(step time), shape (runs, factors)."""
    sigma: Floats
    """Standard deviation of the logarithm that the interval gives before the spread between sources."""
    ideal_s: Floats
    """See :func:`sim.validation.rival.ideal_s`."""
    place: NDArray[np.intp]
    """Rows of the table that the runs come from."""

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
    labels, families, measured, lines, sigmas, ideal, places = [], [], [], [], [], [], []
    for place, row in enumerate(records(rows)):
        try:
            scenario, _ = scenario_of(row, catalog)
        except NotExpressibleError:
            continue
        results = [predict_step(scenario, (entry, *fits)) for entry in entries]
        labels.append(labels_of(scenario))
        families.append(source_family(row))
        measured.append(float(row["step_time_s"]))
        lines.append([np.log(result.step_s) for result in results])
        sigmas.append(step_interval(results[len(results) // 2], fits, between=False)["sigma_frac"])
        ideal.append(ideal_s(scenario))
        places.append(place)
    return Runs(
        np.array(labels).reshape(-1, len(KEYS)),
        np.array(families),
        np.array(measured),
        np.array(lines),
        np.array(sigmas),
        np.array(ideal),
        np.array(places, dtype=np.intp),
    )


def fit_stacks(runs: Runs, source: str) -> list[Fit]:
    """One entry for all, each generation, each stack on it, each number format there, and dense models and mixtures of
    experts where it has both; errors with families left out."""
    wanted, held_out = runs.wanted(), runs.predicted_s(left_out_factors(runs))
    spreads = spreads_of(runs)
    every = np.ones(len(wanted), dtype=bool)
    fits = []
    for depth in range(len(KEYS) + 1):
        for label in sorted({tuple(map(str, row[:depth])) for row in runs.labels}):
            mine = members(runs.labels, label)
            if depth == len(KEYS) and mine.sum() == members(runs.labels, label[:-1]).sum():
                continue  # the format has runs of one kind only: its own entry says it
            value = middle_of(runs.labels, runs.family, wanted, every, label)
            key = dict(zip(KEYS, label, strict=False))
            kinds = np.unique(runs.labels[mine, -1])
            spread = _spread(spreads[str(kinds[0]) if len(kinds) == 1 else ""], source)
            fits.append(
                _entry(key, value, wanted[mine], held_out[mine], runs.measured_s[mine], source, spread)
            )
    return fits


def left_out_factors(runs: Runs) -> Floats:
    """log factor of each run, from the runs of other families alone."""
    return left_out_middles(runs.labels, runs.family, runs.wanted())


def validate_left_out(rows: pd.DataFrame, fits: Sequence[Fit], catalog: Catalog) -> pd.DataFrame:
    """The rows with ``predicted``, ``low_s``, ``high_s`` and ``constant_s``, by constants that have not seen the row's
    source family; compare :func:`sim.validation.training.validate_training`."""
    kernels = [fit for fit in fits if fit.op != "stack"]
    runs = simulate(rows, kernels, catalog)
    table = rows.copy().reset_index(drop=True)
    table["skipped"] = "not expressible"
    table.loc[runs.place, "skipped"] = ""
    predicted = runs.predicted_s(left_out_factors(runs))
    spreads = spreads_of(runs)
    sigma = Z80 * np.hypot(runs.sigma, [spreads[kind] for kind in runs.labels[:, -1]])
    columns = {
        "predicted": predicted,
        "low_s": predicted * np.exp(-sigma),
        "high_s": predicted * np.exp(sigma),
        "constant_s": left_out_rival_s(runs.labels, runs.family, runs.ideal_s, runs.measured_s),
    }
    for name, values in columns.items():
        table[name] = np.nan
        table.loc[runs.place, name] = values
    return outcome(table, "step_time_s")


def spreads_of(runs: Runs) -> dict[str, float]:
    """Spread between sources of all runs, key "", and of dense models and mixtures of experts apart."""
    kinds = runs.labels[:, -1]
    chosen = {"": np.ones(len(kinds), dtype=bool)} | {str(kind): kinds == kind for kind in np.unique(kinds)}
    return {name: source_spread(runs, mine) for name, mine in chosen.items()}


def source_spread(runs: Runs, chosen: NDArray[np.bool_]) -> float:
    """Standard deviation of the logarithm that runs of an unseen source have beyond what kernels and messages explain.

    With it 80 % of the chosen runs lie in their intervals when their family is left out, every family counting as the
    square root of its runs.
    """
    error = np.abs(np.log(runs.predicted_s(left_out_factors(runs)) / runs.measured_s))
    family = runs.family[chosen]
    _, which, counts = np.unique(family, return_inverse=True, return_counts=True)
    weight = counts[which] ** -0.5
    candidates = np.linspace(0.0, 0.6, 121)
    for spread in candidates:
        inside = error[chosen] <= Z80 * np.hypot(runs.sigma[chosen], spread)
        if np.average(inside, weights=weight) >= LEVEL:
            return float(spread)
    return float(candidates[-1])


Z80, LEVEL = 1.2816, 0.8
"""Standard deviations on either side that hold 80 % of a normal distribution."""


def _constant(value: float, source: str, low: float | None = None, high: float | None = None) -> Constant:
    return Constant(float(f"{value:.4g}"), KERNEL_FACTOR.unit, "fitted", source, low, high)


def _spread(value: float, source: str) -> Constant:
    text = f"{source}, families left out in turn"
    return Constant(float(f"{value:.4g}"), SOURCE_SPREAD.unit, "fitted", text)


def _entry(
    key: dict[str, str],
    log_factor: float,
    wanted: Floats,
    predicted: Floats,
    measured: Floats,
    source: str,
    spread: Constant,
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
    return Fit("stack", key, {"kernel_factor": constant, "source_spread": spread}, error=error)
