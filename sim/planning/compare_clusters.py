"""Clusters side by side under the same weather: what was changed, what came of it, and how sure the difference is.

Like two drivers who get the same road on the same days: what the road did to both is not held against either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.cluster.study import ClusterStudy
from sim.cluster.tables import ANSWERS, shares, told_answers
from sim.planning.compare import changed
from sim.results.cluster_log import CAUSES
from sim.statistics.intervals import Interval, mean_interval
from sim.statistics.replications import differences

LEVEL_FRAC = 0.95


def compare_clusters(studies: Sequence[ClusterStudy]) -> dict[str, Any]:
    """Every study against the first, ready for JSON.

    Replication k of all of them has the same jobs, faults and repairs as far as their scenarios share recipes, nodes
    and seed (common random numbers), so differences are taken replication by replication and have Student's interval
    (Law, Simulation Modeling and Analysis, 5th ed., 11.2).
    """
    first = studies[0]
    names = [name for name in ANSWERS if any(name in told_answers(one) for one in studies)]
    return {
        "scenarios": [
            {
                "name": one.scenario.name,
                "hash": one.scenario.content_hash,
                "seed": one.scenario.seed,
                "verdict": one.verdict.word,
                "offered_frac": one.verdict.offered_frac,
                "turns_frac": one.verdict.turns_frac,
                "replications": one.replications.count,
            }
            for one in studies
        ],
        "changed": changed([one.scenario for one in studies]),
        "level_frac": LEVEL_FRAC,
        "answers": [
            {
                "name": name,
                "words": ANSWERS[name][0],
                "unit": ANSWERS[name][1],
                "values": [_row(one.replications.interval(name)) for one in studies],
                "differences": [None, *(_difference(first, one, name) for one in studies[1:])],
            }
            for name in names
        ],
        "books": [
            {"cause": cause, "share_frac": [shares(one)[cause] for one in studies]} for cause in CAUSES
        ],
    }


def _row(interval: Interval) -> dict[str, float]:
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high}


def _difference(first: ClusterStudy, other: ClusterStudy, name: str) -> dict[str, Any]:
    """Mean of other - first over the replications both have; ``sure``: its interval does not hold 0."""
    pairs = differences(first.replications, other.replications, name)
    found = mean_interval(pairs, LEVEL_FRAC)
    sure = not found.low <= 0 <= found.high
    return _row(found) | {"pairs": len(pairs), "sure": sure}
