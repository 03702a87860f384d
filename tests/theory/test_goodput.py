"""Closed forms of reliability against a table of vectors (derived and checked by independent Monte Carlo), and against
their own limits."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import lambertw

from sim.cost import goodput as form
from sim.cost import money, queueing
from sim.statistics.intervals import half_width
from sim.statistics.replications import Rule, replications_needed
from sim.statistics.steady import autoregressive_inflation_x, mser_truncation

with (Path(__file__).parent / "goodput_vectors.csv").open(encoding="utf-8", newline="") as file:
    VECTORS = list(csv.DictReader(file))
HOUR, DAY = 3600.0, 86400.0


def mean_of(p: dict[str, Any]) -> float:
    if "M_h" in p:
        return float(p["M_h"] * HOUR)
    return float(form.mttf_s(p["nodes"], p["failures_per_node_day"]))


def mttf(row: str, p: dict[str, Any]) -> float:
    return float(form.survival_frac(DAY, mean_of(p))) if row == "M5" else mean_of(p) / HOUR


def interval(row: str, p: dict[str, Any]) -> float:
    if row == "T4":
        return float(form.availability_interval_s(p["Tf_h"] * HOUR, p["Tr_s"], p["Ts_s"]))
    way = {
        "a": form.young_interval_s,
        "b": lambda mean, stall: form.daly_interval_s(mean, stall, higher_order=False),
        "c": form.daly_interval_s,
        "d": form.optimal_interval_s,
    }[row[-1]]
    return float(way(mean_of(p), p["delta_s"]))


def goodput(row: str, p: dict[str, Any]) -> float:
    mean = mean_of(p)
    if row == "G6":
        return float(form.goodput_ettr_frac(mean, p["dt_min"] * 60, p["w"], p["u0_min"] * 60))
    if row == "G8":
        return float(form.completion_s(mean, p["T_h"] * HOUR, p["down_h"] * HOUR)) / HOUR
    down = p["down_s"] + p.get("queue_mean_s", 0)
    known = (mean, p["tau_s"], p["delta_s"], down)
    if row[-1] in "cd":
        way = form.goodput_first_order_frac if row[-1] == "c" else form.goodput_ettr_frac
        return float(way(*known))
    return float(form.goodput_frac(*known, fails_while_restarting=row[-1] == "b"))


def asynchronous(row: str, p: dict[str, Any]) -> float:
    mean = mean_of(p)
    if row == "A3":
        stalls = p["tau_s"], p["d1_s"], p["d2_s"]
        down = {"memory_down_s": p["D1_s"], "durable_down_s": p["D2_s"]}
        return form.goodput_two_tier_frac(mean, *stalls, p["m"], memory_frac=p["phi"], **down)
    return float(form.goodput_frac(mean, p["tau_s"], p["stall_s"], p["down_s"], persist_s=p["persist_s"]))


def weibull(row: str, p: dict[str, Any]) -> float:
    if row == "W3":
        return float(form.failures_expected(p["parts"], p["window_h"], p["mean_h"]))
    if row == "W4":
        return float(form.first_failure_s(p["parts"], p["mean_min"], p["shape"]))
    mean = p["mean_h"] * HOUR
    scale = float(form.weibull_scale_s(mean, p["shape"]))
    known = mean, p["tau_s"], p["delta_s"], p["down_s"]
    return form.goodput_renewed_frac(lambda t: np.exp(-((t / scale) ** p["shape"])), *known)


def spares(row: str, p: dict[str, Any]) -> float:
    if row == "S5":
        return queueing.spares_needed(p["active_nodes"], p["failures_per_node_day"], p["mttr_h"] / 24, 1e-3)
    if row == "S6":
        return queueing.elastic_nodes_frac(p["group_mttf_h"], p["group_repair_h"])
    known = p["active_nodes"], p["spares"], p["failures_per_node_day"], p["mttr_h"] / 24
    return queueing.stall_probability(*known)


def straggler(row: str, p: dict[str, Any]) -> float:
    if row == "L3":
        return form.slowest_exponential_s(p["n"], p["base_s"], p["jitter_mean_s"])
    if row == "L4":
        known = p["nodes"], p["onset_per_node_day"], p["detect_h"] * HOUR, p["slow_speed"]
        return float(form.straggler_speed_frac(*known))
    return form.slowest_of_x(p["n"], p["cv"])


def silent(row: str, p: dict[str, Any]) -> float:
    if row == "C2":
        names = ("silent_mttf_h", "failstop_mttf_h", "verify_h", "ckpt_h")
        return float(form.silent_interval_s(*(p[name] for name in names)))
    names = ("silent_mttf_h", "W_h", "verify_h", "ckpt_h", "recover_h")
    return float(form.goodput_silent_frac(*(p[name] for name in names)))


def queue(row: str, p: dict[str, Any]) -> float:
    if row in ("Q1", "Q2"):
        wait = queueing.mean_wait_mmc(p["c"], p["lam"], p["mu"])
        return queueing.erlang_c(p["c"], p["lam"] / p["mu"]) if row == "Q1" else wait
    if row == "Q3":
        return queueing.mean_wait_mg1(p["lam"], p["mean_s"], p["cv2"])
    if row.startswith("Q4"):
        return float(queueing.gang_blocking(p["nodes"], p["sizes"], p["offered"])["abc".index(row[-1])])
    rate = queueing.head_of_line_throughput(p["servers"], p["p_all"], p["mu"], p["S_all"])
    hours = (1 - p["p_all"]) / p["mu"] + p["p_all"] * p["S_all"] * p["servers"]
    return rate if row == "Q5" else rate * hours / p["servers"]


def energy(row: str, p: dict[str, Any]) -> float:
    if row == "E4":
        return float(money.carbon_kg(p["facility_gwh"] * 1e6, p["g_per_kwh"] / 1000)) / 1000
    hours = 365 * 24 * p["nodes"] * np.array([p["busy_frac"], 1 - p["busy_frac"]])
    power_frac = [p["busy_power_frac"], p["idle_power_frac"]]
    return float(money.facility_energy_wh(hours, p["node_rated_kw"] * 1000, power_frac, p["pue"]).sum()) / 1e9


def cost(row: str, p: dict[str, Any]) -> float:
    if row == "E1":
        return money.capital_recovery_per_year(p["rate"], p["years"])
    return money.usd_per_useful_gpu_hour(p["price_per_gpu_h"], p["S"], p["R"], p["P"])


def output(row: str, p: dict[str, Any]) -> float:
    if row == "O1":
        series = [100 + 10 * math.sin(i) + i % 3 for i in range(1, 61)]
        return replications_needed(series, Rule(p["gamma"], 1 - p["alpha"], p["n0"])) or math.nan
    if row == "O2":
        i = np.arange(200)
        return mser_truncation(50 + 40 * np.exp(-i / 12) + 3 * np.sin(1.7 * i), p["batch"])
    if row == "O3":
        return autoregressive_inflation_x(p["phi"])
    return half_width(p["s"], p["n"], 1 - p["alpha"])


ANSWERS = {
    "mttf": mttf,
    "interval": interval,
    "goodput": goodput,
    "async": asynchronous,
    "weibull": weibull,
    "spares": spares,
    "straggler": straggler,
    "sdc": silent,
    "queue": queue,
    "energy": energy,
    "cost": cost,
    "output": output,
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_every_vector(vector: dict[str, str]) -> None:
    """To 2e-6: parameters such as M_h are written with six or seven digits, answers were computed before rounding."""
    got = ANSWERS[vector["category"]](vector["id"], json.loads(vector["params_json"]))
    assert got == pytest.approx(float(vector["expected"]), rel=2e-6)


def test_the_table_is_whole() -> None:
    assert len(VECTORS) == len({vector["id"] for vector in VECTORS}) == 76


@given(st.floats(60, 1e8), st.floats(1e-7, 3))
def test_the_optimal_interval_is_lambert_s_and_no_other_does_better(mean: float, ratio: float) -> None:
    stall = ratio * mean
    best = float(form.optimal_interval_s(mean, stall))
    by_lambert = mean * (1 + lambertw(-np.exp(-1 - ratio)).real)
    assert best == pytest.approx(by_lambert, rel=1e-9 + 1e-15 / ratio)
    value = form.goodput_frac(mean, best * np.array([0.98, 1, 1.02]), stall, 0.1 * mean)
    assert value[1] >= value[0]
    assert value[1] >= value[2]


def test_the_optimal_interval_keeps_its_digits_where_checkpoints_cost_almost_nothing() -> None:
    """Series of 1 + W0(-exp(-1 - d)) at its branch point: sqrt(2d) - 2d/3 + O(d^1.5), with d = delta / M."""
    ratio = np.array([1e-12, 1e-10, 1e-8])
    u = form.optimal_interval_s(1.0, ratio)
    assert u == pytest.approx(np.sqrt(2 * ratio) - 2 * ratio / 3, rel=1e-8)
    assert float(form.optimal_interval_s(3600.0, 0.0)) == 0
    assert float(form.optimal_interval_s(math.inf, 60.0)) == math.inf


def test_two_tiers_become_one_when_every_failure_needs_the_durable_write() -> None:
    both = {"memory_frac": 0.0, "memory_down_s": 1.0, "durable_down_s": 300.0}
    tiers = form.goodput_two_tier_frac(6000.0, 60.0, 0.0, 20.0, 10, **both)
    assert tiers == pytest.approx(float(form.goodput_frac(6000.0, 600.0, 20.0, 300.0)), rel=1e-12)


def test_two_tiers_pick_a_best_number_of_snapshots() -> None:
    def loss(every: float) -> float:
        both = {"memory_frac": 0.9, "memory_down_s": 120.0, "durable_down_s": 900.0}
        return -form.goodput_two_tier_frac(6490.0, 60.0, 1.0, 30.0, round(every), **both)

    best = round(minimize_scalar(loss, bounds=(1, 300), method="bounded").x)
    assert 1 < best < 300
    assert loss(best) <= min(loss(1), loss(300))


@given(st.floats(0.5, 3), st.floats(1e3, 1e5))
def test_a_renewed_law_is_between_no_loss_and_all(shape: float, mean: float) -> None:
    scale = float(form.weibull_scale_s(mean, shape))
    got = form.goodput_renewed_frac(lambda t: np.exp(-((t / scale) ** shape)), mean, 600.0, 10.0, 60.0)
    assert 0 < got < mean / (mean + 60) * 600 / 610 * (1 + 1e-9) + 1e-9
    if shape == 1:
        assert got == pytest.approx(float(form.goodput_frac(mean, 600.0, 10.0, 60.0)))


def test_spares_by_mean_demand_alone_are_too_few() -> None:
    """2,048 nodes at 6.5 failures per 1,000 node-days: 99.9 % needs 42 spares at two days of repair, 120 at seven."""
    assert queueing.spares_needed(2048, 0.0065, 2, 1e-3) == 42
    assert queueing.spares_needed(2048, 0.0065, 7, 1e-3) == 120
    assert queueing.stall_probability(2048, 27, 0.0065, 2) > 0.05


def test_queues_that_grow_without_end_wait_for_ever() -> None:
    assert queueing.mean_wait_mmc(4, 5.0, 1.0) == math.inf
    assert queueing.erlang_c(4, 5.0) == 1
    assert queueing.mean_wait_mg1(1.0, 1.0, 1.0) == math.inf


def test_one_kind_of_gang_is_erlang_s_loss_system() -> None:
    assert queueing.gang_blocking(64, [8], [5.0])[0] == pytest.approx(queueing.erlang_b(8, 5.0), rel=1e-12)
    assert queueing.gang_blocking(4, [8], [5.0])[0] == 1
