"""rackcast's library: load a scenario, run it, read the answer.

>>> import sim
>>> answer = sim.run(sim.load("scenarios/article-eight-devices.toml"))
>>> round(answer.step_s, 6)
8.0

The functions import what they need when they are called, so that a part (``sim.cost``, ``sim.units``) can be used
without the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.cluster.study import ClusterStudy
    from sim.planning.capacity.plan import Plan
    from sim.results.step import StepResult
    from sim.spec.scenario import Scenario
    from sim.statistics.replications import Told

__all__ = ["load", "plan", "run", "watch"]


def load(path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """Read and check a scenario file; ``overrides`` are ``"path=value"`` texts.

    Raises:
        sim.spec.faults.ScenarioError: every fault in the file.
    """
    from sim.spec.loader import load as load_file

    return load_file(path, overrides)


def run(scenario: Scenario, *, whole: bool = True) -> StepResult:
    """Simulate one training step; where its plan is left open (``plan = "auto"``), with the best one found.

    ``whole`` False leaves out of the timeline what repeats itself: see :func:`sim.training.step.predict_step`.

    Raises:
        sim.spec.profile.ProfileError: the profile it names cannot be used.
        sim.planning.tune.NoPlanError: the plan is left open and there is none to be found.
    """
    from sim.spec.profiles import fits_for
    from sim.training.step import predict_step

    fits = fits_for(scenario.profile)
    if scenario.training is not None and scenario.training.auto_plan:
        from sim.planning.tune import best_plan

        scenario = best_plan(scenario, fits)
    return predict_step(scenario, fits, whole=whole)


def watch(
    scenario: Scenario, folder: str | Path = ".", workers: int = 1, told: Told | None = None
) -> ClusterStudy:
    """Simulate the scenario's cluster of many jobs.

    Args:
        folder: where its ``jobs.trace`` is looked for.
        workers: processes; the answer is the same for any number.
        told: hears how many replications are done, and how many there are at most.

    Raises:
        sim.spec.faults.ScenarioError: the trace has faults.
        sim.cluster.policy.PolicyError: a policy of the user's breaks the rules.
    """
    from sim.cluster.study import study
    from sim.importers.job_table import read_jobs
    from sim.spec.profiles import fits_for

    trace = read_jobs(Path(folder) / scenario.jobs.trace) if scenario.jobs and scenario.jobs.trace else ()
    fits = fits_for(scenario.profile) if scenario.jobs and scenario.jobs.runs else ()
    return study(scenario, trace, fits, workers, told)


def plan(
    scenario: Scenario,
    worlds: int = 400,
    folder: str | Path = ".",
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Plan, dict[str, Any]]:
    """Choose among the scenario's supplies for its demand: the plan, and the document that every face shows.

    ``folder``: where a programme's ``history`` is looked for; ``tell`` hears what is being done.

    Raises:
        ValueError: the scenario has no demand or no supply.
        sim.spec.faults.ScenarioError: a history has faults.
    """
    from sim.planning.capacity.document import planned
    from sim.planning.capacity.history import with_histories

    return planned(with_histories(scenario, Path(folder)), worlds, tell)
