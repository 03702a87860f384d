"""Checks that need two sections at once: does the plan divide the cluster, the batch and the model?

Each check is one sentence a colleague would say on reading the scenario; all of them are said, not just the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.spec.catalog import load_catalog
from sim.spec.conformer import conformers
from sim.spec.copies import computes_in
from sim.spec.faults import Fault
from sim.spec.kernel_list import row_fault
from sim.spec.layer_graph import layer_graphs
from sim.spec.memory_checks import memory_faults
from sim.spec.model import Model
from sim.spec.pool_checks import pool_faults
from sim.spec.recommender import recommenders
from sim.spec.scenario import Cluster
from sim.spec.tasks import task_faults, task_jobs
from sim.spec.workload import SampleModel, Training

MAX_TASKS = 500_000
"""Passes one simulated step may have; beyond it a person has mistyped a batch size."""

DECODERS = ("decoder", "moe", "mla-moe")
_STACK = ("layers", "hidden", "heads", "kv_heads", "head_dim")
SHAPES: Mapping[str, tuple[str, ...]] = {
    "decoder": (*_STACK, "ffn_hidden", "vocab"),
    "moe": (*_STACK, "experts", "topk", "moe_ffn_hidden", "vocab"),
    "mla-moe": (*_STACK, "experts", "topk", "moe_ffn_hidden", "kv_lora_rank", "rope_dim", "vocab"),
    "encoder": (*_STACK, "ffn_hidden", "vocab"),
    "vit": (*_STACK, "ffn_hidden", "max_positions", "extra_params"),
    "diffusion": (*_STACK, "ffn_hidden", "max_positions"),
    "encoder-decoder": (*_STACK, "decoder_layers", "ffn_hidden", "vocab"),
    "speech": (*_STACK, "decoder_layers", "ffn_hidden", "vocab", "max_positions", "extra_params"),
}
"""Kinds of model that the step can write down, with what it needs to know of the shape."""


def cross_faults(cluster: Cluster | None, training: Training | None, where: str) -> list[Fault]:
    """Faults between the cluster and the training section; a section that is itself faulty is None and not used."""
    faults: list[Fault] = []
    if cluster is not None and not cluster.pools:
        faults.append(Fault(where, "cluster.pools", None, "is required: at least one pool"))
    if training is None:
        return faults
    if training.auto_plan:  # the search asks again with each plan
        return faults
    faults += _plan_faults(training, where)
    for number, job in enumerate(task_jobs(training)[1:]):
        for fault in _shape_faults(job, job.model, where) if isinstance(job.model, Model) else ():
            faults.append(fault._replace(path=f"training.tasks.{number} ({fault.path})"))
    if cluster is not None and cluster.pools:
        faults += pool_faults(cluster, training, where) or list(_fit_faults(cluster, training, where))
    return faults


def data_parallel(cluster: Cluster, training: Training) -> int:
    """Copies of the model: the devices over those that hold one copy."""
    return cluster.devices // training.plan.model_ranks


def micro_batches(cluster: Cluster, training: Training) -> int:
    """Micro-batches that one copy of the model works through in a step."""
    return training.global_batch // (data_parallel(cluster, training) * training.plan.micro_batch)


def _plan_faults(training: Training, where: str) -> Iterator[Fault]:
    plan, model = training.plan, training.model
    chunks_path, chunks = "training.plan.virtual_stages", plan.virtual_stages
    if plan.schedule != "1f1b" and chunks > 1:
        name = {"gpipe": "GPipe", "zb-h1": "ZB-H1", "dualpipe": "DualPipe"}[plan.schedule]
        yield Fault(where, chunks_path, chunks, f"{name} has no virtual stages: expected 1")
    if plan.schedule in ("zb-h1", "dualpipe") and (plan.zero_stage == 3 or plan.overlap_parameters):
        wanted = f"{plan.schedule} with weights that are gathered under way is not modelled: expected 1f1b or gpipe"
        yield Fault(where, "training.plan.schedule", plan.schedule, wanted)
    if plan.schedule == "dualpipe" and plan.pipeline % 2:
        wanted = "DualPipe feeds both ends of the pipeline: expected an even number of stages"
        yield Fault(where, "training.plan.pipeline", plan.pipeline, wanted)
    if chunks > 1 and plan.pipeline == 1:
        yield Fault(where, chunks_path, chunks, "expected 1 without pipeline stages")
    if plan.overlap_tensor and not plan.sequence_parallel:
        wanted = "needs sequence_parallel: an all-reduce cannot travel in chunks beside a product"
        yield Fault(where, "training.plan.overlap_tensor", True, wanted)
    yield from memory_faults(training, where)
    yield from _exchange_faults(training, where)
    yield from _run_faults(training, where)
    if isinstance(model, SampleModel):
        if plan.model_ranks > 1:
            wanted = "a model known only by its FLOP cannot be cut: tensor = pipeline = 1"
            yield Fault(where, "training.plan", plan.model_ranks, wanted)
        return
    yield from _shape_faults(training, model, where)


def _run_faults(training: Training, where: str) -> Iterator[Fault]:
    run = training.run
    if run is not None and (run.steps > 0) == (run.tokens > 0):
        yield Fault(where, "training.run", run.steps, "expected either steps or tokens, above 0")


def _exchange_faults(training: Training, where: str) -> Iterator[Fault]:
    """What of a plan's ways to exchange gradients does not go together."""
    plan, method = training.plan, training.plan.compression.method
    loader = training.loader
    if loader is not None and loader.sample_serial_s > 0:
        stages = loader.sample_bytes + loader.sample_cpu_s + loader.sample_device_bytes + loader.hiccup_s
        if stages > 0:
            text = "describes the whole path: expected 0 where bytes, CPU time or slow reads are given"
            yield Fault(where, "training.loader.sample_serial_s", loader.sample_serial_s, text)
    if plan.shard_ranks and not plan.zero_stage:
        yield Fault(
            where, "training.plan.shard_ranks", plan.shard_ranks, "expected 0 where ZeRO shards nothing"
        )
    if plan.zero_stage and method not in ("none", "fp16"):
        text = f"{method} needs whole gradients on every rank: expected zero_stage 0"
        yield Fault(where, "training.plan.zero_stage", plan.zero_stage, text)
    if plan.zero_stage and plan.local_steps > 1:
        text = "ranks that train apart keep whole copies: expected zero_stage 0"
        yield Fault(where, "training.plan.zero_stage", plan.zero_stage, text)
    if method == "top-k" and plan.compression.keep_frac <= 0:
        keep = plan.compression.keep_frac
        yield Fault(where, "training.plan.compression.keep_frac", keep, "expected more than 0")
    if plan.offload_optimizer and training.optimizer == "muon":
        text = "muon multiplies matrices: expected an update rule that the host can do"
        yield Fault(where, "training.optimizer", training.optimizer, text)
    if plan.parameter_server is None:
        return
    path = "training.plan.parameter_server"
    if plan.pipeline > 1 or plan.zero_stage or plan.local_steps > 1 or plan.offload_optimizer:
        text = "needs pipeline = 1, zero_stage = 0, local_steps = 1 and no offload_optimizer: servers hold the state"
        yield Fault(where, path, plan.parameter_server.servers, text)
    if method == "power-sgd":
        text = "PowerSGD averages its factors twice a step: expected an all-reduce, not a parameter server"
        yield Fault(where, "training.plan.compression.method", method, text)


def _shape_faults(training: Training, model: Model, where: str) -> Iterator[Fault]:
    """Whether the step knows the model's kind, whether its shape is whole, and whether the plan cuts it evenly."""
    plan = training.plan
    if model.kind == "kernels":
        yield from _listed_faults(training, model, where)
        return
    if model.key in layer_graphs() or model.key in recommenders():
        yield from _graph_faults(training, model, where)
        return
    if model.key in conformers():
        if training.plan.model_ranks > 1 or training.plan.sequence_parallel:
            wanted = "a conformer is not cut: tensor = pipeline = context = 1, no sequence_parallel"
            yield Fault(where, "training.plan", training.plan.model_ranks, wanted)
        if training.source_tokens < 2 or training.sequence < 2:
            wanted = "expected the tokens of a sample (40 ms of sound each), 2 or more"
            yield Fault(where, "training.sequence", training.sequence, wanted)
        if not training.target_tokens:
            wanted = (
                "expected the word pieces of a sample's text: the transducer scores each with every token"
            )
            yield Fault(where, "training.target_sequence", training.target_sequence, wanted)
        if training.plan.expert > 1:
            yield Fault(where, "training.plan.expert", training.plan.expert, "expected 1: it has no experts")
        return
    needed = SHAPES.get(model.kind)
    if needed is None:
        known = ", ".join(SHAPES)
        yield Fault(where, "training.model", model.key, f"is of kind {model.kind}; expected {known}")
        return
    if gaps := [name for name in needed if not getattr(model, name)]:
        yield Fault(
            where, "training.model", model.key, f"is not a whole {model.kind}: missing {', '.join(gaps)}"
        )
        return
    if training.source_tokens < 2:
        yield Fault(
            where, "training.sequence", training.sequence, "expected the tokens of a sequence, 2 or more"
        )
    for name in ("heads", "hidden", "ffn_hidden", "moe_ffn_hidden"):
        have = getattr(model, name)
        if have % plan.tensor:
            wanted = f"expected a divisor of the model's {name} ({have})"
            yield Fault(where, "training.plan.tensor", plan.tensor, wanted)
    if plan.sequence_parallel and training.source_tokens % (plan.tensor * plan.context):
        wanted = f"expected a divisor of sequence ({training.source_tokens}) over context {plan.context}"
        yield Fault(where, "training.plan.tensor", plan.tensor, wanted)
    if plan.pipeline * plan.virtual_stages > model.layers:
        product = f"pipeline x virtual_stages = {plan.pipeline * plan.virtual_stages}"
        wanted = f"{product} exceeds the model's {model.layers} layers"
        yield Fault(where, "training.plan.pipeline", plan.pipeline, wanted)
    if model.decoder_layers and plan.pipeline > 1:
        wanted = "expected 1: the stages of two stacks of different length are not modelled"
        yield Fault(where, "training.plan.pipeline", plan.pipeline, wanted)
    if model.kind == "encoder" and training.scored_tokens > training.sequence:
        wanted = f"expected at most sequence ({training.sequence})"
        yield Fault(where, "training.masked_tokens", training.masked_tokens, wanted)
    yield from _context_faults(training, model, where)
    if plan.expert > 1 and (not model.experts or model.experts % plan.expert):
        wanted = (
            f"expected a divisor of the model's experts ({model.experts})" if model.experts else "expected 1"
        )
        yield Fault(where, "training.plan.expert", plan.expert, f"{wanted}: experts are dealt out evenly")
    if not plan.split_experts and plan.tensor > 1 and not plan.sequence_parallel:
        wanted = "expected true without sequence_parallel: tensor ranks have the same tokens"
        yield Fault(where, "training.plan.split_experts", False, wanted)


def _listed_faults(training: Training, model: Model, where: str) -> Iterator[Fault]:
    """A list of kernels is trained data parallel alone: nobody knows where it could be cut."""
    if not model.kernels or not model.params_total:
        yield Fault(
            where, "training.model", model.key, "a model of kind kernels needs kernels and params_total"
        )
    for number, text in enumerate(model.kernels):
        if fault := row_fault(text):
            yield Fault(where, f"training.model.kernels.{number}", None, fault)
    if model.kernel_samples < 1:
        yield Fault(where, "training.model.kernel_samples", model.kernel_samples, "expected 1 or more")
    if training.plan.model_ranks > 1 or training.plan.expert > 1 or training.plan.sequence_parallel:
        wanted = "a list of kernels is not cut: tensor = pipeline = context = expert = 1"
        yield Fault(where, "training.plan", training.plan.model_ranks, wanted)
    if training.lora_rank:
        yield Fault(
            where, "training.lora_rank", training.lora_rank, "expected 0: a list of kernels has no adapters"
        )


def _graph_faults(training: Training, model: Model, where: str) -> Iterator[Fault]:
    """A network of unlike stages is trained data parallel alone, every layer whole, as its table says."""
    if model != load_catalog().models.get(model.key):
        wanted = "cannot be changed: its layers are those of the catalogue's table, not of these fields"
        yield Fault(where, "training.model", model.key, wanted)
    if training.plan.model_ranks > 1:
        wanted = f"a {model.kind} is not cut: tensor = pipeline = context = 1"
        yield Fault(where, "training.plan", training.plan.model_ranks, wanted)
    if training.plan.expert > 1 and model.kind != "recommender":
        yield Fault(
            where, "training.plan.expert", training.plan.expert, "expected 1: the model has no experts"
        )
    if training.lora_rank:
        yield Fault(
            where, "training.lora_rank", training.lora_rank, f"expected 0: a {model.kind} has no adapters"
        )
    if training.sequence > 1:
        yield Fault(
            where, "training.sequence", training.sequence, f"expected 1: a {model.kind} reads no tokens"
        )


def _context_faults(training: Training, model: Model, where: str) -> Iterator[Fault]:
    plan, path = training.plan, "training.plan.context"
    if plan.context == 1:
        return
    if model.kind not in DECODERS:
        yield Fault(where, path, plan.context, f"expected 1: a {model.kind} keeps its sequences whole")
    if training.source_tokens % (2 * plan.context):
        wanted = f"expected twice it to divide sequence ({training.source_tokens}): causal work is dealt out in pairs"
        yield Fault(where, path, plan.context, wanted)
    if not plan.flash_attention:
        yield Fault(where, path, plan.context, "expected 1 without flash_attention")
    if plan.context_exchange == "all-to-all" and model.heads % (plan.tensor * plan.context):
        wanted = f"expected tensor x context to divide the model's heads ({model.heads})"
        yield Fault(where, path, plan.context, wanted)
    if plan.context_exchange == "ring" and model.window:
        yield Fault(where, path, plan.context, "expected all-to-all: a ring does not know sliding windows")


def _fit_faults(cluster: Cluster, training: Training, where: str) -> Iterator[Fault]:
    plan, devices = training.plan, cluster.devices
    if devices % plan.model_ranks:
        yield Fault(
            where,
            "training.plan",
            f"tensor {plan.tensor} x pipeline {plan.pipeline} x context {plan.context}",
            f"expected a divisor of the cluster's {devices:,} devices",
        )
        return
    copies = devices // plan.model_ranks
    yield from task_faults(training, copies, where)
    if plan.shard_ranks and copies % plan.shard_ranks:
        text = f"expected a divisor of data parallel {copies:,}"
        yield Fault(where, "training.plan.shard_ranks", plan.shard_ranks, text)
    ranks = copies * plan.context * (1 if plan.split_experts else plan.tensor)
    if ranks % plan.expert:
        wanted = f"expected a divisor of the {ranks:,} ranks that may share experts"
        yield Fault(where, "training.plan.expert", plan.expert, wanted)
    share = copies * plan.micro_batch
    unlike = len(cluster.pools) > 1 and not plan.stages
    if training.global_batch % (plan.micro_batch if unlike else share) or training.global_batch < share:
        nearest = max(share, round(training.global_batch / share) * share)
        wanted = f"expected a multiple of data parallel {copies:,} x micro_batch {plan.micro_batch}"
        wanted += f"; nearest is {nearest:,}"
        yield Fault(where, "training.global_batch", training.global_batch, wanted)
        return
    if training.run is not None and training.run.checkpoint_every and cluster.storage is None:
        text = "checkpoints need a place to go: expected a [cluster.storage] section"
        yield Fault(where, "training.run.checkpoint_every", training.run.checkpoint_every, text)
    count = training.global_batch // share
    if plan.virtual_stages > 1 and count < plan.pipeline:
        text = f"interleaving needs at least as many micro-batches a copy (here {count}) as pipeline stages"
        yield Fault(where, "training.plan.pipeline", plan.pipeline, text)
    if plan.schedule == "dualpipe" and (count % 2 or count < 2 * plan.pipeline):
        text = f"DualPipe needs an even number of micro-batches a copy (here {count}), at least 2 x pipeline"
        yield Fault(where, "training.plan.pipeline", plan.pipeline, text)
    if count * plan.pipeline * plan.virtual_stages > MAX_TASKS:
        text = f"makes {count:,} micro-batches a copy, more than can be simulated; raise micro_batch or the devices"
        yield Fault(where, "training.global_batch", training.global_batch, text)
    for pool in cluster.pools:
        rates = pool.accelerator.device().flop_per_s
        alone = len(cluster.pools) == 1 and training.precision not in rates
        if alone or computes_in(pool, training.precision) is None:
            text = f"{pool.accelerator.key} computes in {', '.join(sorted(rates))}"
            yield Fault(where, "training.precision", training.precision, text)
