"""Rules for gangs of whole devices: anywhere, packed, spread, within a tier of the fabric.

Each is a way to seat a party in a restaurant: at any chairs, at one table, at many tables, or in one room.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.cluster.nodes import Rows

Spots = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Anywhere:
    """Any free devices will do: nodes with the fewest free ones first, so that whole nodes stay whole."""

    def find(self, rows: Rows, gpus: int) -> Spots | None:
        """See ``WholePlacement``."""
        spots: list[tuple[int, int]] = []
        left = gpus
        for free in range(1, rows.size + 1):
            many = rows.count(free)
            if not left or not many:
                continue
            for node in rows.lowest_many(free, min(many, -(-left // free))):
                take = min(free, left)
                spots.append((node, take))
                left -= take
        return None if left else tuple(spots)


@dataclass(frozen=True, slots=True)
class Packed:
    """Consolidated: what fits on one node goes to the one with the fewest free devices that fits (lowest number first);
    a larger gang takes wholly free nodes, lowest first, and its remainder the next node in order of most free.

    Rule: Gu et al., Tiresias, NSDI 2019 section 3.3, in the form that Hu et al., Helios, SC 2021 and Lucid, ASPLOS
    2023 run.
    """

    def find(self, rows: Rows, gpus: int) -> Spots | None:
        """See ``WholePlacement``."""
        size = rows.size
        if gpus <= size:
            node = rows.tightest_node(gpus)
            return None if node < 0 else ((node, gpus),)
        if not size:
            return None
        whole, rest = divmod(gpus, size)
        many = rows.count(size)
        if many < whole:
            return None
        if not rest:
            return tuple((node, size) for node in rows.lowest_many(size, whole))
        if many > whole:
            *nodes, last = rows.lowest_many(size, whole + 1)
            return (*((node, size) for node in nodes), (last, rest))
        below = next((free for free in range(size - 1, rest - 1, -1) if rows.count(free)), -1)
        if below < 0:
            return None
        nodes = rows.lowest_many(size, whole)
        return (*((node, size) for node in nodes), (rows.lowest(below), rest))


@dataclass(frozen=True, slots=True)
class Spread:
    """As evenly as possible over the nodes with the most free devices: a fault then takes few devices of a job."""

    def find(self, rows: Rows, gpus: int) -> Spots | None:
        """See ``WholePlacement``."""
        if not gpus:
            node = rows.tightest_node(0)
            return None if node < 0 else ((node, 0),)
        many = min(gpus, len(rows.free))
        order = [
            node
            for free in range(rows.size, 0, -1)
            if rows.count(free)
            for node in rows.lowest_many(free, min(rows.count(free), many))
        ]
        # fewest devices a node that still seat everybody, over the roomiest nodes
        taken = [0] * len(order)
        left = gpus
        while left:
            before = left
            for place, node in enumerate(order):
                if left and taken[place] < rows.free[node]:
                    taken[place] += 1
                    left -= 1
            if left == before:
                return None
        return tuple((node, devices) for node, devices in zip(order, taken, strict=True) if devices)


@dataclass(frozen=True, slots=True)
class Tiers:
    """The smallest tier of the fabric that holds the gang: one node, one leaf, one block ..., then anything.

    Rule: "preferred" topology of Kueue's topology-aware scheduling and Slurm's topology/tree: the group in which the
    fewest devices stay free, fewest nodes inside it; ``required`` forbids what is larger than the last tier.
    """

    nodes_per_group: tuple[int, ...]
    """Nodes of a group of each tier above the node, smallest first, e.g. (32, 256)."""
    required: bool = False

    def find(self, rows: Rows, gpus: int) -> Spots | None:
        """See ``WholePlacement``."""
        if gpus <= rows.size:
            node = rows.tightest_node(gpus)
            if node >= 0:
                return ((node, gpus),)
        nodes = len(rows.free)
        open_free = [0 if closed else free for free, closed in zip(rows.free, rows.closed, strict=True)]
        for group in self.nodes_per_group:
            groups = ((sum(open_free[at : at + group]), at) for at in range(0, nodes, group))
            fitting = min((found for found in groups if found[0] >= gpus), default=None)
            if fitting is not None:
                at = fitting[1]
                return _roomiest_first(open_free, range(at, min(at + group, nodes)), gpus)
        if self.required or sum(open_free) < gpus:
            return None
        return _roomiest_first(open_free, range(nodes), gpus)


def _roomiest_first(free: list[int], nodes: range, gpus: int) -> Spots:
    """Fewest nodes: those with the most free devices first; the last one as tight as it can be."""
    spots: list[tuple[int, int]] = []
    left = gpus
    order = sorted(nodes, key=lambda node: (-free[node], node))
    while left:
        tight = [node for node in order if free[node] >= left]
        node = tight[-1] if tight else order[0]
        if tight:  # among equally tight ones the lowest number
            node = min(other for other in tight if free[other] == free[node])
        take = min(free[node], left)
        spots.append((node, take))
        order.remove(node)
        left -= take
    return tuple(sorted(spots))
