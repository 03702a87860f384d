"""One training step, from scenario to answer.

The stations are always the same: write down the work (``layers``), price it (``pricing``), order it (``program``),
play it (``engine``), keep the books (``results.timeline``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sim.cost.optimizer import GRADIENT_BYTES, RULES, WEIGHT_BYTES, update_s
from sim.results.step import MemoryUse, StepResult, Use
from sim.results.timeline import account
from sim.spec.checks import data_parallel, micro_batches
from sim.spec.device import Device
from sim.spec.ops import Block, Message, Op
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.spec.workload import SampleModel, Training
from sim.training.engine import play
from sim.training.layers import Network, layers_by_rank, network
from sim.training.memory import memory_use
from sim.training.overheads import Overheads, overheads
from sim.training.placement import groups
from sim.training.pricing import Pricer
from sim.training.program import ChunkCost, Options, StepCost, build
from sim.training.system_links import system_links
from sim.training.weights import held_parameters


def predict_step(scenario: Scenario, fits: Sequence[Fit]) -> StepResult:
    """Simulate one step of the scenario's training job.

    Raises:
        ValueError: the scenario has no training section.
    """
    training = scenario.training
    if training is None:
        raise ValueError("the scenario has no [training] section")
    pool = scenario.cluster.pools[0]
    data, count = data_parallel(scenario.cluster, training), micro_batches(scenario.cluster, training)
    device = pool.accelerator.device()
    links = system_links(pool.system, pool.accelerator, scenario.cluster.fabric)
    pricer = Pricer(
        device,
        links,
        fits,
        training.precision,
        groups(training.plan, data, int(links.scale_up_ranks), int(links.devices_per_node)),
        ideal=scenario.profile == "ideal",
        engines=TRAINING_ENGINES,
    )
    extra = overheads(fits, training.stack, device.generation, ideal=pricer.ideal)
    options = Options(
        training.plan.pipeline,
        count,
        training.plan.virtual_stages,
        training.plan.schedule,
        training.plan.overlap_gradients,
        training.plan.overlap_pipeline,
        training.loader.prefetch if training.loader else 0,
    )
    uses: tuple[Use, ...] = ()
    memory: tuple[MemoryUse, ...] = ()
    again = 0.0
    if isinstance(training.model, SampleModel):
        cost = _sample_cost(training, training.model, device, data)
    else:
        whole = network(training.model, training)
        replicas = data * training.plan.context  # context ranks hold the same weights
        cost, uses, again = _transformer_cost(whole, training, pricer, extra, replicas)
        memory = memory_use(whole, training, count, replicas, device.memory_bytes)
    timeline = play(build(cost, options))
    return StepResult(scenario, timeline, account(timeline), memory, data, count, uses, extra.fit, again)


TRAINING_ENGINES = {"gemm": "cublas", "attention": "cudnn", "memory_bound": "torch_compile"}
"""Backends a training framework calls; a profile without them lends its nearest."""


def _sample_cost(training: Training, model: SampleModel, device: Device, data: int) -> StepCost:
    per_device = training.plan.micro_batch * model.sample_flop / device.peak(training.precision)
    loader = training.loader
    load = loader.sample_serial_s * training.plan.micro_batch * data if loader else 0.0
    return StepCost([[ChunkCost(per_device / 3, per_device * 2 / 3)]], load_s=load)


def _transformer_cost(
    model: Network, training: Training, pricer: Pricer, extra: Overheads, data: int
) -> tuple[StepCost, tuple[Use, ...], float]:
    plan = training.plan
    priced = {block.name: _block_cost(block, pricer, extra) for block in model.kinds}
    dealt = model.chunks(plan)
    chunks = [[_sum_of([priced[block.name] for block in blocks]) for blocks in rank] for rank in dealt]
    send = Message("sendrecv", model.boundary_bytes, "pipeline", "activations")
    held = [held_parameters(block for blocks in rank for block in blocks) for rank in dealt]
    layers = layers_by_rank(len(model.layers), plan.pipeline, plan.virtual_stages)
    dense, experts = [one.dense for one in held], [one.experts for one in held]
    reduce_s, gather_s = _data_parallel(dense, layers, training, pricer)
    update = _optimizer(dense, training, pricer, extra, data)
    if any(experts):
        more, gathered = _data_parallel(experts, layers, training, pricer, "expert data")
        reduce_s = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(reduce_s, more, strict=True)]
        gather_s = [a + b for a, b in zip(gather_s, gathered, strict=True)]
        shared = _optimizer(experts, training, pricer, extra, plan.expert_replicas(data))
        update = [a + b for a, b in zip(update, shared, strict=True)]
    whole = StepCost(chunks, float(pricer.price(send).seconds), reduce_s, update, gather_s)
    uses = tuple(use for block in model.kinds for use in _uses(block, pricer))
    return whole, uses, _recomputed_frac(model, priced, pricer, extra)


def _recomputed_frac(
    model: Network, priced: Mapping[str, ChunkCost], pricer: Pricer, extra: Overheads
) -> float:
    """Share of the layers' backward seconds that does forward kernels again."""
    number = Counter(block.name for block in model.layers)
    again = backward = 0.0
    for block in model.kinds:
        kernels = [op for op in block.recompute if not isinstance(op, Message)]
        again += number[block.name] * pricer.seconds(kernels) * extra.kernel_factor
        backward += number[block.name] * priced[block.name].backward_s
    return again / backward if backward > 0 else 0.0


def _block_cost(block: Block, pricer: Pricer, extra: Overheads) -> ChunkCost:
    forward, forward_messages = _split(block.forward)
    backward, backward_messages = _split(block.recompute + block.backward)
    return ChunkCost(
        extra.block_s(pricer.seconds(forward), len(forward)),
        extra.block_s(pricer.seconds(backward), len(backward)),
        _waited_s(forward_messages, forward, pricer) * extra.message_factor,
        _waited_s(backward_messages, backward, pricer) * extra.message_factor,
    )


def _waited_s(messages: Sequence[Message], kernels: Sequence[Op], pricer: Pricer) -> float:
    """Seconds of messages that nothing hides: all of one, or what outlasts the kernel it runs beside."""
    waited = 0.0
    for message in messages:
        hidden = [op for op in kernels if op.name == message.beside] if message.beside else []
        waited += max(pricer.seconds((message,)) - pricer.seconds(hidden), 0.0)
    return waited


def _split(ops: Sequence[Op]) -> tuple[list[Op], list[Message]]:
    return [op for op in ops if not isinstance(op, Message)], [op for op in ops if isinstance(op, Message)]


def _sum_of(costs: Sequence[ChunkCost]) -> ChunkCost:
    return ChunkCost(
        sum(cost.forward_s for cost in costs),
        sum(cost.backward_s for cost in costs),
        sum(cost.forward_tensor_s for cost in costs),
        sum(cost.backward_tensor_s for cost in costs),
    )


def _data_parallel(
    held: Sequence[float],
    layers: Sequence[Sequence[int]],
    training: Training,
    pricer: Pricer,
    group: str = "data",
) -> tuple[list[list[float]], list[float]]:
    """Seconds of gradient reduction by rank and chunk, and of the weight gather under ZeRO 1 by rank."""
    sharded = training.plan.zero_stage >= 1
    kind = "reduce_scatter" if sharded else "all_reduce"
    reduce_s, gather_s = [], []
    for parameters, counts in zip(held, layers, strict=True):
        total = sum(counts)
        messages = [
            Message(kind, GRADIENT_BYTES * parameters * n / total, group, "gradients") for n in counts
        ]
        reduce_s.append([float(pricer.price(message).seconds) for message in messages])
        weights = Message("all_gather", WEIGHT_BYTES * parameters, group, "weights")
        gather_s.append(float(pricer.price(weights).seconds) if sharded else 0.0)
    return reduce_s, gather_s


def _optimizer(
    held: Sequence[float], training: Training, pricer: Pricer, extra: Overheads, data: int
) -> list[float]:
    shard = data if training.plan.zero_stage >= 1 else 1
    rule = RULES[training.optimizer]
    rate = pricer.device.memory_bytes_per_s
    share = 1.0 if pricer.ideal else extra.optimizer_bandwidth_frac
    return [float(update_s(parameters / shard, rule, rate, share)) for parameters in held]


def _uses(block: Block, pricer: Pricer) -> list[Use]:
    uses: dict[str, Use] = {}
    for op in block.forward + block.recompute + block.backward:
        found = pricer.price(op)
        name = f"{block.name}: {op.name}"
        use = Use(name, float(found.seconds), float(found.lower_bound_s), found.leans_on, found.fit)
        earlier = uses.get(name)
        if earlier is not None:
            use = replace(
                use,
                seconds=use.seconds + earlier.seconds,
                lower_bound_s=use.lower_bound_s + earlier.lower_bound_s,
            )
        uses[name] = use
    return list(uses.values())
