"""Fragmentation gradient descent: put a task where it makes the fewest devices useless for the tasks that usually come.

Weng et al., "Beware of fragmentation: scheduling GPU-sharing workloads with fragmentation gradient descent", USENIX
ATC 2023.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sim.cluster.placement.shared import Ask, Box, accepts, enough_gpus, lowest, without

Typical = tuple[tuple[Ask, float], ...]
"""Tasks that usually come, with their popularity (sums to 1)."""


def typical_tasks(asks: Iterable[Ask], share_frac: float = 0.95) -> Typical:
    """The most frequent (CPU, device share, devices, kinds) until they make up so much of all; memory is left out.

    Ties go to the larger tuple; popularities are renormalised to 1.
    """
    counts = Counter((ask.cpu_milli, ask.gpu_milli, ask.gpus, "|".join(ask.models)) for ask in asks)
    total = sum(counts.values())
    ordered = sorted(((count, task) for task, count in counts.items()), reverse=True)
    chosen: list[tuple[Ask, int]] = []
    reached = 0
    for count, (cpu_milli, gpu_milli, gpus, models) in ordered:
        if reached >= share_frac * total:
            break
        ask = Ask(cpu_milli, 0.0, gpus, gpu_milli, tuple(models.split("|")) if models else ())
        chosen.append((ask, count))
        reached += count
    # divided in this order as the authors' program does: near ties hang on the last bit
    return tuple((ask, (count / total) / (reached / total)) for ask, count in chosen)


def fragmented_milli(box: Box, typical: Typical) -> float:
    """Thousandths of devices on a node that a typical task cannot use, expected over typical tasks.

    All that is left, where CPU cores, devices or their kind do not do or the task wants no device; otherwise what is
    left
    on devices with too little. Summed by cause and then over causes, as the authors' program does: a tie is then a tie.
    """
    left = sum(box.gpu_milli)
    causes = [0.0] * 6  # lack of both, of devices, of CPU; CPU task that fits, that does not; wrong kind
    for ask, popularity in typical:
        cpu = box.cpu_milli >= ask.cpu_milli
        if not ask.gpus:
            causes[3 if cpu else 4] += popularity * left
        elif not accepts(box, ask):
            causes[5] += popularity * left
        elif not enough_gpus(box, ask):
            causes[1 if cpu else 0] += popularity * left
        elif not cpu:
            causes[2] += popularity * left
        else:
            causes[1] += popularity * sum(milli for milli in box.gpu_milli if milli < ask.gpu_milli)
    total = 0.0
    for cause in causes:
        total += cause
    return total


@dataclass(frozen=True)
class FragmentationDescent:
    """Score = int(100 sigmoid((F before - F after) / 1000)), F = ``fragmented_milli``: whole points, so near ties
    tie."""

    typical: Typical
    _known: dict[Box, float] = field(default_factory=dict, repr=False, compare=False)

    def fragmentation(self, box: Box) -> float:
        """``fragmented_milli``, remembered: few states of a node are ever seen."""
        box = box._replace(memory_bytes=0.0)
        found = self._known.get(box)
        if found is None:
            found = self._known[box] = fragmented_milli(box, self.typical)
        return found

    def _points(self, before: float, after: Box) -> int:
        return int(100 / (1 + math.exp(-(before - self.fragmentation(after)) / 1000)))

    def node(self, box: Box, whole: Box, ask: Ask) -> tuple[float, tuple[int, ...]]:
        """Points, and for a part of one device the best one (lowest number first)."""
        del whole
        before = self.fragmentation(box)
        if ask.gpus == 1 and ask.gpu_milli < 1000:
            best = (-1, -1)
            for device, left in enumerate(box.gpu_milli):
                if left >= ask.gpu_milli:
                    points = self._points(before, without(box, ask, (device,)))
                    if points > best[0]:
                        best = (points, device)
            return best[0], (best[1],)
        devices = lowest(box, ask)
        return self._points(before, without(box, ask, devices)), devices
