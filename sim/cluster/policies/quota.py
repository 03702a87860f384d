"""Quotas with borrowing and reclaim: families with allowances, who lend to cousins and ask back when they need it.

The tree of quotas and its arithmetic are Kueue's (kueue.sigs.k8s.io/docs/concepts/cluster_queue and /cohort; quota
that a node does not lend stays with it, the rest is stored with its parent). Volcano's words map onto it
(volcano.sh/docs, capacity plugin): deserved = ``nominal_gpus``, guarantee = ``nominal_gpus - lend_limit_gpus``,
capability = ``ceiling_gpus``.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.cluster.policies.preemptive import Choice, placeless
from sim.cluster.policy import Decision, Decisions, Policy, Preempt, Start, View
from sim.cluster.state import JobState
from sim.spec.scheduling import QuotaRule


class Tree:
    """Quotas as a tree and what is held of them. A queue that has no quota is a guest: it may use what nobody else
    wants, and counts as borrowing all of it."""

    def __init__(self, nodes: Mapping[str, QuotaRule], held: Mapping[str, float]) -> None:
        self.nodes = nodes
        self.held = {**dict.fromkeys(nodes, 0.0), **held}
        self._children: dict[str, list[str]] = {}
        for node in nodes.values():
            if node.parent in nodes:
                self._children.setdefault(node.parent, []).append(node.name)

    def subtree(self, name: str) -> float:
        """Its own quota and what its children store with it."""
        children = self._children.get(name, ())
        return self.nodes[name].nominal_gpus + sum(
            self.subtree(child) - self.local(child) for child in children
        )

    def local(self, name: str) -> float:
        """What it never lends."""
        return max(self.subtree(name) - self.nodes[name].lend_limit_gpus, 0.0)

    def total(self, name: str) -> float:
        """Devices held by it and everybody below it."""
        return self.held.get(name, 0.0) + sum(self.total(child) for child in self._children.get(name, ()))

    def usage(self, name: str) -> float:
        """Devices that count against it: its own jobs', and what its children hold beyond what they never lend."""
        below = sum(max(self.usage(child) - self.local(child), 0.0) for child in self._children.get(name, ()))
        return self.held.get(name, 0.0) + below

    def available(self, name: str) -> float:
        """Devices that it may still take, by quota."""
        node = self.nodes.get(name)
        if node is None:
            return math.inf
        used, local, subtree = self.usage(name), self.local(name), self.subtree(name)
        if node.parent not in self.nodes:
            found = subtree - used
        else:
            above = self.available(node.parent)
            most = (subtree - local) - max(used - local, 0.0) + node.borrow_limit_gpus
            found = max(local - used, 0.0) + min(above, most)
        return min(found, node.ceiling_gpus - self.total(name))

    def borrows(self, name: str, more: float = 0.0) -> bool:
        """Whether it would hold more than its quota, with so many devices more."""
        return name not in self.nodes or self.usage(name) + more > self.subtree(name) + 1e-9

    def share(self, name: str) -> float:
        """Held above its quota, over what its cohort can lend, over its weight (Kueue's fair sharing)."""
        node = self.nodes.get(name)
        if node is None:
            return math.inf
        over = self.usage(name) - self.subtree(name)
        pot = self.subtree(node.parent) if node.parent in self.nodes else self.subtree(name)
        return max(over, 0.0) / max(pot, 1e-9) / node.weight

    def root(self, name: str) -> str:
        """The cohort at the top."""
        while name in self.nodes and self.nodes[name].parent in self.nodes:
            name = self.nodes[name].parent
        return name


@dataclass(frozen=True)
class Quotas(Policy):
    """First jobs within their queue's quota; then quota is taken back from borrowers for jobs that are within theirs;
    then who has borrowed least for its weight may borrow. Within a queue larger priority, then order of submission,
    passing over those that do not fit (Kueue: BestEffortFIFO)."""

    nodes: Mapping[str, QuotaRule] = field(default_factory=dict)
    name: str = "quota"
    metered: bool = True
    grouped: bool = True

    def key(self, state: JobState) -> Any:
        """Priority, then submission."""
        return (-state.job.priority, state.number)

    def _tree(self, view: View) -> Tree:
        return Tree(self.nodes, {name: group.gpus for name, group in view.usage.groups.items()})

    def decide(self, view: View) -> Decisions:
        """Own quota, reclaim, borrowing."""
        yield from self._starts(view, borrow=False)
        yield from self._reclaims(view)
        yield from self._starts(view, borrow=True)

    def _starts(self, view: View, borrow: bool) -> Generator[Decision, bool, None]:
        passed: dict[str, JobState] = {}
        while view.free_gpus > 0 or view.waiting.size:
            tree = self._tree(view)
            best: tuple[Any, JobState] | None = None
            for name, group in view.usage.groups.items():
                if not len(group.waiting):
                    continue
                room = min(tree.available(name), view.free_gpus)
                if not borrow:
                    own = tree.subtree(name) - tree.usage(name) if name in self.nodes else -1.0
                    room = min(room, own)
                state = _next(group.waiting, passed.get(name), room)
                if state is None:
                    continue
                rank = (tree.share(name), -state.job.priority, state.number)
                if best is None or rank < best[0]:
                    best = (rank, state)
            if best is None:
                return
            if not (yield Start(best[1])):
                passed[best[1].group] = best[1]

    def _reclaims(self, view: View) -> Generator[Decision, bool, None]:
        """For the head of each queue that is within its quota: the fewest borrowers' jobs that make room."""
        heads = [group.waiting.first for group in view.usage.groups.values() if len(group.waiting)]
        for state in sorted(
            (head for head in heads if head), key=lambda head: (-head.job.priority, head.number)
        ):
            victims = self.victims(view, state)
            if not victims or placeless(view, Choice([state], victims)):
                continue
            for victim in victims:
                yield Preempt(victim)
            yield Start(state)

    def victims(self, view: View, state: JobState) -> list[JobState]:
        """Whose devices a waiting job may have; empty where it needs nobody's, or nobody's would do."""
        tree = self._tree(view)
        gone: list[JobState] = []
        need, mine = _weight(state), state.group
        free = view.free_gpus

        def fits() -> bool:
            return tree.available(mine) >= need - 1e-9 and free >= state.gpus

        if fits() or mine not in self.nodes:
            return []
        for other in self._candidates(tree, view, state):
            if other.group != mine and not tree.borrows(other.group):
                continue  # its queue has come down to its own
            tree.held[other.group] -= _weight(other)
            free += other.gpus
            gone.append(other)
            if fits():
                break
        else:
            return []
        for other in tuple(gone[:-1]):  # whoever turns out not to be needed stays
            tree.held[other.group] += _weight(other)
            free -= other.gpus
            if fits():
                gone.remove(other)
            else:
                tree.held[other.group] -= _weight(other)
                free += other.gpus
        return gone

    def _candidates(self, tree: Tree, view: View, state: JobState) -> Iterator[JobState]:
        """Other queues' jobs first, smallest priority first, the last to start first (Kueue's order)."""
        node, mine, priority = self.nodes[state.group], state.group, state.job.priority
        within_quota = not tree.borrows(mine, _weight(state))
        found: list[tuple[Any, JobState]] = []
        for other in view.running:
            if not other.job.preemptible:
                continue
            if other.group != mine:
                related = other.group not in self.nodes or tree.root(other.group) == tree.root(mine)
                lower = node.reclaim == "any" or other.job.priority < priority
                if not (within_quota and related and lower) or node.reclaim == "never":
                    continue
            elif not (
                (node.within != "never" and other.job.priority < priority)
                or (
                    node.within == "lower-or-newer-equal-priority"
                    and (other.job.priority, -other.number) < (priority, -state.number)
                )
            ):
                continue
            rank = (other.group == mine, other.job.priority, -other.since_s, -other.number)
            found.append((rank, other))
        return iter(other for _, other in sorted(found, key=lambda pair: pair[0]))


def _weight(state: JobState) -> float:
    return state.gpus * state.job.gpu_share_frac


def _next(waiting: Any, behind: JobState | None, room: float) -> JobState | None:
    found: JobState | None = waiting.after(behind, room) if room >= 0 else None
    return found
