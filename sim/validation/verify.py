"""Steps measured on one's own node against what its profile predicts: the forecast beside the thermometer.

A row of the measured table becomes the scenario it was, on an accelerator made from the node's own measurements (or
the catalogue's, where the fits are relative to that), and is predicted with the node's own fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from sim.cost.optimizer import RULES, update_s
from sim.spec.catalog import Catalog
from sim.spec.device import Device
from sim.spec.hardware import Accelerator, System
from sim.spec.ops import Attention, Block, Gemm, MemoryBound, Op
from sim.spec.parallelism import Plan
from sim.spec.profile import Fit
from sim.spec.recommender import Recommender
from sim.spec.scenario import Cluster, Pool, Scenario
from sim.spec.workload import Training
from sim.training.layers.recommender import dense_blocks, table_block
from sim.training.mixed import STACK_ENGINES
from sim.training.overheads import Overheads, overheads
from sim.training.pricing import Pricer
from sim.training.step import predict_step
from sim.training.system_links import system_links
from sim.validation.outcome import outcome, records, require
from sim.validation.training import NotExpressibleError, scenario_of

STACK = "torch-eager"
CNN = "resnet-50"
NEEDED = ("id", "workload", "gpu", "num_gpus", "micro_batch", "precision", "step_time_s")
HOST_LINK_BYTES_PER_S = 1e10
"""Taken where nothing exchanged was measured (assumed; then nothing is exchanged, either)."""


def accelerator_of(gpu: str, device: Device, ranks: int) -> Accelerator:
    """An accelerator made from what a node measured of itself; a CPU is one whose ranks meet over Gloo."""
    link = device.scale_up_bytes_per_s or device.host_bytes_per_s or HOST_LINK_BYTES_PER_S
    return Accelerator(
        key=device.key,
        name=gpu,
        vendor=device.vendor or "measured",
        generation=device.generation,
        year=0,
        flop_per_s=device.flop_per_s,
        memory_bytes=device.memory_bytes,
        memory_bytes_per_s=device.memory_bytes_per_s,
        sm_count=device.sm_count,
        scale_up_fabric="gloo" if device.generation == "cpu" else "pcie",
        scale_up_domain_size=max(ranks, 1),
        host_link_bytes_per_s=link,
        kind="measured",
        source="best rates in the node's own measurements",
        aliases=(gpu,) if gpu != device.key else (),
        l2_bytes=device.l2_bytes,
        scale_up_bytes_per_s=link,
    )


def validate_steps(
    rows: pd.DataFrame,
    fits: Sequence[Fit],
    catalog: Catalog,
    devices: Mapping[str, Device],
    where: str = "rows",
) -> pd.DataFrame:
    """The rows with ``predicted`` (seconds), ``error_pct`` and ``skipped`` (the reason, '' where predicted).

    Args:
        rows: measured steps, columns as :mod:`calibrate.steps` writes them.
        fits: the node's own first.
        catalog: looked in for models, and for accelerators that ``devices`` lacks.
        devices: stand-ins by the names in column ``gpu``.
        where: names the table in messages.

    Raises:
        ValidationError: columns are missing.
    """
    require(rows, NEEDED, where)
    table = rows.copy()
    predicted, skipped = [], []
    for row in records(rows):
        try:
            predicted.append(predict_row(row, fits, catalog, devices))
            skipped.append("")
        except (NotExpressibleError, KeyError, ValueError) as fault:
            predicted.append(np.nan)
            skipped.append(str(fault))
    table["predicted"], table["skipped"] = predicted, skipped
    return outcome(table, "step_time_s")


def predict_row(
    row: Mapping[str, Any], fits: Sequence[Fit], catalog: Catalog, devices: Mapping[str, Device]
) -> float:
    """Seconds of one measured step.

    Raises:
        NotExpressibleError: the row does not add up.
        ValueError: an accelerator or a number format that nothing is known of.
    """
    gpu, ranks = str(row["gpu"]), int(row["num_gpus"])
    if gpu in devices:
        accelerator = accelerator_of(gpu, devices[gpu], ranks)
        catalog = replace(catalog, accelerators={**catalog.accelerators, accelerator.key: accelerator})
    else:
        accelerator = catalog.accelerator(gpu)
    named = dict(row, gpu=accelerator.key)
    if row["workload"] == "decoder":
        scenario, _ = scenario_of(named, catalog)
        return predict_step(scenario, fits).step_s
    cluster = Cluster((Pool(system=_system(accelerator, ranks), accelerator=accelerator, nodes=1),))
    training = Training(
        model=catalog.model(CNN),
        global_batch=int(row["micro_batch"]) * ranks,
        precision=str(row["precision"]),
        stack=STACK,
        plan=Plan(micro_batch=int(row["micro_batch"]), overlap_gradients=False),
    )
    if row["workload"] == "cnn":
        return predict_step(Scenario(name="row", cluster=cluster, training=training), fits).step_s
    device = accelerator.device()
    links = system_links(cluster.pools[0].system, accelerator, cluster.fabric)
    pricer = Pricer(device, links, fits, training.precision, {}, engines=STACK_ENGINES[STACK])
    extra = overheads(fits, STACK, device.generation)
    if row["workload"] == "recommender":
        return _recommender_s(row, training, pricer, extra)
    return extra.block_s(pricer.seconds(ops := serving_ops(row)), len(ops))


def _system(accelerator: Accelerator, ranks: int) -> System:
    return System(
        key="own-node",
        name=f"{ranks} x {accelerator.name}",
        accelerator=accelerator.key,
        gpus_per_node=ranks,
        nics_per_node=1,
        nic_bytes_per_s=accelerator.host_link_bytes_per_s,
        fabric="ethernet",
        fabric_name="not used",
        topology="fat-tree",
        scale_up_domain_size=ranks,
        kind="measured",
        source="the node itself",
    )


def _recommender_s(row: Mapping[str, Any], training: Training, pricer: Pricer, extra: Overheads) -> float:
    """One step of the small recommender: tables, dense layers, update of the dense part."""
    tables = int(row["rec_tables"])
    shape = Recommender(
        key="row",
        source="row",
        dim=int(row["rec_dim"]),
        rows=(int(row["rec_rows"]),) * tables,
        lookups=(int(row["rec_lookups"]),) * tables,
        bottom=_widths(row["rec_bottom"]),
        cross_layers=0,
        cross_rank=0,
        top=_widths(row["rec_top"]),
    )
    blocks = [_table_by_table(shape, training), *dense_blocks(shape, training)]
    passes = sum(
        extra.block_s(pricer.seconds(ops), len(ops))
        for block in blocks
        for ops in (block.forward, block.backward)
    )
    rate = pricer.device.memory_bytes_per_s
    update = update_s(shape.dense_parameters, RULES["adamw"], rate, extra.optimizer_bandwidth_frac)
    return float(passes + update)


def _table_by_table(shape: Recommender, training: Training) -> Block:
    """The look-ups as torch makes them: one bag for each table, not all tables in one kernel."""
    one = table_block(replace(shape, rows=shape.rows[:1], lookups=shape.lookups[:1]), training)
    count = len(shape.rows)
    return replace(one, forward=one.forward * count, backward=one.backward * count)


def _widths(cell: Any) -> tuple[int, ...]:
    """Widths from a tuple, or from the text a CSV made of it."""
    words = cell.strip("()[] ").split(",") if isinstance(cell, str) else cell
    return tuple(int(word) for word in words if str(word).strip())


def serving_ops(row: Mapping[str, Any]) -> list[Op]:
    """Kernels of one prefill, or of one decode step with a full cache, on one device.

    Weights stream once; logits are formed for the last position of each sequence. In decode a token attends to
    ``seq_len`` cached ones, itself the last.
    """
    names = ("layers", "hidden", "heads", "kv_heads", "ffn_hidden", "vocab", "seq_len", "micro_batch")
    layers, h, heads, kv_heads, f, vocab, keys, batch = (int(row[name]) for name in names)
    decode = row["workload"] == "decode"
    tokens, width = batch * (1 if decode else keys), h // heads
    dtype = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16"}.get(str(row["precision"]), "bf16")

    def over(op: str, cols: int) -> MemoryBound:
        return MemoryBound(op, tokens, cols, dtype)

    core = Attention("decode" if decode else "prefill", batch, heads, kv_heads, width, keys)
    layer: list[Op] = [
        over("rms_norm_fwd", h),
        Gemm(tokens, h + 2 * kv_heads * width, h),
        core,
        Gemm(tokens, h, h),
        over("residual_add", h),
        over("rms_norm_fwd", h),
        Gemm(tokens, 2 * f, h),
        over("silu_and_mul", f),
        Gemm(tokens, h, f),
        over("residual_add", h),
    ]
    ends: list[Op] = [over("copy", h), MemoryBound("rms_norm_fwd", batch, h, dtype), Gemm(batch, vocab, h)]
    return layer * layers + ends
