"""What an option puts on the floor, month by month, in every world: bought, available, scheduled, running.

A waterfall in which each step takes its share: nodes out of service, devices that no job fits, hours spent on
checkpoints and lost work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity import months
from sim.planning.capacity.draws import Draws
from sim.spec.prices import Assumption
from sim.spec.supply import Part, Site

Array = NDArray[np.float64]
PAID_FOR_USE = ("rent", "spot")
OWNED = ("buy", "lease")


@dataclass(frozen=True, slots=True)
class Fleet:
    """One part of an option in time. Arrays: shape (draws, months), device-hours unless said otherwise."""

    part: Part
    nodes: int
    sunk: bool
    """Already there: its price is no part of this decision."""
    delivered: Array
    """Months from the start of the plan to delivery, shape (draws,)."""
    retired: Array
    """Month in which it goes, shape (draws,); the plan's end at the latest."""
    owned: Array
    """Device-hours bought: in place and powered, used or not."""
    available: Array
    scheduled: Array
    running: Array
    """Hours in which jobs can make progress: what may be used."""

    @property
    def devices(self) -> int:
        """Devices of the part."""
        return self.nodes * self.part.system.gpus_per_node


def fleet(
    part: Part, scale: int, start: str, length: int, world: Mapping[str, Array], draws: Draws, site: Site,
    *, sunk: bool = False, label: str = "",
) -> Fleet:  # fmt: skip
    """``scale`` times the nodes of ``part`` over ``length`` months from ``start``; ``world``: every general
    assumption."""
    nodes = part.nodes * scale
    first = months.index(part.delivery, start) if part.delivery else 0
    delivered = first + draws.of(f"{label}.delay_months", part.delay_months)
    if part.months:
        life = np.full(draws.count, float(part.months))
    else:
        life = (
            world["life_years"] * 12 if part.contract == "buy" and not sunk else np.full(draws.count, np.inf)
        )
    retired = np.minimum(delivered + life, length)
    edges = np.arange(length, dtype=float)
    there = np.clip(np.minimum(retired[:, None], edges + 1) - np.maximum(delivered[:, None], edges), 0, 1)
    owned = there * (nodes * part.system.gpus_per_node * months.HOURS)
    up = 1 - world["node_down_frac"]
    if part.contract in OWNED:
        up = up * (1 - site.curtail_frac * site.curtail_hours_per_year / (12 * months.HOURS))
        up = (
            np.minimum(up * (1 + world["spares_frac"]), 1.0) if not sunk else up
        )  # spares stand in for broken nodes
    available = owned * up[:, None]
    scheduled = available * world["scheduling_frac"][:, None]
    keeps = world["runtime_frac"] * (1 - world["spot_loss_frac"] if part.contract == "spot" else 1.0)
    return Fleet(
        part, nodes, sunk, delivered, retired, owned, available, scheduled, scheduled * keeps[:, None]
    )


def peak_power_w(fleets: tuple[Fleet, ...], world: Mapping[str, Assumption]) -> float:
    """Most power the site must bring at once: every owned or leased node at its heavy load, cooling included."""
    draw = world["power_compute_frac"].value.high * world["pue"].value.mid
    return sum(
        f.nodes * (f.part.system.node_power_w or 0.0) * draw for f in fleets if f.part.contract in OWNED
    )


def refusals(fleets: tuple[Fleet, ...], site: Site, world: Mapping[str, Assumption]) -> tuple[str, ...]:
    """Why the site cannot take these nodes: one sentence for each limit; empty = it can."""
    here = [f for f in fleets if f.part.contract in OWNED]
    nodes = sum(f.nodes for f in here)
    power = peak_power_w(fleets, world)
    ports = sum(f.nodes * f.part.system.nics_per_node for f in here)
    racks = -(-nodes // site.node_per_rack)
    said = []
    if site.power_w is not None and power > site.power_w:
        said.append(f"power: needs {power / 1e6:.2f} MW, the site has {site.power_w / 1e6:.2f} MW")
    if site.racks is not None and racks > site.racks:
        said.append(f"space: needs {racks:,} racks, the site has {site.racks:,}")
    if site.network_ports is not None and ports > site.network_ports:
        said.append(f"network: needs {ports:,} ports, the fabric has {site.network_ports:,}")
    return tuple(said)
