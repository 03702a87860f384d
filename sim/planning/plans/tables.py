"""The pieces that thousands of plans share, each worked out once: blocks by shape, layers by rank, state by cut.

Like a tailor's pattern book: sleeves, backs and collars are drawn once each, and every jacket is sewn from them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.space import Skeleton, Space
from sim.spec.model import Model
from sim.spec.ops import Block
from sim.spec.parallelism import RECOMPUTE
from sim.spec.parameter_count import NotCountable, weights
from sim.spec.workload import Training
from sim.training.layers import Network, layers_by_rank, network
from sim.training.weights import Held, held_parameters

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Shape:
    """The model on one device under one shape: blocks of each kind, without and with recomputation."""

    training: Training
    kinds: tuple[tuple[Block, ...], ...]
    """By recomputation (as in :data:`RECOMPUTE`), then kind: kinds of layers, the first block, the last block."""
    boundary_bytes: float
    parameters: Floats
    """Kinds x (dense, of experts, frozen, of experts frozen)."""

    def held(self, counts: Ints) -> Held:
        """What a rank with so many blocks of each kind holds."""
        return Held(*(float(value) for value in counts @ self.parameters))


@dataclass(frozen=True, slots=True)
class Tables:
    """Shapes, and which kind of layer stands where; rows of the index arrays are skeletons."""

    shapes: tuple[Shape, ...]
    shape: Ints
    layer_kind: Ints
    """Kind of each layer of the model in order."""

    @property
    def kinds(self) -> int:
        """Kinds of blocks, first and last included."""
        return len(self.shapes[0].kinds[0])


def tables(space: Space) -> Tables:
    """Blocks of every shape that the skeletons take."""
    model = space.training.model
    if not isinstance(model, Model):
        raise ValueError("a model known only by its FLOP has no plan to tune: it is not cut")
    tied = _is_tied(model)  # then the last of several stages holds a copy of the embedding
    index, uniques = indexed(
        space.skeletons,
        lambda s: (
            s.tensor,
            s.context,
            s.expert,
            s.micro_batch,
            s.sequence_parallel,
            tied and s.pipeline > 1,
        ),
    )
    built = [_shape(space, space.skeletons[row]) for row in uniques]
    one = built[0][1]
    names = [block.name for block in one.kinds if block is not one.first and block is not one.last]
    return Tables(
        tuple(shape for shape, _ in built),
        index,
        np.array([names.index(block.name) for block in one.layers], dtype=np.int64),
    )


def _is_tied(model: Model) -> bool:
    """Whether embedding and head share their weights; networks told layer by layer are not cut into stages."""
    try:
        return weights(model).head == 0
    except NotCountable:
        return False


def indexed(items: Sequence[Skeleton], key: Callable[[Skeleton], Any]) -> tuple[Ints, list[int]]:
    """Number of each item's key, and for each key the first item that has it."""
    numbers: dict[Any, int] = {}
    first: list[int] = []
    index = np.empty(len(items), dtype=np.int64)
    for row, item in enumerate(items):
        made = key(item)
        if made not in numbers:
            numbers[made] = len(first)
            first.append(row)
        index[row] = numbers[made]
    return index, first


def _shape(space: Space, skeleton: Skeleton) -> tuple[Shape, Network]:
    """Blocks of a shape. Recomputation changes what is kept and done again, not forward and backward."""
    model, base = space.training.model, space.training
    assert isinstance(model, Model)  # tables() checked it
    small = skeleton._replace(pipeline=min(skeleton.pipeline, 2), virtual_stages=1, schedule="1f1b")
    plan = small.plan(base.plan)
    job = replace(base, plan=plan)
    found = [network(model, replace(job, plan=replace(plan, recompute=way))) for way in RECOMPUTE[1:]]
    *parts, full = (one.kinds for one in found)
    order = _ordered(found[-1])
    none = tuple(
        replace(
            block, recompute=(), kept_bytes=block.activation_bytes if block.recompute else block.kept_bytes
        )
        for block in full
    )
    partly = [
        tuple(  # of the same op objects as the others: their prices are found by identity
            replace(
                block,
                recompute=some.recompute,
                kept_bytes=some.kept_bytes,
                activation_bytes=some.activation_bytes,
            )
            for block, some in zip(full, part, strict=True)
        )
        for part in parts
    ]
    kinds = tuple(tuple(blocks[place] for place in order) for blocks in (none, *partly, full))
    held = np.array([astuple(held_parameters([block])) for block in kinds[0]], dtype=float)
    return Shape(job, kinds, found[-1].boundary_bytes, held), found[-1]


def _ordered(whole: Network) -> list[int]:
    """Places in ``kinds`` of the layers' kinds, then the first block's, then the last one's."""
    ends = [whole.first.name, whole.last.name]
    names = [block.name for block in whole.kinds]
    return [*(place for place, name in enumerate(names) if name not in ends), *map(names.index, ends)]


def stage_counts(table: Tables, pipeline: int, virtual: int) -> Ints:
    """Blocks of each kind on each rank: ranks x kinds, integers; the first block is rank 0's, the last the last's."""
    counts = layers_by_rank(len(table.layer_kind), pipeline, virtual)
    held = np.zeros((pipeline, table.kinds), dtype=np.int64)
    start = 0
    for chunk in range(virtual):
        for rank in range(pipeline):
            end = start + counts[rank][chunk]
            np.add.at(held[rank], table.layer_kind[start:end], 1)
            start = end
    held[0, -2] += 1
    held[-1, -1] += 1
    return held
