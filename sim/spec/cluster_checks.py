"""Checks of a cluster of many jobs: can every job fit somewhere, are names told apart, do rates exist?"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sim.spec.checks import cross_faults
from sim.spec.failure_rates import rate_sets
from sim.spec.faults import Fault
from sim.spec.mix import Jobs, TrainingRun
from sim.spec.reliability import reliability_faults
from sim.spec.scenario import Cluster
from sim.spec.scheduling import SHARED_PLACEMENTS, Account, NetworkSharing, QuotaRule, Scheduling

RECIPES = ("mixes", "searches", "cycles", "services", "runs")


def cluster_faults(sections: Mapping[str, Any], where: str) -> Iterator[Fault]:
    """Faults of ``[jobs]`` and ``[reliability]``; a section that is itself faulty is None and not used."""
    reliability, jobs, cluster = (sections.get(name) for name in ("reliability", "jobs", "cluster"))
    if reliability is not None:
        yield from reliability_faults(reliability, rate_sets(), where)
    policy = sections.get("policy")
    if policy is not None and cluster is not None:
        yield from _network(policy.network, cluster, where)
        yield from _shared(policy, jobs, cluster, where)
    if policy is not None:
        yield from _quotas(policy, jobs, where)
    if jobs is not None:
        yield from _jobs(jobs, where)
        if cluster is not None and cluster.pools:
            for number, run in enumerate(jobs.runs):
                yield from _run(run, cluster, f"jobs.runs.{number}", where)


def _jobs(jobs: Jobs, where: str) -> Iterator[Fault]:
    seen: set[str] = set()
    for kind in RECIPES:
        for number, recipe in enumerate(getattr(jobs, kind)):
            if recipe.name in seen:
                wanted = "stands twice: jobs could not be told apart"
                yield Fault(where, f"jobs.{kind}.{number}.name", recipe.name, wanted)
            seen.add(recipe.name)
    if not seen and not jobs.trace:
        yield Fault(where, "jobs", None, f"is empty: expected trace, or one of {', '.join(RECIPES)}")


def _network(network: NetworkSharing, cluster: Cluster, where: str) -> Iterator[Fault]:
    """Uplinks to share, and each queue in one class."""
    tiers = cluster.fabric.tiers
    if network.sharing and not (len(tiers) > 1 and tiers[0].nodes):
        told = "needs uplinks: expected cluster.fabric.tiers with nodes, and a tier above that"
        yield Fault(where, "policy.network.sharing", True, told)
    seen: set[str] = set()
    for number, one in enumerate(network.classes):
        path = f"policy.network.classes.{number}"
        if one.cap_frac <= 0:
            yield Fault(
                where, f"{path}.cap_frac", one.cap_frac, "expected more than 0: nothing would ever end"
            )
        for queue in one.queues:
            if queue in seen:
                yield Fault(where, f"{path}.queues", queue, "stands in two classes")
            seen.add(queue)


def _quotas(policy: Scheduling, jobs: Jobs | None, where: str) -> Iterator[Fault]:
    """Trees that hold together, and a quota for each queue that is asked for."""
    rules = {rule.name: rule for rule in policy.quotas}
    if policy.name == "quota" and not rules and not policy.function:
        yield Fault(where, "policy.quotas", None, "is required by the policy quota: [[policy.quotas]]")
    yield from _tree(policy.quotas, "policy.quotas", "quota", where)
    yield from _tree(policy.accounts, "policy.accounts", "account", where)
    if policy.name != "quota" or not rules or jobs is None:
        return
    for kind in RECIPES:
        for number, recipe in enumerate(getattr(jobs, kind)):
            own = [q.name for q in recipe.queues] if kind == "mixes" else [recipe.queue]
            for queue in own:
                if queue not in rules:
                    known = ", ".join(rules)
                    told = f"has no quota: expected one of {known}"
                    yield Fault(where, f"jobs.{kind}.{number}.queue{'s' * (kind == 'mixes')}", queue, told)


def _tree(given: Sequence[QuotaRule | Account], path: str, what: str, where: str) -> Iterator[Fault]:
    """Names told apart, parents that exist, and no circle."""
    rules = {rule.name: rule for rule in given}
    for number, rule in enumerate(given):
        if rules[rule.name] is not rule:
            yield Fault(where, f"{path}.{number}.name", rule.name, "stands twice")
        if rule.parent and rule.parent not in rules:
            near = difflib.get_close_matches(rule.parent, rules, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            yield Fault(where, f"{path}.{number}.parent", rule.parent, f"is no {what} of this policy{hint}")
        above, steps = rule.parent, 0
        while above in rules and steps <= len(rules):
            above, steps = rules[above].parent, steps + 1
        if steps > len(rules):
            yield Fault(where, f"{path}.{number}.parent", rule.parent, "goes round in a circle")


def _shared(policy: Scheduling, jobs: Jobs | None, cluster: Cluster, where: str) -> Iterator[Fault]:
    """Where devices are shared a task sits on one node."""
    if policy.placement not in SHARED_PLACEMENTS:
        return
    most = max((pool.system.gpus_per_node for pool in cluster.pools), default=0)
    told = f"with placement {policy.placement} a task sits on one node: expected at most {most}"
    for number, mix in enumerate(jobs.mixes if jobs else ()):
        for place, size in enumerate(mix.sizes):
            if size.gpus > most:
                yield Fault(where, f"jobs.mixes.{number}.sizes.{place}.gpus", size.gpus, told)
    for number, run in enumerate(jobs.runs if jobs else ()):
        if run.nodes > 1:
            yield Fault(where, f"jobs.runs.{number}.nodes", run.nodes, told.replace(str(most), "1"))
    for number, one in enumerate(policy.sharing.pairs):
        if one.speed_frac <= 0:
            yield Fault(
                where, f"policy.sharing.pairs.{number}.speed_frac", one.speed_frac, "expected more than 0"
            )


def _run(run: TrainingRun, cluster: Cluster, path: str, where: str) -> Iterator[Fault]:
    """The run's plan on its own nodes of the first pool."""
    pool = cluster.pools[0]
    if run.nodes > pool.nodes:
        yield Fault(
            where, f"{path}.nodes", run.nodes, f"expected at most the {pool.nodes} nodes of the first pool"
        )
        return
    alone = replace(cluster, pools=(replace(pool, nodes=run.nodes),))
    for fault in cross_faults(alone, run.training, where):
        yield fault._replace(path=f"{path}.{fault.path}")
