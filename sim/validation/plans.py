"""The plan of a published run: what its row says, and for the rest what its stack's recipes did at the time.

Like filling in a form for somebody from a half-legible copy: the house rules tell what the blanks must have been.
"""

from __future__ import annotations

from dataclasses import replace

from sim.spec.hardware import System
from sim.spec.parallelism import RECOMPUTE, Plan
from sim.validation.cells import Cells
from sim.validation.defaults import (
    BERT_MICRO_BATCH,
    BINNED_FROM,
    GRADIENT_BUCKETS,
    HYBRID_EP_FROM,
    UNFUSED_UNTIL,
    StackDefaults,
)


def plan_of(cell: Cells, devices: int, defaults: StackDefaults, guesses: list[str]) -> Plan:
    """The plan of a row; what had to be assumed is added to ``guesses``."""
    tensor, pipeline = cell.number("tp", 1), cell.number("pp", 1)
    context, expert = cell.number("cp", 1), max(cell.number("ep", 1), 1)
    data = max(devices // (tensor * pipeline * context), 1)
    micro_batch = cell.number("micro_batch", 0)
    if not micro_batch:
        share = max(cell.number("global_batch") // data, 1)
        micro_batch = 1
        if cell.text("strategy") == "bert":
            micro_batch = min(share, _bert_micro_batch(cell))
        elif (
            cell.text("stack") == "torchtitan"
        ):  # its pipeline cuts a batch into as many micro-batches as stages
            micro_batch = max(share // pipeline, 1)
        while share % micro_batch:
            micro_batch -= 1
        guesses.append(f"micro_batch {micro_batch}")
    chunks = cell.number("virtual_pp", 0)
    if not chunks:
        chunks = _virtual_stages(cell, defaults, pipeline)
        if pipeline > 1:
            guesses.append(f"{chunks} virtual stages" if chunks > 1 else "no virtual stages")
    recompute = cell.text("recompute")
    if recompute not in RECOMPUTE:
        recompute = defaults.recompute
        guesses.append("no recomputation" if recompute == "none" else f"recomputation: {recompute}")
    stated = max(cell.number("zero_stage", -1), cell.number("dist_optimizer", -1))
    zero = defaults.zero_stage if stated < 0 else stated
    if cell.text("stack") == "torchtitan" and pipeline > 1:
        zero = (
            1  # reshard_after_forward is off under a pipeline: weights and gradients stay whole for the step
        )
        guesses.append("weights gathered once a step")
    if stated < 0 and data > 1:
        guesses.append(f"ZeRO {zero}")
    sequence_parallel = bool(cell.number("sequence_parallel", int(defaults.sequence_parallel))) and tensor > 1
    if not defaults.fused_attention:
        guesses.append("attention not fused")
    # where the copies do not hold all experts, the tensor ranks share them out, too
    cut = (data * context) % expert == 0
    if cut and tensor > 1 and defaults.whole_experts:
        guesses.append("experts whole")
    return Plan(
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        expert=expert,
        split_experts=cut and not defaults.whole_experts,
        micro_batch=micro_batch,
        virtual_stages=chunks,
        sequence_parallel=sequence_parallel,
        zero_stage=zero,
        recompute=recompute,
        flash_attention=defaults.fused_attention and not classic(cell),
        attention_kernel=defaults.attention_kernel,
        fused_accumulation=defaults.fused_accumulation,
        recompute_stops_early=defaults.recompute_stops_early,
        overlap_tensor=defaults.overlap_tensor and sequence_parallel,
        half_gradients=defaults.half_gradients,
        overlap_gradients=defaults.overlap_gradients,
        overlap_parameters=defaults.overlap_parameters and zero in (1, 2),
        overlap_weights=defaults.overlap_weights,
        gradient_buckets=GRADIENT_BUCKETS if defaults.overlap_parameters else 0,
    )


def classic(cell: Cells) -> bool:
    """Whether the model's layers are of the age before fused attention, with dropout."""
    return cell.number("year", 2024) <= UNFUSED_UNTIL or cell.text("strategy") == "bert"


def _virtual_stages(cell: Cells, defaults: StackDefaults, pipeline: int) -> int:
    """Virtual stages of a dense model as the stack's recipes cut them, where its layers divide."""
    layers = cell.number("layers")
    if pipeline == 1 or not defaults.chunk_layers or cell.number("experts", 0):
        return 1
    chunks, left = divmod(layers, pipeline * defaults.chunk_layers)
    return 1 if left else chunks


def expert_messages(cell: Cells, plan: Plan, system: System, guesses: list[str]) -> Plan:
    """How Megatron-Bridge sends tokens to experts: plain all-to-alls at first, once a rank (HybridEP) since 2026.

    Where the pipeline is interleaved its recipes overlap expert messages with another micro-batch
    (``moe_a2a_overlap``): since 2026, and before it where expert groups leave the scale-up domain (DeepEP, once
    a node).
    """
    if cell.text("stack") != "megatron-bridge" or plan.expert == 1:
        return plan
    domains = -(-plan.expert * plan.expert_tensor // system.scale_up_domain_size)
    recent = cell.number("year", 0) >= HYBRID_EP_FROM
    beside = plan.virtual_stages > 1 and (recent or domains > 1)
    once = beside or (recent and domains == 1)
    if once:
        guesses.append("expert messages once a rank" + (", beside another micro-batch" if beside else ""))
    nodes = domains if once and domains > 1 else 0
    return replace(plan, dispatch_once=once, overlap_experts=beside, expert_nodes=nodes)


def _bert_micro_batch(cell: Cells) -> int:
    sequences = BERT_MICRO_BATCH[cell.number("seq_len") >= BINNED_FROM]
    return sequences // 2 if cell.text("gemm_precision") in ("tf32", "fp32") else sequences
