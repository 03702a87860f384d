"""What may break, how often, how it is noticed and mended, and what a job does against it: the [reliability] section.

Like the accident statistics and the fire drill of a factory. Rates are per 1,000 node-days as a low, a middle and a
high value, because published clusters differ sevenfold; a published cluster can be named instead (see
:mod:`sim.spec.failure_rates`).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sim.spec.faults import Fault
from sim.spec.fields import choice, count, fraction, quantiles, quantity, switch, text
from sim.spec.quantiles import Quantiles

LAWS = ("deterministic", "exponential", "lognormal", "gamma")
SCOPES = ("node", "switch", "rack", "job")
LEVELS = ("low", "mid", "high")
CHECKPOINT_KINDS = ("none", "blocking", "asynchronous")
INTERVAL_RULES = ("optimal", "young", "daly", "fixed")


@dataclass(frozen=True, slots=True)
class Delay:
    """A random time."""

    mean_s: float = quantity("mean", 0.0)
    law: str = choice(LAWS, "its law", "exponential")
    variation: float = quantity("standard deviation over mean (lognormal and gamma)", 1.0, above=True)


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to fail."""

    name: str = text("gpu, hbm, nic, switch, rack, storage, software ...")
    share_frac: float = quantity("share of the failures; shares are scaled to add up to 1", 1.0)
    scope: str = choice(SCOPES, "what stops together; job = the job alone, no node is lost", "node")
    silent: bool = switch("results are wrong from then on and nothing stops", False)
    detect: Delay = field(default_factory=Delay)
    """From the fault until anybody knows."""
    repair: Delay = field(default_factory=Delay)
    """From detection until the node can be used again, where nothing is replaced (reboot, reseat)."""
    replace_frac: float = fraction("share of failures after which the part is replaced, and new", 0.0)
    replace: Delay = field(default_factory=Delay)
    """From detection until the node can be used again, where the part is replaced."""
    weibull_shape: float = quantity(
        "below 1 infant mortality, 1 no ageing, above 1 wear-out; ages run on through failures of other parts",
        1.0,
        above=True,
        high=20.0,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Nodes that fail more often than the others: a bad delivery, or lemons strewn over the floor."""

    nodes_frac: float = fraction("share of the nodes")
    factor: float = quantity("their hazard over that of the other nodes", above=True)
    together: bool = switch("they stand side by side (one delivery); false = strewn at random", False)
    within_rate: bool = switch(
        "the rate given is the fleet's mean and has them in it; false = they come on top of it", True
    )
    name: str = text("for tables", "batch")


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Planned windows; known before, so that jobs write a checkpoint first."""

    every_s: float = quantity("from the start of one round to the start of the next", above=True)
    lasts_s: float = quantity("time each node is away", above=True)
    nodes_at_once: int = count("nodes taken together, group after group; 0 = all", 0, low=0)


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Nodes that turn slow and stay in the job until found."""

    onsets_per_1000_node_days: float = quantity("how often a node turns slow", 0.0)
    slow_speed_frac: float = fraction("speed of a slow node; the job runs at its slowest node's", 0.8)
    detect: Delay = field(default_factory=Delay)
    """Until it is found and swapped."""
    repair: Delay = field(default_factory=Delay)
    """From then until it can be used again (its mean; matters to clusters of many jobs without spares)."""


@dataclass(frozen=True, slots=True)
class Spares:
    """Nodes kept for those that fail."""

    cold: int = count("powered down: they do not fail in waiting", 0, low=0)
    hot: int = count("running idle: they fail as all others do", 0, low=0)
    cold_swap_s: float = quantity(
        "from the decision until a cold spare has joined (boot, health check)", 600.0
    )
    hot_swap_s: float = quantity("from the decision until a hot spare has joined", 60.0)


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """How a job saves itself and comes back."""

    kind: str = choice(
        CHECKPOINT_KINDS, "none, blocking (the job waits for the write) or asynchronous", "blocking"
    )
    rule: str = choice(INTERVAL_RULES, "how the interval is found", "optimal")
    interval_s: float | None = quantity("work between two writes, with rule = fixed", None, above=True)
    memory_interval_s: float | None = quantity(
        "work between two snapshots held in other nodes' memory; none = no such tier", None, above=True
    )
    memory_node_losses: int = count(
        "nodes that may be lost at once with every snapshot still whole", 0, low=0
    )
    requeue_s: float = quantity("from having its nodes until processes run: scheduler, containers", 0.0)
    warm_up_s: float = quantity("from running processes until full speed, loading apart", 0.0)


@dataclass(frozen=True, slots=True)
class Reliability:
    """The [reliability] section."""

    node_failures_per_1000_node_days: Quantiles | None = quantiles(
        "interruptions of jobs by one node; published clusters differ sevenfold", None
    )
    rates: str = text("a published cluster whose rate and causes are taken where none are given here", "")
    job_failures_per_day: float = quantity(
        "failures of one job of its own making (software, storage, users), whatever its size", 0.0
    )
    causes: tuple[Cause, ...] = ()
    """None = one cause, ``node``, that is noticed and repaired at once."""
    batches: tuple[Batch, ...] = ()
    age_s: float = quantity("age of all parts at the start (matters where a cause ages)", 0.0)
    nodes_per_switch: int = count("nodes that one leaf switch carries", 16)
    nodes_per_rack: int = count("nodes of one rack", 4)
    maintenance: Maintenance | None = None
    stragglers: Stragglers | None = None
    spares: Spares = field(default_factory=Spares)
    repair_crews: int = count("nodes that can be mended at once, others wait; 0 = no bound", 0, low=0)
    checkpoints: Checkpointing = field(default_factory=Checkpointing)

    def node_failures_per_s(self, level: str = "mid") -> float:
        """Failures of one node, all causes together.

        Raises:
            ValueError: no rate is known (:func:`sim.spec.failure_rates.with_rates` fills it in), or no such level.
        """
        given = self.node_failures_per_1000_node_days
        if level not in LEVELS:
            raise ValueError(f"level {level!r}: expected one of {', '.join(LEVELS)}")
        if given is None:
            raise ValueError("node_failures_per_1000_node_days: expected one number, or low, mid, high")
        return float(getattr(given, level)) / 1000 / 86400


def reliability_faults(reliability: Reliability, known: Collection[str], where: str) -> Iterator[Fault]:
    """What cannot go together in the section; ``known`` are the names of published clusters."""
    rates, path = reliability.node_failures_per_1000_node_days, "reliability.node_failures_per_1000_node_days"
    if reliability.rates and reliability.rates not in known:
        near = difflib.get_close_matches(reliability.rates, known, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        wanted = f"expected one of {', '.join(known)}{hint}"
        yield Fault(where, "reliability.rates", reliability.rates, wanted)
    if rates is None and not reliability.rates:
        wanted = "is required (one number, or low, mid, high), or rates = the name of a published cluster"
        yield Fault(where, path, None, wanted)
    if reliability.causes and not sum(cause.share_frac for cause in reliability.causes) > 0:
        yield Fault(where, "reliability.causes", 0.0, "expected shares with a sum above 0")
    names = [cause.name for cause in reliability.causes]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Fault(where, "reliability.causes", name, "is there twice; expected each cause once")
    if sum(batch.nodes_frac for batch in reliability.batches) > 1:
        total = sum(batch.nodes_frac for batch in reliability.batches)
        yield Fault(where, "reliability.batches", total, "expected shares of the nodes that sum to at most 1")
    checkpoints = reliability.checkpoints
    if (checkpoints.rule == "fixed") != (checkpoints.interval_s is not None):
        wanted = "expected together with rule = 'fixed', and only then"
        yield Fault(where, "reliability.checkpoints.interval_s", checkpoints.interval_s, wanted)
    window = reliability.maintenance
    if window is not None and window.lasts_s >= window.every_s:
        wanted = f"expected less than every_s ({window.every_s:g})"
        yield Fault(where, "reliability.maintenance.lasts_s", window.lasts_s, wanted)
