"""Older tastes in nodes, for tasks with fractions of devices; as the fragmentation paper compares them (ATC 2023, section 6)."""

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
    """Smallest product of what is asked and what is left (Grandl et al., Tetris, SIGCOMM 2014, turned round as ATC 2023 has
    it); each device is a dimension of its own."""

    most_cpu_milli: int

    def node(self, box: Box, whole: Box, ask: Ask) -> tuple[float, tuple[int, ...]]:
        """Negative product over CPU cores and the best devices."""
        del whole
        cpu = ask.cpu_milli * box.cpu_milli / self.most_cpu_milli**2
        devices = tightest(box, ask)
        gpu = sum(box.gpu_milli[device] * ask.gpu_milli for device in devices) / WHOLE**2
        return -(cpu + gpu), devices


@dataclass(frozen=True, slots=True)
class GpuPacking:
    """Parts of devices already shared come first, then free devices of nodes in use, then empty nodes (Weng et al., MLaaS in
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
