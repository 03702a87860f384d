"""Published failure rates: sourced, usable by name, as transcribed; and what the section refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sim.spec.catalog import UnknownName
from sim.spec.failure_rates import known_causes, rate_set, rate_sets, with_rates
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.spec.quantiles import Quantiles
from sim.spec.reliability import (
    LAWS,
    SCOPES,
    Batch,
    Cause,
    Checkpointing,
    Maintenance,
    Reliability,
    reliability_faults,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "failures.csv"


def test_every_set_has_a_source_and_every_cause_a_sound_behaviour() -> None:
    for found in rate_sets().values():
        assert found.source, found.key
        assert found.status in ("primary", "secondary", "computed"), found.key
        assert 0.01 < found.node_failures_per_1000_node_days < 20
    for cause in known_causes().values():
        assert cause.scope in SCOPES, cause.name
        assert {cause.detect.law, cause.repair.law, cause.replace.law} <= set(LAWS), cause.name


def test_counts_reproduce_the_rate_where_both_are_published() -> None:
    llama = rate_set("llama-3-405b")
    days = llama.days * llama.gpus / llama.gpus_per_node
    assert sum(llama.counts.values()) == 419
    assert llama.node_failures_per_1000_node_days == pytest.approx(419 / days * 1000, rel=1e-4)
    titan = rate_set("titan")
    assert sum(titan.counts.values()) == 6367
    assert titan.node_failures_per_1000_node_days == pytest.approx(24 / 139_000 * 1000, rel=1e-3)


def test_llama_s_counts_are_those_of_the_transcribed_table() -> None:
    if not SHARED.exists():
        pytest.skip("failures.csv: the table that the rates were transcribed from is not here")
    with SHARED.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["system"].startswith("Llama 3 405B")]
    counts = sorted(int(row["count_or_rate"]) for row in rows if row["count_or_rate"].isdigit())
    ours = sorted([*rate_set("llama-3-405b").counts.values(), 419, 268])
    assert counts == ours


def test_a_name_fills_in_what_the_section_leaves_out() -> None:
    named = with_rates(Reliability(rates="titan-old-batch"))
    assert named.node_failures_per_1000_node_days == Quantiles.exactly(0.225)
    assert [cause.weibull_shape for cause in named.causes] == [2.64]
    own = with_rates(Reliability(Quantiles(2.0, 4.0, 8.0), "rsc-1", causes=(Cause("gpu"),)))
    assert own.node_failures_per_1000_node_days == Quantiles(2.0, 4.0, 8.0)
    assert [cause.name for cause in own.causes] == ["gpu"]
    with pytest.raises(UnknownName, match="rsc-1"):
        with_rates(Reliability(rates="rsc1"))


def test_levels() -> None:
    section = Reliability(Quantiles(1.0, 2.0, 4.0))
    assert section.node_failures_per_s("high") == pytest.approx(4 * section.node_failures_per_s("low"))
    with pytest.raises(ValueError, match="level 'worst'"):
        section.node_failures_per_s("worst")
    with pytest.raises(ValueError, match="low, mid, high"):
        Reliability().node_failures_per_s()


def test_every_fault_is_told_at_once() -> None:
    section = Reliability(
        Quantiles.exactly(2.0),
        "llama-3-405",
        causes=(Cause("gpu", 0.0), Cause("gpu", 0.0)),
        batches=(Batch(0.7, 2.0), Batch(0.7, 3.0)),
        maintenance=Maintenance(3600.0, 7200.0),
        checkpoints=Checkpointing(rule="fixed"),
    )
    told = [str(fault) for fault in reliability_faults(section, list(rate_sets()), "a.toml")]
    assert len(told) == 6
    for text in (
        "nearest: llama-3-405b",
        "twice",
        "above 0",
        "at most 1",
        "fixed",
        "less than",
    ):
        assert any(text in line for line in told), text
    assert list(reliability_faults(Reliability(rates="rsc-2"), list(rate_sets()), "a.toml")) == []
    assert len(list(reliability_faults(Reliability(), [], "a.toml"))) == 1


@pytest.mark.parametrize(("given", "rate"), [("6.5", 6.5), ("[2, 6.5, 9]", 6.5)])
def test_a_rate_is_one_number_or_three(small: str, given: str, rate: float) -> None:
    section = loads(f"{small}\n[reliability]\nnode_failures_per_1000_node_days = {given}\n").reliability
    assert section is not None
    assert section.node_failures_per_s() == pytest.approx(rate / 1000 / 86400)


@pytest.mark.parametrize("given", ["[9, 2, 1]", "[1, 2]", "-1", "'often'"])
def test_a_rate_that_is_neither_is_refused_by_its_path(small: str, given: str) -> None:
    with pytest.raises(ScenarioError, match=r"reliability\.node_failures"):
        loads(f"{small}\n[reliability]\nnode_failures_per_1000_node_days = {given}\n")
