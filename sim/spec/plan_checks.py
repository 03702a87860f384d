"""Checks of a capacity plan: does each programme say what its kind needs, and are the months months?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sim.spec.demand import Demand, Programme
from sim.spec.faults import Fault
from sim.spec.supply import Supply

NEEDED = {
    "team": ("people",),
    "model": ("model",),
    "fine-tuning": ("runs_per_month",),
    "search": ("runs_per_month",),
    "chat": ("people",),
    "traffic": ("tokens_per_s",),
    "device-hours": ("device_hours",),
}
"""What a kind cannot do without; the rest is implied and shown."""
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def plan_faults(demand: Demand | None, supply: Supply | None, where: str) -> Iterator[Fault]:
    """Faults of ``[demand]`` and ``[supply]`` together; a section that is itself faulty is None and not used."""
    if demand is not None:
        yield from _month(demand.start, "demand.start", where)
        if not demand.programmes:
            yield Fault(where, "demand.programmes", None, "is required: at least one programme")
        names = [programme.name for programme in demand.programmes]
        for number, programme in enumerate(demand.programmes):
            path = f"demand.programmes.{number}"
            if names.index(programme.name) != number:
                yield Fault(where, f"{path}.name", programme.name, "stands twice: expected names that differ")
            yield from _programme(programme, path, where)
            yield from _order(demand, programme, path, where)
    if supply is not None:
        parts = [
            (f"supply.options.{o}.parts.{p}", part)
            for o, option in enumerate(supply.options)
            for p, part in enumerate(option.parts)
        ]
        parts += [(f"supply.estate.{p}", part) for p, part in enumerate(supply.estate)]
        for path, part in parts:
            yield from _month(part.delivery, f"{path}.delivery", where)
            if demand is not None and _MONTH.fullmatch(demand.start) and part.delivery > last_month(demand):
                wanted = f"expected a month of the plan, {demand.start} to {last_month(demand)}"
                yield Fault(where, f"{path}.delivery", part.delivery, wanted)
            if part.contract == "reserve" and part.months == 0:
                yield Fault(where, f"{path}.months", 0, "a reservation has a length: expected at least 1")
        for number, option in enumerate(supply.options):
            if not option.parts:
                yield Fault(where, f"supply.options.{number}.parts", None, "is required: at least one part")
            if option.name in [o.name for o in supply.options[:number]]:
                wanted = "stands twice: expected names that differ"
                yield Fault(where, f"supply.options.{number}.name", option.name, wanted)


def _programme(programme: Programme, path: str, where: str) -> Iterator[Fault]:
    for name in NEEDED.get(programme.kind, ()):
        if getattr(programme, name) is None:
            yield Fault(
                where, f"{path}.{name}", None, f"is required for a programme of kind {programme.kind!r}"
            )
    if programme.kind == "history" and not (programme.history or programme.week_device_hours):
        wanted = "is required for a programme of kind 'history' (or week_device_hours)"
        yield Fault(where, f"{path}.history", None, wanted)
    if programme.kind == "model" and programme.wait_months is not None:
        wanted = "a training run waits until it is done: expected none for kind 'model'"
        yield Fault(where, f"{path}.wait_months", programme.wait_months, wanted)
    if programme.kind != "history":
        for name in ("history", "week_device_hours"):
            if getattr(programme, name):
                wanted = f"only a history has one, not {programme.kind!r}"
                yield Fault(where, f"{path}.{name}", getattr(programme, name), wanted)
    for name in ("start", "end", "deadline"):
        yield from _month(getattr(programme, name), f"{path}.{name}", where)
    if programme.deadline and programme.kind != "model":
        wanted = f"only a model has one, not {programme.kind!r}"
        yield Fault(where, f"{path}.deadline", programme.deadline, wanted)


def _order(demand: Demand, programme: Programme, path: str, where: str) -> Iterator[Fault]:
    """Months that cannot be: a programme after the plan, an end or a deadline before the start."""
    months = (demand.start, programme.start or demand.start, programme.end, programme.deadline)
    if not all(_MONTH.fullmatch(month) for month in months if month):
        return  # told already
    begin = max(months[0], months[1])
    if begin > (last := last_month(demand)):
        wanted = f"expected a month of the plan, {demand.start} to {last}"
        yield Fault(where, f"{path}.start", programme.start, wanted)
    for name in ("end", "deadline"):
        value = getattr(programme, name)
        if value and value < begin:
            yield Fault(where, f"{path}.{name}", value, f"expected {begin} (its start) or later")


def last_month(demand: Demand) -> str:
    """Last month of the plan, YYYY-MM."""
    year, month = map(int, demand.start.split("-"))
    years, number = divmod(month - 1 + demand.months - 1, 12)
    return f"{year + years:04d}-{number + 1:02d}"


def _month(value: str, path: str, where: str) -> Iterator[Fault]:
    if value and not _MONTH.fullmatch(value):
        yield Fault(where, path, value, "expected a month as YYYY-MM")
