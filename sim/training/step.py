"""One training step, from scenario to answer.

The stations are always the same: write down the work (``layers``), price it (``pricing``, ``copy_cost``), share it out
(``mixed``), order it (``program``), play it (``engine``), keep the books (``results.timeline``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sim.collection import without_collection
from sim.results.step import MemoryUse, Stage, StepResult, Use
from sim.results.timeline import Timeline, account
from sim.spec.checks import data_parallel
from sim.spec.model import Model
from sim.spec.profile import Constant, Fit
from sim.spec.scenario import Scenario
from sim.spec.tasks import task_jobs
from sim.spec.workload import SampleModel, Training
from sim.training.contention import Contention
from sim.training.copy_cost import Place, copy_cost, uses_of
from sim.training.data_parallel import buckets, gathers_once, overlaps
from sim.training.engine import play
from sim.training.layers import Network, dealt_layers, network
from sim.training.loading import serial_s, step_wait_s, with_wait
from sim.training.memory import memory_use
from sim.training.mixed import Share, dealt, in_step, places, shares
from sim.training.node_rates import NodeRates, as_measured, node_rates, used
from sim.training.pricing import Group, Prices
from sim.training.program import build_together
from sim.training.program_parts import Options, StepCost
from sim.training.rounds import play_rounds
from sim.training.run_phases import run_result
from sim.training.stragglers import straggler_wait_s
from sim.training.tasks import tasks_cost, tasks_memory


@dataclass(frozen=True, slots=True)
class Played:
    """A step that was played, and what it was made of."""

    training: Training
    """The job, layers dealt out."""
    whole: Network | None
    by_pool: dict[str, Place]
    mine: Sequence[Share]
    """What each kind of copy works through."""
    timeline: Timeline


def predict_step(
    scenario: Scenario, fits: Sequence[Fit], known: Prices | None = None, *, whole: bool = True
) -> StepResult:
    """Simulate one step of the scenario's training job.

    ``known`` are prices of kernels under the same profile, filled as they are found: hand the same one to every plan
    that is tried. ``whole`` False leaves rounds that repeat themselves out of the timeline
    (:func:`sim.training.rounds.play_rounds`): the same answer up to rounding, in a time that does not grow with
    the batch.

    Raises:
        ValueError: the scenario has no training section.
    """
    step = play_step(scenario, fits, known, whole=whole)
    cluster, training = scenario.cluster, step.training
    place = next(iter(step.by_pool.values()))
    data = data_parallel(cluster, training)
    stages = _stages(training, step.whole, step.mine)
    parts_s = account(step.timeline, [stage.devices for stage in stages])
    return StepResult(
        scenario,
        step.timeline,
        parts_s,
        _memory(step, data),
        data,
        step.mine[0].micro_batches,
        _uses(training, step.whole, step.by_pool),
        {**place.extra.constants, **_measured(scenario, place.pricer.fits)},
        stages,
        run_result(training, cluster, data, step.timeline.step_s, parts_s, place.pricer.fits),
    )


def play_step(
    scenario: Scenario, fits: Sequence[Fit], known: Prices | None = None, *, whole: bool = True
) -> Played:
    """The timeline of a step without its books; see :func:`predict_step`.

    Raises:
        ValueError: the scenario has no training section.
    """
    asked = scenario.training
    if asked is None:
        raise ValueError("the scenario has no [training] section")
    cluster, data = scenario.cluster, data_parallel(scenario.cluster, asked)
    known = {} if known is None else known
    asked = as_measured(asked, _rates(scenario, fits))
    training, model = dealt(scenario, asked, fits, data, known)
    by_pool = places(scenario, training, fits, data, known)
    mine = shares(cluster, training, model, by_pool)
    replicas = alike_ranks(training, data)
    costs = []
    for share in mine:
        at = [by_pool[pool.name] for pool in share.replica.pools]
        if training.tasks:
            costs.append(tasks_cost(training, at, replicas, data))
        else:
            costs.append(copy_cost(training, model, at, replicas, share.micro_batches))
    played = []
    for cost, share in zip(in_step(costs), mine, strict=True):
        late_s = _straggler_s(scenario, cost, training, share.micro_batches)
        cost = replace(cost, load_s=serial_s(training, data), straggler_s=late_s)
        played.append((cost, _options(training, by_pool, share.micro_batches)))
    with without_collection():
        timeline = play(build_together(played)) if whole else play_rounds(played)
    wait_s = step_wait_s(training, cluster, data, timeline.step_s, fits)
    if wait_s > 0:
        with without_collection():
            timeline = play(build_together([with_wait(*copy, wait_s) for copy in played]))
    return Played(training, model, by_pool, mine, timeline)


def _rates(scenario: Scenario, fits: Sequence[Fit]) -> NodeRates:
    pool = scenario.cluster.pools[0]
    return node_rates(fits, pool.accelerator.device(), pool.system.gpus_per_node)


def _measured(scenario: Scenario, fits: Sequence[Fit]) -> dict[str, Constant]:
    """What was measured of the first pool's nodes and counts in this job."""
    asked = scenario.training
    return {} if asked is None else used(_rates(scenario, fits), asked, scenario.cluster)


def alike_ranks(training: Training, data: int) -> int:
    """Ranks that hold the same dense weights: copies, context ranks, and both directions of DualPipe."""
    return data * training.plan.context * (2 if training.plan.schedule == "dualpipe" else 1)


def _options(training: Training, by_pool: dict[str, Place], count: int) -> Options:
    plan = training.plan
    talking = next(iter(by_pool.values())).pricer.groups
    shared = plan.share_network and all(_leaves_domain(talking[name]) for name in ("pipeline", "data"))
    return Options(
        plan.pipeline,
        count,
        plan.virtual_stages,
        plan.schedule,
        overlaps(plan),
        plan.overlap_pipeline,
        overlap_weights=plan.overlap_weights or gathers_once(plan),
        gather_once=gathers_once(plan),
        gradient_buckets=_buckets(training),
        prefetch=training.loader.prefetch if training.loader else 0,
        contention=Contention(shared, plan.overlap_slowdown_frac),
    )


def _stages(training: Training, whole: Network | None, mine: Sequence[Share]) -> tuple[Stage, ...]:
    """Where every rank of the timeline runs, and what it got."""
    plan = training.plan
    layers = [sum(rank) for rank in dealt_layers(len(whole.layers), plan)] if whole else [1]
    width = plan.tensor * plan.context
    return tuple(
        Stage(pool.name, share.replica.copies * width, count, share.samples)
        for share in mine
        for pool, count in zip(share.replica.pools, layers, strict=True)
    )


def _memory(step: Played, data: int) -> tuple[MemoryUse, ...]:
    """Peak use of every rank of the timeline; none for a model known only by its arithmetic."""
    training, several = step.training, len(step.by_pool) > 1
    if step.whole is None:
        return ()
    replicas = alike_ranks(training, data)
    found: list[MemoryUse] = []
    for share in step.mine:
        pools = share.replica.pools
        sizes = [step.by_pool[pool.name].pricer.device.memory_bytes for pool in pools]
        if training.tasks:
            return tasks_memory(training, replicas, data, sizes[0])
        uses = memory_use(step.whole, training, share.micro_batches, replicas, sizes)
        found += [
            replace(use, rank=len(found) + use.rank, pool=pool.name if several else "")
            for use, pool in zip(uses, pools, strict=True)
        ]
    return tuple(found)


def _uses(training: Training, whole: Network | None, by_pool: dict[str, Place]) -> tuple[Use, ...]:
    if whole is None:
        return ()
    if training.tasks:
        (place,) = by_pool.values()
        names = ("main", *(task.name for task in training.tasks))
        blocks = [network(job.model, job) for job in task_jobs(training) if isinstance(job.model, Model)]
        return tuple(
            use for own, name in zip(blocks, names, strict=True) for use in uses_of(own, place, name)
        )
    several = len(by_pool) > 1
    return tuple(
        use for name, place in by_pool.items() for use in uses_of(whole, place, name if several else "")
    )


def _straggler_s(scenario: Scenario, cost: StepCost, training: Training, count: int) -> float:
    """How much later the slowest copy ends its passes than the one that is played.

    Copies that meet every H steps (local SGD) wait once for H steps' worth of jitter, which averages over them.
    """
    passes = count / 2 if training.plan.schedule == "dualpipe" else count  # half of them in each direction
    compute_s = passes * max(
        sum(chunk.forward_s + chunk.backward_s for chunk in rank) for rank in cost.chunks
    )
    spreads = (training.speed_spread_frac, training.jitter_frac)
    return float(
        straggler_wait_s(compute_s, scenario.cluster.devices, count * training.plan.local_steps, *spreads)
    )


def _leaves_domain(group: Group) -> bool:
    return group.ranks > group.ranks_per_domain


def _buckets(training: Training) -> int:
    """Gradient messages a chunk; chunks that differ by a layer are cut alike."""
    plan, model = training.plan, training.model
    layers = 1 if isinstance(model, SampleModel) else model.layers // (plan.pipeline * plan.virtual_stages)
    return buckets(plan, layers)
