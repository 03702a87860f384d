"""One stream of jobs from any number of recipes, in order of submission, made as it is read.

Every recipe draws from a stream of its own, named by the seed and its name: a recipe added, taken away or changed
leaves the jobs of the others as they were.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator

import numpy as np

from sim.mixes.draw import jobs_of
from sim.mixes.search import trials_of
from sim.mixes.steady import replicas_of, runs_of
from sim.spec.job import Job
from sim.spec.mix import Cycle, Jobs, Mix, Search, Service

Recipe = Mix | Search | Cycle | Service


def generate(recipe: Recipe | Jobs, span_s: float, seed: int = 0) -> Iterator[Job]:
    """Jobs submitted in ``[0, span_s)``, sorted by time, lazily; equal arguments give equal jobs.

    ``Jobs.trace`` is not read here: a table of jobs is a file (``sim.importers.job_table.read_jobs``).

    Raises:
        ValueError: a negative span, or two recipes of one name (their jobs could not be told apart).
    """
    if not span_s >= 0:
        raise ValueError(f"span_s = {span_s!r}: expected at least 0")
    recipes: tuple[Recipe, ...] = (
        (*recipe.mixes, *recipe.searches, *recipe.cycles, *recipe.services)
        if isinstance(recipe, Jobs)
        else (recipe,)
    )
    names = [one.name for one in recipes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two recipes are called {twice[0]!r}")
    return heapq.merge(*(_stream(one, span_s, seed) for one in recipes), key=lambda job: job.submit_s)


def _stream(recipe: Recipe, span_s: float, seed: int) -> Iterator[Job]:
    rng = np.random.default_rng([seed, zlib.crc32(recipe.name.encode())])
    if isinstance(recipe, Mix):
        return jobs_of(recipe, span_s, rng)
    if isinstance(recipe, Search):
        return trials_of(recipe, span_s, rng)
    if isinstance(recipe, Cycle):
        return runs_of(recipe, span_s, rng)
    return replicas_of(recipe, span_s)
