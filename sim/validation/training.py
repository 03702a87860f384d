"""Published training runs: a row of a table becomes a scenario, and the scenario is run.

What a row leaves unsaid gets its stack's documented default, named in the column ``assumed``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sim.spec.catalog import Catalog, UnknownName
from sim.spec.checks import cross_faults
from sim.spec.hardware import Accelerator, System
from sim.spec.model import Model
from sim.spec.parallelism import RECOMPUTE, Plan
from sim.spec.profile import Fit
from sim.spec.scenario import Cluster, Pool, Published, Scenario
from sim.spec.workload import STACKS, Training
from sim.training.step import predict_step
from sim.validation.outcome import outcome, records, require

NEEDED = (
    "gpu",
    "num_gpus",
    "layers",
    "hidden",
    "heads",
    "ffn_hidden",
    "vocab",
    "seq_len",
    "global_batch",
    "step_time_s",
)
UNFUSED_UNTIL = 2022
"""Megatron-LM and its forks gained fused attention in 2022-2023: earlier runs wrote the score matrix to memory."""


class NotExpressibleError(ValueError):
    """A run that the step does not model; the message is the reason."""


def validate_training(
    rows: pd.DataFrame, fits: Sequence[Fit], catalog: Catalog, where: str = "rows"
) -> pd.DataFrame:
    """The rows with ``predicted`` (seconds), ``error_pct``, ``skipped`` and ``assumed``.

    Raises:
        ValidationError: columns are missing.
    """
    require(rows, NEEDED, where)
    table = rows.copy()
    predicted, skipped, assumed = [], [], []
    for row in records(rows):
        try:
            scenario, guesses = scenario_of(row, catalog)
        except NotExpressibleError as reason:
            predicted.append(np.nan)
            skipped.append(str(reason))
            assumed.append("")
            continue
        predicted.append(predict_step(scenario, fits).step_s)
        skipped.append("")
        assumed.append("; ".join(guesses))
    table["predicted"], table["skipped"], table["assumed"] = predicted, skipped, assumed
    return outcome(table, "step_time_s")


def scenario_of(row: Mapping[str, Any], catalog: Catalog) -> tuple[Scenario, list[str]]:
    """The scenario of one published run, and what had to be assumed.

    Raises:
        NotExpressibleError: the run uses something the step does not model yet, or does not add up.
    """
    cell = _Cells(row)
    _refuse_what_is_not_modelled(cell)
    guesses: list[str] = []
    try:
        accelerator = catalog.accelerator(cell.text("gpu"))
    except UnknownName as fault:
        raise NotExpressibleError(str(fault)) from None
    devices, per_node = cell.number("num_gpus"), cell.number("gpus_per_node", 8)
    system = _system(accelerator, min(per_node, devices), cell)
    plan = _plan(cell, devices, guesses)
    training = Training(
        model=_model(cell),
        global_batch=cell.number("global_batch"),
        sequence=cell.number("seq_len"),
        optimizer="adam",
        precision=cell.text("gemm_precision") or cell.text("precision"),
        stack=cell.text("stack"),
        plan=plan,
        dropout=not plan.flash_attention,
    )
    cluster = Cluster((Pool(system=system, accelerator=accelerator, nodes=max(devices // per_node, 1)),))
    published = Published(step_time_s=float(row["step_time_s"]), source=cell.text("source") or "table")
    faults = cross_faults(cluster, training, cell.text("id") or "row")
    if faults:
        raise NotExpressibleError(f"{faults[0].path}: {faults[0].expected}")
    return Scenario(
        name=cell.text("id") or "row", cluster=cluster, training=training, published=(published,)
    ), guesses


def _refuse_what_is_not_modelled(cell: _Cells) -> None:
    if cell.text("strategy") not in ("", "dense-3d"):
        raise NotExpressibleError(f"strategy {cell.text('strategy')}")
    if cell.text("stack") not in STACKS:
        raise NotExpressibleError(f"stack {cell.text('stack') or 'not stated'}")
    for name in ("cp", "ep"):
        if cell.number(name, 1) > 1:
            raise NotExpressibleError(f"{name} {cell.number(name)}")
    if cell.number("zero_stage", 0) > 1:
        raise NotExpressibleError(f"ZeRO stage {cell.number('zero_stage')}")
    if cell.number("experts", 0) > 0:
        raise NotExpressibleError("mixture of experts")
    for name in ("tp", "pp", "global_batch", "seq_len"):
        if not cell.number(name, 0):
            raise NotExpressibleError(f"{name} is not stated")


def _plan(cell: _Cells, devices: int, guesses: list[str]) -> Plan:
    tensor, pipeline = cell.number("tp"), cell.number("pp")
    data = max(devices // (tensor * pipeline), 1)
    micro_batch = cell.number("micro_batch", 0)
    if not micro_batch:
        micro_batch = 1
        guesses.append("micro_batch 1")
    chunks = cell.number("virtual_pp", 0)
    if not chunks:
        chunks = 1
        if pipeline > 1:
            guesses.append("no virtual stages")
    recompute = cell.text("recompute")
    if recompute not in RECOMPUTE:
        recompute = "none"
        guesses.append("no recomputation")
    old = cell.number("year", 2024) <= UNFUSED_UNTIL
    stack = cell.text("stack")
    if stack == "megatron-lm" and not old and data > 1:
        guesses.append("gradients overlap with backward")
    return Plan(
        tensor=tensor,
        pipeline=pipeline,
        micro_batch=micro_batch,
        virtual_stages=chunks,
        sequence_parallel=bool(cell.number("sequence_parallel", 0)) and tensor > 1,
        zero_stage=max(cell.number("zero_stage", 0), cell.number("dist_optimizer", 0)),
        recompute=recompute,
        flash_attention=not old,
        overlap_gradients=stack == "megatron-lm" and not old,
    )


def _model(cell: _Cells) -> Model:
    heads, hidden = cell.number("heads"), cell.number("hidden")
    return Model(
        key=cell.text("model_family") or "row",
        name=cell.text("model_family") or "row",
        family="published",
        kind="decoder",
        params_total=int(1e9 * cell.real("params_b", 0.0)),
        params_kind="rounded",
        source=cell.text("source") or "table",
        layers=cell.number("layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=cell.number("kv_heads", heads),
        head_dim=cell.number("head_dim", hidden // heads),
        ffn_hidden=cell.number("ffn_hidden"),
        gated_ffn=cell.number("mlp_matrices", 2) == 3,
        vocab=cell.number("vocab"),
        tied_embeddings=cell.number("mlp_matrices", 2) == 2,
        norm="rms" if cell.number("mlp_matrices", 2) == 3 else "ln",
        bias="none" if cell.number("mlp_matrices", 2) == 3 else "all",
    )


def _system(accelerator: Accelerator, per_node: int, cell: _Cells) -> System:
    gbit = cell.real("nic_gbit_per_gpu", 0.0) or 200.0
    return System(
        key="published",
        name=f"{per_node} x {accelerator.name}",
        accelerator=accelerator.key,
        gpus_per_node=per_node,
        nics_per_node=per_node,
        nic_bytes_per_s=gbit * 1e9 / 8,
        fabric="infiniband",
        fabric_name="as published",
        topology="fat-tree",
        scale_up_domain_size=max(min(accelerator.scale_up_domain_size, 72), per_node),
        kind="assumed",
        source=cell.text("source") or "table",
    )


class _Cells:
    """Cells of a row as numbers or text, empty ones as a default."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = {
            key: None if value is None or value != value or value == "" else value
            for key, value in row.items()
        }

    def real(self, name: str, default: float) -> float:
        value = self._row.get(name)
        return default if value is None else float(value)

    def number(self, name: str, default: int = 0) -> int:
        return int(self.real(name, default))

    def text(self, name: str) -> str:
        value = self._row.get(name)
        return "" if value is None else str(value)
