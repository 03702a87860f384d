"""Tasks of one rank that are in each other's way: messages on the same cards, kernels beside messages.

Like cars on a road: each is as fast as the others leave room for, and whenever one joins or leaves, all change speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from sim.results.timeline import Task

NETWORK = ("send", "gradients", "parameters")
"""Messages that leave through a device's share of the network cards."""
MESSAGES = (*NETWORK, "tensor")
COMPUTE = "compute"


@dataclass(frozen=True, slots=True)
class Contention:
    """What slows what down within one rank."""

    shared_network: bool = False
    """Pipeline and data-parallel messages use the same cards: n at a time get 1/n of the bandwidth each."""
    compute_slowdown_frac: float = 0.0
    """How much longer kernels take while a message of the rank is under way: its copies take multiprocessors and
    memory bandwidth (a 132-block matrix product beside a 24-block all-gather needs a second wave)."""


class Board:
    """The tasks under way on one rank, each with the work that is left of it.

    Speeds are constant between two changes, so finishing times are exact (processor sharing).
    """

    def __init__(self, environment: simpy.Environment, contention: Contention) -> None:
        """An empty board."""
        self._environment = environment
        self._contention = contention
        self._left: list[tuple[Task, simpy.Event]] = []
        self._work_s: list[float] = []
        self._speeds: list[float] = []
        self._since = 0.0
        self._version = 0

    def enter(self, task: Task) -> simpy.Event:
        """Start ``task`` now; the event returned happens when its work is done."""
        self._settle()
        done = self._environment.event()
        self._left.append((task, done))
        self._work_s.append(task.duration_s)
        self._plan()
        return done

    def _settle(self) -> None:
        """Take off what has been worked since the last change."""
        passed = self._environment.now - self._since
        self._work_s = [work - passed * speed for work, speed in zip(self._work_s, self._speeds, strict=True)]
        self._since = self._environment.now

    def _plan(self) -> None:
        """Set speeds for the tasks under way and wake up when the first of them is done."""
        network = sum(task.kind in NETWORK for task, _ in self._left)
        messages = any(task.kind in MESSAGES for task, _ in self._left)
        share = 1 / network if self._contention.shared_network and network else 1.0
        beside = 1 / (1 + self._contention.compute_slowdown_frac) if messages else 1.0
        self._speeds = [
            share if task.kind in NETWORK else beside if task.stream == COMPUTE else 1.0
            for task, _ in self._left
        ]
        self._version += 1
        if not self._left:
            return
        waits = [max(work, 0.0) / speed for work, speed in zip(self._work_s, self._speeds, strict=True)]
        first, version = min(range(len(waits)), key=waits.__getitem__), self._version
        self._environment.timeout(waits[first]).callbacks.append(lambda _: self._finish(first, version))

    def _finish(self, number: int, version: int) -> None:
        if version != self._version:  # speeds have changed since: another alarm is set
            return
        self._settle()
        _, done = self._left.pop(number)
        self._work_s.pop(number)
        self._speeds.pop(number)
        done.succeed()
        self._plan()
