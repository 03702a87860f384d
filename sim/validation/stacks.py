"""The overhead constants of a software stack, fitted to published training runs.

What is left when kernels and messages are priced as they run alone: how much slower they are in the thousandth step
of a long run. Three constants for each stack and generation, the same for every run of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from sim.spec.catalog import Catalog
from sim.spec.profile import Constant, Fit, FitError
from sim.spec.scenario import Scenario
from sim.training.overheads import PARAMETERS
from sim.training.step import predict_step
from sim.validation.outcome import records
from sim.validation.training import NotExpressibleError, scenario_of

FITTED = ("kernel_factor", "message_factor", "host_s")
FEWEST_ROWS = 5
PRIOR_WEIGHT = 0.1
"""Pull to the starting value, in units of the log error, over the width of the bounds: thin data stay near it."""
LOSS_SCALE = 0.05


def fit_stacks(rows: pd.DataFrame, fits: Sequence[Fit], catalog: Catalog, source: str) -> list[Fit]:
    """One entry for each stack and generation with enough expressible runs in ``rows``.

    Held-out errors leave one source family (the part of ``group`` before the bar) out in turn where there are
    several, else one run in turn.
    """
    runs: dict[tuple[str, str], list[tuple[str, Scenario, float]]] = {}
    for row in records(rows):
        try:
            scenario, _ = scenario_of(row, catalog)
        except NotExpressibleError:
            continue
        training = scenario.training
        assert training is not None  # scenario_of always makes one
        key = (training.stack, scenario.cluster.pools[0].accelerator.generation)
        family = str(row.get("group", "")).split("|")[0]
        runs.setdefault(key, []).append((family, scenario, float(row["step_time_s"])))
    return [
        _fit(stack, generation, mine, fits, source)
        for (stack, generation), mine in sorted(runs.items())
        if len(mine) >= FEWEST_ROWS
    ]


def _fit(
    stack: str,
    generation: str,
    runs: Sequence[tuple[str, Scenario, float]],
    fits: Sequence[Fit],
    source: str,
) -> Fit:
    key = {"stack": stack, "generation": generation}
    constants = _solve(key, runs, fits, source)
    families = sorted({family for family, _, _ in runs})
    outside = families if len(families) > 1 else [str(number) for number in range(len(runs))]
    predicted, measured = [], []
    for number, left_out in enumerate(outside):
        seen = [
            run
            for place, run in enumerate(runs)
            if (run[0] != left_out if len(families) > 1 else place != number)
        ]
        entry = Fit("stack", key, _solve(key, seen, fits, source))
        for run in runs:
            if run not in seen:
                predicted.append(predict_step(run[1], (entry, *fits)).step_s)
                measured.append(run[2])
    ratio = np.asarray(predicted) / np.asarray(measured)
    error = FitError(
        round(float(100 * np.median(np.abs(ratio - 1))), 2),
        round(float(100 * np.quantile(np.abs(ratio - 1), 0.9)), 2),
        round(float(100 * np.expm1(np.mean(np.log(ratio)))), 2),
        len(ratio),
        "source families left out in turn" if len(families) > 1 else "runs left out in turn",
    )
    return Fit("stack", key, constants, error=error)


def _solve(
    key: Mapping[str, str],
    runs: Sequence[tuple[str, Scenario, float]],
    fits: Sequence[Fit],
    source: str,
) -> dict[str, Constant]:
    moved = [parameter for parameter in PARAMETERS if parameter.name in FITTED]
    start = {p.name: Constant(p.start, p.unit, "assumed", p.source, p.low, p.high) for p in PARAMETERS}
    x0 = np.log([p.start for p in moved])
    low, high = np.log([p.low for p in moved]), np.log([p.high for p in moved])
    measured = np.log([seconds for _, _, seconds in runs])

    def residual(
        x: np.ndarray[tuple[int], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        values = dict(zip((p.name for p in moved), np.exp(x), strict=True))
        trial = {
            name: replace(constant, value=float(values.get(name, constant.value)))
            for name, constant in start.items()
        }
        entry = Fit("stack", key, trial)
        error = np.log([predict_step(scenario, (entry, *fits)).step_s for _, scenario, _ in runs]) - measured
        pull = PRIOR_WEIGHT * LOSS_SCALE * np.sqrt(len(runs)) * (x - x0) / (high - low)
        return np.asarray(np.concatenate([error, pull]))

    found = least_squares(
        residual, np.clip(x0, low + 1e-6, high - 1e-6), bounds=(low, high), loss="soft_l1", f_scale=LOSS_SCALE,
        diff_step=1e-3, max_nfev=12,
    )  # fmt: skip
    noise = float(np.std(residual(found.x)[: len(runs)]))
    sigma = np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac))) * noise
    fitted = {}
    for parameter, x, s in zip(moved, found.x, sigma, strict=True):
        edges = np.exp(
            np.clip([x - 1.2816 * s, x + 1.2816 * s], np.log(parameter.low), np.log(parameter.high))
        )
        value, below, above = (float(f"{v:.4g}") for v in (np.exp(x), *edges))
        fitted[parameter.name] = Constant(
            value, parameter.unit, "fitted", source, min(below, value), max(above, value)
        )
    return {**start, **fitted}
