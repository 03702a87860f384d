"""A scenario: everything one question needs, resolved and frozen.

Like a sealed envelope with a number on it: two scenarios with the same content hash get the same answer, so the hash
keys caches, results and the footers of reports.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from sim.spec.demand import Demand
from sim.spec.fields import choice, count, fraction, named, quantity, text
from sim.spec.hardware import Accelerator, System
from sim.spec.mix import Jobs
from sim.spec.prices import Prices
from sim.spec.reliability import Reliability
from sim.spec.scheduling import Scheduling, Study
from sim.spec.supply import Supply
from sim.spec.workload import Training

TOPOLOGIES = ("fat-tree", "rail-fat-tree", "torus", "none")


@dataclass(frozen=True, slots=True)
class Tier:
    """One level of switches, from the nodes outward."""

    name: str = text("how people call it: leaf, spine, core")
    nodes: int | None = count("nodes below one switch (group) of this tier; none = all", None)
    oversubscription: float = quantity("bandwidth into the tier over bandwidth out of it", 1.0, low=1.0)
    latency_s: float = quantity("time a message spends crossing the tier, one way", 3e-6)


@dataclass(frozen=True, slots=True)
class Fabric:
    """The network between nodes."""

    topology: str = choice(TOPOLOGIES, "shape of the network", "fat-tree")
    tiers: tuple[Tier, ...] = ()


@dataclass(frozen=True, slots=True)
class Storage:
    """The shared file system or object store, all clients together."""

    read_bytes_per_s: float = quantity("aggregate read bandwidth", above=True)
    write_bytes_per_s: float = quantity("aggregate write bandwidth", above=True)


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one kind."""

    system: System = named("node type", "system")
    accelerator: Accelerator = named("device in the nodes; the system's own where left out", "accelerator")
    nodes: int = count("nodes in the pool")
    name: str = text("label in tables", "pool")
    efficiency_frac: float = fraction(
        "share of the datasheet's rates that kernels reach, where you know better than the calibration or there is "
        "none; 0 = as calibrated",
        0.0,
    )

    @property
    def devices(self) -> int:
        """Accelerators in the pool."""
        return self.nodes * self.system.gpus_per_node


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pools of nodes, the fabric between them and the storage behind them."""

    pools: tuple[Pool, ...]
    fabric: Fabric = field(default_factory=Fabric)
    storage: Storage | None = None

    @property
    def devices(self) -> int:
        """Accelerators in all pools."""
        return sum(pool.devices for pool in self.pools)


@dataclass(frozen=True, slots=True)
class Published:
    """A measured result that the scenario reproduces, so that an answer shows measured beside predicted."""

    step_time_s: float = quantity("measured time of one step", above=True)
    source: str = text("where the figure was read")
    note: str = text("convention or caveat", "")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One question, complete."""

    name: str = text("title")
    shows: str = text("one sentence: what this scenario shows", "")
    cluster: Cluster = field(default_factory=lambda: Cluster(()))
    training: Training | None = None
    published: tuple[Published, ...] = ()
    jobs: Jobs | None = None
    policy: Scheduling = field(default_factory=Scheduling)
    reliability: Reliability | None = None
    study: Study = field(default_factory=Study)
    demand: Demand | None = None
    supply: Supply | None = None
    prices: Prices | None = None
    profile: str = text(
        "calibration: shipped, ideal (every kernel at its lower bound) or a profile file", "shipped"
    )
    seed: int = count("root of every random stream", 0, low=0)

    @property
    def content_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the scenario's content."""
        document = json.dumps(as_document(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(document.encode()).hexdigest()[:16]


def as_document(noun: Any) -> Any:
    """A frozen noun as plain dictionaries, lists and numbers, ready for JSON."""
    if dataclasses.is_dataclass(noun) and not isinstance(noun, type):
        return {f.name: as_document(getattr(noun, f.name)) for f in dataclasses.fields(noun)}
    if isinstance(noun, dict):
        return {str(key): as_document(value) for key, value in noun.items()}
    if isinstance(noun, (list, tuple)):
        return [as_document(item) for item in noun]
    return noun
