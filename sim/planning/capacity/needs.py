"""From wishes to work: what each programme asks of the machines, month by month, in every world.

A translator's page: on the left what people said (40 researchers, a 70B model by March, 5,000 users), on the right
tokens and device-hours, with every number that had to be put in between listed as an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def _need(programme: Programme, demand: Demand, draws: Draws) -> Need:
    first = months.index(programme.start, demand.start) if programme.start else 0
    last = months.index(programme.end, demand.start) if programme.end else demand.months - 1
    number = np.arange(demand.months)
    active = (number >= first) & (number <= last)
    kind, name = programme.kind, programme.name

    def draw(what: str, value: Quantiles) -> NDArray[np.float64]:
        return draws.of(f"{name}.{what}", value)

    implied: list[Assumption] = []

    def said(
        what: str, value: Quantiles | None, default: Quantiles, unit: str, source: str
    ) -> NDArray[np.float64]:
        if value is None:
            implied.append(Assumption(f"{name}.{what}", default, unit, source, "assumed"))
        return draw(what, default if value is None else value)

    if kind == "model":
        if programme.model is None:  # the boundary refuses this
            raise ValueError(f"programme {name!r} trains no model")
        size = _size(programme.model)
        source = f"{size:.3g} parameters times {TOKENS_PER_PARAMETER} tokens (Hoffmann et al. 2022)"
        tokens = said("tokens", programme.tokens, TOKENS_PER_PARAMETER * size, "tokens", source)
        again = draw("failed_frac", programme.failed_frac)
        work = np.zeros((draws.count, demand.months))
        work[:, max(first, 0)] = tokens / (1 - again)
        deadline = months.index(programme.deadline, demand.start) if programme.deadline else None
        runs = np.zeros_like(work)
        runs[:, max(first, 0)] = 1.0
        return Need(programme, "tokens", work, deadline, tuple(implied), runs)
    growth = (1 + draw("growth_frac_per_year", programme.growth_frac_per_year))[:, None] ** (
        np.maximum(number - first, 0) / 12
    )
    profile = growth * active
    if kind in ("chat", "traffic"):
        if kind == "chat" and programme.tokens_per_s is None:
            people = draw("people", programme.people or Quantiles.exactly(0))
            source = (
                "13.3 requests a second for 5,000 users (llm-d-planner's chat template), 300 tokens an answer"
            )
            each = said("tokens_per_s_per_user", None, TOKENS_PER_S_PER_USER, "tokens/s/user", source)
            peak = people * each
        else:
            peak = draw("tokens_per_s", programme.tokens_per_s or Quantiles.exactly(0))
        return Need(
            programme, "served tokens", peak[:, None] * 3600 * months.HOURS * profile, None, tuple(implied)
        )
    if kind == "history":
        level, spread = monthly(programme.week_device_hours)
        source = f"{len(programme.week_device_hours)} weeks of past jobs, drawn again in blocks of four"
        implied += [
            Assumption(f"{name}.month_device_hours", level, "device-hours/month", source, "derived"),
            Assumption(f"{name}.month_frac", spread, "share", source, "derived"),
        ]
        each = np.stack([draws.of(f"{name}.month_frac {m}", spread) for m in number], axis=1)
        work = draw("month_device_hours", level)[:, None] * each * profile
        return Need(programme, "device-hours", work, None, tuple(implied))
    default, what = {
        "team": (TEAM_HOURS, "a researcher"),
        "fine-tuning": (FINE_TUNING_HOURS, "a run"),
        "search": (TRIAL_HOURS, "a trial"),
        "device-hours": (Quantiles.exactly(0.0), "a month"),
    }[kind]
    hours = said(
        "device_hours", programme.device_hours, default, f"device-hours {what}", f"assumed for {what}"
    )
    times = {"team": programme.people, "device-hours": Quantiles.exactly(1.0)}.get(
        kind, programme.runs_per_month
    )
    count = draw("count", times or Quantiles.exactly(0.0))
    asked = count[:, None] * profile if kind in ("fine-tuning", "search") else None
    return Need(programme, "device-hours", (hours * count)[:, None] * profile, None, tuple(implied), asked)


def _size(model: Model) -> int:
    """Parameters that a token uses, or all of a network that has no tokens."""
    try:
        return active_weights(model).total
    except NotCountable:
        return total_parameters(model)
