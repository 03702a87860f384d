"""From the sections of a scenario to what the engine plays: nodes, policy, rules, jobs and weather.

The stage manager: puts props, cast and script in place, and leaves before the curtain.
"""

from __future__ import annotations

import heapq
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from sim.cluster.contention import contention_of, full_bandwidth, network_frac
from sim.cluster.nodes import Ground, Nodes, Pool, WholePlacement
from sim.cluster.placement.apart import Apart
from sim.cluster.placement.shared import SharedNodes
from sim.cluster.placement.whole import Anywhere, Packed, Spread, Tiers
from sim.cluster.policies.elastic import ScaledRate
from sim.cluster.policies.menu import policy_named
from sim.cluster.policy import FunctionPolicy, Policy
from sim.cluster.rules import Rules
from sim.cluster.sharing import portions, shared_ground, shares_devices
from sim.cluster.weather import Weather, hazards, rated, recoveries
from sim.mixes.generate import generate
from sim.results.step import StepResult
from sim.spec.faults import Fault, ScenarioError
from sim.spec.job import Job
from sim.spec.mix import TrainingRun
from sim.spec.profile import Fit
from sim.spec.scenario import Cluster, Scenario
from sim.spec.scheduling import Scheduling
from sim.statistics.streams import Streams
from sim.training.step import predict_step


@dataclass(frozen=True, slots=True)
class Stage:
    """All that does not change from replication to replication."""

    scenario: Scenario
    trace: tuple[Job, ...]
    step_s: Mapping[str, float]
    """Seconds of one training step by training run."""
    network: Mapping[str, float] = field(default_factory=dict)
    """Share of that step that messages between nodes take, by training run."""


def stage(scenario: Scenario, trace: Sequence[Job] = (), fits: Sequence[Fit] = ()) -> Stage:
    """Prepare ``scenario``; ``trace`` are the jobs of its ``jobs.trace``. Its span is known from here on."""
    scenario = replace(scenario, study=replace(scenario.study, span_s=span_s(scenario, trace)))
    runs = scenario.jobs.runs if scenario.jobs else ()
    steps = {run.name: step_of(scenario, run, fits) for run in runs}
    size = scenario.cluster.pools[0].system.gpus_per_node
    return Stage(
        scenario,
        tuple(trace),
        {name: step.step_s for name, step in steps.items()},
        {name: network_frac(step, size) for name, step in steps.items()},
    )


DEFAULT_SPAN_S = 30 * 86400.0
"""What is watched of jobs that come without end: a month (a choice)."""


def span_s(scenario: Scenario, trace: Sequence[Job]) -> float:
    """Seconds that are simulated: as asked for; else 30 days, or as long as the trace lasts where it stands alone.

    A trace lasts until its last submission, and until nine tenths of its jobs could be over had nobody waited, so that
    a burst has time to run and one long job does not stretch it.
    """
    asked = scenario.jobs
    if scenario.study.span_s:
        return scenario.study.span_s
    if not trace or (asked and any((asked.mixes, asked.searches, asked.cycles, asked.runs))):
        return DEFAULT_SPAN_S
    ends = sorted(job.submit_s + min(job.duration_s, job.limit_s or math.inf) for job in trace)
    return max(max(job.submit_s for job in trace), ends[int(0.9 * (len(ends) - 1))]) or DEFAULT_SPAN_S


def step_of(scenario: Scenario, run: TrainingRun, fits: Sequence[Fit]) -> StepResult:
    """One step of a training run alone on its nodes of the first pool; at full bandwidth where uplinks are shared, for
    then the run itself finds out what they leave it."""
    pool = scenario.cluster.pools[0]
    cluster = replace(scenario.cluster, pools=(replace(pool, nodes=run.nodes),))
    if scenario.policy.network.sharing:
        cluster = full_bandwidth(cluster)
    alone = replace(scenario, cluster=cluster, training=run.training, jobs=None)
    return predict_step(alone, fits)


def ground(scenario: Scenario) -> Ground:
    """The nodes, with jobs kept apart where the policy says so."""
    policy = scenario.policy
    if policy.apart == "none":
        return _ground(scenario)
    nodes = sum(pool.nodes for pool in scenario.cluster.pools)
    return Apart(_ground(scenario), nodes, attrgetter(policy.apart), policy.apart_nodes)


def _ground(scenario: Scenario) -> Nodes | SharedNodes:
    """A pool's speed is its devices' bf16 peak over the first pool's (assumed for jobs known by time)."""
    cluster, policy = scenario.cluster, scenario.policy
    first = _peak(cluster, 0)
    if shares_devices(policy):
        speeds = [_peak(cluster, number) / first for number in range(len(cluster.pools))]
        return shared_ground(cluster, policy, scenario.jobs, speeds)
    pools = [
        Pool(pool.nodes, pool.system.gpus_per_node, pool.accelerator.key, _peak(cluster, number) / first)
        for number, pool in enumerate(cluster.pools)
    ]
    groups = tuple(tier.nodes for tier in cluster.fabric.tiers if tier.nodes)
    rule: dict[str, WholePlacement] = {
        "packed": Packed(),
        "spread": Spread(),
        "anywhere": Anywhere(),
        "tiers": Tiers(groups or (32,)),
    }
    return Nodes(pools, rule[policy.placement])


def policy_of(scheduling: Scheduling) -> Policy:
    """The policy by name, or the user's own function.

    Raises:
        ScenarioError: the function cannot be loaded.
    """
    if scheduling.function:
        return FunctionPolicy(user_function(scheduling.function))
    return policy_named(scheduling)


def user_function(where: str) -> Callable[..., Any]:
    """The function of ``file.py:function``.

    Raises:
        ScenarioError: no such file or function, or the file does not run.
    """
    path, _, name = where.rpartition(":")
    spec = importlib.util.spec_from_file_location("rackcast_user_policy", path) if path else None
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ScenarioError(
            [Fault("scenario", "policy.function", where, "expected file.py:function of a file")]
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, name)  # type: ignore[no-any-return]
    except Exception as fault:
        told = f"cannot be loaded: {type(fault).__name__}: {fault}"
        raise ScenarioError([Fault("scenario", "policy.function", where, told)]) from None


def jobs(staged: Stage, streams: Streams) -> Iterator[Job]:
    """Every job of one replication, sorted by time: the trace as it is, recipes drawn anew."""
    scenario = staged.scenario
    asked = scenario.jobs
    if asked is None:
        return iter(())
    seed = int(streams.generator("jobs").integers(2**31))
    drawn = generate(replace(asked, runs=()), scenario.study.span_s, seed)
    runs = sorted(_runs(staged), key=lambda job: job.submit_s)
    merged = heapq.merge(iter(staged.trace), drawn, iter(runs), key=lambda job: job.submit_s)
    return portions(merged, scenario.policy)


def _runs(staged: Stage) -> Iterator[Job]:
    scenario = staged.scenario
    for run in scenario.jobs.runs if scenario.jobs else ():
        at_s, number = run.submit_s, 0
        while at_s < scenario.study.span_s:
            yield Job(
                f"{run.name}-{number}" if run.every_s else run.name,
                at_s,
                run.nodes * scenario.cluster.pools[0].system.gpus_per_node,
                run.steps * staged.step_s[run.name],
                user=run.user,
                queue=run.queue,
                priority=run.priority,
                kind="training",
                network_frac=staged.network.get(run.name, 0.0),
            )
            if not run.every_s:
                break
            at_s, number = at_s + run.every_s, number + 1


def weather(scenario: Scenario, streams: Streams) -> Weather | None:
    """What befalls the nodes; None without [reliability]."""
    section = rated(scenario, streams)
    nodes = sum(pool.nodes for pool in scenario.cluster.pools)
    return None if section is None else Weather(section, nodes, streams)


def rules_of(staged: Stage, sky: Weather | None) -> Rules:
    """Rules of the house, with what jobs save and how they fail by themselves."""
    scenario = staged.scenario
    policy = scenario.policy

    def overhead_s(job: Job) -> float:
        return policy.preemption_overhead_s if job.preemptible else 0.0

    house = Rules(
        preemption_overhead_s=overhead_s,
        kill_at_limit=policy.kill_at_limit,
        contention=contention_of(scenario),
        resize_overhead_s=overhead_s,
        rate=ScaledRate(policy.scaling_exponent),
    )
    if sky is None:
        return house
    size = scenario.cluster.pools[0].system.gpus_per_node
    return replace(
        house,
        recovery=recoveries(scenario),
        hazard=hazards(sky.section, size, sky.streams),
        survives=sky.survives,
    )


def _peak(cluster: Cluster, number: int) -> float:
    rates = cluster.pools[number].accelerator.flop_per_s
    return rates.get("bf16") or rates.get("fp16") or rates.get("fp32") or math.nan
