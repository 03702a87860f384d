"""The plans worth asking about: every legal way to cut one training job over one cluster.

Like all the ways to seat an orchestra on a given stage: the stage (devices), the score (layers, heads, experts) and the
conductor's batch leave only some, and the loader's own checks say which.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.spec.checks import DECODERS, MAX_TASKS, cross_faults
from sim.spec.faults import Fault
from sim.spec.model import Model
from sim.spec.parallelism import RECOMPUTE, Plan
from sim.spec.scenario import Scenario
from sim.spec.workload import SampleModel, Training

LEAST_MICRO_BATCH = 8
MICRO_BATCH_TOKENS = 32_768
"""Micro-batches tried are powers of two up to 8 samples and up to so many tokens (samples of models without tokens):
larger ones gain little, since kernels are as fast as they get, and fill memory (assumed)."""
MIN_CONTEXT_TOKENS = 1024
"""Tokens a context rank keeps at least: fewer than a few attention tiles (assumed)."""
VIRTUAL_STAGES = (1, 2, 3, 4, 6, 8)
"""Chunks a pipeline rank is tried with (assumed; Narayanan et al. 2021 stop gaining at 4 to 8)."""
ZERO_STAGES = (0, 1, 2, 3)
SCHEDULES = ("1f1b", "zb-h1")
"""Schedules of the closed form that are tried; GPipe takes as long as 1F1B and keeps more (Narayanan et al. 2019)."""

LEFT_OPEN: dict[str, Any] = {"shard_ranks": 0, "recompute_layers": None, "stages": (), "layers_per_stage": ()}
"""What a plan may say that holds for its own cut alone: a searched plan leaves it to the default."""

Ints = NDArray[np.int64]


class Skeleton(NamedTuple):
    """What decides whether a plan is legal; the rest of a plan is free."""

    tensor: int
    pipeline: int
    context: int
    expert: int
    micro_batch: int
    virtual_stages: int
    schedule: str
    sequence_parallel: bool

    def plan(self, base: Plan, **values: Any) -> Plan:
        """The plan that keeps whatever ``base`` says beside it."""
        made: Plan = replace(base, **self._asdict(), **values)
        return made


class Free(NamedTuple):
    """What a skeleton leaves free."""

    recompute: str
    zero_stage: int
    offload_optimizer: bool


@dataclass(frozen=True, slots=True)
class Space:
    """Legal plans: row i is ``skeletons[skeleton[i]]`` with ``frees[free[i]]``."""

    training: Training
    skeletons: tuple[Skeleton, ...]
    frees: tuple[Free, ...]
    skeleton: Ints
    free: Ints
    refused: Counter[str]
    """Why skeletons were not legal, with how many."""

    def plan(self, row: int) -> Plan:
        """The plan of one row."""
        free = self.frees[self.free[row]]
        skeleton = self.skeletons[int(self.skeleton[row])]
        return skeleton.plan(self.training.plan, **free._asdict())


def plan_space(scenario: Scenario) -> Space:
    """Every legal plan of the scenario's job on its cluster; what is not searched stays as the scenario has it.

    Raises:
        ValueError: the scenario has no training section.
    """
    training = scenario.training
    if training is None:
        raise ValueError("the scenario has no [training] section: there is no plan to tune")
    open_plan = replace(training.plan, **LEFT_OPEN)
    base = replace(open_plan, zero_stage=0, recompute="none", offload_optimizer=False)
    if base.parameter_server is not None or base.local_steps > 1:
        base = replace(base, overlap_parameters=False)
    refused: Counter[str] = Counter()
    legal: list[Skeleton] = []
    for cut in _cuts(scenario, training):
        tried = replace(training, auto_plan=False, plan=Skeleton(*cut[:4], 1, 1, "1f1b", cut[4]).plan(base))
        faults = cross_faults(scenario.cluster, tried, "")
        if faults:
            refused[reason(faults[0])] += 1
        else:
            legal += _skeletons(scenario, training, cut)
    frees = tuple(_frees(training))
    every = np.arange(len(legal) * len(frees))
    skeleton_of, free_of = np.divmod(every, max(len(frees), 1))
    keep = np.array(
        [[_goes(one, free, training.plan) for free in frees] for one in legal], dtype=bool
    ).reshape(-1)
    kept_training = replace(training, auto_plan=False, plan=open_plan)
    return Space(kept_training, tuple(legal), frees, skeleton_of[keep], free_of[keep], refused)


def reason(fault: Fault) -> str:
    """A fault without its numbers, so that equal reasons count together."""
    text = re.sub(r"\b\d[\d,]*\b", "n", fault.expected)
    return f"{fault.path.removeprefix('training.').removeprefix('plan.')}: {text}"


Cut = tuple[int, int, int, int, bool]
"""Tensor, pipeline, context and expert degree, and whether sequence parallel."""


def _cuts(scenario: Scenario, training: Training) -> Iterator[Cut]:
    """Ways to cut the model that divide the devices and the batch; all else is left to the checks."""
    devices = scenario.cluster.devices
    for tensor, context in _layer_cuts(scenario, training):
        for pipeline in _stages(devices // (tensor * context), training):
            data = devices // (tensor * context * pipeline)
            if training.global_batch % data:
                continue
            for expert in _expert_degrees(training, data * context * tensor):
                yield tensor, pipeline, context, expert, _scatters(training, tensor, context)


def _scatters(training: Training, tensor: int, context: int) -> bool:
    """Sequence parallel where it goes: it keeps less and sends as much; :mod:`.search` tries the best plans without."""
    return tensor > 1 and training.sequence % (tensor * context) == 0


def _skeletons(scenario: Scenario, training: Training, cut: Cut) -> Iterator[Skeleton]:
    """Micro-batches and schedules of one legal cut."""
    tensor, pipeline, context, expert, scattered = cut
    data = scenario.cluster.devices // (tensor * pipeline * context)
    for micro_batch in _micro_batches(training):
        if training.global_batch % (data * micro_batch) == 0:
            passes = training.global_batch // (data * micro_batch)
            for virtual, schedule in _chunks(pipeline, passes, training):
                if passes * pipeline * virtual <= MAX_TASKS:
                    yield Skeleton(
                        tensor, pipeline, context, expert, micro_batch, virtual, schedule, scattered
                    )


def _micro_batches(training: Training) -> Iterator[int]:
    most = max(LEAST_MICRO_BATCH, MICRO_BATCH_TOKENS // max(training.source_tokens, 1))
    return takewhile(lambda size: size <= most, (1 << power for power in count()))


def _layer_cuts(scenario: Scenario, training: Training) -> Iterator[tuple[int, int]]:
    """Tensor degrees inside the scale-up domain, with context degrees."""
    model, devices = training.model, scenario.cluster.devices
    system = scenario.cluster.pools[0].system
    if isinstance(model, SampleModel) or not model.heads:
        yield 1, 1
        return
    domain = max(system.scale_up_domain_size, system.gpus_per_node)
    most = training.source_tokens // MIN_CONTEXT_TOKENS if model.kind in DECODERS else 1
    for tensor in divisors(devices):
        if tensor > domain or model.heads % tensor:
            continue
        for context in divisors(devices // tensor):
            if context == 1 or (context <= most and training.source_tokens % (2 * context) == 0):
                yield tensor, context


def _stages(devices: int, training: Training) -> list[int]:
    model = training.model
    layers = model.layers if isinstance(model, Model) and model.heads and not model.decoder_layers else 1
    return [pipeline for pipeline in divisors(devices) if pipeline <= layers]


def _chunks(pipeline: int, passes: int, training: Training) -> Iterator[tuple[int, str]]:
    layers = getattr(training.model, "layers", 1)
    yield 1, "1f1b"
    if pipeline == 1:
        return
    yield from ((v, "1f1b") for v in VIRTUAL_STAGES[1:] if v * pipeline <= layers and passes >= pipeline)
    yield 1, "zb-h1"


def _expert_degrees(training: Training, ranks: int) -> list[int]:
    model, plan = training.model, training.plan
    if not isinstance(model, Model):
        return [1]
    if model.kind == "recommender":
        return [plan.expert]
    if not model.experts:
        return [1]
    return [expert for expert in divisors(model.experts) if expert <= ranks]


def _frees(training: Training) -> Iterator[Free]:
    plan = training.plan
    apart = plan.parameter_server is not None or plan.local_steps > 1
    stages = (0,) if apart or plan.compression.method not in ("none", "fp16") else ZERO_STAGES
    plain = isinstance(training.model, SampleModel)
    hosts = (
        (False,)
        if training.optimizer == "muon" or plan.parameter_server is not None or plain
        else (False, True)
    )
    for recompute in ("none",) if plain else RECOMPUTE:
        for stage in stages:
            for host in hosts:
                yield Free(recompute, stage, host)


def _goes(skeleton: Skeleton, free: Free, base: Plan) -> bool:
    """Whether a schedule that splits passes goes with how weights are gathered (see sim.spec.checks)."""
    return skeleton.schedule == "1f1b" or not (free.zero_stage == 3 or base.overlap_parameters)


def divisors(number: int) -> list[int]:
    """All divisors, smallest first."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
