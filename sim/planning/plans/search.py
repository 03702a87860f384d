"""What a search for a plan asks of the plans of one cluster and one batch, whatever its devices are.

Like the rules of a talent search: how many may come on stage, in which dress, and which of two alike goes home.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.planning.plans.evaluate import Evaluated
from sim.spec.parallelism import Plan
from sim.spec.profile import Fit
from sim.spec.scenario import Scenario
from sim.training.shorter import quick_step_s

OBJECTIVES = ("step_time", "tokens_per_s_per_device", "memory")

Floats = NDArray[np.float64]


class NoPlanError(ValueError):
    """The scenario has no plan to search: no training, or a model that is not cut."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan on one cluster with one batch."""

    scenario: Scenario
    """With the plan in it."""
    closed_s: float | None
    """Closed form; None for a schedule that has none."""
    memory_bytes: float
    usable_bytes: float
    asked: Scenario
    """As the search was asked: with its own plan, batch and nodes."""
    played_s: float | None = None
    """Step time on the engine, where it had to be played to know who holds what."""

    @property
    def plan(self) -> Plan:
        """The plan itself."""
        assert self.scenario.training is not None  # made from a training scenario
        return self.scenario.training.plan


@dataclass(frozen=True, slots=True)
class Search(ABC):
    """The plans of one cluster size and batch, evaluated; a class for each kind of cluster."""

    scenario: Scenario
    asked: Scenario
    """With the batch and the nodes that it came with."""
    found: Evaluated

    def score(self, objective: str, seconds: Floats) -> Floats:
        """What is made small: seconds of a sample, device-seconds of a sample, or bytes (then seconds)."""
        training = self.scenario.training
        assert training is not None  # made from a training scenario
        each = seconds / training.global_batch
        if objective == "tokens_per_s_per_device":
            return np.asarray(each * self.scenario.cluster.devices)
        if objective == "memory":
            return np.asarray(
                self.found.memory_bytes + np.where(np.isfinite(each), each / (1 + each), np.inf)
            )
        return np.asarray(each)

    def candidate(self, row: int) -> Candidate:
        """One row as a whole scenario."""
        return Candidate(
            with_plan(self.scenario, self.found.space.plan(row)),
            float(self.found.step_s[row]),
            float(self.found.memory_bytes[row]),
            self.found.usable_bytes,
            self.asked,
        )

    @property
    @abstractmethod
    def least_played(self) -> int:
        """Plans that are played at least, however far apart their closed forms are."""

    @property
    @abstractmethod
    def knows_misses(self) -> bool:
        """Whether the closed form is sure enough to tell which plans nearly fit, and on how many nodes one would."""

    @abstractmethod
    def forms(self, row: int, fits: Sequence[Fit]) -> list[Candidate]:
        """One row in every way that the devices can hold it; only ways that are legal and fit are told."""

    @abstractmethod
    def alike(self, row: int) -> Hashable:
        """What rows have in common of which one need be played."""

    @abstractmethod
    def passes(self, forms: Sequence[Candidate]) -> int:
        """Passes of micro-batches that playing takes, where these are to be rationed; else 0."""

    @abstractmethod
    def variants(self, rows: Sequence[int], fits: Sequence[Fit]) -> list[Candidate]:
        """Plans beside those at ``rows`` that the closed form did not look at and that may be better."""


def with_plan(scenario: Scenario, plan: Plan) -> Scenario:
    """The scenario with another plan; what was measured with its own plan is left out."""
    assert scenario.training is not None  # callers have a training scenario
    return replace(scenario, training=replace(scenario.training, plan=plan, auto_plan=False), published=())


def seconds_of(one: Candidate, fits: Sequence[Fit]) -> float:
    """Step time of a candidate on the engine, s."""
    return quick_step_s(one.scenario, fits) if one.played_s is None else one.played_s


def score_of(objective: str, one: Candidate, seconds: float | None) -> tuple[float, float] | None:
    """The objective of one plan that took ``seconds``; smaller is better."""
    if seconds is None:
        return None
    assert one.scenario.training is not None  # made from a training scenario
    each = seconds / one.scenario.training.global_batch
    if objective == "memory":
        return one.memory_bytes, each
    return each * (one.scenario.cluster.devices if objective == "tokens_per_s_per_device" else 1), 0.0


def known(score: tuple[float, float] | None) -> tuple[float, float]:
    """A score to sort by: last where none is known."""
    return (float("inf"), 0.0) if score is None else score
