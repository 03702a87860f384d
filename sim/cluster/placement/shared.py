"""Nodes whose devices are shared by fractions, with CPU cores and memory: a task goes to the node with the best score.

A game of fitting odd pieces into odd boxes; the score is the player's taste, and there are several (``scores.py``,
``fragmentation.py``). Fractions are counted in thousandths of a device, so sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sim.results.cluster_log import Placed

if TYPE_CHECKING:
    from sim.spec.job import Job

WHOLE = 1000
"""Thousandths of a device."""


class Ask(NamedTuple):
    """What one task asks of one node."""

    cpu_milli: int
    memory_bytes: float
    gpus: int
    gpu_milli: int
    """Of each device."""
    models: tuple[str, ...]
    """Kinds of device it accepts; empty = any."""


class Box(NamedTuple):
    """What a node has left."""

    cpu_milli: int
    memory_bytes: float
    gpu_milli: tuple[int, ...]
    """Left of each device."""
    model: str


class Score(Protocol):
    """Taste in nodes: the largest value wins, ties go to the node that comes first."""

    def node(self, box: Box, whole: Box, ask: Ask) -> tuple[float, tuple[int, ...]]:
        """Score of a node that fits (``whole`` = the same node when empty), and the devices the task would take."""


@dataclass(frozen=True, slots=True)
class NodeKind:
    """One node."""

    cpu_milli: int
    memory_bytes: float
    gpus: int
    model: str = ""
    speed: float = 1.0


def accepts(box: Box, ask: Ask) -> bool:
    """Whether the devices are of a kind that the task takes."""
    return not ask.models or not ask.gpus or box.model in ask.models


def enough_gpus(box: Box, ask: Ask) -> bool:
    """Whether so many devices have so much left each."""
    return sum(left >= ask.gpu_milli for left in box.gpu_milli) >= ask.gpus


def fits(box: Box, ask: Ask) -> bool:
    """Whether the node can take the task now."""
    return (
        box.cpu_milli >= ask.cpu_milli
        and box.memory_bytes >= ask.memory_bytes
        and accepts(box, ask)
        and (not ask.gpus or enough_gpus(box, ask))
    )


def without(box: Box, ask: Ask, devices: Sequence[int], sign: int = -1) -> Box:
    """What is left when the task is on these devices (or, with +1, when it has gone)."""
    left = list(box.gpu_milli)
    for device in devices:
        left[device] += sign * ask.gpu_milli
    return Box(
        box.cpu_milli + sign * ask.cpu_milli,
        box.memory_bytes + sign * ask.memory_bytes,
        tuple(left),
        box.model,
    )


def lowest(box: Box, ask: Ask) -> tuple[int, ...]:
    """The devices of lowest number that have enough left."""
    found = [device for device, left in enumerate(box.gpu_milli) if left >= ask.gpu_milli]
    return tuple(found[: ask.gpus])


def tightest(box: Box, ask: Ask) -> tuple[int, ...]:
    """The devices with the least left that is enough."""
    found = sorted((left, device) for device, left in enumerate(box.gpu_milli) if left >= ask.gpu_milli)
    return tuple(sorted(device for _, device in found[: ask.gpus]))


def ask_of(job: Job, gpus: int) -> Ask:
    """What a job asks of a node; ``accelerator`` may name several kinds, parted by ``|``."""
    models = tuple(job.accelerator.split("|")) if job.accelerator else ()
    return Ask(
        round(job.cpus * 1000),
        job.memory_bytes,
        gpus,
        round(job.gpu_share_frac * WHOLE) if gpus else 0,
        models,
    )


class SharedNodes:
    """A ground (see ``sim.cluster.nodes.Ground``) of single nodes; each task sits on one node."""

    def __init__(self, nodes: Iterable[NodeKind], score: Score) -> None:
        self.kinds = tuple(nodes)
        self._score = score
        self._whole = [
            Box(kind.cpu_milli, kind.memory_bytes, (WHOLE,) * kind.gpus, kind.model) for kind in self.kinds
        ]
        self._left = list(self._whole)
        self._closed = [0] * len(self.kinds)
        self._total_milli = sum(kind.gpus for kind in self.kinds) * WHOLE
        self._free_milli, self._down_milli = self._total_milli, 0

    @property
    def total_gpus(self) -> float:
        """Devices owned."""
        return self._total_milli / WHOLE

    @property
    def free_gpus(self) -> float:
        """Devices, and parts of devices, that are free on nodes that are up."""
        return self._free_milli / WHOLE

    @property
    def down_gpus(self) -> float:
        """Devices on nodes that are down."""
        return self._down_milli / WHOLE

    def left(self, node: int) -> Box:
        """What a node has left."""
        return self._left[node]

    def place(self, job: Job, gpus: int, pool: int | None = None) -> Placed | None:
        """Best score of all nodes that fit; None where none does."""
        del pool
        ask = ask_of(job, gpus)
        best: tuple[float, int, tuple[int, ...]] | None = None
        for node, box in enumerate(self._left):
            if self._closed[node] or not fits(box, ask):
                continue
            value, devices = self._score.node(box, self._whole[node], ask)
            if best is None or value > best[0]:
                best = (value, node, devices)
        if best is None:
            return None
        _, node, devices = best
        self._move(node, ask, devices, -1)
        return Placed(0, ((node, gpus),), devices)

    def take(self, placed: Placed, job: Job) -> bool:
        """Take exactly these devices of one node."""
        if len(placed.spots) != 1:
            return False
        ((node, gpus),) = placed.spots
        if not 0 <= node < len(self._left) or self._closed[node]:
            return False
        ask, box = ask_of(job, gpus), self._left[node]
        known = all(0 <= device < len(box.gpu_milli) for device in placed.devices)
        if not known or len(set(placed.devices)) != gpus or not fits(box, ask):
            return False
        if any(box.gpu_milli[device] < ask.gpu_milli for device in placed.devices):
            return False
        self._move(node, ask, placed.devices, -1)
        return True

    def release(self, placed: Placed, job: Job) -> None:
        """Give back what a job held."""
        ((node, gpus),) = placed.spots
        self._move(node, ask_of(job, gpus), placed.devices, 1)

    def _move(self, node: int, ask: Ask, devices: tuple[int, ...], sign: int) -> None:
        self._left[node] = without(self._left[node], ask, devices, sign)
        milli = sign * ask.gpu_milli * len(devices)
        if self._closed[node]:
            self._down_milli += milli
        else:
            self._free_milli += milli

    def close(self, node: int) -> None:
        """One more outage holds the node down."""
        self._closed[node] += 1
        if self._closed[node] == 1:
            milli = sum(self._left[node].gpu_milli)
            self._free_milli -= milli
            self._down_milli += milli

    def open(self, node: int) -> bool:
        """One outage less; True where the node is up again."""
        self._closed[node] -= 1
        if self._closed[node]:
            return False
        milli = sum(self._left[node].gpu_milli)
        self._free_milli += milli
        self._down_milli -= milli
        return True

    def could_hold(self, job: Job, gpus: int) -> bool:
        """Whether any node could take it when empty."""
        ask = ask_of(job, gpus)
        return any(fits(box, ask) for box in self._whole)

    def speed(self, placed: Placed) -> float:
        """Speed of the node."""
        return self.kinds[placed.spots[0][0]].speed
