"""Copies of a model on unlike pools: who gets how many layers and samples, and what all wait for.

Like seating an orchestra of professionals and pupils: the pupils get the shorter parts, and everybody starts the next
movement together. With one pool there is one kind of copy and nothing to decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sim.cost.kernels.sustained import sustained_frac
from sim.spec.copies import Replica, computes_in, replicas
from sim.spec.device import Device
from sim.spec.profile import Fit
from sim.spec.scenario import Cluster, Pool, Scenario
from sim.spec.workload import SampleModel, Training
from sim.training.copy_cost import Place, pass_costs, pass_s
from sim.training.layers import Network, network
from sim.training.memory import most_layers
from sim.training.overheads import Overheads, mlp_kind, overheads
from sim.training.placement import groups
from sim.training.pricing import Pricer, Prices
from sim.training.program_parts import StepCost
from sim.training.system_links import system_links
from sim.training.uneven import pool_split, split_layers

TRAINING_ENGINES = {"gemm": "transformer-engine", "attention": "cudnn", "memory_bound": "torch_compile"}
"""Backends a training framework calls; a profile without them lends its nearest."""
STACK_ENGINES = {"torch-eager": dict.fromkeys(("gemm", "attention", "memory_bound"), "torch eager")}
"""Of stacks that call others: plain torch, as ``rackcast calibrate`` measures it."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one kind of copy works through in a step."""

    replica: Replica
    micro_batches: int
    """Of the busiest of these copies, which is the one that is played."""
    samples: int
    """Of the global batch, over all these copies."""


def places(
    scenario: Scenario, training: Training, fits: Sequence[Fit], data: int, known: Prices
) -> dict[str, Place]:
    """Every pool of the cluster with its prices; groups of gradients reach over all ``data`` copies."""
    return {pool.name: _place(pool, scenario, training, fits, data, known) for pool in scenario.cluster.pools}


def _place(
    pool: Pool, scenario: Scenario, training: Training, fits: Sequence[Fit], data: int, known: Prices
) -> Place:
    plan, device = training.plan, device_of(pool, training.precision)
    links = system_links(pool.system, pool.accelerator, scenario.cluster.fabric)
    talking = groups(plan, data, int(links.scale_up_ranks), int(links.devices_per_node))
    if plan.schedule == "dualpipe":  # two stages on a rank: twice as many ranks hold the same weights
        for name in ("data", "expert data"):
            talking[name] = replace(talking[name], ranks=talking[name].ranks * 2)
    ideal = scenario.profile == "ideal"
    pricer = Pricer(
        device,
        links,
        fits,
        training.precision,
        talking,
        ideal=ideal,
        engines=engines_of(training.stack),
        stated_frac=0.0 if ideal else pool.efficiency_frac,
        known=known,
        sustained_frac=kept_frac(pool),
    )
    return Place(pool, pricer, overheads_on(pool, training, fits, ideal=ideal))


def device_of(pool: Pool, precision: str) -> Device:
    """A pool's device; where it lacks the precision with the rate of the wider format that it computes in.

    Checks let that pass only beside other pools.
    """
    device = pool.accelerator.device()
    if precision in device.flop_per_s:
        return device
    rate = device.flop_per_s[computes_in(pool, precision) or "fp32"]
    return replace(device, flop_per_s={**device.flop_per_s, precision: rate})


def engines_of(stack: str) -> Mapping[str, str]:
    """Backends that a stack calls, by op."""
    return STACK_ENGINES.get(stack, TRAINING_ENGINES)


def kept_frac(pool: Pool) -> float:
    """Share of their burst rate that a pool's matrix units keep."""
    device = pool.accelerator
    return sustained_frac(device.generation, device.tdp_w, device.flop_per_s.get("bf16", 0.0))


def overheads_on(pool: Pool, training: Training, fits: Sequence[Fit], *, ideal: bool) -> Overheads:
    """What the job's software stack adds on a pool."""
    return overheads(
        fits,
        training.stack,
        pool.accelerator.generation,
        training.precision,
        ideal=ideal,
        ranks=min(pool.system.gpus_per_node, pool.devices),
        network=_kind(training),
        mlp=mlp_kind(training),
        rule=training.optimizer,
    )


def _kind(training: Training) -> str:
    """What the layers are made of, as far as overheads were measured apart."""
    kind = "" if isinstance(training.model, SampleModel) else training.model.kind
    return "convolutional" if kind in ("cnn", "unet3d", "detector") else "transformer"


def with_layers(
    training: Training, whole: Network | None, seats: Sequence[Place], data: int, count: int
) -> Training:
    """The job with layers dealt to the stages where these sit on unlike pools and the plan does not say how many.

    Each device gets what makes the slowest stage fastest within its memory; where memory holds no such split, the
    fastest one without that limit (which then does not fit, and says so).

    Args:
        seats: where each stage sits.
        data: ranks that hold the same weights.
        count: micro-batches of a copy.
    """
    plan = training.plan
    unlike = len({seat.pool.name for seat in seats}) > 1
    if whole is None or plan.layers_per_stage or not unlike:
        return training
    ends = replace(whole, layers=())
    bare = replace(training, plan=replace(plan, layers_per_stage=(0,) * plan.pipeline))
    fixed = [sum(map(pass_s, rank)) for rank in pass_costs(ends, bare, seats)]
    even = pass_costs(whole, training, seats)
    counts = [sum(map(len, rank)) for rank in whole.chunks(plan)]
    counts[0], counts[-1] = counts[0] - 1, counts[-1] - 1  # first and last block are no layers
    layer_s = [(sum(map(pass_s, rank)) - own) / n for rank, own, n in zip(even, fixed, counts, strict=True)]
    room = most_layers(whole, training, count, data, [seat.pricer.device.memory_bytes for seat in seats])
    split = None
    if all(n >= plan.virtual_stages for n in room):
        split = split_layers(len(whole.layers), layer_s, fixed_s=fixed, most_layers=room)
    split = split or split_layers(len(whole.layers), layer_s, fixed_s=fixed)
    if split is None or min(split.layers) < plan.virtual_stages:
        return training
    return replace(training, plan=replace(plan, layers_per_stage=split.layers))


def shares(
    cluster: Cluster, training: Training, whole: Network | None, by_pool: dict[str, Place]
) -> tuple[Share, ...]:
    """What each kind of copy works through: as the job says, or in proportion to speed."""
    plan = training.plan
    kinds = replicas(cluster, plan)
    copies = [kind.copies for kind in kinds]
    if len(kinds) == 1:
        count = training.global_batch // (copies[0] * plan.micro_batch)
        return (Share(kinds[0], count, training.global_batch),)
    if training.shares:
        samples = list(training.shares)
        most = [-(-own // (n * plan.micro_batch)) for own, n in zip(samples, copies, strict=True)]
    else:
        batch_s = [_batch_s(training, whole, by_pool[kind.pools[0].name]) for kind in kinds]
        fill = (plan.pipeline - 1) / plan.virtual_stages
        most, every = pool_split(
            training.global_batch // plan.micro_batch,
            copies,
            batch_s,
            [seconds * fill for seconds in batch_s],
            plan.pipeline if plan.virtual_stages > 1 else 1,
        )
        samples = [n * plan.micro_batch for n in every]
    return tuple(Share(*entry) for entry in zip(kinds, most, samples, strict=True))


def _batch_s(training: Training, whole: Network | None, place: Place) -> float:
    """Seconds that a copy needs for one more micro-batch: the passes of its slowest stage."""
    if isinstance(training.model, SampleModel) or whole is None:
        own = training.model.sample_flop if isinstance(training.model, SampleModel) else 1.0
        return own / place.pricer.device.peak(training.precision) / (place.pricer.stated_frac or 1.0)
    seats = [place] * training.plan.pipeline
    return max(sum(map(pass_s, rank)) for rank in pass_costs(whole, training, seats))


def in_step(costs: Sequence[StepCost]) -> list[StepCost]:
    """The costs of unlike copies with exchanges as long as the slowest takes part in them: all leave one together."""
    if len(costs) == 1:
        return list(costs)
    grads = _slowest([cost.gradients_s for cost in costs])
    weights = _slowest([cost.weights_s for cost in costs])
    gathered = [max(times) for times in zip(*(cost.parameters_s for cost in costs), strict=True)]
    return [replace(cost, gradients_s=grads, weights_s=weights, parameters_s=gathered) for cost in costs]


def _slowest(tables: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    return [[max(times) for times in zip(*ranks, strict=True)] for ranks in zip(*tables, strict=True)]


def dealt(
    scenario: Scenario, training: Training, fits: Sequence[Fit], data: int, known: Prices
) -> tuple[Training, Network | None]:
    """The job as it is run, layers dealt out, with its blocks."""
    if isinstance(training.model, SampleModel):
        return training, None
    whole = network(training.model, training)
    kind = replicas(scenario.cluster, training.plan)[0]
    if len({pool.name for pool in kind.pools}) == 1 or training.plan.layers_per_stage:
        return training, whole
    by_pool = places(scenario, training, fits, data, known)
    seats = [by_pool[pool.name] for pool in kind.pools]
    count = training.global_batch // (kind.copies * training.plan.micro_batch)
    settled = with_layers(training, whole, seats, data * training.plan.context, count)
    return settled, network(training.model, settled)
