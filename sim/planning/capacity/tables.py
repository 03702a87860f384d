"""A plan as plain tables: the one document that the terminal, the report, the app and ``--json`` all show.

Money in USD, time in months, energy in kWh; a quantity that is not certain is ``{"p10", "p50", "p90"}`` over the
worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sim.planning.capacity import months
from sim.planning.capacity.draws import Draws, world_of
from sim.planning.capacity.evaluate import WATERFALL, Evaluation
from sim.planning.capacity.money import LINES
from sim.planning.capacity.plan import Plan
from sim.planning.capacity.simulate import Played
from sim.planning.capacity.sizing import needed_devices
from sim.planning.capacity.what_if import Risk, Swing, Tornado
from sim.planning.capacity.why import first_if_cheaper_usd, near_misses, power_cut, why_not
from sim.spec.prices import Assumption


def plan_document(plan: Plan, tornado: Tornado, risks: Sequence[Risk]) -> dict[str, Any]:
    """Everything a reader of the plan may ask, in the order in which they ask it."""
    chosen = plan.chosen
    return {
        "decision": decision(plan),
        "demand": [_need(need, plan.demand.start) for need in plan.needs],
        "needed_devices": _needed(plan),
        "options": [
            _option(plan, plan.evaluations[i], float(plan.choice.regret[i]), float(plan.choice.wins[i]))
            for i in plan.choice.order
        ],
        "closed_form_order": [plan.evaluations[i].candidate.name for i in plan.closed_form.order],
        "simulation_changed_the_choice": plan.closed_form.chosen != plan.choice.chosen,
        "simulated": [_played(name, found) for name, found in plan.played.items()],
        "refused": [{"name": e.candidate.name, "why": [r.words for r in e.refused]} for e in plan.refused],
        "near_misses": [{"name": miss.name, "lacks": miss.lacks} for miss in near_misses(plan)],
        "waterfall": [{"step": step, "device_hours": spread(chosen.waterfall()[step])} for step in WATERFALL],
        "milestones": _milestones(plan),
        "cost_lines": [
            {"line": line, "usd": spread(chosen.ledger.line_usd(line))} for line in LINES if chosen.ledger
        ],
        "unit_costs": unit_costs(plan),
        "cash_by_quarter": _cash(chosen, plan.demand.start),
        "energy": _energy(chosen),
        "power_cut": _power_cut(plan),
        "tornado_middle_usd": tornado.middle_usd,
        "tornado": [_swing(swing) for swing in tornado.swings],
        "risks": [_risk(risk) for risk in risks],
        "register": [_assumption(item) for item in plan.register],
        "seed": plan.seed,
        "worlds": plan.worlds,
        "replications": plan.replications,
    }


def _needed(plan: Plan) -> list[dict[str, Any]]:
    """Devices of each kind of node that would meet every need in time alone, there from the first month on."""
    draws = Draws(plan.worlds, plan.seed)
    shares = world_of(plan.general, draws)
    running = (1 - shares["node_down_frac"]) * shares["scheduling_frac"] * shares["runtime_frac"]
    parts = [part for option in plan.supply.options for part in option.parts]
    rows = []
    for system in {part.wired.key: part.wired for part in parts}.values():
        most = max(
            p.nodes * max(o.scales) * p.system.gpus_per_node
            for o in plan.supply.options
            for p in o.parts
            if p.wired.key == system.key
        )
        devices = needed_devices(plan.needs, system, plan.rate, running, most)
        rows.append({"system": system.key, "name": system.name, "devices": spread(np.ceil(devices))})
    return rows


def _played(name: str, found: Played) -> dict[str, Any]:
    return {
        "option": name,
        "scheduling_frac": found.scheduling_frac,
        "runtime_frac": found.runtime_frac,
        "spot_loss_frac": found.spot_loss_frac,
        "busy_frac": found.busy_frac,
        "rented_fill_frac": found.rented and found.rented.fill_frac,
        "rented_mean_nodes": found.rented and found.rented.mean_nodes,
        "rented_peak_nodes": found.rented and found.rented.peak_nodes,
        "waits": [
            {"programme": w.programme, "jobs": w.jobs, "p50_s": w.p50_s, "p95_s": w.p95_s}
            for w in found.waits
        ],
    }


def decision(plan: Plan) -> dict[str, Any]:
    chosen, choice = plan.chosen, plan.choice
    ready = [float(np.median(f.delivered)) for f in chosen.fleets if not f.sunk]
    return {
        "option": chosen.candidate.name,
        "nodes": {f"{f.part.contract} {f.part.system.key}": f.nodes for f in chosen.fleets if not f.sunk},
        "cost_usd": spread(chosen.cost_usd),
        "usd_per_useful_hour": spread(_unit_cost(chosen)),
        "ready": months.name(round(max(ready)), plan.demand.start) if ready else None,
        "confidence": float(choice.wins[choice.chosen]),
        "best_in_frac": float(choice.best_share[choice.chosen]),
        "too_close": choice.too_close,
        "contenders": [plan.evaluations[i].candidate.name for i in choice.contenders],
    }


def _unit_cost(found: Evaluation) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Cost over the hours of all devices in which work was done (Google's goodput: price over the useful share)."""
    useful = found.waterfall()["useful"]
    return np.divide(found.cost_usd, useful, out=np.full_like(useful, np.nan), where=useful > 0)


def _need(need: Any, start: str) -> dict[str, Any]:
    work = need.work * need.mean_frac
    total = work.sum(axis=1)
    return {
        "programme": need.programme.name,
        "kind": need.programme.kind,
        "unit": need.unit,
        "wait_months": need.wait_months,
        "work": spread(total),
        "deadline": None if need.deadline is None else months.name(need.deadline, start),
        "by_month": [spread(column) for column in work.T],
        "implied": [_assumption(item) for item in need.implied],
    }


def _option(plan: Plan, found: Evaluation, regret: float, wins: float) -> dict[str, Any]:
    short = found.short_hours.sum(axis=1) if found.short_hours is not None else np.zeros(1)
    return {
        "name": found.candidate.name,
        "cost_usd": spread(found.cost_usd),
        "penalty_usd": spread(found.penalty_usd),
        "loss_usd": spread(found.loss_usd),
        "short_device_hours": spread(short),
        "usd_per_useful_hour": spread(_unit_cost(found)),
        "peak_w": found.peak_w,
        "regret": regret,
        "first_if_cheaper_usd": first_if_cheaper_usd(plan, found),
        "policy": found.candidate.option.policy,
        "first_in": wins,
        "why_not": why_not(plan, found),
        "note": found.candidate.option.note,
    }


def _milestones(plan: Plan) -> list[dict[str, Any]]:
    rows = []
    for i in plan.choice.order:
        found = plan.evaluations[i]
        for served in found.served:
            if served.need.deadline is None:
                continue
            rows.append(
                {
                    "option": found.candidate.name,
                    "programme": served.need.programme.name,
                    "deadline": months.name(served.need.deadline, plan.demand.start),
                    "in_time": float((served.late_months == 0).mean()),
                    "finished_months": spread(served.finished),
                }
            )
    return rows


def _cash(found: Evaluation, start: str) -> list[dict[str, Any]]:
    if found.ledger is None:
        return []
    cash = found.ledger.cash_usd
    quarters: dict[str, Any] = {}
    for month in range(cash.shape[1]):
        name = months.quarter(month, start)
        quarters[name] = quarters.get(name, 0) + cash[:, month]
    return [  # the mean too: a purchase whose quarter is not sure is in no quarter's median
        {"quarter": name, "usd": {"mean": float(np.mean(amount))} | spread(amount)}
        for name, amount in quarters.items()
    ]


def _energy(found: Evaluation) -> dict[str, Any]:
    kwh = found.kwh or {}
    return {
        "peak_w": found.peak_w,
        "kwh": {state: spread(amount) for state, amount in kwh.items()},
        "total_kwh": spread(sum(kwh.values(), start=np.zeros(1))),
        "carbon_kg": spread(found.carbon_kg if found.carbon_kg is not None else np.zeros(1)),
        "embodied_kg": spread(found.embodied_kg if found.embodied_kg is not None else np.zeros(1)),
    }


def unit_costs(plan: Plan) -> list[dict[str, Any]]:
    """What one run, or a million served tokens, of each programme costs with the choice.

    The whole cost of the option is shared out by the device-hours that did the work, of whatever device.
    """
    chosen = plan.chosen
    every = sum((served.hours for served in chosen.served), start=np.zeros(len(chosen.cost_usd)))
    rows = []
    for served in chosen.served:
        need = served.need
        done, asked = served.done.sum(axis=1), need.work.sum(axis=1)
        if need.unit == "served tokens":
            per, count = "a million tokens served", done * need.mean_frac / 1e6
        elif need.runs is not None:
            per = "a trial" if need.programme.kind == "search" else "a run"
            count = need.runs.sum(axis=1) * np.divide(done, asked, out=np.zeros_like(done), where=asked > 0)
        else:
            per, count = "a device-hour", served.hours
        share = np.divide(served.hours, every, out=np.zeros_like(every), where=every > 0)
        each = np.divide(chosen.cost_usd * share, count, out=np.full_like(every, np.nan), where=count > 0)
        if (ends := np.isfinite(each)).any():  # in worlds that do none of it there is no price of one
            rows.append({"programme": need.programme.name, "per": per, "usd": spread(each[ends])})
    return rows


def _power_cut(plan: Plan) -> dict[str, Any] | None:
    cut = power_cut(plan)
    if cut is None:
        return None
    site = plan.supply.site
    return {
        "hours_per_year": site.curtail_hours_per_year,
        "power_cut_frac": site.curtail_frac,
        "off_frac": spread(cut.off_frac),
        "lost_device_hours": spread(cut.lost_hours),
        "lost_usd": spread(cut.lost_usd),
    }


def _swing(swing: Swing) -> dict[str, Any]:
    return _assumption(swing.assumption) | {
        "low_usd": swing.low_usd,
        "high_usd": swing.high_usd,
        "low_choice": swing.low_choice,
        "high_choice": swing.high_choice,
    }


def _risk(risk: Risk) -> dict[str, Any]:
    return _assumption(risk.assumption) | {
        "trigger": risk.trigger,
        "rises": risk.rises,
        "instead": risk.instead,
        "chance": risk.chance,
    }


def _assumption(item: Assumption) -> dict[str, Any]:
    value = item.value
    return {
        "name": item.name,
        "low": value.low,
        "mid": value.mid,
        "high": value.high,
        "unit": item.unit,
        "kind": item.kind,
        "date": item.date,
        "source": item.source,
    }


def spread(values: ArrayLike) -> dict[str, float | None]:
    """P10, P50 and P90; none = beyond the plan (never, or not defined)."""
    low, mid, high = np.quantile(np.asarray(values, float), [0.1, 0.5, 0.9], method="inverted_cdf")
    return {n: float(v) if np.isfinite(v) else None for n, v in (("p10", low), ("p50", mid), ("p90", high))}
