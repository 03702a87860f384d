"""Buy or rent: the busy hours from which owning a device is cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity.draws import Draws, world_of
from sim.planning.capacity.fleets import fleet
from sim.planning.capacity.money import ledger, price_of
from sim.spec.hardware import System
from sim.spec.prices import Assumption
from sim.spec.supply import Part

MONTHS = 60


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Owning against renting one kind of device; arrays of shape (draws,)."""

    system: str
    own_usd_per_gpu_hour: NDArray[np.float64]
    """Cost of an owned device-hour over the life, busy or not, at the busy share where the two meet."""
    rent_usd_per_gpu_hour: NDArray[np.float64]

    @property
    def busy_frac(self) -> NDArray[np.float64]:
        """Share of the owned hours that must be busy for owning to be cheaper; above 1 = never."""
        return np.asarray(self.own_usd_per_gpu_hour / self.rent_usd_per_gpu_hour)


def break_even(system: System, general: Mapping[str, Assumption], draws: Draws) -> BreakEven:
    """Over five years of a node.

    Raises:
        NoPriceError: the catalogue lacks the price of the node or of its hour.
    """
    world = world_of(general, draws)
    own = fleet(Part(system, 1, "buy"), 1, "2000-01", MONTHS, world, draws)
    cost = ledger(own, own.running, world, draws).total_usd
    rented = price_of(Part(system, 1, "rent"))
    return BreakEven(system.key, cost / own.owned.sum(axis=1), draws.of(rented.name, rented.value))
