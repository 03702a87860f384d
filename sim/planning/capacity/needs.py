"""From wishes to work: what each programme asks of the machines, month by month, in every world.

A translator's page: on the left what people said (40 researchers, a 70B model by March, 5,000 users), on the right
tokens and device-hours, with every number that had to be put in between listed as an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.planning.capacity import months
from sim.planning.capacity.draws import Draws
from sim.planning.capacity.history import monthly
from sim.spec.demand import Demand, Programme
from sim.spec.model import Model
from sim.spec.parameter_count import NotCountable, active_weights, total_parameters
from sim.spec.prices import Assumption
from sim.spec.quantiles import Quantiles

TOKENS_PER_PARAMETER = Quantiles(20.0, 20.0, 60.0)
"""Training tokens a parameter: 20 is compute-optimal (Hoffmann et al. 2022, arXiv 2203.15556); models meant to be
served long are trained further."""
TEAM_HOURS = Quantiles(60.0, 200.0, 600.0)
"""Device-hours a researcher uses in a month; assumed: a quarter of one device at the middle."""
FINE_TUNING_HOURS = Quantiles(16.0, 64.0, 400.0)
"""Device-hours of a fine-tuning run; assumed: a node for 2 to 50 hours."""
TRIAL_HOURS = Quantiles(1.0, 6.0, 30.0)
"""Device-hours of a trial with early stopping; assumed."""
TOKENS_PER_S_PER_USER = Quantiles(0.3, 0.8, 2.0)
"""Output tokens a second at the peak hour for each registered user of a chat: 13.3 requests a second for 5,000 users
(llm-d-planner's chat template) at 300 tokens an answer."""
TOKENS_PER_S_PER_DEVICE = Quantiles(150.0, 500.0, 1500.0)
"""Output tokens a second that one H100 serves within usual objectives, 70B dense to 8B; assumed until measured."""

WAIT_MONTHS = {"chat": 0, "traffic": 0, "team": 0, "history": 1, "fine-tuning": 3, "search": 3}
"""Months that unmet work is still wanted, where the programme does not say (assumed: a service's hour is gone with the
hour, an experiment that waits a quarter is dropped); a kind that is not here waits to the end of the plan."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one programme asks. ``work``: shape (draws, months), in ``unit``, arriving in each month."""

    programme: Programme
    unit: str
    """``tokens`` trained, ``device-hours`` on the reference device, or ``served tokens``."""
    work: NDArray[np.float64]
    deadline: int | None
    """Number of the month by whose end it must be done."""
    implied: tuple[Assumption, ...]
    runs: NDArray[np.float64] | None = None
    """Training runs or trials asked for, shape (draws, months); none = it has no runs."""

    @property
    def wait_months(self) -> int | None:
        """Months that unmet work is still wanted; none = to the end of the plan."""
        said = self.programme.wait_months
        return WAIT_MONTHS.get(self.programme.kind) if said is None else said

    @property
    def mean_frac(self) -> float:
        """What comes of ``work`` over the month: a service is sized for its peak hour and serves its mean."""
        return self.programme.mean_load_frac if self.unit == "served tokens" else 1.0

    @property
    def waits(self) -> bool:
        """Whether unmet work is still wanted later."""
        return self.wait_months != 0


def needs(demand: Demand, draws: Draws) -> tuple[Need, ...]:
    """Every programme's work; the most urgent first (priority, then what cannot wait, then the nearest deadline)."""
    found = [_need(programme, demand, draws) for programme in demand.programmes]
    far = demand.months
    return tuple(
        sorted(
            found, key=lambda n: (-n.programme.priority, n.waits, far if n.deadline is None else n.deadline)
        )
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """One programme on the calendar of the plan, with every number that had to be put in between."""

    programme: Programme
    demand: Demand
    draws: Draws
    implied: list[Assumption] = field(default_factory=list)

    def draw(self, what: str, value: Quantiles | None) -> NDArray[np.float64]:
        """The programme's number ``what`` in every world, 0 where it says none; shape (draws,)."""
        return self.draws.of(f"{self.programme.name}.{what}", value or Quantiles.exactly(0.0))

    def said(
        self, what: str, value: Quantiles | None, default: Quantiles, unit: str, source: str
    ) -> NDArray[np.float64]:
        """The same, with ``default`` put in (and noted) where it says none."""
        if value is None:
            self.note(what, default, unit, source, "assumed")
        return self.draw(what, default if value is None else value)

    def note(self, what: str, value: Quantiles, unit: str, source: str, kind: str) -> None:
        """Add a number to what was implied."""
        self.implied.append(Assumption(f"{self.programme.name}.{what}", value, unit, source, kind))

    @property
    def first(self) -> int:
        """Number of its first month; below 0 = it began before the plan."""
        return months.index(self.programme.start, self.demand.start) if self.programme.start else 0

    def profile(self) -> NDArray[np.float64]:
        """Its level in each month over that of its first, 0 outside its months; shape (draws, months)."""
        end = self.programme.end
        last = months.index(end, self.demand.start) if end else self.demand.months - 1
        number = np.arange(self.demand.months)
        growth = (1 + self.draw("growth_frac_per_year", self.programme.growth_frac_per_year))[:, None]
        active = (number >= self.first) & (number <= last)
        return np.asarray(growth ** (np.maximum(number - self.first, 0) / 12) * active)

    def need(self, unit: str, work: NDArray[np.float64], runs: NDArray[np.float64] | None = None) -> Need:
        """The answer; a deadline counts for training runs alone."""
        by = self.programme.deadline if self.programme.kind == "model" else ""
        deadline = months.index(by, self.demand.start) if by else None
        return Need(self.programme, unit, work, deadline, tuple(self.implied), runs)


def _need(programme: Programme, demand: Demand, draws: Draws) -> Need:
    translate = {
        "model": _training_run,
        "chat": _served,
        "traffic": _served,
        "history": _history,
        "fine-tuning": _repeated,
        "search": _repeated,
        "team": _hours,
        "device-hours": _hours,
    }[programme.kind]
    return translate(_Asked(programme, demand, draws))


def _training_run(asked: _Asked) -> Need:
    """One run, wanted whole from its start on."""
    programme = asked.programme
    if programme.model is None:  # the boundary refuses this
        raise ValueError(f"programme {programme.name!r} trains no model")
    size = _size(programme.model)
    source = f"{size / 1e9:,.3g}B parameters times {TOKENS_PER_PARAMETER} tokens (Hoffmann et al. 2022)"
    tokens = asked.said("tokens", programme.tokens, TOKENS_PER_PARAMETER * size, "tokens", source)
    work, runs = np.zeros((2, asked.draws.count, asked.demand.months))
    start = max(asked.first, 0)
    work[:, start] = tokens / (1 - asked.draw("failed_frac", programme.failed_frac))
    runs[:, start] = 1.0
    return asked.need("tokens", work, runs)


def _served(asked: _Asked) -> Need:
    """Tokens of a service, as if every hour were its peak: what is there for that hour is there in all of them."""
    programme = asked.programme
    if programme.kind == "chat" and programme.tokens_per_s is None:
        source = (
            "13.3 requests a second for 5,000 users (llm-d-planner's chat template), 300 tokens an answer"
        )
        each = asked.said("tokens_per_s_per_user", None, TOKENS_PER_S_PER_USER, "tokens/s/user", source)
        peak = asked.draw("people", programme.people) * each
    else:
        peak = asked.draw("tokens_per_s", programme.tokens_per_s)
    return asked.need("served tokens", peak[:, None] * 3600 * months.HOURS * asked.profile())


def _history(asked: _Asked) -> Need:
    """The level of the past with its doubt, and each month's own."""
    weeks = asked.programme.week_device_hours
    level, spread = monthly(weeks)
    source = f"{len(weeks)} weeks of past jobs, drawn again in blocks of four"
    asked.note("month_device_hours", level, "device-hours/month", source, "derived")
    asked.note("month_frac", spread, "share", source, "derived")
    each = [asked.draw(f"month_frac {month}", spread) for month in range(asked.demand.months)]
    work = asked.draw("month_device_hours", level)[:, None] * np.stack(each, axis=1) * asked.profile()
    return asked.need("device-hours", work)


def _repeated(asked: _Asked) -> Need:
    """So many runs or trials a month, each with its hours."""
    programme = asked.programme
    tuned = programme.kind == "fine-tuning"
    default, what = (FINE_TUNING_HOURS, "a run") if tuned else (TRIAL_HOURS, "a trial")
    hours = asked.said(
        "device_hours", programme.device_hours, default, f"device-hours {what}", f"assumed for {what}"
    )
    runs = asked.draw("runs_per_month", programme.runs_per_month)[:, None] * asked.profile()
    return asked.need("device-hours", hours[:, None] * runs, runs)


def _hours(asked: _Asked) -> Need:
    """Device-hours a month: of each researcher of a team, or said outright."""
    programme = asked.programme
    if programme.kind == "device-hours":
        return asked.need(
            "device-hours", asked.draw("device_hours", programme.device_hours)[:, None] * asked.profile()
        )
    unit, source = "device-hours a researcher", "assumed for a researcher"
    hours = asked.said("device_hours", programme.device_hours, TEAM_HOURS, unit, source)
    people = asked.draw("people", programme.people)
    return asked.need("device-hours", (hours * people)[:, None] * asked.profile())


def _size(model: Model) -> int:
    """Parameters that a token uses, or all of a network that has no tokens."""
    try:
        return active_weights(model).total
    except NotCountable:
        return total_parameters(model)
