"""Peak memory of a device, predicted against what published runs report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sim.spec.catalog import Catalog
from sim.spec.checks import data_parallel, micro_batches
from sim.spec.model import Model
from sim.spec.scenario import Scenario
from sim.training.layers import network
from sim.training.memory import memory_use
from sim.validation.outcome import outcome, records, require
from sim.validation.training import NEEDED, NotExpressibleError, scenario_of

GIB = 2.0**30


def validate_memory(rows: pd.DataFrame, catalog: Catalog, where: str = "rows") -> pd.DataFrame:
    """The rows with ``predicted`` (GiB of the fullest device), ``error_pct``, ``skipped`` and ``assumed``.

    Raises:
        ValidationError: columns are missing.
    """
    require(rows, (*NEEDED, "memory_gib"), where)
    table = rows.copy()
    predicted, skipped, assumed = [], [], []
    for row in records(rows):
        try:
            if not row["memory_gib"] > 0:
                raise NotExpressibleError("no measured memory")
            scenario, guesses = scenario_of(row, catalog)
        except NotExpressibleError as reason:
            predicted.append(np.nan)
            skipped.append(str(reason))
            assumed.append("")
            continue
        predicted.append(peak_bytes(scenario) / GIB)
        skipped.append("")
        assumed.append("; ".join(guesses))
    table["predicted"], table["skipped"], table["assumed"] = predicted, skipped, assumed
    return outcome(table, "memory_gib")


def peak_bytes(scenario: Scenario) -> float:
    """Peak use of the fullest pipeline rank's devices; 0 for a model known only by its arithmetic."""
    training, pool = scenario.training, scenario.cluster.pools[0]
    if training is None or not isinstance(training.model, Model):
        return 0.0
    count, data = micro_batches(scenario.cluster, training), data_parallel(scenario.cluster, training)
    copies = data * training.plan.context * (2 if training.plan.schedule == "dualpipe" else 1)
    uses = memory_use(
        network(training.model, training), training, count, copies, pool.accelerator.memory_bytes
    )
    return max(use.total_bytes for use in uses)
