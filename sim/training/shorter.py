"""The step time of a long step from two short ones.

Like timing two laps of a long race: once the pipeline is full, every further round of micro-batches takes as
long as the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sim.spec.checks import data_parallel, micro_batches
from sim.spec.copies import replicas
from sim.spec.parallelism import Plan
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.training.pricing import Prices
from sim.training.rounds import LONG as LONG_ROUNDS
from sim.training.rounds import PLAYED, round_of
from sim.training.step import play_step

ROUNDS = (1, 2)
"""Rounds of the two short steps (micro-batches over pipeline stages); twice as many under DualPipe."""
LONG = 6
"""Rounds from which a step counts as long."""


def is_long(scenario: Scenario) -> bool:
    """Whether two short steps are cheaper than the step, and tell as much (a loader's waits would not shrink along)."""
    training = scenario.training
    if training is None or training.loader is not None or training.speed_spread_frac or training.jitter_frac:
        return False
    unlike = len(replicas(scenario.cluster, training.plan)) > 1 or bool(training.tasks)
    if unlike:  # copies or tasks with numbers of micro-batches of their own would not shrink alike
        return False
    return micro_batches(scenario.cluster, training) >= LONG * _round(training.plan)


def _is_ragged(scenario: Scenario) -> bool:
    """Whether part of a round is left over, so that two short steps would tell a little less than the step itself."""
    training = scenario.training
    if training is None or training.plan.schedule != "1f1b":
        return False
    return micro_batches(scenario.cluster, training) % _round(training.plan) != 0


def _shorts(plan: Plan, count: int) -> list[int]:
    """Micro-batches of the two short steps; what is left over of a round is kept."""
    return [n * _round(plan) + count % _round(plan) for n in ROUNDS]


def _round(plan: Plan) -> int:
    return plan.pipeline * (2 if plan.schedule == "dualpipe" else 1)


def played_passes(scenario: Scenario) -> int:
    """Passes of a micro-batch through a chunk that :func:`quick_step_s` plays."""
    training = scenario.training
    if training is None:
        return 0
    plan, count = training.plan, micro_batches(scenario.cluster, training)
    if is_long(scenario):
        size = round_of(plan.pipeline, plan.virtual_stages, count)
        few = PLAYED * size + count % size if count >= LONG_ROUNDS * size else count
        count = few if _is_ragged(scenario) else sum(_shorts(plan, count))
    return count * plan.pipeline * plan.virtual_stages


def quick_step_s(scenario: Scenario, fits: Sequence[Fit], known: Prices | None = None) -> float:
    """Step time, s: simulated, or for a long step of whole rounds the line through two steps of one and two rounds.

    ``known``: see :func:`sim.training.step.play_step`.

    A schedule repeats itself every round of p micro-batches, so that a step is linear in its rounds once the pipeline
    has filled: exact to rounding (0.02 % DualPipe). Where some of a round is left over the rounds may be of another
    size; then those in the middle are left out (:func:`sim.training.rounds.play_rounds`).
    """
    training = scenario.training
    if training is None or not is_long(scenario) or _is_ragged(scenario):
        return play_step(scenario, fits, known, whole=False).timeline.step_s
    count = micro_batches(scenario.cluster, training)
    share = data_parallel(scenario.cluster, training) * training.plan.micro_batch
    shorts = _shorts(training.plan, count)
    first, second = (
        play_step(
            replace(scenario, training=replace(training, global_batch=m * share)), fits, known
        ).timeline.step_s
        for m in shorts
    )
    return first + (second - first) * (count - shorts[0]) / (shorts[1] - shorts[0])
