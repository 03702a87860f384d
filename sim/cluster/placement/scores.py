"""Older tastes in nodes, for tasks with fractions of devices; as the fragmentation paper compares them (ATC 2023,
section 6)."""

from __future__ import annotations

from dataclasses import dataclass

from sim.cluster.placement.shared import WHOLE, Ask, Box, tightest


@dataclass(frozen=True, slots=True)
class BestFit:
    """Least left over, CPU cores and devices weighed alike against the largest node (Protean, OSDI 2020)."""

    most_cpu_milli: int
    most_gpus: int

    def node(self, box: Box, whole: Box, ask: Ask) -> tuple[float, tuple[int, ...]]:
        """Negative left-over."""
        del whole
        cpu = (box.cpu_milli - ask.cpu_milli) / self.most_cpu_milli
        gpu = (sum(box.gpu_milli) - ask.gpus * ask.gpu_milli) / (WHOLE * max(self.most_gpus, 1))
        return int(100 * (1 - (cpu + gpu) / 2)), tightest(box, ask)


@dataclass(frozen=True, slots=True)
class DotProduct:
    """Smallest product of what is asked and what is left (Grandl et al., Tetris, SIGCOMM 2014, turned round as ATC
    2023 has
    it). What is left is seen several ways: each device in part use, or all free devices of the node together."""

    most_cpu_milli: int
    most_gpus: int

    def node(self, box: Box, whole: Box, ask: Ask) -> tuple[float, tuple[int, ...]]:
        """int(100 (1 - product / 2)) of the best way to see it."""
        del whole
        asked = ask.gpus * ask.gpu_milli
        free = [device for device, left in enumerate(box.gpu_milli) if left == WHOLE]
        ways: list[tuple[int, tuple[int, ...]]] = []
        if asked < WHOLE:
            taken = range(1) if ask.gpus else range(0)
            ways = [
                (left, tuple(device for _ in taken))
                for device, left in enumerate(box.gpu_milli)
                if asked <= left < WHOLE
            ]
        if asked <= len(free) * WHOLE:
            ways.append((len(free) * WHOLE, tuple(free[: ask.gpus])))
        cpu = (box.cpu_milli / self.most_cpu_milli) * (ask.cpu_milli / self.most_cpu_milli)
        most = WHOLE * max(self.most_gpus, 1)
        best: tuple[float, tuple[int, ...]] = (-1.0, tightest(box, ask))
        for left, devices in ways:
            value = 1 - (cpu + (left / most) * (asked / most)) / 2
            if value > best[0]:
                best = (value, devices)
        return int(100 * best[0]), best[1]


@dataclass(frozen=True, slots=True)
class GpuPacking:
    """Parts of devices already shared come first, then free devices of nodes in use, then empty nodes (Weng et al.,
    MLaaS in
    the wild, NSDI 2022; the points and their caps as the fragmentation paper's program counts them)."""

    def node(self, box: Box, whole: Box, ask: Ask) -> tuple[float, tuple[int, ...]]:
        """100 less a tenth of the percent left on the shared devices; 50 less the free devices taken, at least 33; for
        an empty node 33 less its devices."""
        devices = tightest(box, ask)
        if not ask.gpus:
            return 0, devices
        free = sum(left == WHOLE for left in box.gpu_milli)
        if free == len(whole.gpu_milli):
            return max(33 - free, free), devices
        taken = sum(box.gpu_milli[device] == WHOLE for device in devices)
        if taken:
            return max(50 - taken, 33), devices
        left = sum(box.gpu_milli[device] * 100 // WHOLE for device in devices)
        return max(100 - left // 10, 50), devices
