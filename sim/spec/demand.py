"""What people want from machines, in their own words: a team, a model by a date, users who chat.

A ``Programme`` is a wish with a date; sim/planning turns it into device-hours and shows every number it had to imply,
so that each can be written here instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.spec.fields import choice, count, fraction, named, quantiles, quantity, text
from sim.spec.model import Model
from sim.spec.quantiles import Quantiles

PROGRAMME_KINDS = ("team", "model", "fine-tuning", "search", "chat", "traffic", "device-hours", "history")


@dataclass(frozen=True, slots=True)
class Programme:
    """One source of demand. Which fields count depends on ``kind``; what is left out is implied and shown."""

    name: str = text("how people call it")
    kind: str = choice(
        PROGRAMME_KINDS,
        "team: researchers at work; model: one training run by a date; fine-tuning: runs a month; search: "
        "trials a month; chat: people who chat; traffic: tokens a second; device-hours: said outright; history: "
        "as in a table of past jobs",
    )
    start: str = text("first month, YYYY-MM; empty = first month of the plan", "")
    end: str = text("last month, YYYY-MM; empty = last month of the plan", "")
    deadline: str = text("month by whose end a training run must be done, YYYY-MM; empty = none", "")
    priority: float = quantity("larger is served first", 0.0)
    wait_months: int | None = count(
        "months that unmet work is still wanted: 0 = lost in its month; none = as usual for its kind",
        None,
        low=0,
    )
    growth_frac_per_year: Quantiles = quantiles("growth of the demand a year, as a share", 0.0, low=-1.0)
    model: Model | None = named("what is trained or served", "model", None)
    tokens: Quantiles | None = quantiles("tokens (samples) of a training run", None)
    sequence: int = count("tokens of a sequence in training", 4096)
    global_batch: int = count("sequences a step in training; 0 = about 4 M tokens", 0, low=0)
    precision: str = choice(("fp16", "bf16", "fp8"), "number format of the matrix products", "bf16")
    runs_per_month: Quantiles | None = quantiles("fine-tuning runs, or trials of a search, a month", None)
    people: Quantiles | None = quantiles("researchers of a team, or users of a chat", None)
    device_hours: Quantiles | None = quantiles(
        "device-hours a month on the reference device (a team: of each researcher)", None
    )
    history: str = text(
        "table of past jobs (CSV or Parquet, as rackcast import writes it), beside the scenario", ""
    )
    week_device_hours: tuple[float, ...] = quantity(
        "device-hours of each past week; what a history comes down to", ()
    )
    tokens_per_s: Quantiles | None = quantiles("output tokens a second at the peak hour", None)
    tokens_per_s_per_device: Quantiles | None = quantiles(
        "output tokens a second that one reference device serves within the objective", None
    )
    mean_load_frac: float = fraction("mean over peak of the traffic in a day", 0.5)
    reference: str = text("accelerator that device-hours and served tokens are stated for", "h100-sxm5-80gb")
    failed_frac: Quantiles = quantiles(
        "share of the device-hours of training that is done again by choice: bugs, restarts from older weights",
        0.0,
        high=0.95,
    )


@dataclass(frozen=True, slots=True)
class Demand:
    """All programmes over the months of the plan."""

    start: str = text("first month, YYYY-MM")
    months: int = count("length of the plan in months", 36, high=240)
    programmes: tuple[Programme, ...] = ()
    value_usd_per_gpu_hour: Quantiles = quantiles(
        "what a device-hour that is wanted and not there costs the organisation, on the reference device", 6.0
    )
    month_late_usd: Quantiles = quantiles("what a month of delay past a deadline costs", 0.0)
