"""The sentences and numbers of a plan, one wording for every face."""

from __future__ import annotations

import re
from typing import Any

from sim.units import format_percent

Spread = dict[str, float | None]


def usd(value: float | None) -> str:
    """``$1.23M``."""
    if value is None:
        return "-"
    sign, size = ("-" if value < 0 else ""), abs(value)
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{sign}${size / unit:.3g}{name}"
    return f"{sign}${size:.2f}" if size else "$0"


def spread_usd(spread: Spread) -> str:
    """``$8.3M ($3.7M to $21M)``."""
    if spread["p10"] == spread["p90"]:
        return usd(spread["p50"])
    return f"{usd(spread['p50'])} ({usd(spread['p10'])} to {usd(spread['p90'])})"


def spread_count(spread: Spread, unit: str = "") -> str:
    """``1.2M (0.8M to 2.4M)``."""

    def one(value: float | None) -> str:
        if value is None:
            return "never"
        for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
            if abs(value) >= size:
                return f"{value / (1e3 if name == 'k' else size):.3g}{name}"
        if abs(value) < 1e-6:
            return "0"
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"

    tail = f" {unit}" if unit else ""
    if spread["p10"] == spread["p90"]:
        return one(spread["p50"]) + tail
    return f"{one(spread['p50'])} ({one(spread['p10'])} to {one(spread['p90'])}){tail}"


def decision_words(document: dict[str, Any]) -> str:
    """The decision in one sentence."""
    decision = document["decision"]
    ready = f", ready in {decision['ready']}" if decision["ready"] else ""
    name = decision["option"][:1].upper() + decision["option"][1:]
    said = f"{name}: {spread_usd(decision['cost_usd'])} over the plan{ready}."
    if decision["too_close"]:
        others = ", ".join(name for name in decision["contenders"] if name != decision["option"])
        said += f" Too close to call{f' against {others}' if others else ''}: it comes first in "
        return said + f"{confidence_words(decision['confidence'])} of the futures drawn again."
    return (
        said
        + f" Confidence {confidence_words(decision['confidence'])}: so often it is the least regretted when the "
        f"futures are drawn again; in {confidence_words(decision['best_in_frac'])} of them it is the best in hindsight."
    )


def confidence_words(share: float) -> str:
    """``97 %``; nothing is called certain."""
    return format_percent(share) if share < 0.995 else "over 99 %"


def number_words(value: float) -> str:
    """A number of the register with four digits and no exponent where people read none."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:,.4g}"


NAMES = (
    (".rent_usd_per_gpu_hour", "rent of {}"),
    (".reserve_usd_per_gpu_hour", "reserved rate of {}"),
    (".spot_usd_per_gpu_hour", "spot rate of {}"),
    (".node_usd", "price of a {} node"),
    ("value_usd_per_gpu_hour", "value of a wanted device-hour"),
    ("month_late_usd", "cost of a month's delay"),
    ("energy_usd_per_kwh", "price of electricity"),
)
"""How prices are called, by the end of their names."""


def name_words(name: str) -> str:
    """An assumption's name as people read it."""
    if delayed := re.fullmatch(r"(.+) \d+\.delay_months", name):
        return f"delay of {delayed[1]}"
    for end, words in NAMES:
        if name.endswith(end):
            return words.format(name.removesuffix(end))
    return (
        name.replace("_", " ")
        .replace("usd per", "USD per")
        .replace(" usd", " USD")
        .replace(" frac", " share")
    )


def power_words(power_w: float) -> str:
    """``2.1 MW`` or ``53 kW``."""
    return f"{power_w / 1e6:.3g} MW" if power_w >= 1e6 else f"{power_w / 1e3:.3g} kW"


def other_order(document: dict[str, Any], most: int = 3) -> list[str]:
    """The closed form's ranking after its first, cut short."""
    return [f"{place}. {name}" for place, name in enumerate(document["closed_form_order"], 1)][1 : most + 1]


def instead_words(document: dict[str, Any]) -> str:
    """What doing nothing would cost, in one sentence; empty where that is the choice."""
    nothing = next((row for row in document["options"] if row["name"] == "do nothing"), None)
    if nothing is None or document["decision"]["option"] == "do nothing":
        return ""
    cost = usd(nothing["cost_usd"]["p50"])
    return (
        f"Doing nothing would cost {cost} and leave {usd(nothing['penalty_usd']['p50'])} of work undone or late "
        f"at the median; the choice leaves {usd(document['options'][0]['penalty_usd']['p50'])}."
    )


def wait_words(months: int | None) -> str:
    """How long unmet work stays wanted."""
    if months is None:
        return "until done"
    return f"{months} month{'s' if months > 1 else ''}" if months else "not at all"


def cut_words(document: dict[str, Any]) -> str:
    """What the utility's power cuts cost, in one sentence; empty where there are none."""
    cut = document["power_cut"]
    if cut is None:
        return ""
    off = cut["off_frac"]["p50"] or 0.0
    said = (
        f"The power may be cut by {format_percent(cut['power_cut_frac'])} "
        f"for {cut['hours_per_year']:,.0f} hours a year: "
        f"{format_percent(off)} of the choice's nodes are then switched off"
    )
    if not cut["lost_device_hours"]["p90"]:
        return said + ", which costs no useful device-hour."
    lost, cost = spread_count(cut["lost_device_hours"], "useful device-hours"), spread_usd(cut["lost_usd"])
    return said + f", which takes {lost} over the plan, worth {cost}."


def undone_words(document: dict[str, Any]) -> str:
    """What is left undone with the choice, in one sentence; empty where nothing is."""
    short = document["options"][0]["short_device_hours"]
    if not short["p90"]:
        return ""
    return f"Left undone: {spread_count(short, 'reference device-hours')}."


def risk_words(risk: dict[str, Any]) -> str:
    """One risk and its trigger in one sentence."""
    way = "rises to" if risk["rises"] else "falls to"
    article = "the " if any(risk["name"].endswith(end) for end, _ in NAMES) else ""
    name = article + name_words(risk["name"])
    value = number_words(float(f"{risk['trigger']:.3g}"))
    unit = risk["unit"]
    if unit.startswith("USD"):
        value, unit = (
            f"${value}",
            unit.removeprefix("USD")
            .replace("/", "a ")
            .replace("gpu hour", "device-hour")
            .replace("kwh", "kWh"),
        )
    trigger = value if unit == "count" else f"{value} {unit}".strip()
    return (
        f"If {name} {way} {trigger} (chance {format_percent(risk['chance'])}), "
        f"'{risk['instead']}' is the better option."
    )


def simulated_words(document: dict[str, Any]) -> str:
    """What the simulation of the best few said to the closed form's ranking."""
    names = ", ".join(f"'{row['option']}'" for row in document["simulated"])
    said = (
        f"The busiest month of {names} was simulated with jobs, gangs, failures, rented nodes that come and go, and "
        f"the option's scheduling rule ({document['replications']} times for those that raced to the end); the shares "
        "it found stand in the ranking."
    )
    first = document["closed_form_order"][0]
    if document["simulation_changed_the_choice"]:
        return said + f" It changed the choice: the closed form alone had '{first}'. The simulation stands."
    order = [row["name"] for row in document["options"]]
    if order == document["closed_form_order"]:
        return said + " Its ranking is that of the closed form."
    return (
        said
        + f" The choice is that of the closed form, which goes on with {', '.join(other_order(document))}."
    )


PLAYED_HEAD = (
    "option",
    "can be scheduled",
    "makes progress",
    "busy",
    "rented nodes",
    "paid hours held",
    "lost on spot",
)


def played_rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    """What the simulation measured of each option, under :data:`PLAYED_HEAD`; empty = nothing of the kind there."""
    rows = []
    for row in document["simulated"]:
        mean, most = row["rented_mean_nodes"], row["rented_peak_nodes"]
        nodes = "" if mean is None else f"{mean:,.1f} on average, {most:,} at most"
        rows.append(
            (
                row["option"],
                _share(row["scheduling_frac"]),
                _share(row["runtime_frac"]),
                _share(row["busy_frac"]),
                nodes,
                _share(row["rented_fill_frac"]),
                _share(row["spot_loss_frac"]),
            )
        )
    return rows


def _share(value: float | None) -> str:
    return "" if value is None else format_percent(value)


def implied_words(item: dict[str, Any]) -> str:
    """``our 70B.tokens = 1.41T (1.41T to 4.23T) tokens; where that comes from``."""
    spread = {"p10": item["low"], "p50": item["mid"], "p90": item["high"]}
    return f"{item['name']} = {spread_count(spread, item['unit'])}; {item['source']}"
