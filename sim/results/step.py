"""The log of one training step: everything the tables are made from, and nothing that has to be computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.results.timeline import Timeline
from sim.spec.profile import Constant, Fit
from sim.spec.scenario import Scenario


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes on one device of one pipeline rank, by part."""

    rank: int
    parts_bytes: Mapping[str, float]
    capacity_bytes: float
    usable_bytes: float
    pool: str = ""
    """Where the device is, on a cluster of several pools."""

    @property
    def total_bytes(self) -> float:
        """Peak use."""
        return sum(self.parts_bytes.values())

    @property
    def fits(self) -> bool:
        """Whether the peak stays within what is usable."""
        return self.total_bytes <= self.usable_bytes

    @property
    def largest_part(self) -> str:
        """The part that takes most: the one to cut first."""
        return max(self.parts_bytes, key=lambda part: self.parts_bytes[part])


@dataclass(frozen=True, slots=True)
class Use:
    """How one kind of op was priced: total seconds a micro-batch, and the calibration behind it."""

    name: str
    seconds: float
    lower_bound_s: float
    leans_on: str
    fit: Fit | None
    part: str = ""
    """Where it runs on a cluster of several pools, or the task it belongs to where a step has several."""
    roof: str = ""
    """What bounds it on the datasheet: ``matrix units``, ``memory`` or ``messages``."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One rank of the timeline: a pipeline stage of one kind of copy, and where it runs."""

    pool: str
    devices: int
    """Devices that do the same."""
    layers: int
    samples: int
    """Of the global batch, those that pass through these devices."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """Expected seconds of a run of many steps, by phase."""

    steps: int
    tokens: int
    phases_s: Mapping[str, float]
    """They add up to the wall time; infinite where failures never let the run end."""
    checkpoint_bytes: float
    checkpoint_write_s: float
    protection_s: Mapping[str, float]
    """What each kind of protection adds to the phases (those that are asked for)."""

    @property
    def wall_s(self) -> float:
        """From the first step to the last."""
        return sum(self.phases_s.values())

    @property
    def goodput_frac(self) -> float:
        """Share of the wall time that is training work which lasts."""
        return self.phases_s["training"] / self.wall_s


@dataclass(frozen=True, slots=True)
class StepResult:
    """The log of a step with what is needed to read it."""

    scenario: Scenario
    timeline: Timeline
    parts_s: Mapping[str, float]
    """Seconds by cause; they add up to the step."""
    memory: tuple[MemoryUse, ...]
    data: int
    micro_batches: int
    uses: tuple[Use, ...]
    overheads: Mapping[str, Constant]
    """Overhead constants of the software stack; empty where none apply."""
    stages: tuple[Stage, ...] = ()
    """By rank of the timeline."""
    run: RunResult | None = None
    """The run of many steps, where the scenario asks for one."""

    @property
    def step_s(self) -> float:
        """Predicted time of one step."""
        return self.timeline.step_s

    @property
    def devices(self) -> int:
        """Accelerators that the job holds."""
        return self.scenario.cluster.devices
