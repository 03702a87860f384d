"""Parameters that one device of a plan holds: sums over its blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sim.spec.ops import Block


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters on one device, apart by the group of ranks that share their gradients and state."""

    dense: float
    """Trained, the same on every data-parallel (and context) rank."""
    experts: float
    """Trained weights of routed experts: the same on every rank of the data group over the expert degree."""
    frozen: float
    """Without gradient and optimizer state, the same on every data-parallel rank."""
    frozen_experts: float
    """The same of routed experts."""

    @property
    def trained(self) -> float:
        """Parameters with a gradient."""
        return self.dense + self.experts

    @property
    def total(self) -> float:
        """All parameters on the device."""
        return self.trained + self.frozen + self.frozen_experts


def held_parameters(blocks: Iterable[Block]) -> Held:
    """What a device with these blocks holds."""
    every = tuple(blocks)
    return Held(
        sum(block.parameters for block in every),
        sum(block.expert_parameters for block in every),
        sum(block.frozen_parameters for block in every),
        sum(block.frozen_expert_parameters for block in every),
    )
