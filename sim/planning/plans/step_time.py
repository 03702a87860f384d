"""Step times of many plans by the closed form, from pieces that are priced once each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.bench import Bench
from sim.planning.plans.price_book import settle
from sim.planning.plans.space import Skeleton
from sim.planning.plans.tables import indexed
from sim.spec.model import Model
from sim.spec.ops import Message
from sim.spec.parallelism import RECOMPUTE
from sim.training.closed_form import Plans, step_s
from sim.training.copy_cost import block_cost
from sim.training.data_parallel import buckets, exchange, gathers_once, overlaps
from sim.training.placement import groups
from sim.training.pricing import Group
from sim.training.scaling import delayed, maxima_message, products
from sim.training.stragglers import straggler_wait_s
from sim.training.update import optimizer_s

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Passes:
    """Seconds of passes by asked skeleton and recomputation: mean rank and the one that takes longest."""

    forward: Floats
    backward: Floats
    weight: Floats
    slowest: Floats
    """Forward and backward of the slowest rank."""


def step_times(bench: Bench, rows: Ints) -> Floats:
    """Closed-form seconds of the plans at ``rows`` of the space.

    Stages are taken as equally long, at the mean; what the slowest one takes longer is added once a micro-batch.
    Weights that are gathered for a pass (ZeRO 3) hide behind it or set its length.
    """
    space, frees = bench.space, bench.space.frees
    needed, local = np.unique(space.skeleton[rows], return_inverse=True)
    skeletons = [space.skeletons[row] for row in needed]
    talking = _groups(bench, skeletons)
    passes = _passes(bench, needed, skeletons, talking)
    traffic, cut = _exchanges(bench, needed, skeletons, talking, rows)
    sends = _sends(bench, needed, skeletons, talking)
    agreed = _agreements(bench, needed, skeletons, talking)[local]
    free = space.free[rows]
    way = np.array([RECOMPUTE.index(one.recompute) for one in frees])[free]
    zero = np.array([one.zero_stage for one in frees])[free]
    host = np.array([one.offload_optimizer for one in frees], dtype=np.int64)[free]
    p, v, m = (
        np.array(values, dtype=float)[local]
        for values in (
            [s.pipeline for s in skeletons],
            [s.virtual_stages for s in skeletons],
            [bench.passes(s) for s in skeletons],
        )
    )
    reduce_s, parameters_s, weights_s, update_s, pieces = traffic[cut[local], zero, host].T
    forward, backward = passes.forward[local, way] / v + agreed, passes.backward[local, way] / v + agreed
    slowest = passes.slowest[local, way] + 2 * v * agreed
    overlapped = overlaps(space.training.plan)
    every_pass = zero == 3
    forward_gathered = np.where(every_pass, np.maximum(forward, weights_s), forward)
    backward_gathered = np.where(every_pass, np.maximum(backward, weights_s), backward)
    late = np.maximum(reduce_s / pieces, reduce_s - backward * (1 - 1 / pieces)) if overlapped else reduce_s
    training = space.training
    compute_s = m * slowest
    stragglers = straggler_wait_s(
        compute_s, bench.devices, m, training.speed_spread_frac, training.jitter_frac
    )
    bubble_free = np.array([s.schedule == "zb-h1" for s in skeletons])[local]
    found = np.empty(len(rows))
    for schedule, mine in (("1f1b", ~bubble_free), ("zb-h1", bubble_free)):
        plans = Plans(
            p[mine], m[mine], v[mine], forward_gathered[mine], backward_gathered[mine],
            (passes.weight[local, way] / v)[mine], sends[local][mine], late[mine], stragglers[mine],
            update_s[mine], parameters_s[mine], overlapped, space.training.plan.overlap_pipeline,
        )  # fmt: skip
        found[mine] = step_s(plans, schedule)
    found += np.where(
        bubble_free, 2 * (p - 1) * sends[local], 0.0
    )  # once down and once up, as in 1F1B's ramps
    # interleaving fills and drains with the first chunks, which are the larger ones where layers do not divide evenly
    share = len(bench.table.layer_kind) / (p * v)
    found += np.where(v > 1, (p - 1) * (forward + backward) * (np.ceil(share) / share - 1), 0.0)
    gathered_once = weights_s if gathers_once(replace(space.training.plan, zero_stage=1)) else 0.0
    first = np.where(every_pass | (zero == 0), 0.0, gathered_once)
    return np.asarray(found + m * np.maximum(slowest - v * (forward + backward), 0.0) + first)


def _groups(bench: Bench, skeletons: list[Skeleton]) -> list[dict[str, Group]]:
    """Groups of each skeleton; equal ones are the same object, so that prices are found again."""
    links, plan = bench.pricer.links, bench.space.training.plan
    same: dict[Group, Group] = {}
    known: dict[tuple[int, ...], dict[str, Group]] = {}
    found = []
    for one in skeletons:
        key = one[:4]
        if key not in known:
            made = groups(
                one.plan(plan), bench.data(one), int(links.scale_up_ranks), int(links.devices_per_node)
            )
            known[key] = {name: same.setdefault(group, group) for name, group in made.items()}
        found.append(known[key])
    return found


def _passes(bench: Bench, needed: Ints, skeletons: list[Skeleton], talking: list[dict[str, Group]]) -> Passes:
    """Price the blocks of the shapes asked for, and add them up by rank."""
    table, training = bench.table, bench.space.training
    shapes, first = np.unique(table.shape[needed], return_index=True)
    plan = training.plan

    pricers = [replace(bench.pricer, groups=talking[row], lasting=True) for row in first]
    for shape, pricer in zip(shapes, pricers, strict=True):
        plainly, *ways = table.shapes[shape].kinds
        for block in plainly:
            pricer.seconds(block.forward + block.backward)
        for blocks in ways:
            for block in blocks:
                pricer.seconds(block.recompute)
    settle(bench.pricer)

    def costs() -> Floats:
        """Shapes x recomputations x kinds x (forward, backward, weight gradient)."""
        found = []
        for shape, row, pricer in zip(shapes, first, pricers, strict=True):
            sent = skeletons[row].tensor if plan.overlap_tensor else 1
            for blocks in table.shapes[shape].kinds:
                for block in blocks:
                    cost = block_cost(block, pricer, bench.extra, sent, plan.overlap_experts)
                    found.append(
                        (
                            cost.forward_s + cost.forward_tensor_s,
                            cost.backward_s + cost.backward_tensor_s,
                            cost.weight_s,
                        )
                    )
        return np.array(found).reshape(len(shapes), len(RECOMPUTE), table.kinds, 3)

    priced = costs()
    place = np.searchsorted(shapes, table.shape[needed])
    mean = np.empty((len(needed), len(RECOMPUTE), 3))
    slowest = np.empty((len(needed), len(RECOMPUTE)))
    index, heads = indexed(skeletons, lambda s: (s.pipeline, s.virtual_stages))
    for number, row in enumerate(heads):
        mine = index == number
        counts = bench.stage_counts(skeletons[row].pipeline, skeletons[row].virtual_stages)
        by_rank = np.einsum("swkc,rk->swrc", priced[place[mine]], counts.astype(float))
        mean[mine] = by_rank.mean(axis=2)
        slowest[mine] = (by_rank[..., 0] + by_rank[..., 1]).max(axis=2)
    return Passes(mean[..., 0], mean[..., 1], mean[..., 2], slowest)


def _sends(bench: Bench, needed: Ints, skeletons: list[Skeleton], talking: list[dict[str, Group]]) -> Floats:
    """Seconds of one activation message, by asked skeleton."""
    index, first = indexed(skeletons, lambda s: (s.tensor, s.context, s.micro_batch, s.pipeline))
    sizes = [bench.table.shapes[bench.table.shape[needed[row]]].boundary_bytes for row in first]
    messages = [Message("sendrecv", size, "pipeline", "activations") for size in sizes]
    found = _messages_s(bench, [talking[row] for row in first], messages)
    return np.asarray(found[index] * np.array([s.pipeline > 1 for s in skeletons]))


def _agreements(
    bench: Bench, needed: Ints, skeletons: list[Skeleton], talking: list[dict[str, Group]]
) -> Floats:
    """Seconds in which a pass ends to agree on the scales of FP8 tensors, by asked skeleton."""
    if not delayed(bench.space.training):
        return np.zeros(len(skeletons))
    index, first = indexed(skeletons, lambda s: (s.tensor, s.context, s.pipeline, s.virtual_stages))
    messages = []
    for row in first:
        one, shape = skeletons[row], bench.table.shapes[bench.table.shape[needed[row]]]
        counts = bench.stage_counts(one.pipeline, one.virtual_stages).mean(axis=0)
        each = float(counts @ np.array([products(block) for block in shape.kinds[0]]))
        messages.append(maxima_message(each / one.virtual_stages))
    return _messages_s(bench, [talking[row] for row in first], messages)[index]


def _messages_s(bench: Bench, talking: list[dict[str, Group]], messages: list[Message]) -> Floats:
    """Seconds of each message among its own groups."""
    pricers = [replace(bench.pricer, groups=one) for one in talking]
    for pricer, message in zip(pricers, messages, strict=True):
        pricer.seconds((message,))
    settle(bench.pricer)
    return np.array([pricer.seconds((message,)) for pricer, message in zip(pricers, messages, strict=True)])


def _exchanges(
    bench: Bench, needed: Ints, skeletons: list[Skeleton], talking: list[dict[str, Group]], rows: Ints
) -> tuple[Floats, Ints]:
    """Traffic and update of the fullest rank: cuts x ZeRO stages x off-loading x (gradients of a chunk, parameters,
    weights of a chunk, update, messages of a chunk), and the cut of each asked skeleton."""
    index, first = indexed(skeletons, lambda s: (s.tensor, s.pipeline, s.expert, s.virtual_stages))
    cuts = [_Cut(bench, int(needed[row]), talking[row]) for row in first]
    local = index[np.searchsorted(needed, bench.space.skeleton[rows])]
    kinds = np.array(
        [(free.zero_stage, free.offload_optimizer) for free in bench.space.frees], dtype=np.int64
    )
    asked = np.unique(np.column_stack([local, kinds[bench.space.free[rows]]]), axis=0)
    traffic = list(dict.fromkeys((int(number), int(stage)) for number, stage, _ in asked))
    for number, stage in traffic:
        cuts[number].exchange(stage)
    settle(bench.pricer)
    known = {(number, stage): cuts[number].exchange(stage) for number, stage in traffic}
    updates: dict[tuple[int, bool, bool], float] = {}
    found = np.zeros((len(first), 4, 2, 5))
    for number, stage, host in asked:
        key = int(number), bool(stage), bool(host)  # all ZeRO stages share the state out alike
        if key not in updates:
            updates[key] = cuts[number].update(int(stage), bool(host))
        reduce_s, parameters_s, weights_s, pieces = known[int(number), int(stage)]
        found[number, stage, host] = reduce_s, parameters_s, weights_s, updates[key], pieces
    return found, index


class _Cut:
    """One cut's exchange and update: asked once to write the messages down, once more for their seconds."""

    def __init__(self, bench: Bench, row: int, talking: dict[str, Group]) -> None:
        self.bench, self.one = bench, bench.space.skeletons[row]
        shape = bench.table.shapes[bench.table.shape[row]]
        self.pricer = replace(bench.pricer, groups=talking)
        self.among = replace(bench.pricer, groups=talking | {"data": talking["expert data"]})
        counts = bench.stage_counts(self.one.pipeline, self.one.virtual_stages)
        ends = [(shape.held(counts[rank]), rank) for rank in bench.ranks(self.one)]
        self.held, rank = max(ends, key=lambda end: end[0].trained)
        self.layers = max(int(counts[rank, :-2].sum()), 1)
        self.copies = bench.data(self.one) * self.one.context

    def exchange(self, stage: int) -> tuple[float, float, float, float]:
        """Gradients of a chunk, parameters, weights of a chunk; messages of a chunk."""
        job, v = self.bench.job(self.one, stage), self.one.virtual_stages
        chunks = [[1] * v]
        held = self.held
        agreed = exchange([held.dense], chunks, job, self.pricer, frozen=[held.frozen])
        if held.experts or held.frozen_experts:
            among = exchange([held.experts], chunks, job, self.among, frozen=[held.frozen_experts])
            agreed = agreed.plus(among)
        layers = job.model.layers if isinstance(job.model, Model) else 1
        pieces = buckets(job.plan, layers // (self.one.pipeline * v))
        weights_s = agreed.weights_s[0][0] if agreed.weights_s else 0.0
        return agreed.reduce_s[0][0], agreed.parameters_s[0], weights_s, float(pieces)

    def update(self, stage: int, host: bool) -> float:
        """Seconds of the optimizer."""
        job, share = self.bench.job(self.one, stage, host), self.bench.extra.optimizer_bandwidth_frac
        seconds = optimizer_s([self.held.dense], [self.layers], job, self.pricer, share, self.copies)[0]
        if self.held.experts:
            apart = job.plan.expert_replicas(self.copies)
            seconds += optimizer_s(
                [self.held.experts], [self.layers], job, self.pricer, share, apart, experts=True
            )[0]
        return seconds
