"""How a cluster is run and how long it is watched: the [policy] and [study] sections.

The house rules and the visiting hours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.spec.fields import choice, count, fraction, quantity, switch, text, texts

POLICIES = (
    "fifo",
    "sjf",
    "srtf",
    "priority",
    "priority-preempt",
    "easy",
    "conservative",
    "conservative-compress",
    "multifactor",
    "fair-share",
    "drf",
    "tiresias",
    "edf",
    "quota",
    "gavel",
    "elastic",
    "deadline",
)
SHARED_PLACEMENTS = ("fgd", "best-fit", "dot-product", "gpu-packing")
"""Rules that put several jobs on one device."""
PLACEMENTS = ("packed", "spread", "anywhere", "tiers", *SHARED_PLACEMENTS)
ORDERS = (
    "submit",
    "shortest",
    "longest",
    "narrowest",
    "widest",
    "smallest",
    "largest",
    "reverse",
    "lookahead",
)
LEVELS = ("low", "mid", "high", "draw")


@dataclass(frozen=True, slots=True)
class NetworkClass:
    """How the network treats the jobs of some queues (the software-defined-network knob)."""

    name: str = text("label")
    queues: tuple[str, ...] = texts("queues whose jobs belong to it")
    priority: float = quantity("larger goes first on every uplink, strictly", 0.0, low=-1e12)
    weight: float = quantity("share among classes of one priority, per node card", 1.0, above=True)
    cap_frac: float = fraction("most of each uplink that its jobs may use together", 1.0)


@dataclass(frozen=True, slots=True)
class NetworkSharing:
    """Whether jobs that cross the same uplinks slow each other down, and by which rules."""

    sharing: bool = switch("uplinks of the fabric's tiers are shared max-min fairly", False)
    phases: str = choice(
        ("together", "interleaved"), "jobs send at the same moments (worst) or take turns (best)", "together"
    )
    pattern: str = choice(("ring", "pairs"), "what crosses uplinks: rings and trees, or all-to-all", "ring")
    classes: tuple[NetworkClass, ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """What one kind of job does to another on the same device."""

    kind: str = text("kind of the job that is slowed down")
    neighbour: str = text("kind of the job beside it")
    speed_frac: float = fraction("its speed over its speed alone")


@dataclass(frozen=True, slots=True)
class DeviceSharing:
    """How devices are shared, with a placement that shares them (fgd, best-fit, dot-product, gpu-packing)."""

    kind: str = choice(
        ("time-slicing", "mig", "equal-turns"),
        "side by side (neighbours disturb), cut into slices, or each of n busy jobs 1/n of the time",
        "time-slicing",
    )
    slices: tuple[float, ...] = quantity(
        "shares that can be had, a request gets the next larger; empty = any, with mig 1/7 to 4/7 and all", (),
        above=True, high=1.0,
    )  # fmt: skip
    interference: float = quantity(
        "time slicing: time lost for each device's worth of neighbours, over the time alone (assumed)", 0.1
    )
    pairs: tuple[Beside, ...] = ()
    """Measured pairs; others follow ``interference``."""


@dataclass(frozen=True, slots=True)
class QuotaRule:
    """What one queue, or one cohort of queues, may hold (see ``sim.cluster.policies.quota``)."""

    name: str = text("queue or cohort")
    parent: str = text("cohort above it; empty = on its own", "")
    nominal_gpus: float = quantity("devices of its own (Volcano: deserved)", 0.0)
    borrow_limit_gpus: float = quantity("most above its own; inf = no bound", math.inf)
    lend_limit_gpus: float = quantity("most of its own that others may use; inf = all", math.inf)
    ceiling_gpus: float = quantity("most in all (Volcano: capability); inf = no bound", math.inf)
    weight: float = quantity("weight in borrowing", 1.0, above=True)
    reclaim: str = choice(
        ("never", "lower-priority", "any"), "what it takes back from borrowers (reclaimWithinCohort)", "any"
    )
    within: str = choice(
        ("never", "lower-priority", "lower-or-newer-equal-priority"),
        "which of its own jobs may be preempted (withinClusterQueue)",
        "never",
    )


@dataclass(frozen=True, slots=True)
class Account:
    """One account of Slurm's tree: a queue whose jobs charge it, or the parent of such accounts."""

    name: str = text("queue, or the name that children give as their parent")
    parent: str = text("account above it; empty = the root", "")
    shares: float = quantity("raw shares among its siblings", 1.0)
    partition_priority: float = quantity("PriorityJobFactor of the partition that its jobs ask for", 1.0)


@dataclass(frozen=True, slots=True)
class MultifactorWeights:
    """Slurm's priority/multifactor: weights of the factors, each 0 to 1, and how they are found (see
    ``sim.cluster.policies.multifactor``)."""

    age: float = quantity("PriorityWeightAge", 1000.0)
    fair_share: float = quantity("PriorityWeightFairshare", 10_000.0)
    job_size: float = quantity("PriorityWeightJobSize", 1000.0)
    partition: float = quantity("PriorityWeightPartition", 0.0)
    qos: float = quantity("PriorityWeightQOS; a job's QOS priority is its priority", 0.0)
    max_age_s: float = quantity("PriorityMaxAge: wait at which age counts in full", 604_800.0, above=True)
    favor_small: bool = switch("PriorityFavorSmall: small jobs get the larger size factor", False)
    qos_highest: float = quantity("largest priority of any QOS: what counts in full", 1.0, above=True)
    algorithm: str = choice(("fair-tree", "classic"), "how the fair-share factor is found", "fair-tree")
    calc_period_s: float = quantity("PriorityCalcPeriod: fair shares hold so long", 300.0)
    backfill_tests: int = count("bf_max_job_test: jobs behind the head that may be tried", 500, low=0)


@dataclass(frozen=True, slots=True)
class Scheduling:
    """Who goes next, where to, and what that costs."""

    name: str = choice(POLICIES, "the rule by which waiting jobs start", "easy")
    function: str = text("own policy as file.py:function instead of a name; see docs/policies.md", "")
    placement: str = choice(PLACEMENTS, "where a gang goes", "packed")
    apart: str = choice(
        ("none", "user", "queue"), "whose jobs never share a node (anti-affinity, e.g. of replicas)", "none"
    )
    apart_nodes: int = count("nodes of one group in which such jobs never meet (node, switch, rack)", 1)
    order: str = choice(ORDERS, "who may slip past the head in backfilling", "submit")
    by: str = choice(("queue", "user"), "whose share counts in fair sharing", "queue")
    weights: Mapping[str, float] = field(
        default_factory=dict,
        hash=False,
        metadata={"meaning": "weight by queue or user", "low": 0.0, "above": True},
    )
    half_life_s: float = quantity(
        "half-life of the usage that fair share remembers; inf = all", math.inf, above=True
    )
    thresholds_gpu_s: tuple[float, ...] = quantity(
        "device-seconds between the levels of tiresias", (18_000.0,)
    )
    kill_at_limit: bool = switch("jobs are ended at their time limit", True)
    preemption_overhead_s: float = quantity("time a preempted job loses when it runs again", 60.0)
    quotas: tuple[QuotaRule, ...] = ()
    accounts: tuple[Account, ...] = ()
    """Slurm's tree; a queue without one is an account under the root with one share."""
    multifactor: MultifactorWeights = field(default_factory=MultifactorWeights)
    round_s: float = quantity("round of gavel and elastic", 360.0, above=True)
    scaling_exponent: float = quantity(
        "speed of an elastic job goes with (devices / those asked for) to this power",
        0.9,
        above=True,
        high=1.0,
    )
    sharing: DeviceSharing = field(default_factory=DeviceSharing)
    network: NetworkSharing = field(default_factory=NetworkSharing)


@dataclass(frozen=True, slots=True)
class Study:
    """How long to watch and how sure to be."""

    span_s: float = quantity(
        "time that is simulated; 0 = 30 d, or where jobs come from a trace alone, as long as it lasts", 0.0
    )
    warm_up_s: float = quantity("time at the start that the statistics of jobs leave out", 0.0)
    warm_up: str = choice(("given", "auto"), "auto = found by MSER-5 instead", "given")
    precision_frac: float = quantity(
        "half-width of the 95 % intervals over their means at which to stop", 0.05, above=True
    )
    least: int = count("replications at least", 3, low=2)
    most: int = count("replications at most", 12, low=2, high=10_000)
    failures: str = choice(
        LEVELS, "which failure rate to take; draw = another one each time, low and high as P10 and P90", "mid"
    )
