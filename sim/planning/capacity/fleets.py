"""What an option puts on the floor, month by month, in every world: bought, available, scheduled, running.

A waterfall in which each step takes its share: nodes out of service, devices that no job fits, hours spent on
checkpoints and lost work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    spares: Array
    """Spare nodes beside the nodes, whole ones, shape (draws,)."""
    cut_frac: Array
    """Share of the hours in which the utility's cuts keep it off, shape (draws,)."""

    @property
    def devices(self) -> int:
        """Devices of the part."""
        return self.nodes * self.part.system.gpus_per_node


def fleet(
    part: Part, scale: int, start: str, length: int, world: Mapping[str, Array], draws: Draws,
    *, cut_frac: Array | float = 0.0, sunk: bool = False, label: str = "",
) -> Fleet:  # fmt: skip
    """``scale`` times the nodes of ``part`` over ``length`` months from ``start``; ``world``: every general
    assumption; ``cut_frac``: see :func:`cut_frac`."""
    nodes = part.nodes * scale
    first = months.index(part.delivery, start) if part.delivery else 0
    delivered = first + draws.of(f"{label}.delay_months", part.delay_months)
    retired = np.minimum(
        delivered + (float(part.months) or np.inf), length
    )  # written off is not switched off
    edges = np.arange(length, dtype=float)
    there = np.clip(np.minimum(retired[:, None], edges + 1) - np.maximum(delivered[:, None], edges), 0, 1)
    owned = there * (nodes * part.system.gpus_per_node * months.HOURS)
    here = part.contract in OWNED
    spares = np.rint(nodes * world["spares_frac"]) if here and not sunk else np.zeros(draws.count)
    cut = np.broadcast_to(np.asarray(cut_frac if here else 0.0, float), draws.count)
    down = (
        0.0 if part.contract in PAID_FOR_USE else world["node_down_frac"]
    )  # a broken rented node is not paid for
    up = np.minimum((1 - down) * (1 + spares / nodes), 1.0) * (1 - cut)  # spares stand in for broken nodes
    available = owned * up[:, None]
    by_use = part.contract in PAID_FOR_USE
    scheduled = available * world["rented_scheduling_frac" if by_use else "scheduling_frac"][:, None]
    keeps = world["runtime_frac"] * (1 - world["spot_loss_frac"] if part.contract == "spot" else 1.0)
    return Fleet(
        part,
        nodes,
        sunk,
        delivered,
        retired,
        owned,
        available,
        scheduled,
        scheduled * keeps[:, None],
        spares,
        cut,
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """One limit that an option breaks."""

    limit: str
    needs: float
    has: float
    words: str

    @property
    def over_frac(self) -> float:
        """How far beyond the limit it is, as a share of the limit."""
        return self.needs / self.has - 1 if self.has > 0 else np.inf


def cut_frac(parts: Sequence[tuple[Part, int]], site: Site, world: Mapping[str, Array]) -> Array:
    """Share of the hours in which a node here is off because the utility cuts the power, shape (draws,).

    What the site may still draw in a cut is its limit less the cut share; nodes beyond that are switched off, the
    others run on. Without a limit the nodes' own power is what is cut. ``parts``: with the multiples of their nodes.
    """
    rated = sum(p.nodes * scale * (p.system.node_power_w or 0.0) for p, scale in parts if p.contract in OWNED)
    wanted = np.maximum(rated * world["power_compute_frac"] * world["pue"], 1e-9)
    has = wanted if site.power_w is None else site.power_w
    off = np.clip(1 - has * (1 - site.curtail_frac) / wanted, 0.0, 1.0)
    return np.asarray(off * site.curtail_hours_per_year / (12 * months.HOURS))


def peak_power_w(fleets: Sequence[Fleet], world: Mapping[str, Assumption]) -> float:
    """Most power the site must bring in any month: every owned or leased node that may stand there, at its heavy load
    (P90), cooling included."""
    draw = world["power_compute_frac"].value.high * world["pue"].value.mid
    return float(_most(fleets, lambda f: f.nodes * (f.part.system.node_power_w or 0.0))) * draw


def _most(fleets: Sequence[Fleet], size: Callable[[Fleet], float]) -> float:
    """Largest sum of a size over the fleets that may stand on the site together, over the months."""
    here = [f for f in fleets if f.part.contract in OWNED]
    by_month = [size(f) * (f.owned.max(axis=0) > 0) for f in here]
    return float(np.max(np.sum(by_month, axis=0))) if here else 0.0


def refusals(fleets: Sequence[Fleet], site: Site, world: Mapping[str, Assumption]) -> tuple[Refusal, ...]:
    """The limits of the site that these nodes break; empty = they fit."""
    power = peak_power_w(fleets, world)
    ports = _most(fleets, lambda f: f.nodes * f.part.system.nics_per_node)
    racks = np.ceil(_most(fleets, lambda f: f.nodes) / site.node_per_rack)
    said = []
    if site.power_w is not None and power > site.power_w:
        told = f"power: needs {_watts(power)}, the site has {_watts(site.power_w)}"
        said.append(Refusal("power", power, site.power_w, told))
    if site.racks is not None and racks > site.racks:
        said.append(
            Refusal(
                "racks", racks, site.racks, f"space: needs {racks:,.0f} racks, the site has {site.racks:,}"
            )
        )
    if site.network_ports is not None and ports > site.network_ports:
        told = f"network: needs {ports:,.0f} ports, the fabric has {site.network_ports:,}"
        said.append(Refusal("ports", ports, site.network_ports, told))
    return tuple(said)


def _watts(power_w: float) -> str:
    return f"{power_w / 1e6:.2f} MW" if power_w >= 1e6 else f"{power_w / 1e3:.0f} kW"
