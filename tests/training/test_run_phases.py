"""Runs of many steps: phases that add up, checkpoints that block or do not, failures against random draws."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.results.step import StepResult
from sim.results.step_tables import step_document
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.training.run_phases import phases_s

STORAGE = '\n[cluster.storage]\nread_bytes_per_s = "40 GB/s"\nwrite_bytes_per_s = "4 GB/s"\n'
RUN = "\n[training.run]\nsteps = 1000\n"


def run(small: str, *changes: str) -> StepResult:
    text = small.replace("[training]", STORAGE + "\n[training]", 1) + RUN
    return sim.run(loads(text, overrides=[f"training.run.{change}" for change in changes]))


def phases(small: str, *changes: str) -> dict[str, float]:
    found = run(small, *changes).run
    assert found is not None
    return dict(found.phases_s)


# -- the pure function ------------------------------------------------------------------------------------------------


@given(steps=st.integers(1, 10**6), every=st.integers(1, 10**4), batch=st.floats(0.01, 100))
def test_evaluations_happen_every_so_many_steps(steps: int, every: int, batch: float) -> None:
    parts = phases_s(steps, 1.0, evaluate_every=every, evaluation_s=batch)
    assert parts["evaluation"] == pytest.approx((steps // every) * batch)
    assert parts["training"] == steps
    assert parts["lost"] == parts["restart"] == parts["checkpoint"] == parts["security"] == 0


@pytest.mark.parametrize(("write", "stall"), [(30.0, 10 * 2.0), (150.0, 10 * 2.0 + 9 * 50.0)])
def test_an_asynchronous_checkpoint_stalls_for_the_copy_and_for_a_write_that_is_not_done(
    write: float, stall: float
) -> None:
    """Ten checkpoints, 100 s of steps apart: the next waits for the write before it."""
    common: dict[str, Any] = {"checkpoint_every": 100, "write_s": write, "copy_s": 2.0}
    assert phases_s(1000, 1.0, **common, asynchronous=True)["checkpoint"] == pytest.approx(stall)
    assert phases_s(1000, 1.0, **common)["checkpoint"] == pytest.approx(10 * write)


@given(mtbf=st.floats(1e6, 1e9))
def test_rare_failures_lose_half_a_segment_each(mtbf: float) -> None:
    """First order: L/M failures a segment, half of it lost each time (Young 1974)."""
    parts = phases_s(
        10_000, 1.0, checkpoint_every=100, write_s=10.0, mean_time_between_failures_s=mtbf, restart_s=60.0
    )
    failures = 100 * 110.0 / mtbf
    assert parts["lost"] == pytest.approx(failures * 55.0, rel=1e-3, abs=1e-6)
    assert parts["restart"] == pytest.approx(failures * 60.0, rel=1e-3)


def test_failures_agree_with_random_draws() -> None:
    """Segments of 110 s played against exponential failures of mean 200 s, restarts of 30 s."""
    random = np.random.default_rng(np.random.SeedSequence(7))
    wall = []
    for _ in range(20_000):
        total = 0.0
        while (failure := random.exponential(200.0)) < 110.0:
            total += failure + 30.0
        wall.append(total + 110.0)
    parts = phases_s(
        100, 1.0, checkpoint_every=100, write_s=10.0, mean_time_between_failures_s=200.0, restart_s=30.0
    )
    assert float(sum(parts.values())) == pytest.approx(np.mean(wall), rel=0.02)


def test_there_is_a_best_interval_near_young() -> None:
    """sqrt(2 delta M): Young 1974, CACM 17(9)."""
    every = np.arange(10, 2000, 10)
    parts = phases_s(100_000, 1.0, checkpoint_every=every, write_s=5.0, mean_time_between_failures_s=10_000.0)
    wall = np.asarray(sum(parts.values()))
    assert every[wall.argmin()] == pytest.approx(np.sqrt(2 * 5.0 * 10_000.0), rel=0.15)


def test_arrays_are_answered_like_scalars() -> None:
    both = phases_s([100, 200], 1.0, checkpoint_every=[0, 10], write_s=3.0, asynchronous=[False, True])
    for place, (steps, every, free) in enumerate([(100, 0, False), (200, 10, True)]):
        one = phases_s(steps, 1.0, checkpoint_every=every, write_s=3.0, asynchronous=free)
        assert {name: both[name][place] for name in ("training", "checkpoint")} == {
            name: float(one[name]) for name in ("training", "checkpoint")
        }


# -- scenarios --------------------------------------------------------------------------------------------------------


def test_a_scenario_without_a_run_has_no_table(small: str) -> None:
    assert "run" not in step_document(sim.run(loads(small)))


def test_the_table_adds_up(small: str) -> None:
    changes = ("evaluate_every=100", "checkpoint_every=50", 'mean_time_between_failures_s="6 h"')
    result = run(small, *changes)
    table = step_document(result)["run"]
    assert sum(row["seconds"] for row in table["phases"]) == pytest.approx(table["wall_s"], rel=1e-12)
    assert sum(row["share_frac"] for row in table["phases"]) == pytest.approx(1.0)
    assert table["steps"] == 1000
    assert table["days"] == pytest.approx(table["wall_s"] / 86400)
    assert 0 < table["goodput_frac"] < 1
    assert table["goodput_frac"] == pytest.approx(1000 * result.step_s / table["wall_s"])


def test_tokens_round_up_to_whole_steps(small: str) -> None:
    text = small + "\n[training.run]\ntokens = 1e9\n"
    found = sim.run(loads(text)).run
    assert found is not None
    assert found.steps == -(-1_000_000_000 // (64 * 2048))
    assert found.goodput_frac == 1.0


def test_a_checkpoint_holds_weights_and_state_once(small: str) -> None:
    """Adam: 2 + 12 bytes a parameter, written by two nodes at 4 GB/s together."""
    found = run(small, "checkpoint_every=100").run
    assert found is not None
    assert found.checkpoint_bytes == pytest.approx(14 * 6.7e9, rel=0.02)
    assert found.checkpoint_write_s == pytest.approx(1e-3 + found.checkpoint_bytes / 4e9, rel=1e-6)
    assert found.phases_s["checkpoint"] == pytest.approx(10 * found.checkpoint_write_s)


def test_asynchronous_checkpoints_stall_less(small: str) -> None:
    free = phases(small, "checkpoint_every=100", "checkpoint=asynchronous")
    assert 0 < free["checkpoint"] < 0.2 * phases(small, "checkpoint_every=100")["checkpoint"]


def test_evaluation_does_a_forward_share(small: str) -> None:
    result = run(small, "evaluate_every=100", "evaluate_batches=20")
    assert result.run is not None
    batch = result.run.phases_s["evaluation"] / (10 * 20)
    assert 0.2 * result.step_s < batch < 0.5 * result.step_s


def test_protection_has_a_price_for_each_thing_it_guards(small: str) -> None:
    plain = phases(small, "checkpoint_every=100")
    assert plain["security"] == 0
    rest = phases(small, "checkpoint_every=100", "security.encrypted_storage=true")
    assert rest["checkpoint"] == pytest.approx(plain["checkpoint"] / 0.9, rel=1e-2)
    mode = phases(small, "security.confidential=true")
    assert mode["security"] > 0.001 * mode["training"]
    marked = phases(small, "security.watermark_samples=2")
    assert marked["security"] == pytest.approx(marked["training"] * 2 / 64)
    assert phases(small, "security.watermark_weights=1e6")["security"] > 0


def test_a_run_that_never_ends_says_so(small: str) -> None:
    table = step_document(run(small, "mean_time_between_failures_s=1.0"))["run"]
    assert table["wall_s"] is None
    assert table["goodput_frac"] == 0
    assert json.loads(json.dumps(table, allow_nan=False)) == table


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("steps = 0", "training.run"),
        ("steps = 5\ntokens = 1e9", "training.run"),
        ("steps = 5\ncheckpoint_every = 2", "training.run.checkpoint_every"),
        ('steps = 5\ncheckpoint = "sometimes"', "training.run.checkpoint"),
        ("steps = 5\nevaluate_every = -1", "training.run.evaluate_every"),
    ],
)
def test_runs_that_cannot_be(small: str, text: str, path: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        loads(f"{small}\n[training.run]\n{text}\n")
    assert path in [fault.path for fault in refused.value.faults]


def test_each_kind_of_protection_is_told_apart(small: str) -> None:
    """The kinds that toll a step add up to their phase; encryption at rest is what checkpoints take longer."""
    kinds = ("confidential=true", "watermark_samples=2", "watermark_weights=1e6", "encrypted_storage=true")
    guarded = run(small, "checkpoint_every=10", *(f"security.{kind}" for kind in kinds)).run
    plain = run(small, "checkpoint_every=10").run
    assert guarded is not None
    assert plain is not None
    at_rest = guarded.protection_s["encryption at rest: checkpoints"]
    assert sum(guarded.protection_s.values()) - at_rest == pytest.approx(guarded.phases_s["security"])
    assert at_rest == pytest.approx(guarded.phases_s["checkpoint"] - plain.phases_s["checkpoint"])
    assert plain.protection_s == {}
