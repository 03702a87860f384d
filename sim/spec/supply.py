"""What can be had, how and when: buy, lease, rent, reserve or bid, on a site with limits.

An ``Option`` is a shopping list with delivery dates; the plan is the choice of one list among them, and doing nothing
is always one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sim.spec.fields import choice, count, fraction, named, quantiles, quantity, text
from sim.spec.hardware import System
from sim.spec.quantiles import Quantiles
from sim.spec.scheduling import POLICIES

CONTRACTS = ("buy", "lease", "reserve", "rent", "spot")


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes of one kind under one contract.

    buy: paid at delivery, owned until retired. lease: paid monthly for ``months`` whether used or not, power and
    people ours. reserve: paid by the hour for ``months`` whether used or not, power included. rent and spot: paid for
    hours used.
    """

    system: System = named("node type", "system")
    nodes: int = count("nodes")
    contract: str = choice(CONTRACTS, "how the nodes are had", "buy")
    delivery: str = text("month from which they can be used, YYYY-MM; empty = first month of the plan", "")
    delay_months: Quantiles = quantiles("months that delivery comes late", 0.0)
    months: int = count("length of a lease or reservation, or life until retired; 0 = to the end", 0, low=0)
    price_usd_per_gpu_hour: Quantiles | None = quantiles(
        "rate of a rental, reservation or spot bid; none = the catalogue's", None
    )
    oversubscription: float | None = quantity(
        "bandwidth of the nodes over that of the switches above them; none = the system's own", None, low=1.0
    )
    node_usd: Quantiles | None = quantiles("price of a node; none = the catalogue's", None)

    @property
    def wired(self) -> System:
        """The system behind this part's fabric: what training speed depends on."""
        if self.oversubscription is None:
            return self.system
        key = f"{self.system.key} {self.oversubscription:g}:1"
        return replace(self.system, key=key, oversubscription=self.oversubscription)


@dataclass(frozen=True, slots=True)
class Option:
    """One candidate, in one or more sizes."""

    name: str = text("how people call it")
    parts: tuple[Part, ...] = ()
    scales: tuple[int, ...] = count("sizes to try, as multiples of the nodes of every part", (1,))
    note: str = text("what a reader should know", "")
    policy: str = choice(POLICIES, "the rule by which waiting jobs start, in the simulation", "easy")


@dataclass(frozen=True, slots=True)
class Site:
    """Limits of the place where owned and leased nodes stand; none = no limit."""

    power_w: float | None = quantity("power for IT and cooling together", None, above=True)
    racks: int | None = count("free racks", None)
    node_per_rack: int = count("nodes in a rack", 4)
    network_ports: int | None = count("free ports of the fabric", None)
    curtail_hours_per_year: float = quantity(
        "hours a year in which the utility may cut the power", 0.0, high=8766.0
    )
    curtail_frac: float = fraction(
        "share of the site's power (without a limit: of the nodes' own) that is cut in those hours", 0.0
    )


@dataclass(frozen=True, slots=True)
class Supply:
    """The options, what is there already, and the site."""

    options: tuple[Option, ...] = ()
    estate: tuple[Part, ...] = ()
    """Nodes in place at the start; ``months`` says when they retire. Their price is sunk."""
    site: Site = field(default_factory=Site)
    budget_usd: float | None = quantity(
        "most the plan may cost at the median; none = no limit", None, above=True
    )
