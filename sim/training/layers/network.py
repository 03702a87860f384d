"""A model as blocks in order, and who holds which of them.

Like a train: engine in front (embedding, front end), wagons (layers), and a van at the end (head and loss); pipeline
parallelism uncouples it between wagons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sim.spec.ops import Block
from sim.spec.parallelism import Plan


@dataclass(frozen=True, slots=True)
class Network:
    """All blocks of a model on one device of its tensor, context and expert group."""

    first: Block
    layers: tuple[Block, ...]
    last: Block
    boundary_bytes: float
    """Activations that one pipeline stage hands to the next for a micro-batch, a rank."""

    def spared(self, kept: Sequence[Block], plan: Plan) -> Network:
        """The same network with the layers beyond the first ``recompute_layers`` of a chunk as in ``kept``.

        Block recomputation of Megatron-LM (``--recompute-method block``, Korthikanti et al. 2022, section 5).
        """
        if plan.recompute_layers is None or plan.recompute == "none":
            return self
        counts = dealt_layers(len(self.layers), plan)
        order = [counts[rank][chunk] for chunk in range(plan.virtual_stages) for rank in range(plan.pipeline)]
        places = [place for count in order for place in range(count)]
        layers = tuple(
            own if place < plan.recompute_layers else replace(other, name=f"{other.name}, kept")
            for own, other, place in zip(self.layers, kept, places, strict=True)
        )
        return replace(self, layers=layers)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Every block in order."""
        return (self.first, *self.layers, self.last)

    @property
    def kinds(self) -> tuple[Block, ...]:
        """One block of each name, layers first: what has to be priced."""
        found: dict[str, Block] = {}
        for block in {id(block): block for block in (*self.layers, self.first, self.last)}.values():
            found.setdefault(block.name, block)
        return tuple(found.values())

    def chunks(self, plan: Plan) -> list[list[list[Block]]]:
        """Blocks by pipeline rank and chunk; layers are dealt out along the virtual stages."""
        stages, virtual = plan.pipeline, plan.virtual_stages
        counts = dealt_layers(len(self.layers), plan)
        dealt: list[list[list[Block]]] = [[] for _ in range(stages)]
        start = 0
        for chunk in range(virtual):
            for rank in range(stages):
                end = start + counts[rank][chunk]
                dealt[rank].append(list(self.layers[start:end]))
                start = end
        dealt[0][0].insert(0, self.first)
        dealt[-1][-1].append(self.last)
        return dealt


def dealt_layers(layers: int, plan: Plan) -> list[list[int]]:
    """Layers of each chunk of each rank: as the plan says, or as even as can be."""
    if not plan.layers_per_stage:
        return layers_by_rank(layers, plan.pipeline, plan.virtual_stages)
    return [layers_by_rank(own, 1, plan.virtual_stages)[0] for own in plan.layers_per_stage]


def layers_by_rank(layers: int, stages: int, chunks: int) -> list[list[int]]:
    """Layers of each chunk of each rank; what does not divide evenly goes to the earliest virtual stages."""
    total = stages * chunks
    share, extra = divmod(layers, total)
    return [
        [share + (1 if chunk * stages + rank < extra else 0) for chunk in range(chunks)]
        for rank in range(stages)
    ]
