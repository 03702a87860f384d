"""A plan in the words of the frameworks that would run it: Megatron-LM arguments, a torchrun line, a DeepSpeed file.

Like a recipe told to three cooks: the dish is the same, each has their own names for pans and heat, and what one of
them cannot do is said instead of left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sim.spec.model import Model
from sim.spec.scenario import Scenario
from sim.spec.workload import Training

FRAMEWORKS = ("megatron", "torchrun", "deepspeed")


class Launch(NamedTuple):
    """What to give a framework."""

    content: Any
    """A list of arguments, or the DeepSpeed document."""
    missing: list[str]
    """What of the plan the framework has no argument for."""


def launch(scenario: Scenario, framework: str) -> Launch:
    """The scenario's plan for one of :data:`FRAMEWORKS`.

    Raises:
        ValueError: unknown framework, or no training section.
    """
    training = scenario.training
    if training is None:
        raise ValueError("the scenario has no [training] section")
    if framework == "megatron":
        return megatron(training)
    if framework == "torchrun":
        return torchrun(scenario, training)
    if framework == "deepspeed":
        return deepspeed(scenario, training)
    raise ValueError(f"framework {framework!r}: expected one of {', '.join(FRAMEWORKS)}")


def megatron(training: Training) -> Launch:
    """Arguments of Megatron-LM's pretrain scripts (megatron/training/arguments.py)."""
    plan, missing = training.plan, list[str]()
    arguments = [
        f"--tensor-model-parallel-size {plan.tensor}",
        f"--pipeline-model-parallel-size {plan.pipeline}",
        f"--context-parallel-size {plan.context}",
        f"--micro-batch-size {plan.micro_batch}",
        f"--global-batch-size {training.global_batch}",
        *_shape_arguments(training),
    ]
    if plan.virtual_stages > 1:
        arguments.append(f"--num-virtual-stages-per-pipeline-rank {plan.virtual_stages}")
        if _layers(training) % (plan.pipeline * plan.virtual_stages):
            missing.append(
                "layers that do not divide over the virtual stages: give --pipeline-model-parallel-layout"
            )
    elif _layers(training) % plan.pipeline:
        missing.append("layers that do not divide over the stages: give --pipeline-model-parallel-layout")
    if plan.sequence_parallel:
        arguments.append("--sequence-parallel")
    if plan.zero_stage in (1, 2):
        arguments.append("--use-distributed-optimizer")
        if plan.zero_stage == 2:
            missing.append("ZeRO 2 (gradients sharded): the distributed optimizer is ZeRO 1")
    if plan.zero_stage == 3:
        arguments += ["--use-torch-fsdp2", "--no-gradient-accumulation-fusion", "--ckpt-format torch_dist"]
        if plan.pipeline > 1:
            missing.append("ZeRO 3 under pipeline stages: not every version of FSDP2 in Megatron-LM takes it")
    arguments += ["--overlap-grad-reduce"] * plan.overlap_gradients
    arguments += ["--overlap-param-gather"] * (plan.overlap_parameters and plan.zero_stage in (1, 2))
    arguments += ["--tp-comm-overlap"] * plan.overlap_tensor
    if plan.recompute == "full":
        arguments += [
            "--recompute-granularity full",
            "--recompute-method uniform",
            "--recompute-num-layers 1",
        ]
    elif plan.recompute == "selective":
        arguments.append("--recompute-granularity selective")
    if plan.offload_optimizer:
        arguments += ["--optimizer-cpu-offload", "--use-precision-aware-optimizer"]
    arguments += [f"--{training.precision}"] * (training.precision in ("bf16", "fp16"))
    arguments += ["--bf16", "--fp8-format hybrid"] * (training.precision == "fp8")
    if plan.schedule in ("zb-h1", "dualpipe", "gpipe"):
        missing.append(f"the schedule {plan.schedule}: Megatron-LM runs 1F1B")
    return Launch(arguments, missing)


def _layers(training: Training) -> int:
    return training.model.layers if isinstance(training.model, Model) and training.model.layers else 1


def _shape_arguments(training: Training) -> list[str]:
    """The model's shape and the expert degrees."""
    model, plan = training.model, training.plan
    if not isinstance(model, Model):
        return []
    arguments = [
        f"--num-layers {model.layers}",
        f"--hidden-size {model.hidden}",
        f"--ffn-hidden-size {model.ffn_hidden}",
        f"--num-attention-heads {model.heads}",
        f"--seq-length {training.sequence}",
        f"--max-position-embeddings {max(training.sequence, model.max_positions or 0)}",
    ]
    if model.kv_heads and model.kv_heads != model.heads:
        arguments += ["--group-query-attention", f"--num-query-groups {model.kv_heads}"]
    if model.gated_ffn:
        arguments.append("--swiglu")
    if model.norm == "rms":
        arguments.append("--normalization RMSNorm")
    if model.experts:
        arguments += [
            f"--num-experts {model.experts}",
            f"--moe-router-topk {model.topk}",
            f"--expert-model-parallel-size {plan.expert}",
            f"--expert-tensor-parallel-size {plan.expert_tensor}",
            f"--moe-ffn-hidden-size {model.moe_ffn_hidden}",
        ]
    return arguments


def torchrun(scenario: Scenario, training: Training) -> Launch:
    """A torchrun line for every node (docs of torch.distributed.run), with Megatron-LM's script and arguments."""
    pool, own = scenario.cluster.pools[0], megatron(training)
    line = [
        "torchrun",
        f"--nnodes {pool.nodes}",
        f"--nproc-per-node {pool.system.gpus_per_node}",
        "--rdzv-backend c10d",
        "--rdzv-endpoint $HEAD_NODE:29500",
        "pretrain_gpt.py",
    ]
    return Launch([*line, *own.content], own.missing)


def deepspeed(scenario: Scenario, training: Training) -> Launch:
    """A DeepSpeed configuration (deepspeed.ai/docs/config-json): batch = micro-batch x accumulation x data parallel."""
    plan = training.plan
    data = scenario.cluster.devices // plan.model_ranks
    document: dict[str, Any] = {
        "train_batch_size": training.global_batch,
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": training.global_batch // (plan.micro_batch * data),
        "zero_optimization": {"stage": plan.zero_stage, "overlap_comm": plan.overlap_gradients},
    }
    if plan.offload_optimizer:
        document["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if training.precision in ("bf16", "fp16"):
        document[training.precision] = {"enabled": True}
    if plan.tensor > 1:
        document["tensor_parallel"] = {"autotp_size": plan.tensor}
    if plan.context > 1:
        document["sequence_parallel_size"] = plan.context
    if plan.recompute != "none":
        document["activation_checkpointing"] = {"partition_activations": plan.tensor > 1}
    missing = []
    if plan.pipeline > 1:
        missing.append(f"pipeline {plan.pipeline}: set in code, PipelineModule(num_stages={plan.pipeline})")
        if plan.zero_stage > 1:
            missing.append(f"ZeRO {plan.zero_stage} with pipeline stages: DeepSpeed allows stage 1 at most")
    if plan.virtual_stages > 1 or plan.schedule != "1f1b":
        missing.append("interleaved, zero-bubble and DualPipe schedules: DeepSpeed runs 1F1B")
    if plan.expert > 1:
        missing.append(f"expert {plan.expert}: set in code, MoE(ep_size={plan.expert})")
    if plan.recompute != "none":
        missing.append(f"recompute {plan.recompute}: the layers are checkpointed in the model's code")
    return Launch(document, missing)
