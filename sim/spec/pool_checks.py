"""Checks of a plan against the pools of a cluster: do stages, layers and samples add up on every one of them?

Each check is one sentence a colleague would say on reading the scenario.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from sim.spec.faults import Fault
from sim.spec.model import Model
from sim.spec.scenario import Cluster
from sim.spec.workload import Training


def pool_faults(cluster: Cluster, training: Training, where: str) -> list[Fault]:
    """What of stages, layers and shares does not go with the pools; nothing where a job leaves them alone."""
    found = list(_layer_faults(training, where))
    names = [pool.name for pool in cluster.pools]
    for number, name in enumerate(names):
        if name in names[:number]:
            text = "is the name of another pool too: expected a name of its own"
            found.append(Fault(where, f"cluster.pools.{number}.name", name, text))
    if found:
        return found
    if training.plan.stages:
        return list(_stage_faults(cluster, training, where))
    if training.shares or len(names) > 1:
        return list(_copy_faults(cluster, training, where))
    return []


def _layer_faults(training: Training, where: str) -> Iterator[Fault]:
    plan, path = training.plan, "training.plan.layers_per_stage"
    counts, own = plan.layers_per_stage, training.model
    if not counts:
        return
    layers = own.layers if isinstance(own, Model) else 0
    if len(counts) != plan.pipeline:
        text = f"expected one number for each of the {plan.pipeline} pipeline stages"
        yield Fault(where, path, list(counts), text)
    if not layers:
        yield Fault(where, path, list(counts), "expected none: the model's layers are not dealt to stages")
    elif sum(counts) != layers:
        text = f"adds up to {sum(counts)}: expected the model's {layers} layers"
        yield Fault(where, path, list(counts), text)
    if min(counts) < plan.virtual_stages:
        text = f"expected at least virtual_stages ({plan.virtual_stages}) layers a stage"
        yield Fault(where, path, list(counts), text)


def _stage_faults(cluster: Cluster, training: Training, where: str) -> Iterator[Fault]:
    """Stages name pools, every pool has the devices its stages need, and as many for each stage."""
    plan, path = training.plan, "training.plan.stages"
    names = [pool.name for pool in cluster.pools]
    for name in dict.fromkeys(plan.stages):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield Fault(where, path, name, f"is no pool: expected {', '.join(names)}{hint}")
    if len(plan.stages) != plan.pipeline:
        text = f"expected one pool for each of the {plan.pipeline} pipeline stages"
        yield Fault(where, path, list(plan.stages), text)
    if training.shares:
        text = "expected none: with plan.stages every copy runs through all pools"
        yield Fault(where, "training.shares", list(training.shares), text)
    if plan.schedule == "dualpipe" and len(set(plan.stages)) > 1:
        text = "DualPipe puts both ends of the pipeline on one device: expected alike stages"
        yield Fault(where, path, list(plan.stages), text)
    width = plan.tensor * plan.context
    copies = cluster.devices // plan.model_ranks
    for pool in cluster.pools:
        stages = plan.stages.count(pool.name)
        if stages == 0:
            yield Fault(where, path, list(plan.stages), f"leaves the pool {pool.name} idle: expected a stage")
        elif pool.devices != stages * width * copies:
            text = (
                f"{stages} of {plan.pipeline} stages are here: expected {stages * width:,} devices for each of the "
                f"same number of copies in every pool, not {pool.devices:,} devices"
            )
            yield Fault(where, f"cluster.pools.{names.index(pool.name)}.nodes", pool.nodes, text)


def _copy_faults(cluster: Cluster, training: Training, where: str) -> Iterator[Fault]:
    """Pools that hold whole copies: each divides into them, and shares are whole micro-batches of them."""
    plan, shares = training.plan, training.shares
    for number, pool in enumerate(cluster.pools):
        if pool.devices % plan.model_ranks:
            text = f"has {pool.devices:,} devices: expected a multiple of a copy's {plan.model_ranks}"
            yield Fault(where, f"cluster.pools.{number}.nodes", pool.nodes, text)
        elif len(cluster.pools) > 1 and plan.expert > 1:
            ranks = (
                pool.devices // plan.model_ranks * plan.context * (1 if plan.split_experts else plan.tensor)
            )
            if ranks % plan.expert:
                text = (
                    f"expected a divisor of the {ranks:,} ranks of pool {pool.name}: experts stay in a pool"
                )
                yield Fault(where, "training.plan.expert", plan.expert, text)
    if training.tasks and len(cluster.pools) > 1:
        text = "of one step are modelled on one pool: expected none, or one pool"
        yield Fault(where, "training.tasks", len(training.tasks), text)
    if plan.parameter_server is not None and len(cluster.pools) > 1:
        text = "serves workers of one pool: expected none, or one pool"
        yield Fault(where, "training.plan.parameter_server", plan.parameter_server.servers, text)
    if not shares:
        if plan.schedule == "dualpipe":
            text = "needs even numbers of micro-batches in every pool: expected training.shares that say so, or 1f1b"
            yield Fault(where, "training.plan.schedule", plan.schedule, text)
        return
    if len(shares) != len(cluster.pools):
        text = f"expected one number for each of the {len(cluster.pools)} pools"
        yield Fault(where, "training.shares", list(shares), text)
        return
    if sum(shares) != training.global_batch:
        text = f"adds up to {sum(shares):,}: expected the global batch of {training.global_batch:,}"
        yield Fault(where, "training.shares", list(shares), text)
    for pool, share in zip(cluster.pools, shares, strict=True):
        each = max(pool.devices // plan.model_ranks, 1) * plan.micro_batch
        if share % each:
            text = f"expected a multiple of the copies in {pool.name} x micro_batch ({each:,})"
            yield Fault(where, "training.shares", share, text)
        elif plan.schedule == "dualpipe" and (share // each % 2 or share // each < 2 * plan.pipeline):
            text = f"DualPipe needs an even number of micro-batches a copy, at least 2 x pipeline x {each:,} samples"
            yield Fault(where, "training.shares", share, text)
