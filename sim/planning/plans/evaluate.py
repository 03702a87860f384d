"""Memory and step time of every plan of a space, in arrays.

Like weighing a whole harvest on one scale: each kind of fruit is weighed once, each basket is a sum. Memory and prices
come from the step's own functions; the time is the closed form's, and where it does not hold the engine decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.bench import Bench
from sim.planning.plans.in_flight import in_flight
from sim.planning.plans.price_book import ListPricer
from sim.planning.plans.space import Free, Space
from sim.planning.plans.step_time import step_times
from sim.planning.plans.tables import indexed, tables
from sim.spec.parallelism import RECOMPUTE
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.training.memory import UNFOLDING, USABLE_FRAC, state_parts
from sim.training.mixed import device_of, engines_of, kept_frac, overheads_on
from sim.training.system_links import system_links

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Rows are those of the space."""

    space: Space
    memory_bytes: Floats
    """Of the fullest rank."""
    usable_bytes: float
    step_s: Floats
    """Closed form; infinite where the plan was not timed, since it does not fit."""

    @property
    def fits(self) -> Flags:
        """Plans within the memory."""
        return np.asarray(self.memory_bytes <= self.usable_bytes)


def evaluate(scenario: Scenario, fits: Sequence[Fit], space: Space, *, beyond_frac: float = 0.0) -> Evaluated:
    """Memory of every plan, and the step time of those that fit, or miss by up to ``beyond_frac`` of the memory."""
    pool = scenario.cluster.pools[0]
    device = device_of(pool, space.training.precision)
    usable = USABLE_FRAC * device.memory_bytes
    step_s = np.full(len(space.skeleton), np.inf)
    if not len(step_s):
        return Evaluated(space, np.zeros(0), usable, step_s)
    ideal = scenario.profile == "ideal"
    links = system_links(pool.system, pool.accelerator, scenario.cluster.fabric)
    pricer = ListPricer(
        device, links, fits, space.training.precision, {},
        ideal=ideal, engines=engines_of(space.training.stack), stated_frac=0.0 if ideal else pool.efficiency_frac,
        sustained_frac=kept_frac(pool),
    )  # fmt: skip
    extra = overheads_on(pool, space.training, fits, ideal=ideal)
    bench = Bench(scenario.cluster.devices, fits, space, tables(space), pricer, extra)
    memory = _memory(bench)
    asked = np.flatnonzero(memory <= usable * (1 + beyond_frac))
    if len(asked):
        step_s[asked] = step_times(bench, asked)
    return Evaluated(space, memory, usable, step_s)


def _memory(bench: Bench) -> Floats:
    """Bytes of the fullest rank, by row of the space."""
    skeletons, frees, table = bench.space.skeletons, bench.space.frees, bench.table
    kept = np.array([[[b.kept_bytes for b in way] for way in one.kinds] for one in table.shapes])
    unfolded = np.array([[[b.activation_bytes for b in way] for way in one.kinds] for one in table.shapes])
    again = np.array([[[bool(b.recompute) for b in way] for way in one.kinds] for one in table.shapes])
    counts, places, asked = _end_counts(bench)
    mine = counts[places]  # skeletons x ranks x kinds
    held = np.array(
        [[in_flight(s.schedule, s.pipeline, passes, rank, s.virtual_stages) for rank in asked[place]]
         for s, place, passes in zip(skeletons, places, map(bench.passes, skeletons), strict=True)]
    )  # fmt: skip
    inner = mine[:, :, None, :-1] * kept[table.shape][:, None, :, :-1]
    activations = inner.sum(axis=-1) * held[:, :, None]  # skeletons x ranks x recomputation
    for name in UNFOLDING:
        place = RECOMPUTE.index(name)
        one_layer = np.where(again, unfolded, 0.0)[table.shape][:, None, place, :-1] * (mine[:, :, :-1] > 0)
        activations[:, :, place] += one_layer.max(axis=-1)
    logits = mine[:, :, None, -1] * kept[table.shape][:, None, :, -1]
    state, state_of = _states(bench, counts, places)
    way = np.array([RECOMPUTE.index(free.recompute) for free in frees])
    kind = np.array([_state_kinds(frees).index(_state_kind(free)) for free in frees])
    rows, free = bench.space.skeleton, bench.space.free
    total = (activations + logits)[rows, :, way[free]] + state[state_of[rows], :, kind[free]]
    return np.asarray(total.max(axis=1))


def _end_counts(bench: Bench) -> tuple[NDArray[np.int64], NDArray[np.int64], list[list[int]]]:
    """Blocks of each kind on the ranks asked (pipelines x ranks x kinds), each skeleton's row of it, and the ranks.

    Pipelines with fewer mixes of blocks repeat their first rank.
    """
    places, first = indexed(bench.space.skeletons, lambda s: (s.pipeline, s.virtual_stages))
    asked = [bench.ranks(bench.space.skeletons[row]) for row in first]
    most = max(map(len, asked))
    asked = [ranks + [0] * (most - len(ranks)) for ranks in asked]
    found = []
    for row, ranks in zip(first, asked, strict=True):
        one = bench.space.skeletons[row]
        found.append(bench.stage_counts(one.pipeline, one.virtual_stages)[ranks])
    return np.array(found), places, asked


def _state_kind(free: Free) -> tuple[int, bool]:
    return free.zero_stage, free.offload_optimizer


def _state_kinds(frees: Sequence[Free]) -> list[tuple[int, bool]]:
    return list(dict.fromkeys(map(_state_kind, frees)))


def _states(
    bench: Bench, counts: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64]]:
    """Bytes of weights, gradients, optimizer state and tables: cuts x ranks x (ZeRO stage, off-loading)."""
    skeletons, table = bench.space.skeletons, bench.table
    index, first = indexed(skeletons, lambda s: (s.tensor, s.pipeline, s.expert, s.virtual_stages))
    kinds = _state_kinds(bench.space.frees)
    stages = dict.fromkeys(stage for stage, _ in kinds)
    found = np.zeros((len(first), counts.shape[1], len(kinds)))
    for number, row in enumerate(first):
        one, shape, mine = skeletons[row], table.shapes[table.shape[row]], counts[places[row]]
        copies = bench.data(one) * one.context
        rows_bytes = mine @ np.array([block.table_bytes for block in shape.kinds[0]])
        for stage in stages:
            job = bench.job(one, stage)
            known: dict[bytes, tuple[float, float]] = {}
            for place in range(counts.shape[1]):
                mark = mine[place].tobytes()
                if mark not in known:
                    parts = state_parts(shape.held(mine[place]), int(mine[place, :-1].sum()), job, copies)
                    known[mark] = sum(parts.values()), parts["optimizer state"]
                whole, optimizer = known[mark]
                for host in (False, True):
                    if (stage, host) in kinds:  # off-loading takes the optimizer state away and nothing else
                        column = kinds.index((stage, host))
                        found[number, place, column] = whole - optimizer * host + rows_bytes[place]
    return found, index
