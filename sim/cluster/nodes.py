"""Nodes and their free devices.

A coat-check: hooks in rows. Rows with equally many free hooks hang on one ring, so the best row for a coat is found
without walking along all rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

from sim.results.cluster_log import Placed

if TYPE_CHECKING:
    from sim.spec.job import Job


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one kind."""

    nodes: int
    gpus_per_node: int
    accelerator: str = ""
    speed: float = 1.0
    """Useful seconds a second, against the devices that job durations are given for."""


class Ground(Protocol):
    """What the engine asks of a set of nodes. ``free_gpus`` counts devices that are free on nodes that are up."""

    @property
    def total_gpus(self) -> float: ...
    @property
    def free_gpus(self) -> float: ...
    @property
    def down_gpus(self) -> float: ...
    def place(self, job: Job, gpus: int, pool: int | None = None) -> Placed | None:
        """Find devices by the rule of placement and take them; None where they do not fit now."""

    def take(self, placed: Placed, job: Job) -> bool:
        """Take exactly these devices; False where one is not free."""

    def release(self, placed: Placed, job: Job) -> None: ...
    def close(self, node: int) -> None:
        """The node goes away (its jobs have been taken off)."""

    def open(self, node: int) -> bool:
        """One outage less; True where the node is up again."""

    def could_hold(self, job: Job, gpus: int) -> bool:
        """Whether they would fit if everything were free and up."""

    def speed(self, placed: Placed) -> float: ...


class Rows:
    """Nodes of one pool by the number of their free devices; each change costs the logarithm of the number of nodes."""

    __slots__ = (
        "_counts",
        "_heaps",
        "_levels",
        "_listed",
        "closed",
        "first",
        "free",
        "places",
        "size",
    )

    def __init__(self, first: int, nodes: int, size: int) -> None:
        self.first = first
        """Number of its first node."""
        self.size = size
        """Devices of a node."""
        self.free = [size] * nodes
        """Free devices by node (in the pool's own numbers), closed nodes too."""
        self.closed = [0] * nodes
        """How many outages hold a node down."""
        self.places: dict[tuple[int, int], Placed] = {}
        """(node, devices) of gangs on one node, as the log writes them."""
        self._heaps: dict[int, list[int]] = {size: list(range(nodes))}
        self._listed = [bytearray()] * size + [bytearray(b"\x01") * nodes]  # empty: no heap yet
        self._counts = [0] * (size + 1)
        self._counts[size] = nodes
        self._levels = [size] if nodes else []  # numbers of free devices that some open node has, sorted

    def count(self, free: int) -> int:
        """Open nodes with exactly so many free devices."""
        return self._counts[free]

    def lowest(self, free: int) -> int:
        """The lowest open node with exactly so many free devices; there must be one."""
        heap, listed = self._heaps[free], self._listed[free]
        while True:
            node = heap[0]
            if self.free[node] == free and not self.closed[node]:
                return node
            heappop(heap)
            listed[node] = 0

    def tightest_node(self, gpus: int) -> int:
        """The lowest of the open nodes with the fewest free devices that suffice; -1 where there is none."""
        levels = self._levels
        at = bisect_left(levels, gpus)
        if at == len(levels):
            return -1
        free = levels[at]
        node = self._heaps[free][0]
        return node if self.free[node] == free and not self.closed[node] else self.lowest(free)

    def lowest_many(self, free: int, many: int) -> list[int]:
        """The ``many`` lowest such nodes, in order; there must be so many."""
        heap, listed = self._heaps[free], self._listed[free]
        found: list[int] = []
        while len(found) < many:
            node = heappop(heap)
            listed[node] = 0
            if self.free[node] == free and not self.closed[node]:
                found.append(node)
        for node in found:
            heappush(heap, node)
            listed[node] = 1
        return found

    def _leave(self, free: int) -> None:
        self._counts[free] -= 1
        if not self._counts[free]:
            self._levels.remove(free)

    def _enter(self, node: int, free: int) -> None:
        if not self._counts[free]:
            insort(self._levels, free)
        self._counts[free] += 1
        self._list(node, free)

    def _list(self, node: int, free: int) -> None:
        listed = self._listed[free]
        if not listed:
            listed = self._listed[free] = bytearray(len(self.free))
            self._heaps[free] = []
        if not listed[node]:
            listed[node] = 1
            heappush(self._heaps[free], node)

    def change(self, node: int, by: int) -> bool:
        """Give back (+) or take (-) devices of a node; False where it is closed."""
        old = self.free[node]
        new = self.free[node] = old + by
        if self.closed[node]:
            return False
        counts = self._counts
        # what _leave and _enter do, without the calls: nothing else happens as often
        if counts[old] == 1:
            counts[old] = 0
            self._levels.remove(old)
        else:
            counts[old] -= 1
        if counts[new]:
            counts[new] += 1
        else:
            counts[new] = 1
            insort(self._levels, new)
        listed = self._listed[new]
        if not listed or not listed[node]:
            self._list(node, new)
        return True

    def close(self, node: int) -> bool:
        """Count one more outage on a node; True where it was open."""
        self.closed[node] += 1
        if self.closed[node] > 1:
            return False
        self._leave(self.free[node])
        return True

    def open(self, node: int) -> bool:
        """Count one outage less; True where the node is open again."""
        self.closed[node] -= 1
        if self.closed[node]:
            return False
        self._enter(node, self.free[node])
        return True


class WholePlacement(Protocol):
    """A rule that puts gangs of whole devices on nodes."""

    def find(self, rows: Rows, gpus: int) -> tuple[tuple[int, int], ...] | None:
        """(node in the pool's own numbers, devices) pairs, or None where the gang does not fit now."""


class Nodes:
    """Pools of nodes whose devices are given out whole. A gang stays inside one pool; pools are tried in order."""

    __slots__ = (
        "_empty",
        "_find",
        "_numbered",
        "_possible",
        "_rows",
        "_where",
        "down_gpus",
        "free_gpus",
        "pools",
        "total_gpus",
    )

    def __init__(self, pools: Iterable[Pool], placement: WholePlacement) -> None:
        self.pools = tuple(pools)
        self._find = placement.find
        self._possible: dict[tuple[str, int] | int, bool] = {}
        self._rows: list[Rows] = []
        self._empty: list[Rows] = []
        self._where: list[int] = []
        for number, pool in enumerate(self.pools):
            self._rows.append(Rows(len(self._where), pool.nodes, pool.gpus_per_node))
            self._where.extend([number] * pool.nodes)
        self._numbered = tuple(enumerate(self._rows))
        self.total_gpus = sum(pool.nodes * pool.gpus_per_node for pool in self.pools)
        self.free_gpus = self.total_gpus
        self.down_gpus = 0

    def place(self, job: Job, gpus: int, pool: int | None = None) -> Placed | None:
        """See ``Ground``."""
        if gpus > self.free_gpus:
            return None
        for number, rows in self._numbered if pool is None else ((pool, self._rows[pool]),):
            if job.accelerator and job.accelerator != self.pools[number].accelerator:
                continue
            spots = self._find(rows, gpus)
            if spots is not None:
                self.free_gpus -= gpus
                if len(spots) == 1:
                    spot = spots[0]
                    node = spot[0]
                    rows.change(node, -gpus)
                    known = rows.places.get(spot)
                    if known is None:
                        known = rows.places[spot] = Placed(number, ((rows.first + node, gpus),), ())
                    return known
                for node, devices in spots:
                    rows.change(node, -devices)
                first = rows.first
                return Placed(number, tuple((first + node, devices) for node, devices in spots), ())
        return None

    def take(self, placed: Placed, job: Job) -> bool:
        """See ``Ground``."""
        if not 0 <= placed.pool < len(self._rows):
            return False
        if job.accelerator and job.accelerator != self.pools[placed.pool].accelerator:
            return False
        rows = self._rows[placed.pool]
        if len(placed.spots) == 1:
            number, devices = placed.spots[0]
            node = number - rows.first
            if not 0 <= node < len(rows.free) or rows.closed[node] or not 0 <= devices <= rows.free[node]:
                return False
            rows.change(node, -devices)
            self.free_gpus -= devices
            return True
        seen: set[int] = set()
        for number, devices in placed.spots:
            node = number - rows.first
            if not 0 <= node < len(rows.free) or node in seen or devices < 0:
                return False
            if rows.closed[node] or rows.free[node] < devices:
                return False
            seen.add(node)
        for number, devices in placed.spots:
            rows.change(number - rows.first, -devices)
            self.free_gpus -= devices
        return True

    def release(self, placed: Placed, job: Job) -> None:
        """See ``Ground``."""
        del job
        rows = self._rows[placed.pool]
        first = rows.first
        for number, devices in placed.spots:
            if rows.change(number - first, devices):
                self.free_gpus += devices
            else:
                self.down_gpus += devices

    def close(self, node: int) -> None:
        """See ``Ground``."""
        rows = self._rows[self._where[node]]
        if rows.close(node - rows.first):
            self.free_gpus -= rows.free[node - rows.first]
            self.down_gpus += rows.free[node - rows.first]

    def open(self, node: int) -> bool:
        """See ``Ground``."""
        rows = self._rows[self._where[node]]
        opened = rows.open(node - rows.first)
        if opened:
            self.free_gpus += rows.free[node - rows.first]
            self.down_gpus -= rows.free[node - rows.first]
        return opened

    def could_hold(self, job: Job, gpus: int) -> bool:
        """See ``Ground``."""
        asked = (job.accelerator, gpus) if job.accelerator else gpus
        known = self._possible.get(asked)
        if known is None:
            if not self._empty:
                self._empty = [Rows(0, pool.nodes, pool.gpus_per_node) for pool in self.pools]
            known = self._possible[asked] = any(
                self._find(rows, gpus) is not None
                for pool, rows in zip(self.pools, self._empty, strict=True)
                if not job.accelerator or job.accelerator == pool.accelerator
            )
        return known

    def speed(self, placed: Placed) -> float:
        """See ``Ground``."""
        return self.pools[placed.pool].speed

    @property
    def nodes(self) -> int:
        """Nodes of all pools."""
        return len(self._where)

    def free_by_node(self) -> list[int]:
        """Free devices of every node, 0 where it is down."""
        return [
            0 if closed else free
            for rows in self._rows
            for free, closed in zip(rows.free, rows.closed, strict=True)
        ]
