"""Published training runs: a row of a table becomes a scenario, and the scenario is run.

What a row leaves unsaid gets its stack's documented default, named in the column ``assumed``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from sim.spec.catalog import Catalog, UnknownName
from sim.spec.checks import cross_faults
from sim.spec.hardware import Accelerator, System
from sim.spec.model import Model
from sim.spec.profile import Fit
from sim.spec.scenario import Cluster, Pool, Published, Scenario
from sim.spec.workload import STACKS, Training
from sim.training.interval import step_interval
from sim.training.step import predict_step
from sim.training.system_links import SWITCHLESS_GENERATIONS
from sim.units import format_percent
from sim.validation.cells import Cells
from sim.validation.defaults import (
    ACCUMULATION_FUSED_FROM,
    BINNED_FILL,
    BINNED_FROM,
    DEFAULTS,
    FORMATS,
    LORA_RANK,
    NEMO_LATENT,
    NEMO_LATENT_BLACKWELL,
    PACKED_TOKENS,
    UNFUSED_UNTIL,
    StackDefaults,
)
from sim.validation.outcome import outcome, records, require, source_family
from sim.validation.plans import classic, expert_messages, plan_of
from sim.validation.rival import ideal_s, labels_of, rival_s

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


class NotExpressibleError(ValueError):
    """A run that the step does not model; the message is the reason."""


def validate_training(
    rows: pd.DataFrame, fits: Sequence[Fit], catalog: Catalog, where: str = "rows"
) -> pd.DataFrame:
    """The rows with ``predicted`` (seconds), ``error_pct``, ``skipped`` and ``assumed``.

    Also the 80 % interval, ``low_s`` to ``high_s``, and ``constant_s``: the step time by one constant utilisation for
    each group of runs (``sim.validation.rival.KEYS``), fitted to these very rows.

    Raises:
        ValidationError: columns are missing.
    """
    require(rows, NEEDED, where)
    table = rows.copy()
    skipped, assumed, found = [], [], []
    for row in records(rows):
        try:
            scenario, guesses = scenario_of(row, catalog)
        except NotExpressibleError as reason:
            skipped.append(str(reason))
            assumed.append("")
            continue
        result = predict_step(scenario, fits)
        interval = step_interval(result, fits)
        found.append(
            (
                *(result.step_s, interval["low_s"], interval["high_s"]),
                *(ideal_s(scenario), labels_of(scenario), source_family(row)),
            )
        )
        skipped.append("")
        assumed.append("; ".join(guesses))
    table["skipped"], table["assumed"] = skipped, assumed
    done = table["skipped"] == ""
    steps, lows, highs, ideals, labels, families = zip(*found, strict=True) if found else ((),) * 6
    measured = table.loc[done, "step_time_s"].to_numpy(dtype=float)
    rival = rival_s(np.array(labels), np.array(families), np.array(ideals), measured) if found else ()
    for name, values in (("predicted", steps), ("low_s", lows), ("high_s", highs), ("constant_s", rival)):
        table[name] = np.nan
        table.loc[done, name] = values
    return outcome(table, "step_time_s")


def scenario_of(row: Mapping[str, Any], catalog: Catalog) -> tuple[Scenario, list[str]]:
    """The scenario of one published run, and what had to be assumed.

    Raises:
        NotExpressibleError: the run uses something the step does not model yet, or does not add up.
    """
    cell = Cells(row)
    _refuse_what_is_not_modelled(cell)
    guesses: list[str] = []
    try:
        accelerator = catalog.accelerator(cell.text("gpu"))
    except UnknownName as fault:
        raise NotExpressibleError(str(fault)) from None
    devices, per_node = cell.number("num_gpus"), cell.number("gpus_per_node", 8)
    system = _system(accelerator, min(per_node, devices), cell)
    defaults = _defaults(cell, accelerator.generation)
    plan = plan_of(cell, devices, defaults, guesses)
    model = _model(cell, catalog)
    plan = expert_messages(cell, plan, system, guesses)
    precision = cell.text("gemm_precision") or cell.text("precision")
    lora = cell.text("strategy") == "lora"
    fill = BINNED_FILL if cell.text("strategy") == "bert" and cell.number("seq_len") >= BINNED_FROM else 1.0
    if fill < 1.0:
        guesses.append(f"padding left out: {format_percent(fill)} of the positions computed")
    if lora:
        guesses.append(f"LoRA rank {LORA_RANK} on attention")
    training = Training(
        model=model,
        global_batch=cell.number("global_batch"),
        sequence=cell.number("seq_len"),
        fill_frac=fill,
        document_tokens=PACKED_TOKENS if cell.text("strategy") in ("lora", "finetune") else 0,
        optimizer=defaults.optimizer,
        precision=FORMATS.get(precision, precision),
        stack=cell.text("stack"),
        plan=plan,
        dropout=classic(cell),
        lora_rank=LORA_RANK if lora else 0,
    )
    cluster = Cluster((Pool(system=system, accelerator=accelerator, nodes=max(devices // per_node, 1)),))
    published = Published(step_time_s=float(row["step_time_s"]), source=cell.text("source") or "table")
    faults = cross_faults(cluster, training, cell.text("id") or "row")
    if faults:
        raise NotExpressibleError(f"{faults[0].path}: {faults[0].expected}")
    return Scenario(
        name=cell.text("id") or "row", cluster=cluster, training=training, published=(published,)
    ), guesses


def _refuse_what_is_not_modelled(cell: Cells) -> None:
    if cell.text("stack") not in STACKS:
        raise NotExpressibleError(f"stack {cell.text('stack') or 'not stated'}")
    for name in ("global_batch", "seq_len", "layers", "hidden", "heads"):
        if not cell.number(name, 0):
            raise NotExpressibleError(f"{name} is not stated")


def _defaults(cell: Cells, generation: str) -> StackDefaults:
    stack = cell.text("stack")
    if stack == "nemo" and cell.text("attention") == "mla":
        return NEMO_LATENT_BLACKWELL if generation == "blackwell" else NEMO_LATENT
    old = stack == "megatron-lm" and cell.number("year", 2024) <= UNFUSED_UNTIL
    if not old:
        return DEFAULTS[stack]
    fused = cell.number("year", 0) >= ACCUMULATION_FUSED_FROM
    return replace(DEFAULTS["megatron-deepspeed"], fused_accumulation=fused)


def _model(cell: Cells, catalog: Catalog) -> Model:
    heads, hidden = cell.number("heads"), cell.number("hidden")
    experts = cell.number("experts", 0)
    family = cell.text("model_family").lower()
    name = cell.text("model_family") or "row"
    if cell.text("attention") == "mla":  # the ranks of latent attention are not columns: the family's own
        base = catalog.model("deepseek-v2" if "v2" in family else "deepseek-v3")
        return replace(base, key=name, layers=cell.number("layers"), mtp_layers=cell.number("mtp_layers", 0))
    gated = cell.number("mlp_matrices", 2) == 3
    layers, dense = cell.number("layers"), cell.number("dense_layers", 0)
    alternating = bool(experts) and dense * 2 == layers
    expert_width = cell.number("moe_ffn_hidden", cell.number("ffn_hidden"))
    windowed = "window128" in cell.text("attention")
    bert = cell.text("strategy") == "bert"
    return Model(
        key=name,
        name=name,
        family="published",
        kind="encoder" if bert else "moe" if experts else "decoder",
        params_total=int(1e9 * cell.real("params_b", 0.0)),
        params_kind="rounded",
        source=cell.text("source") or "table",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=cell.number("kv_heads", heads),
        head_dim=cell.number("head_dim", hidden // heads),
        ffn_hidden=cell.number("ffn_hidden"),
        gated_ffn=gated,
        experts=experts,
        topk=cell.number("topk", 0),
        moe_ffn_hidden=expert_width if experts else 0,
        shared_experts=cell.number("shared_ffn_hidden", 0) // expert_width if experts else 0,
        first_dense_layers=0 if alternating else dense,
        moe_layer_step=2 if alternating else 1,
        window=128 if windowed else 0,
        global_layer_step=2 if windowed else 0,
        mtp_layers=cell.number("mtp_layers", 0),
        vocab=cell.number("vocab"),
        max_positions=cell.number("seq_len") if bert else 0,
        position_kind="learned" if bert else "rope",
        tied_embeddings=not gated,
        norm="rms" if gated else "ln",
        bias="none" if gated else "all",
    )


def _system(accelerator: Accelerator, per_node: int, cell: Cells) -> System:
    gbit = cell.real("nic_gbit_per_gpu", 0.0) or 200.0
    domain = max(min(accelerator.scale_up_domain_size, 72), per_node)
    if accelerator.generation in SWITCHLESS_GENERATIONS:
        domain = per_node
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
        scale_up_domain_size=domain,
        kind="assumed",
        source=cell.text("source") or "table",
    )
