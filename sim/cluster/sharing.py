"""Devices shared by several jobs: who sits on which, in what portions, and how much neighbours disturb each other.

A shared office: MIG builds walls (Multi-Instance GPU: memory and compute of their own, no disturbance), time slicing
only draws up a rota, and what neighbours cost depends on who they are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sim.cluster.placement.fragmentation import FragmentationDescent, Typical
from sim.cluster.placement.scores import BestFit, DotProduct, GpuPacking
from sim.cluster.placement.shared import WHOLE, Ask, NodeKind, Score, SharedNodes
from sim.cluster.state import JobState
from sim.spec.job import Job
from sim.spec.mix import Jobs
from sim.spec.scenario import Cluster
from sim.spec.scheduling import SHARED_PLACEMENTS, Scheduling

MIG_SLICES = (*(math.floor(WHOLE * part / 7) / WHOLE for part in (1, 2, 3, 4)), 1.0)
"""1g, 2g, 3g, 4g and 7g of seven compute slices, in whole thousandths (NVIDIA, MIG User Guide, A100 and H100; the
memory of a slice is not told apart, and any mix of slices that adds up is allowed)."""
NO_BOUND = 10**9
"""Thousandths of CPU cores of a node whose cores are nobody's bottleneck."""


def shares_devices(policy: Scheduling) -> bool:
    """Whether several jobs may sit on one device."""
    return policy.placement in SHARED_PLACEMENTS


def portion(share_frac: float, policy: Scheduling) -> float:
    """What a job that asks for a share of a device gets: all of it where devices are whole, the next slice with MIG,
    and in whole thousandths (so that what is held adds up)."""
    if not shares_devices(policy):
        return 1.0
    slices = sorted(policy.sharing.slices) or (MIG_SLICES if policy.sharing.kind == "mig" else ())
    wanted = next((one for one in slices if one >= share_frac - 1 / WHOLE), 1.0) if slices else share_frac
    return min(max(math.ceil(wanted * WHOLE - 1e-9), 1) / WHOLE, 1.0)


def portions(jobs: Iterator[Job], policy: Scheduling) -> Iterator[Job]:
    """The same jobs with the portions they get. A job runs as long on a larger portion than it asked for (assumed)."""
    for job in jobs:
        share = portion(job.gpu_share_frac, policy)
        yield job if share == job.gpu_share_frac else replace(job, gpu_share_frac=share)


def shared_ground(
    cluster: Cluster, policy: Scheduling, jobs: Jobs | None, speeds: Sequence[float]
) -> SharedNodes:
    """Nodes whose devices can be shared; ``speeds`` by pool. A task sits on one node, whatever its devices."""
    kinds = [
        NodeKind(NO_BOUND, math.inf, pool.system.gpus_per_node, pool.accelerator.key, speed)
        for pool, speed in zip(cluster.pools, speeds, strict=True)
        for _ in range(pool.nodes)
    ]
    most = max(kind.gpus for kind in kinds)
    score: Mapping[str, Score] = {
        "fgd": FragmentationDescent(typical(policy, jobs)),
        "best-fit": BestFit(NO_BOUND, most),
        "dot-product": DotProduct(NO_BOUND, most),
        "gpu-packing": GpuPacking(),
    }
    return SharedNodes(kinds, score[policy.placement])


def typical(policy: Scheduling, jobs: Jobs | None) -> Typical:
    """Tasks that usually come, from the recipes (a whole device where there are none)."""
    counts: dict[Ask, float] = {}
    for mix in jobs.mixes if jobs else ():
        total = sum(size.weight for size in mix.sizes)
        models = (mix.accelerator,) if mix.accelerator else ()
        for size in mix.sizes:
            milli = round(portion(size.gpu_share_frac, policy) * WHOLE) if size.gpus else 0
            ask = Ask(0, 0.0, size.gpus, milli, models)
            counts[ask] = counts.get(ask, 0.0) + mix.arrivals.rate_per_s * size.weight / total
    for service in jobs.services if jobs else ():
        ask = Ask(0, 0.0, service.gpus, WHOLE, ())
        counts.setdefault(ask, 0.0)
    whole = sum(counts.values())
    if not whole:
        return ((Ask(0, 0.0, 1, WHOLE, ()), 1.0),)
    return tuple((ask, count / whole) for ask, count in counts.items())


class _OnDevices(ABC):
    """A ``Contention`` (``sim.cluster.rules``) of jobs on one device: who is where, and whose pace may have moved."""

    def __init__(self) -> None:
        self._on: dict[tuple[int, int], dict[int, JobState]] = {}
        self._dirty: dict[int, JobState] = {}

    @abstractmethod
    def speed(self, state: JobState) -> float:
        """Speed over speed alone."""

    def join(self, state: JobState) -> None:
        """See ``Contention``."""
        for device in _devices(state):
            here = self._on.setdefault(device, {})
            here[state.number] = state
            if len(here) > 1:
                self._dirty |= here

    def leave(self, state: JobState) -> None:
        """See ``Contention``."""
        for device in _devices(state):
            here = self._on[device]
            del here[state.number]
            self._dirty |= here
        self._dirty.pop(state.number, None)

    def changed(self) -> Mapping[int, float]:
        """See ``Contention``."""
        dirty, self._dirty = self._dirty, {}
        return {number: self.speed(state) for number, state in dirty.items()}

    def by_links_frac(self, number: int) -> float:
        """None of it."""
        del number
        return 0.0


class Neighbours(_OnDevices):
    """Jobs that slow each other down side by side; a gang goes at the pace of its slowest device.

    ``pairs``: speed of a job of the first kind beside one of the second, over its speed alone; others lose by
    1 / (1 + interference x the neighbour's share). Several neighbours multiply (assumed).
    """

    def __init__(self, interference: float, pairs: Mapping[tuple[str, str], float]) -> None:
        super().__init__()
        self._interference, self._pairs = interference, dict(pairs)

    def speed(self, state: JobState) -> float:
        """See ``_OnDevices``."""
        slowest = 1.0
        for device in _devices(state):
            here = 1.0
            for other in self._on[device].values():
                if other is not state:
                    here *= self._beside(state.job, other.job)
            slowest = min(slowest, here)
        return slowest

    def _beside(self, job: Job, other: Job) -> float:
        known = self._pairs.get((job.kind, other.kind))
        return 1 / (1 + self._interference * other.gpu_share_frac) if known is None else known


class EqualTurns(_OnDevices):
    """Jobs that take turns on a device: each of n gets 1/n of its time and none is lost to switching; a gang goes at
    the pace of its slowest device.

    Processor sharing (Kleinrock, Queueing Systems II, 4.4); how time slicing treats neighbours that are always busy
    (NVIDIA, time-slicing of GPUs in Kubernetes: replicas of a device get equal parts of its time).
    """

    def speed(self, state: JobState) -> float:
        """See ``_OnDevices``."""
        return 1 / max((len(self._on[device]) for device in _devices(state)), default=1)


def _devices(state: JobState) -> Iterator[tuple[int, int]]:
    if state.job.gpu_share_frac < 1 and state.placed.devices:
        ((node, _),) = state.placed.spots
        for device in state.placed.devices:
            yield node, device
