"""Published failure rates by name: a shelf of other people's accident statistics.

Each set is one cluster's rate and, where it was published, its interruptions by cause. How fast a cause is noticed and
mended is published nowhere and stands in the same file as an assumption.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sim import units
from sim.spec.catalog import UnknownName
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import Cause, Delay, Reliability


@dataclass(frozen=True, slots=True)
class RateSet:
    """What one cluster published."""

    key: str
    name: str
    node_failures_per_1000_node_days: float
    gpus: int
    gpus_per_node: int
    days: float
    status: str
    source: str
    note: str = ""
    weibull_shape: float = 1.0
    counts: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Interruptions by cause; empty where they were not published."""


@cache
def rate_sets() -> Mapping[str, RateSet]:
    """All published sets by key, in the order of the file."""
    return {key: RateSet(key=key, **table) for key, table in _file()["clusters"].items()}


@cache
def known_causes() -> Mapping[str, Cause]:
    """How each named cause behaves (assumed): noticed, repaired, what stops with it."""
    return {name: _cause(name, table) for name, table in _file()["causes"].items()}


def rate_set(name: str) -> RateSet:
    """The published set of that key.

    Raises:
        UnknownName: there is none; the message names the nearest.
    """
    if name not in rate_sets():
        raise UnknownName("failure rate set", name, difflib.get_close_matches(name, rate_sets(), n=3))
    return rate_sets()[name]


def with_rates(reliability: Reliability) -> Reliability:
    """The section with the rate and the causes of its published set filled in where it gives none of its own.

    A cause that the file does not describe behaves as ``node`` does.

    Raises:
        UnknownName: no such set.
    """
    if not reliability.rates:
        return reliability
    found = rate_set(reliability.rates)
    rates = reliability.node_failures_per_1000_node_days
    if rates is None:
        rates = Quantiles.exactly(found.node_failures_per_1000_node_days)
    return dataclasses.replace(
        reliability, node_failures_per_1000_node_days=rates, causes=reliability.causes or _causes_of(found)
    )


def _causes_of(found: RateSet) -> tuple[Cause, ...]:
    causes = known_causes()
    counts = found.counts or {"node": 1}
    return tuple(
        dataclasses.replace(
            causes.get(name, causes["node"]),
            name=name,
            share_frac=float(number),
            weibull_shape=found.weibull_shape,
        )
        for name, number in counts.items()
    )


@cache
def _file() -> dict[str, Any]:
    path = importlib.resources.files("scenarios") / "catalog" / "failure_rates.toml"
    return tomllib.loads(path.read_text("utf-8"))


def _cause(name: str, table: Mapping[str, Any]) -> Cause:
    values: dict[str, Any] = {
        key: _delay(value) if isinstance(value, Mapping) else value for key, value in table.items()
    }
    return Cause(name=name, **values)


def _delay(table: Mapping[str, Any]) -> Delay:
    return Delay(**{**table, "mean_s": units.parse(table["mean_s"], units.SECONDS, minimum=0.0)})
