"""Prices, and what else a plan must assume about the world: read from a table with date, source and range.

A price list is not physics: it is true on a day. So it lives apart, every figure is a range, and a scenario's
``[prices]`` replaces any of them.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from sim import units
from sim.spec.fields import quantiles
from sim.spec.quantiles import Quantiles

KINDS = ("published", "derived", "assumed", "scenario")


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number of the plan that could be otherwise."""

    name: str
    value: Quantiles
    unit: str
    source: str
    kind: str
    date: str = ""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a scenario says itself; none = the catalogue's."""

    spot_frac: Quantiles | None = quantiles("spot price over rental price", None)
    lease_rate_frac_per_year: Quantiles | None = quantiles("interest inside a lease", None)
    network_frac: Quantiles | None = quantiles(
        "switches, optics and cables over the price of the nodes", None
    )
    storage_frac: Quantiles | None = quantiles("shared storage over the price of the nodes", None)
    install_frac: Quantiles | None = quantiles("set-up over the price of the nodes", None)
    spares_frac: Quantiles | None = quantiles("spare nodes over nodes", None)
    support_frac_per_year: Quantiles | None = quantiles(
        "support a year over the price of nodes and network", None
    )
    facility_usd_per_kw_month: Quantiles | None = quantiles(
        "space, cooling and power supply for a kW of IT", None
    )
    energy_usd_per_kwh: Quantiles | None = quantiles("electricity", None)
    pue: Quantiles | None = quantiles("power of the site over power of its IT", None, low=1.0)
    power_compute_frac: Quantiles | None = quantiles("power while computing over the node's maximum", None)
    power_stall_frac: Quantiles | None = quantiles(
        "power while a job stands still over the node's maximum", None
    )
    power_idle_frac: Quantiles | None = quantiles("power while idle over the node's maximum", None)
    staff_usd_per_year: Quantiles | None = quantiles("one engineer", None)
    nodes_per_engineer: Quantiles | None = quantiles("nodes one engineer keeps running", None, above=True)
    hosted_staff_frac: Quantiles | None = quantiles(
        "people for a rented or reserved node over people for an own one", None, high=1.0
    )
    cost_of_capital_frac_per_year: Quantiles | None = quantiles("cost of the money that is tied up", None)
    life_years: Quantiles | None = quantiles("years until a node is written off", None, above=True)
    residual_frac: Quantiles | None = quantiles(
        "resale over purchase price at the end of the life", None, high=1.0
    )
    carbon_kg_per_kwh: Quantiles | None = quantiles("carbon intensity of the grid, location-based", None)
    embodied_kg_per_node: Quantiles | None = quantiles("carbon of making one node", None)
    spot_loss_frac: Quantiles | None = quantiles(
        "work lost to interruptions of spot capacity", None, high=0.95
    )
    node_down_frac: Quantiles | None = quantiles("share of nodes out of service", None, high=0.95)
    scheduling_frac: Quantiles | None = quantiles(
        "share of working devices that can be kept busy while jobs wait", None, high=1.0
    )
    rented_scheduling_frac: Quantiles | None = quantiles(
        "share of the paid hours of nodes rented by the hour in which jobs hold their devices", None, high=1.0
    )
    runtime_frac: Quantiles | None = quantiles("share of busy hours that makes progress", None, high=1.0)


GENERAL = tuple(f.name for f in dataclasses.fields(Prices))


@cache
def _table() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    return tomllib.loads(files("scenarios").joinpath("catalog/prices.toml").read_text(encoding="utf-8"))


def _quantiles(value: Any, name: str) -> Quantiles:
    dimension = units.dimension_of(name) or units.COUNT
    items = value if isinstance(value, list) else [value]
    numbers = [units.parse(item, dimension) for item in items]
    return Quantiles(*numbers) if len(numbers) == 3 else Quantiles.exactly(numbers[0])


def general(prices: Prices | None = None) -> dict[str, Assumption]:
    """Every general assumption by name: the scenario's where it has one, else the catalogue's."""
    found = {}
    for name in GENERAL:
        own = getattr(prices, name) if prices is not None else None
        entry = _table()["general"][name]
        found[name] = (
            Assumption(name, own, _unit(name), "the scenario file", "scenario")
            if own is not None
            else Assumption(
                name,
                _quantiles(entry["value"], name),
                _unit(name),
                entry["source"],
                entry["kind"],
                entry["date"],
            )
        )
    return found


def bounds(name: str) -> tuple[float, float]:
    """What a general assumption can be at all: a share of hours is never above one, however wide its range."""
    metadata = Prices.__dataclass_fields__[name].metadata
    return metadata["low"], math.inf if metadata["high"] is None else metadata["high"]


def node_price(system: str) -> Assumption | None:
    """Price of one node of a catalogue system; none = the catalogue has none."""
    return _entry("nodes", system, "node_usd")


def hour_price(accelerator: str, contract: str) -> Assumption | None:
    """Price of a device-hour of an accelerator under ``rent`` or ``reserve``; none = the catalogue has none."""
    return _entry("hours", accelerator, f"{contract}_usd_per_gpu_hour")


def _entry(table: str, key: str, column: str) -> Assumption | None:
    entry = _table()[table].get(key)
    if entry is None or column not in entry:
        return None
    value = _quantiles(entry[column], column)
    return Assumption(f"{key}.{column}", value, _unit(column), entry["source"], entry["kind"], entry["date"])


def _unit(name: str) -> str:
    """The unit a name ends in, as people write it."""
    per = name.partition("_per_")[2].replace("_", " ")
    stem = name.partition("_per_")[0].rsplit("_", 1)[-1]
    head = {"usd": "USD", "frac": "share", "kg": "kg", "pue": "", "years": "years", "nodes": "nodes"}.get(
        stem, stem
    )
    return f"{head}/{per}" if per else head
