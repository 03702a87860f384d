"""From a scenario to the document that a face shows: the one counter where the app asks its questions.

The app's pages know figures and words; what is simulated, fitted or searched is asked for here, so that they hold no
physics and no prices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sim.results.timeline import Timeline
from sim.spec.faults import Fault, ScenarioError
from sim.spec.scenario import Scenario

Document = dict[str, Any]
Stages = Iterator[tuple[float, Document]]
"""Share of the work done and the answer so far; the last has share 1."""

WORLDS = 400
"""Draws of a plan; the command line's default."""
FIRST_REPLICATIONS = 2


def step(scenario: Scenario) -> Document:
    """One training step: its document, with what makes it fit where it does not.

    What repeats itself within a step is simulated once (:func:`sim.run`, ``whole`` False).

    Raises:
        ScenarioError: it cannot be simulated; the profile or the plan it names cannot be used.
    """
    from sim import run
    from sim.results.step_tables import step_document
    from sim.spec.profiles import fits_for
    from sim.training.explain import explain

    with Refusals(scenario):
        result = run(scenario, whole=False)
        told = explain(result, fits_for(scenario.profile), again=False)
    return step_document(result) | told


def timeline(scenario: Scenario) -> Timeline:
    """Every task of a step.

    Raises:
        ScenarioError: see :func:`step`.
    """
    from sim import run

    with Refusals(scenario):
        return run(scenario).timeline


def reasons(scenario: Scenario) -> Document:
    """What would change a step's answer: a dozen more simulations."""
    from sim import run
    from sim.spec.profiles import fits_for
    from sim.training.explain import explain

    with Refusals(scenario):
        return explain(run(scenario), fits_for(scenario.profile))


def side_by_side(scenarios: Sequence[Scenario]) -> Document:
    """Steps against the first, with paired intervals; see :func:`sim.planning.compare.compare`."""
    from sim import run
    from sim.planning.compare import compare
    from sim.spec.profiles import fits_for
    from sim.training.interval import step_interval

    results = []
    for one in scenarios:
        with Refusals(one):
            results.append(run(one, whole=False))
    return compare(results, [step_interval(one, fits_for(one.scenario.profile)) for one in results])


def cluster(scenario: Scenario, folder: str = ".") -> Stages:
    """A cluster of many jobs: first from few replications, then from as many as its study asks for.

    Raises:
        ScenarioError: the trace, the policy or the profile cannot be used.
    """
    from sim import watch
    from sim.cluster.tables import cluster_document

    asked = scenario.study
    few = replace(asked, least=FIRST_REPLICATIONS, most=FIRST_REPLICATIONS)
    with Refusals(scenario):
        if asked.most > FIRST_REPLICATIONS:
            told = FIRST_REPLICATIONS / (FIRST_REPLICATIONS + asked.most)
            yield told, cluster_document(watch(replace(scenario, study=few), folder))
        yield 1.0, cluster_document(watch(scenario, folder))


def clusters_side_by_side(scenarios: Sequence[Scenario], folder: str = ".") -> Stages:
    """Clusters against the first under the same jobs and faults: from few replications, then from as many as asked.

    Raises:
        ScenarioError: see :func:`cluster`.
    """
    from sim import watch
    from sim.planning.compare_clusters import compare_clusters

    few = [
        replace(one, study=replace(one.study, least=FIRST_REPLICATIONS, most=FIRST_REPLICATIONS))
        for one in scenarios
    ]
    asked = sum(one.study.most for one in scenarios)
    for share, round_ in (
        (FIRST_REPLICATIONS * len(few) / (FIRST_REPLICATIONS * len(few) + asked), few),
        (1.0, scenarios),
    ):
        studies = []
        for one in round_:
            with Refusals(one):
                studies.append(watch(one, folder))
        yield share, compare_clusters(studies)


def plans_side_by_side(scenarios: Sequence[Scenario], folder: str = ".") -> Stages:
    """Capacity plans against the first, in one stage."""
    from pathlib import Path

    from sim.planning.compare_plans import compare_plans

    with Refusals(scenarios[0]):
        yield 1.0, compare_plans(scenarios, [Path(folder)] * len(scenarios))


def plan(scenario: Scenario, worlds: int = WORLDS) -> Stages:
    """A choice among supplies, in one stage: most of its time goes into playing the best few, whatever the worlds."""
    from sim import plan as make

    yield 1.0, make(scenario, worlds)[1]


def search(scenario: Scenario, top: int = 10) -> Stages:
    """The parallel plans of a training job: the best, the front, and the best time of each tensor x pipeline degree.

    ``heat`` has a row for each pair of degrees: closed-form seconds of its best plan that fits (None where none does)
    and how many plans fit.

    Raises:
        ScenarioError: there is no plan to search.
    """
    import numpy as np

    from sim.planning.plans.rank import searches
    from sim.planning.tune import tune
    from sim.spec.profiles import fits_for

    with Refusals(scenario):
        fits = fits_for(scenario.profile)
        (found,) = searches(scenario, fits)
    space, fit, heat = found.found.space, found.found.fits, {}
    seconds = np.where(fit, found.found.step_s, math.inf)
    for number, cut in enumerate(space.skeletons):
        mine = space.skeleton == number
        best, count = heat.get((cut.tensor, cut.pipeline), (math.inf, 0))
        heat[cut.tensor, cut.pipeline] = (
            min(best, float(seconds[mine].min(initial=math.inf))),
            count + int(fit[mine].sum()),
        )
    rows = [
        {"tensor": tensor, "pipeline": pipeline, "step_time_s": None if math.isinf(best) else best, "fitting": n}
        for (tensor, pipeline), (best, n) in sorted(heat.items())
    ]  # fmt: skip
    yield 0.5, {"scenario": scenario.name, "heat": rows}
    with Refusals(scenario):
        yield 1.0, {"scenario": scenario.name, "heat": rows} | tune(scenario, fits, top=top)


class Refusals:
    """Every way in which an answer can be refused, as a ScenarioError with the scenario's name."""

    def __init__(self, scenario: Scenario) -> None:
        self._where = scenario.name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> bool:
        from sim.cluster.engine import TraceError
        from sim.cluster.policy import PolicyError
        from sim.planning.plans.search import NoPlanError
        from sim.spec.profile import ProfileError

        if isinstance(fault, (ProfileError, NoPlanError, TraceError, PolicyError)):
            raise ScenarioError([Fault(self._where, "", None, str(fault))]) from None
        return False


def catalogue() -> dict[str, list[Document]]:
    """Every accelerator, system and model of the catalogue, each constant with value (SI; ``words`` for people),
    unit, kind and source."""
    from app.cli.catalog import KINDS, entry_document, shown
    from sim.spec.catalog import load_catalog

    known = load_catalog()
    documents = {part: [entry_document(noun) for noun in getattr(known, part).values()] for part in KINDS}
    for document in chain.from_iterable(documents.values()):
        for field, row in document["constants"].items():
            row["words"] = shown(field, row["value"])
    return documents


def assumptions(part: str) -> list[Document]:
    """Prices or failure rates of the catalogue, a row a number: entry, name, constant, value, unit, kind, source."""
    import tomllib
    from importlib.resources import files

    name = {"prices": "prices", "failure rates": "failure_rates"}[part]
    tables = tomllib.loads((files("scenarios") / f"catalog/{name}.toml").read_text(encoding="utf-8"))
    rows = []
    for group, entries in tables.items():
        for key, entry in entries.items():
            told = {
                "kind": str(entry.get("kind") or entry.get("status") or "assumed"),
                "source": " ".join(str(entry[word]) for word in ("source", "date", "note") if entry.get(word))
                or f"assumed: catalog/{name}.toml",
            }
            rows += [
                {
                    "entry": key,
                    "name": str(entry.get("name", group)),
                    "constant": field,
                    "value": _written(value),
                }
                | told
                for field, value in entry.items()
                if field not in ("kind", "status", "source", "date", "note", "name")
            ]
    return rows


def _written(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)
