"""The nodes of one long job: who works, and who stands by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from sim.spec.reliability import Spares


class Crew:
    """Nodes by number: ``active`` work, ``hot`` spares run idle, ``cold`` ones are powered down; others are at
    repair."""

    __slots__ = ("active", "cold", "hot", "nodes", "spares")

    def __init__(self, nodes: int, spares: Spares) -> None:
        self.nodes, self.spares = nodes, spares
        self.active = set(range(nodes))
        self.hot = deque(range(nodes, nodes + spares.hot))
        self.cold = deque(range(nodes + spares.hot, nodes + spares.hot + spares.cold))

    def fill(self) -> float:
        """Put spares to work where nodes are missing, the hot first; returns the time the slowest swap takes."""
        swap_s = 0.0
        for pool, cost_s in ((self.hot, self.spares.hot_swap_s), (self.cold, self.spares.cold_swap_s)):
            while pool and len(self.active) < self.nodes:
                self.active.add(pool.popleft())
                swap_s = max(swap_s, cost_s)
        return swap_s

    def put_back(self, node: int, *, wanted: bool) -> None:
        """A mended node stands by: hot where a hot one is missing and no job waits for it, else cold."""
        pool = self.hot if len(self.hot) < self.spares.hot and not wanted else self.cold
        pool.append(node)

    def lose_spares(self, nodes: Iterable[int], *, cold_too: bool) -> list[int]:
        """Take failed spares out and name them; nobody notices what befalls a cold one unless it was planned."""
        pools = (self.hot, self.cold) if cold_too else (self.hot,)
        lost = [(pool, node) for pool in pools for node in nodes if node in pool]
        for pool, node in lost:
            pool.remove(node)
        return [node for _, node in lost]
