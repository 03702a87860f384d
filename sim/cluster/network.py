"""Running jobs on a shared fabric: those that cross the same uplinks slow each other down.

Streets out of a housing estate: whoever stays inside never notices; those who leave share the road, by turns, with
right of way and quotas where the traffic office (a software-defined network) sets them.

Only what leaves a switch group loads its uplink, up and down alike. A ring or tree crosses it with one node's rate; an
all-to-all sends the share of its bytes that is meant for nodes outside (as in ``sim.cost.links.Links.taper_frac``).
Rates are those of fluid flows at equilibrium, max-min fair per node card (``sim.cost.max_min``); what a real transport
loses on the way there (losses, hash collisions) is not modelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from sim.cluster.state import JobState
from sim.cost.max_min import Flow, max_min

EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Wiring:
    """Uplinks of one pool of nodes."""

    first: int
    """Number of its first node, counted through all pools."""
    nodes: int
    gpus_per_node: int
    node_bytes_per_s: float
    """All cards of a node, one way."""
    tiers: tuple[tuple[int, float], ...]
    """(nodes below one switch group, bandwidth of those nodes over bandwidth out of the group), smallest first."""


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """How the jobs of some queues are treated on every uplink."""

    level: float = 0.0
    """Larger goes first, strictly."""
    weight: float = 1.0
    """Share within its level."""
    cap_frac: float = 1.0
    """Most of each uplink that the class may use together."""
    name: str = ""


PLAIN = TrafficClass()


def slowdown(network_frac: float, rate: float) -> float:
    """Speed over speed alone of a job that sends for ``network_frac`` of its time and gets ``rate`` (0 to 1) of its
    cards then: 1 / ((1 - c) + c / rate), Amdahl's law."""
    if rate <= 0:
        return 0.0 if network_frac else 1.0
    return 1 / ((1 - network_frac) + network_frac / rate)


def uplink_loads(wiring: Wiring, spots: Sequence[tuple[int, int]], every_pair: bool) -> dict[Hashable, float]:
    """(first node of the pool, tier, group) -> bytes/s that a gang on ``spots`` sends over it with its cards full."""
    total = len(spots)
    loads: dict[Hashable, float] = {}
    if total < 2:
        return loads
    share = sum(devices for _, devices in spots) / (total * wiring.gpus_per_node)
    node_bytes_per_s = wiring.node_bytes_per_s * share
    for tier, (size, _) in enumerate(wiring.tiers):
        inside = Counter((node - wiring.first) // size for node, _ in spots)
        if len(inside) < 2:
            break
        for group, nodes in inside.items():
            crossing = nodes * (1 - nodes / total) if every_pair else 1.0
            loads[wiring.first, tier, group] = crossing * node_bytes_per_s
    return loads


def uplink_bytes_per_s(wiring: Wiring) -> dict[Hashable, float]:
    """Capacity of every uplink; the last group of a tier may have fewer nodes, and less."""
    found: dict[Hashable, float] = {}
    for tier, (size, taper) in enumerate(wiring.tiers):
        for group in range(-(-wiring.nodes // size)):
            nodes = min(size, wiring.nodes - group * size)
            found[wiring.first, tier, group] = nodes * wiring.node_bytes_per_s / taper
    return found


class Network:
    """A ``Contention`` (``sim.cluster.rules``): made for one run.

    ``together``: every job sends at the same moments (the most they can hurt each other); otherwise their phases
    interleave perfectly and only mean rates have to fit (the least; CASSINI, NSDI 2024, aims at it by shifting phases).
    """

    def __init__(
        self,
        wirings: Sequence[Wiring],
        classes: Mapping[str, TrafficClass],
        *,
        together: bool = True,
        every_pair: bool = False,
    ) -> None:
        self._wirings, self._classes = tuple(wirings), dict(classes)
        self._together, self._every_pair = together, every_pair
        self.capacity: dict[Hashable, float] = {}
        """Bytes/s by uplink, and by (class, uplink) where a class is capped."""
        for wiring in wirings:
            self.capacity |= uplink_bytes_per_s(wiring)
        for kind in {kind.name: kind for kind in classes.values() if kind.cap_frac < 1}.values():
            self.capacity |= {
                (kind.name, link): kind.cap_frac * rate
                for link, rate in self.capacity.items()
                if isinstance(link, tuple) and len(link) == 3
            }
        self.flows: dict[int, Flow] = {}
        self._fracs: dict[int, float] = {}
        self._on: dict[Hashable, dict[int, None]] = {}
        self._asked: dict[Hashable, float] = {}
        self._touched: dict[Hashable, None] = {}
        self._fresh: dict[int, None] = {}

    def join(self, state: JobState) -> None:
        """See ``Contention``."""
        frac = state.job.network_frac
        if not frac:
            return
        wiring = self._wirings[state.placed.pool]
        plain = uplink_loads(wiring, state.placed.spots, self._every_pair)
        if not plain:
            return
        kind = self._classes.get(state.job.queue, PLAIN)
        loads = dict(plain)
        if kind.cap_frac < 1:
            loads |= {(kind.name, link): load for link, load in plain.items()}
        most = 1.0
        if not self._together:
            best = min(1.0, *(self.capacity[link] / load for link, load in loads.items()))
            most = slowdown(frac, best)
            loads = {link: load * frac for link, load in loads.items()}
        number = state.number
        self.flows[number] = Flow(loads, kind.weight, kind.level, most)
        self._fracs[number] = frac
        self._fresh[number] = None
        self._count(number, 1)

    def leave(self, state: JobState) -> None:
        """See ``Contention``."""
        number = state.number
        if number in self.flows:
            self._count(number, -1)
            del self.flows[number], self._fracs[number]
            self._fresh.pop(number, None)

    def by_links_frac(self, number: int) -> float:
        """All of it."""
        del number
        return 1.0

    def _count(self, number: int, sign: int) -> None:
        flow = self.flows[number]
        for link, load in flow.loads.items():
            if self._tight(link):
                self._touched[link] = None
            users = self._on.setdefault(link, {})
            if sign > 0:
                users[number] = None
                self._asked[link] = self._asked.get(link, 0.0) + load * flow.most
            else:
                del users[number]
                self._asked[link] = sum(self.flows[one].loads[link] * self.flows[one].most for one in users)
            if self._tight(link):
                self._touched[link] = None

    def _tight(self, link: Hashable) -> bool:
        """Whether its jobs together ask for more than it carries: other links join nobody."""
        return self._asked.get(link, 0.0) > self.capacity[link] * (1 + EPSILON)

    def changed(self) -> Mapping[int, float]:
        """Shares of all jobs that are joined to a change by full links; the others keep what they have."""
        if not self._touched and not self._fresh:
            return {}
        reached: dict[int, None] = dict(self._fresh)
        for link in self._touched:
            reached |= self._on[link]
        front, seen = list(reached), set(self._touched)
        while front:
            for link in self.flows[front.pop()].loads:
                if link not in seen and self._tight(link):
                    seen.add(link)
                    front += [one for one in self._on[link] if one not in reached]
                    reached |= self._on[link]
        self._touched, self._fresh = {}, {}
        full = {link: self.capacity[link] for link in seen if self._tight(link)}
        rates = max_min({number: self.flows[number] for number in sorted(reached)}, full)
        if not self._together:
            return rates
        return {number: slowdown(self._fracs[number], rate) for number, rate in rates.items()}
