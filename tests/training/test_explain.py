"""What is told beside a step: changes that fit really fit, gains are real, elasticities add up, intervals close."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.results.step import StepResult
from sim.spec.loader import loads
from sim.spec.profile import Constant, Fit, FitError
from sim.spec.profiles import fits_for
from sim.training import explain as explaining
from sim.training.explain import Change, Work, explain, fit_changes, scenario_memory, suggestions
from sim.training.inputs import INPUTS, better
from sim.training.interval import (
    UNMEASURED,
    constant_sigma,
    few_points_factor,
    fit_sigma,
    step_interval,
    worth_measuring,
)
from sim.training.shorter import is_long, played_passes, quick_step_s

FITS = fits_for("shipped")


def run(text: str, *changes: str) -> StepResult:
    return sim.run(loads(text, overrides=changes))


@pytest.fixture
def tight(small: str) -> tuple[str, StepResult]:
    """A plan that does not fit, as text and as its answer."""
    text = small.replace("gpt3-6.7b", "llama-3.1-8b").replace('recompute = "selective"', "")
    text = text.replace("tensor = 2", "tensor = 1").replace("sequence_parallel = true", "")
    text = text.replace("pipeline = 4", "pipeline = 1").replace("virtual_stages = 2", "")
    return text, run(text)


def overrides(text: str) -> list[str]:
    """What stands behind each ``--set``."""
    return [piece.strip() for piece in text.split("--set") if piece.strip()]


def test_memory_without_a_step_is_that_of_the_step(small: str) -> None:
    result = run(small)
    assert scenario_memory(result.scenario, FITS) == result.memory


def test_changes_that_fit_do_fit_when_typed(tight: tuple[str, StepResult]) -> None:
    text, result = tight
    assert not all(use.fits for use in result.memory)
    rows = fit_changes(result, FITS, Work(1e9))
    assert rows
    for row in rows:
        again = run(text, *overrides(row["set"]))
        assert all(use.fits for use in again.memory)
        assert row["step_time_s"] == pytest.approx(again.step_s, rel=5e-3)
        assert row["memory_bytes"] == max(use.total_bytes for use in again.memory)
    spent = [row["step_time_s"] * row["devices"] for row in rows]
    assert spent == sorted(spent)


def test_of_each_kind_the_smallest_change_is_told(tight: tuple[str, StepResult]) -> None:
    _, result = tight
    rows = fit_changes(result, FITS, Work(0))
    stages = [row["set"] for row in rows if "zero_stage" in row["set"]]
    assert len(stages) == 1
    smaller = int(stages[0][-1]) - 1
    below = Change({"training.plan.zero_stage": smaller}).apply(result.scenario)
    assert below is None or not all(use.fits for use in scenario_memory(below, FITS))
    assert all(row["step_time_s"] is None for row in rows)


def test_where_no_single_change_is_enough_pairs_are_tried(small: str) -> None:
    text = small.replace("gpt3-6.7b", "llama-3.1-405b").replace("nodes = 2", "nodes = 8")
    text = text.replace("global_batch = 64", "global_batch = 1024").replace("virtual_stages = 2", "")
    text = text.replace("tensor = 2", "tensor = 8")
    result = run(text)
    rows = fit_changes(result, FITS, Work(0))
    assert rows
    assert all(row["set"].count("--set") == 2 for row in rows)


def test_suggestions_gain_what_they_say(small: str) -> None:
    text = small.replace('recompute = "selective"', 'recompute = "full"\nflash_attention = false')
    result = run(text)
    rows = suggestions(result, FITS, Work(1e9))
    assert 1 <= len(rows) <= 3
    assert [row["gain_frac"] for row in rows] == sorted((row["gain_frac"] for row in rows), reverse=True)
    for row in rows:
        again = run(text, *overrides(row["set"]))
        assert row["gain_frac"] >= 0.01
        assert 1 - again.step_s / result.step_s == pytest.approx(row["gain_frac"], abs=5e-3)


def test_a_refused_change_is_no_scenario(small: str) -> None:
    scenario = loads(small)
    assert Change({"training.plan.tensor": 3}).apply(scenario) is None
    assert Change({"training.plan.tensor": 4}).apply(scenario) is not None
    assert Change({"training.plan.overlap_gradients": False}).words == "overlap gradients off"


def test_the_purse_of_work_is_kept(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(small)
    told = explain(result, FITS, again=False)
    assert told["suggestions"] == told["sensitivities"] == []
    assert told["not_tried"] == 0
    monkeypatch.setattr(explaining, "WORK_LIMIT", 1)
    assert explain(result, FITS)["not_tried"] > 0


def test_ten_percent_better_of_everything_is_ten_percent_at_most(small: str) -> None:
    rows = explain(run(small), FITS)["sensitivities"]
    changes = [row["change_frac"] for row in rows]
    assert changes == sorted(changes)
    assert {row["input"] for row in rows} == set(INPUTS) - {"data"}
    assert all(-1 / 11 - 1e-9 <= change <= 1e-9 for change in changes)
    by_input = {row["input"]: row["change_frac"] for row in rows}
    assert by_input["kernels"] <= by_input["peak"]  # kernels also wait for memory


def test_a_compute_bound_ideal_step_scales_with_the_peak() -> None:
    scenario = sim.load("scenarios/article-eight-devices.toml")
    result = sim.run(scenario)
    changed = better("peak", result, ())
    assert changed is not None
    assert sim.run(changed[0]).step_s == pytest.approx(result.step_s / 1.1)
    assert better("kernels", result, ()) is None
    assert step_interval(result, ())["low_s"] == result.step_s


def test_the_interval_is_the_quadrature_of_its_terms(small: str) -> None:
    result = run(small)
    told = step_interval(result, FITS)
    assert told["low_s"] < result.step_s < told["high_s"]
    assert log(told["high_s"] / told["low_s"]) == pytest.approx(2 * 1.2816 * told["sigma_frac"])
    assert sum(term["step_sigma_frac"] ** 2 for term in told["terms"]) == pytest.approx(
        told["sigma_frac"] ** 2
    )
    fits = [term for term in told["terms"] if term["source"].startswith("fit")]
    assert sum(term["share_frac"] for term in fits) <= 1 + 1e-9


def test_one_fit_for_all_gives_its_own_error(small: str) -> None:
    """Ops of one fit move together: as if the whole step leant on it; no other term, no other width."""
    result = run(small)
    error = FitError(6.745, 20.0, 0.0, 10**9, "test")
    fit = Fit("gemm", {"engine": "one"}, {}, error=error)
    alone = replace(
        result,
        uses=tuple(replace(use, fit=fit) for use in result.uses),
        overheads={},
        parts_s={
            **dict.fromkeys(result.parts_s, 0.0),
            "forward": result.step_s * 0.3,
            "backward": result.step_s * 0.5,
            "tensor communication": result.step_s * 0.1,
            "bubble": result.step_s * 0.1,
        },
    )
    assert step_interval(alone, FITS)["sigma_frac"] == pytest.approx(0.1)


def test_fewer_points_widen_the_interval_and_run_says_what_to_measure(small: str) -> None:
    result = run(small)

    def leaning_on(points: int) -> StepResult:
        fit = Fit("gemm", {"engine": "one"}, {}, error=FitError(10.0, 20.0, 0.0, points, "test"))
        return replace(result, uses=tuple(replace(use, fit=fit) for use in result.uses))

    many, few = (step_interval(leaning_on(points), FITS) for points in (200, 4))
    assert few["low_s"] < many["low_s"]
    assert few["high_s"] > many["high_s"]
    assert few["measure"][0]["part"] == "matmul"
    assert few["measure"][0]["command"] == "rackcast calibrate run --only matmul"
    assert len(few["measure"]) <= 3
    shares = [one["variance_frac"] for one in few["measure"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1 + 1e-9
    assert worth_measuring([]) == []


@given(points=st.integers(0, 10_000))
def test_few_points_widen_and_many_do_not(points: int) -> None:
    assert few_points_factor(points) >= few_points_factor(points + 1) >= 1
    # Student's t at 0.9 with 9 degrees of freedom is 1.383, the normal's quantile 1.2816
    assert few_points_factor(10) == pytest.approx(1.383 / 1.2816 * (1 + 1 / 10) ** 0.5, rel=0.01)


@given(width=st.floats(1.01, 3.0))
def test_sigma_of_a_constant_gives_its_interval_back(width: float) -> None:
    constant = Constant(1.0, "1", "fitted", "test", 1 / width, width)
    assert exp(1.2816 * constant_sigma(constant)) == pytest.approx(width)
    assumed = replace(constant, kind="assumed")
    assert constant_sigma(assumed) < constant_sigma(constant)
    assert constant_sigma(Constant(1.0, "1", "fitted", "test")) == UNMEASURED == fit_sigma(None)


@settings(max_examples=6, deadline=None)
@given(
    schedule=st.sampled_from(["1f1b", "gpipe", "zb-h1"]),
    virtual=st.sampled_from([1, 2]),
    rounds=st.integers(6, 7),
)
def test_two_short_steps_tell_a_long_one(schedule: str, virtual: int, rounds: int) -> None:
    from pathlib import Path

    text = (Path(__file__).parents[1] / "properties" / "small.toml").read_text()
    virtual = virtual if schedule == "1f1b" else 1
    batch = 8 * rounds
    plan = [f"training.plan.schedule={schedule}", f"training.plan.virtual_stages={virtual}"]
    result = run(text, f"training.global_batch={batch}", *plan)
    assert is_long(result.scenario)
    assert quick_step_s(result.scenario, FITS) == pytest.approx(result.step_s, rel=1e-9)
    assert played_passes(result.scenario) == 3 * 4 * 4 * virtual


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["1f1b", "gpipe", "zb-h1"]), st.sampled_from([1, 2, 4]), st.integers(25, 70))
def test_a_search_and_a_run_agree_where_part_of_a_round_is_left_over(
    schedule: str, virtual: int, passes: int
) -> None:
    from pathlib import Path

    text = (Path(__file__).parents[1] / "properties" / "small.toml").read_text()
    virtual = virtual if schedule == "1f1b" else 1
    plan = [f"training.plan.schedule={schedule}", f"training.plan.virtual_stages={virtual}"]
    result = run(text, f"training.global_batch={2 * passes}", *plan)
    assert quick_step_s(result.scenario, FITS) == pytest.approx(result.step_s, rel=1e-9)
    assert played_passes(result.scenario) <= result.micro_batches * 4 * virtual


def test_the_same_scenario_is_explained_in_the_same_words(small: str) -> None:
    assert explain(run(small), FITS) == explain(run(small), FITS)


def test_experts_spread_over_nodes_are_told_to_stay_together() -> None:
    """32 expert ranks cross four nodes with every token; eight stay inside one: the suggestion says so and holds."""
    text = """
    name = "experts"
    [[cluster.pools]]
    system = "dgx-h100"
    nodes = 8
    [training]
    model = "deepseek-v2-lite"
    sequence = 4096
    global_batch = 128
    [training.plan]
    expert = 32
    zero_stage = 1
    recompute = "full"
    """
    result = sim.run(loads(text))
    told = explain(result, fits_for("shipped"))["suggestions"]
    row = next(row for row in told if "training.plan.expert=" in row["set"])
    assert row["gain_frac"] > 0.05
    again = sim.run(loads(text, overrides=[row["set"].removeprefix("--set ")]))
    assert again.step_s == pytest.approx(row["step_time_s"], rel=1e-6)
