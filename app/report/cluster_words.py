"""The sentences and numbers of a cluster study, one wording for every face."""

from __future__ import annotations

from typing import Any

from sim import units
from sim.units import format_percent

VERDICTS = {
    "stable": "Stable: the cluster keeps up with what is asked of it.",
    "backlogged": "Backlogged: the cluster keeps up, but with little to spare; waits grow fast from here on.",
    "overloaded": "Overloaded: more is asked than the cluster can carry under this policy; the queue keeps growing.",
}


def verdict_words(document: dict[str, Any]) -> str:
    """The verdict, with the offered load and the one at which the cluster saturates."""
    verdict = document["verdict"]
    return (
        f"{VERDICTS[verdict['word']]} Jobs ask for {format_percent(verdict['offered_frac'])} of the device-time; "
        f"under this policy and placement it saturates at {format_percent(verdict['turns_frac'])}: "
        "with more than that the queue grows without end."
    )


def value_words(value: float, unit: str) -> str:
    """One number in its unit."""
    if unit == "s":
        return units.format_seconds(value) if value >= 0 else f"-{units.format_seconds(-value)}"
    if unit == "share":
        return format_percent(value, 1)
    text = f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text} {unit}".strip()


def answer_words(row: dict[str, Any]) -> str:
    """``12 min (11 min to 13 min)``."""
    low, high = max(row["low"], 0.0), row["high"]
    if row["unit"] == "share" or row.get("name") == "fairness":
        high = min(high, 1.0)
    if row["high"] == row["low"]:
        return value_words(row["mean"], row["unit"])
    said = (value_words(v, row["unit"]) for v in (row["mean"], low, high))
    return "{} ({} to {})".format(*said)


def range_words(row: dict[str, Any]) -> str:
    """Smallest and largest of the replications: how different one month is from another."""
    if row["least"] == row["most"]:
        return value_words(row["most"], row["unit"])
    return f"{value_words(row['least'], row['unit'])} to {value_words(row['most'], row['unit'])}"


def sureness_words(document: dict[str, Any]) -> str:
    """How many replications, and what is not sure enough."""
    if not document["left_to_chance"]:
        return "Nothing is left to chance here: every run gives these numbers."
    missed = document["not_converged"]
    said = f"Means and 95 % intervals of {document['replications']} replications."
    if missed:
        names = ", ".join(row["words"] for row in document["answers"] if row["name"] in missed)
        said += f" Not converged to the precision asked: {names}."
    return said


def idle_words(document: dict[str, Any]) -> str:
    """Why devices stood idle though jobs waited."""
    split = document["idle_though_jobs_wait"]
    fragments, held = format_percent(split["fragments_frac"], 1), format_percent(split["held_back_frac"], 1)
    return (
        f"Idle though jobs wait, in the first replication: {fragments} of the device-hours because no waiting gang "
        f"fitted into what was free, {held} because the policy held a fitting one back."
    )


def energy_words(document: dict[str, Any]) -> str:
    """Energy and what it costs, as ranges."""
    energy = document["energy"]
    if energy["unknown"]:
        return f"Energy: the catalogue does not know the power of {', '.join(energy['unknown'])}."
    states = {state: values[1] for state, values in energy["kwh_by_state"].items()}
    total = sum(states.values()) or 1.0
    low, mid, high = (_energy(value) for value in energy["it_kwh"])
    parts = ", ".join(f"{format_percent(value / total)} {_GEARS[state]}" for state, value in states.items())
    cost = "{1:,.0f} USD ({0:,.0f} to {2:,.0f})".format(*energy["usd"])
    return (
        f"Energy of the nodes: {mid} ({low} to {high}; {parts}), with the site's overhead "
        f"{_energy(energy['site_kwh'][1])} for {cost}. First replication; prices and shares of power are the "
        "catalogue's ranges or the scenario's."
    )


POWER_WORDS = {
    "power_compute_frac": "power while computing, of the nodes' maximum",
    "power_stall_frac": "power while standing with a job, of the maximum",
    "power_idle_frac": "power while idle, of the maximum",
    "pue": "power of the site over power of its IT (PUE)",
    "energy_usd_per_kwh": "price of a kWh, USD",
}


def _energy(kwh: float) -> str:
    size, unit = next(((s, u) for s, u in ((1e6, "GWh"), (1e3, "MWh")) if kwh >= s), (1.0, "kWh"))
    return f"{kwh / size:,.3g} {unit}" if kwh < 1e9 else f"{kwh / 1e9:,.3g} TWh"


_GEARS = {"compute": "computing", "stall": "standing with a job", "idle": "idle"}


def warm_up_words(document: dict[str, Any]) -> str:
    """What the statistics of jobs leave out at the start; nothing to say where they leave out nothing."""
    found = document["warm_up"]
    if not found["span_s"] and not found["found"]:
        return ""
    how = " (found by MSER-5)" if found["found"] else ""
    short = " The run never settled: it is too short, or overloaded." if found["too_short"] else ""
    span = units.format_seconds(found["span_s"])
    return f"Numbers of jobs leave out those handed in during the first {span}{how}.{short}"
