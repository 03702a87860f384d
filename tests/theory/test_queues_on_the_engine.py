"""Short runs of the engine against exact queueing results; the long table is ``python -m benchmarks.queueing``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import queueing
from benchmarks.queueing import joined, runner
from sim.cluster.failures.spares import of_the_floor
from sim.cluster.nodes import Pool
from sim.cluster.outage import Outage
from sim.cluster.policies.order import Fifo
from sim.cluster.run import simulate
from sim.spec.reliability import Spares

ROWS = {
    # Erlang C; Pollaczek-Khinchine; processor sharing 1 / (mu - lambda); Cobham; Kaufman-Roberts; M/M/R//N; H_n
    "M/M/c": ({"arrival_rate": 1.6, "service_rate": 1, "servers": 2}, {"mean_wait_s": 16 / 9}),
    "M/D/1": ({"arrival_rate": 0.8, "service_s": 1}, {"mean_wait_s": 2.0, "mean_number_in_system": 2.4}),
    "M/G/1-PS": ({"arrival_rate": 0.5, "mean_service_s": 1, "service": "any"}, {"mean_response_s": 2.0}),
    "M/M/1-priority-nonpreemptive": (
        {"arrival_rates": [0.3, 0.4], "service_rate": 1},
        {"mean_wait_s_class1": 1.0, "mean_wait_s_class2": 10 / 3},
    ),
    "multirate-loss": (
        {"gpus": 8, "job_gpus": [1, 2, 4], "offered_erlangs": [2.0, 1.0, 0.5], "service": "any"},
        {"prob_block_1gpu": 0.09853366956196878, "prob_block_4gpu": 0.49005323620061636},
    ),
    "saturated-gang-FCFS": (
        {"gpus": 32, "job_gpus": [3], "probs": [1.0], "service": "exponential", "service_rate": 1},
        {"utilisation": 0.9375, "jobs_per_s": 10.0},
    ),
    "machine-repair": (
        {"machines": 100, "failure_rate": 0.01, "repair_rate": 0.5, "crews": 3},
        {"mean_machines_down": 2.6416062010647354},
    ),
    "gang-straggler": ({"ranks": 8, "step": "uniform", "low": 1, "high": 2}, {"mean_step_s": 17 / 9}),
}


@pytest.mark.parametrize("model", sorted(ROWS))
def test_exact_values_lie_within_the_intervals_of_short_runs(model, monkeypatch):
    for name, value in {"WARM": 500, "STRETCH": 150, "STRETCHES": 60, "GANG_STEPS": 20}.items():
        monkeypatch.setattr(queueing, name, value)
    monkeypatch.setattr(queueing.models, "REPAIR_SPAN_S", 10_000.0)
    monkeypatch.setattr(queueing, "LEVEL_FRAC", 0.9999)
    p, exact = ROWS[model]
    rows = [
        {"id": f"q{n}", "model": model, "params_json": json.dumps(p), "quantity": quantity}
        for n, quantity in enumerate(exact)
    ]
    found = runner(rows, 1)(0)
    for row in rows:
        interval = joined([found], row["id"]).interval
        value = exact[row["quantity"]]
        assert interval.low <= value <= interval.high
        assert interval.half_width < 0.3 * value, "an interval that holds anything"


def test_one_crew_mends_one_node_after_another_and_who_is_away_cannot_fail():
    broken = [
        Outage(0.0, (0,), "node", 0.0, 10.0),
        Outage(1.0, (1,), "node", 2.0, 10.0),  # found at 3, waits until 10
        Outage(5.0, (0,), "node", 0.0, 10.0),  # is away
        Outage(12.0, (0,), "node", 0.0, 10.0),  # waits until 20
        Outage(13.0, (2,), "maintenance", 0.0, 4.0),  # needs no crew
    ]

    def away(crews):
        outages = of_the_floor(broken, (), 3, Spares(), crews)
        log = simulate((), [Pool(3, 1)], Fifo(), outages=outages, until_s=40.0)
        return sorted((one.node, one.start_s, one.end_s) for one in log.downtimes)

    assert away(1) == [(0, 0.0, 10.0), (0, 12.0, 30.0), (1, 3.0, 20.0), (2, 13.0, 17.0)]
    assert away(2) == away(0) == [(0, 0.0, 10.0), (0, 12.0, 22.0), (1, 3.0, 13.0), (2, 13.0, 17.0)]


def test_controls_have_the_means_that_theory_gives_them():
    p = {"arrival_rate": 6.8, "service_rate": 1, "servers": 8}
    asked = queueing.models.setting("M/M/c", p, np.random.default_rng(3), 300_000)
    wait_s = queueing.answers.fast_server_wait_s(asked)
    assert wait_s.mean() == pytest.approx(0.85 / 1.2, rel=0.05)  # rho / (c mu - lambda)
    held = queueing.answers.held_before(asked, asked.submit_s + asked.service_s, asked.gpus.astype(float))
    law = queueing.answers.held_law(p, 6.8)
    assert held[1000:].mean() == pytest.approx(6.8, rel=0.02)
    assert (held[1000:] > 7).mean() == pytest.approx(law[8:].sum(), rel=0.03)
