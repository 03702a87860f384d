"""Why a step takes as long as it does, how sure that is, and what would change it.

Like a mechanic who hands the car back with a note: what would have to give for everything to fit, what is worth
changing, which part matters most. Every change is a whole scenario again: it passes the loader's checks, and its
memory and step time come from the same functions as the answer itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from sim.results.step import MemoryUse, StepResult
from sim.spec.checks import cross_faults, data_parallel, micro_batches
from sim.spec.overrides import value_text
from sim.spec.parallelism import RECOMPUTE, Plan
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.spec.workload import SampleModel, Training
from sim.training.inputs import INPUTS, better
from sim.training.interval import step_interval
from sim.training.layers import network
from sim.training.memory import memory_use
from sim.training.pricing import Prices
from sim.training.shorter import is_long, played_passes, quick_step_s
from sim.training.step import alike_ranks, predict_step

MIN_GAIN_FRAC = 0.01
"""A suggestion gains at least this share of the step."""
SUGGESTIONS = 3
MOST_TIMES = 2.0
"""Device time, over that of the cheapest change that fits, up to which a change is worth telling."""
WORK_LIMIT = 250_000
"""Work that explaining may cost, in simulated tasks (about two seconds): a count, not a clock, so that the same
scenario gives the same bytes everywhere."""
TASKS_AN_OP = 60
"""Pricing an op of a layer costs about as much as simulating so many tasks."""

_PLAN = "training.plan."
_NODES = "cluster.pools.0.nodes"


@dataclass(frozen=True, slots=True)
class Change:
    """One or a few values of a scenario, set anew."""

    values: Mapping[str, Any]
    """Key path -> value."""

    @property
    def text(self) -> str:
        """What to type to get it."""
        return " ".join(f"--set {path}={value_text(value)}" for path, value in self.values.items())

    @property
    def words(self) -> str:
        """The change for people."""
        return ", ".join(
            f"{path.rpartition('.')[2].replace('_', ' ')} {value_text(value).replace('true', 'on')}"
            for path, value in self.values.items()
        ).replace("false", "off")

    def plus(self, other: Change) -> Change:
        """Both changes; the other's values go first where both set one."""
        return Change({**self.values, **other.values})

    def apply(self, scenario: Scenario) -> Scenario | None:
        """The changed scenario; None where it would be refused."""
        training, pool = scenario.training, scenario.cluster.pools[0]
        if training is None:
            return None
        plan = {path.removeprefix(_PLAN): v for path, v in self.values.items() if path.startswith(_PLAN)}
        training = replace(training, plan=replace(training.plan, **plan))
        pool = replace(pool, nodes=self.values.get(_NODES, pool.nodes))
        cluster = replace(scenario.cluster, pools=(pool, *scenario.cluster.pools[1:]))
        if cross_faults(cluster, training, scenario.name):
            return None
        return replace(scenario, cluster=cluster, training=training)


def explain(result: StepResult, fits: Sequence[Fit], *, again: bool = True) -> dict[str, Any]:
    """What to print beside a step, ready for JSON.

    ``interval`` (80 % of the step time), ``fit_changes`` where the plan does not fit, else ``suggestions``, and
    ``sensitivities``; ``not_tried`` counts the changes that would have cost too much. ``again`` False runs no step
    again: no suggestions or sensitivities, and changes that fit are told without their step time.
    """
    work = Work(WORK_LIMIT if again else 0)
    answer: dict[str, Any] = {"interval": step_interval(result, fits)}
    fits_now = all(use.fits for use in result.memory)
    answer["fit_changes"] = [] if fits_now else fit_changes(result, fits, work)
    answer["sensitivities"] = sensitivities(result, fits, work) if again else []
    answer["suggestions"] = suggestions(result, fits, work) if fits_now and again else []
    answer["not_tried"] = work.refused if again else 0
    return answer


@dataclass(slots=True)
class Work:
    """A purse of work: what it cannot pay is counted and left out."""

    left: float
    refused: int = 0
    known: Prices = field(default_factory=dict)
    """Prices of kernels found on the way."""

    def pay(self, price: float) -> bool:
        """Take ``price`` if it is there."""
        if price > self.left:
            self.refused += 1
            return False
        self.left -= price
        return True


def scenario_memory(scenario: Scenario, fits: Sequence[Fit] = ()) -> tuple[MemoryUse, ...]:
    """Peak memory by pipeline rank without simulating the step; empty for a model known only by its FLOP.

    ``fits`` matter on several pools alone, where prices decide who gets what.
    """
    training = scenario.training
    if training is None or isinstance(training.model, SampleModel):
        return ()
    if len(scenario.cluster.pools) > 1:  # who gets what is only known when the step is priced
        return predict_step(scenario, fits).memory
    ranks = alike_ranks(training, data_parallel(scenario.cluster, training))
    capacity = scenario.cluster.pools[0].accelerator.device().memory_bytes
    count = micro_batches(scenario.cluster, training)
    return memory_use(network(training.model, training), training, count, ranks, capacity)


def fit_changes(result: StepResult, fits: Sequence[Fit], work: Work) -> list[dict[str, Any]]:
    """The smallest changes with which the plan fits: single ones, or pairs where no single one is enough.

    Of each kind of change the smallest that fits; those whose step was simulated first, cheapest in device time first.
    """
    ladders = list(_fit_ladders(result.scenario))
    found = [_first_that_fits(result.scenario, ladder, fits) for ladder in ladders]
    best = [entry for entry in found if entry is not None]
    if not best:
        pairs = [
            _first_that_fits(result.scenario, [a.plus(b) for a in one for b in other], fits)
            for one, other in combinations(ladders, 2)
        ]
        best = [entry for entry in pairs if entry is not None]
    rows = []
    for change, scenario, memory in best:
        worst = max(memory, key=lambda use: use.total_bytes)
        row = {
            "words": change.words,
            "set": change.text,
            "memory_bytes": worst.total_bytes,
            "usable_bytes": worst.usable_bytes,
            "devices": scenario.cluster.devices,
            "step_time_s": None,
        }
        if work.pay(_price(result, scenario)):
            row["step_time_s"] = quick_step_s(scenario, fits, work.known)
        rows.append(row)
    return _in_reason(sorted(rows, key=_device_time))


def _in_reason(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those that cost more than twice the device time of the cheapest: nobody would take them."""
    unknown, cheapest = _device_time(rows[0]) if rows else (True, 0.0)
    return [row for row in rows if unknown or _device_time(row)[1] <= MOST_TIMES * cheapest]


def _device_time(row: Mapping[str, Any]) -> tuple[bool, float]:
    seconds = row["step_time_s"]
    return seconds is None, 0.0 if seconds is None else seconds * row["devices"]


def _first_that_fits(
    scenario: Scenario, ladder: Sequence[Change], fits: Sequence[Fit]
) -> tuple[Change, Scenario, tuple[MemoryUse, ...]] | None:
    for change in ladder:
        changed = change.apply(scenario)
        if changed is None:
            continue
        memory = scenario_memory(changed, fits)
        if all(use.fits for use in memory):
            return change, changed, memory
    return None


def _fit_ladders(scenario: Scenario) -> Iterator[list[Change]]:
    """Changes that make a device emptier, by kind, smallest first."""
    training = scenario.training
    assert training is not None  # a StepResult exists only for a training section
    plan, experts = training.plan, getattr(training.model, "experts", 0)

    def more(name: str, largest: int) -> list[Change]:
        now = getattr(plan, name)
        return [Change({_PLAN + name: n}) for n in range(now + 1, largest + 1)]

    yield [] if plan.flash_attention else [Change({_PLAN + "flash_attention": True})]
    yield [] if plan.sequence_parallel else [Change({_PLAN + "sequence_parallel": True})]
    yield more("zero_stage", 3)
    yield [Change({_PLAN + "recompute": way}) for way in RECOMPUTE[RECOMPUTE.index(plan.recompute) + 1 :]]
    yield [Change({_PLAN + "micro_batch": n}) for n in _halves(plan.micro_batch)]
    yield more("tensor", scenario.cluster.pools[0].system.scale_up_domain_size)  # never across nodes
    yield more("pipeline", min(getattr(training.model, "layers", 1), 256))
    yield more("context", 64)
    yield more("expert", min(experts or 1, 256)) if plan.expert > 1 or experts else []
    yield [] if plan.offload_optimizer else [Change({_PLAN + "offload_optimizer": True})]
    yield [] if plan.offload_activations else [Change({_PLAN + "offload_activations": n}) for n in (0.5, 1.0)]
    nodes = scenario.cluster.pools[0].nodes
    yield [Change({_NODES: nodes * factor}) for factor in (2, 4, 8, 16)]


def _halves(value: int) -> list[int]:
    halves = []
    while value > 1:
        value //= 2
        halves.append(value)
    return halves


def suggestions(result: StepResult, fits: Sequence[Fit], work: Work) -> list[dict[str, Any]]:
    """Up to three single changes of the plan that fit and gain a hundredth of the step or more, largest gain first."""
    training = result.scenario.training
    assert training is not None  # a StepResult exists only for a training section
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for kind, change in _plan_changes(training):
        changed = change.apply(result.scenario)
        if changed is None or not all(use.fits for use in scenario_memory(changed, fits)):
            continue
        if not work.pay(_price(result, changed)):
            continue
        step_s = quick_step_s(changed, fits, work.known)
        gain = 1 - step_s / result.step_s
        if gain < MIN_GAIN_FRAC or (kind in best and best[kind][0] >= gain):
            continue
        row = {"words": change.words, "set": change.text, "step_time_s": step_s, "gain_frac": gain}
        best[kind] = (gain, row)
    ranked = sorted(best.values(), key=lambda entry: -entry[0])
    return [row for _, row in ranked[:SUGGESTIONS]]


def _plan_changes(training: Training) -> Iterator[tuple[str, Change]]:
    """Single changes of a plan that often pay, likeliest first; those that cannot be are sifted out later."""
    plan = training.plan

    def differing(kind: str, **values: Any) -> Iterator[tuple[str, Change]]:
        if any(getattr(plan, name) != value for name, value in values.items()):
            yield kind, Change({_PLAN + name: value for name, value in values.items()})

    for way in RECOMPUTE[: RECOMPUTE.index(plan.recompute)]:
        yield from differing("recompute", recompute=way)
    if not isinstance(training.model, SampleModel):
        yield from differing("attention", flash_attention=True)
    if plan.tensor > 1:
        yield from differing("sequence", sequence_parallel=True)
    yield from differing("gradients", overlap_gradients=True)
    yield from differing("micro-batch", micro_batch=plan.micro_batch * 2)
    yield from _pipeline_changes(plan, getattr(training.model, "layers", 1), differing)
    for stage in (1, 0, 2):
        yield from differing("zero", zero_stage=stage)
    if plan.zero_stage in (1, 2):
        yield from differing("parameters", overlap_parameters=True)
    if plan.zero_stage == 3:
        yield from differing("weights", overlap_weights=True)
    if plan.overlap_gradients and plan.zero_stage < 3:
        yield from differing("buckets", gradient_buckets=8)
    if plan.micro_batch > 1:
        yield from differing("micro-batch", micro_batch=plan.micro_batch // 2)
    if plan.context > 1:
        for exchange in ("ring", "all-to-all"):
            yield from differing("exchange", context_exchange=exchange)
    if plan.offload_optimizer:
        yield from differing("offload", offload_optimizer=False)
    if plan.expert > 1:
        for ranks in (plan.expert // 2, plan.expert // 4, plan.expert * 2):
            yield from differing("experts", expert=max(ranks, 1))
        yield from differing("dispatch", dispatch_once=True)
        yield from differing("beside", overlap_experts=True)


def _pipeline_changes(plan: Plan, layers: int, differing: Any) -> Iterator[tuple[str, Change]]:
    """Stages, virtual stages, schedules, and tensor ranks traded for stages."""
    p, t, v = plan.pipeline, plan.tensor, plan.virtual_stages
    if p > 1:
        yield from differing("send", overlap_pipeline=True)
        chunks = [n for n in range(1, 65) if layers % (p * n) == 0]
        for n in [n for n in chunks if n > v][:2] + [n for n in chunks if n < v][-1:]:
            yield from differing("chunks", virtual_stages=n, schedule="1f1b")
        yield from differing("schedule", schedule="zb-h1", virtual_stages=1)
    if p > 1 and p % 2 == 0:
        fewer = {"pipeline": p // 2, "virtual_stages": v * 2 if v > 1 and p > 2 else 1}
        yield from differing("trade", **fewer)
        yield from differing("trade", **fewer, tensor=t * 2)
    if t > 1 and t % 2 == 0:
        alone = {"sequence_parallel": False} if t == 2 and plan.sequence_parallel else {}
        yield from differing("trade", tensor=t // 2, **alone)
        fitting = v if layers % (2 * p * v) == 0 else max(v // 2, 1)
        yield from differing("trade", tensor=t // 2, pipeline=p * 2, virtual_stages=fitting, **alone)


def sensitivities(result: StepResult, fits: Sequence[Fit], work: Work) -> list[dict[str, Any]]:
    """How much shorter the step gets where one input is 10 % better, largest first; empty where that costs too much."""
    changes = {name: changed for name in INPUTS if (changed := better(name, result, fits)) is not None}
    long = is_long(result.scenario)
    if not work.pay((len(changes) + long) * _price(result, result.scenario)):
        return []
    now_s = quick_step_s(result.scenario, fits, work.known) if long else result.step_s
    rows = [
        {"input": name, "words": INPUTS[name], "change_frac": quick_step_s(*changed, work.known) / now_s - 1}
        for name, changed in changes.items()
    ]
    return sorted(rows, key=lambda row: row["change_frac"])


def _price(result: StepResult, scenario: Scenario) -> float:
    """Work of simulating ``scenario``, in tasks, judged by the step that was simulated."""
    own = result.scenario.training
    assert own is not None  # a StepResult exists only for a training section
    before = result.micro_batches * own.plan.pipeline * own.plan.virtual_stages
    tasks = len(result.timeline.tasks) * played_passes(scenario) / before
    return tasks + TASKS_AN_OP * len(result.uses) * (2 if is_long(scenario) else 1)
