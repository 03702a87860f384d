"""A cluster in a scenario file: replications, verdict, books, exports, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sim
from sim.cluster.from_scenario import stage
from sim.cluster.study import play, saturation, study
from sim.cluster.tables import cluster_document
from sim.importers.imported import Tally
from sim.importers.sources import open_sources
from sim.importers.swf import read_swf
from sim.results.cluster_export import chrome_trace, event_log
from sim.results.cluster_log import account
from sim.results.cluster_stats import answers, jain, job_table, queue_series, size_class
from sim.spec.faults import ScenarioError
from sim.spec.job import Job
from sim.spec.loader import loads
from sim.spec.scheduling import POLICIES as SCENARIO_POLICIES

SCENARIO = """
name = "small"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 4
[[jobs.mixes]]
name = "people"
users = 5
arrivals = { rate_per_s = "60 /day" }
sizes = [ { gpus = 1, weight = 0.6, median_s = "20 min" }, { gpus = 8, weight = 0.4, median_s = "90 min" } ]
[study]
span_s = "4 d"
least = 3
most = 3
"""
FAILURES = """
[reliability]
node_failures_per_1000_node_days = [200.0, 400.0, 800.0]
job_failures_per_day = 0.5
"""


@pytest.fixture(scope="module")
def small():
    return study(loads(SCENARIO + FAILURES))


def test_books_close_and_every_job_is_accounted_for(small):
    books = account(small.log)
    assert books.gap_frac < 1e-9
    assert len({r.number for r in small.log.records}) == len(small.log.records)
    told = {r.outcome for r in small.log.records}
    assert told <= {"completed", "timeout", "waiting", "running"}
    assert sum(r.failures for r in small.log.records) > 0
    document = cluster_document(small)
    assert sum(row["share_frac"] for row in document["books"]) == pytest.approx(1, abs=1e-9)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_same_seed_same_answers_whatever_the_workers():
    scenario = loads(SCENARIO)
    one, two = study(scenario), study(scenario, workers=2)
    assert one.replications.values == two.replications.values
    other = study(loads(SCENARIO, overrides=["seed=1"]))
    assert other.replications.values != one.replications.values


def test_two_policies_meet_the_same_jobs():
    first, second = (
        play(stage(loads(SCENARIO, overrides=[f"policy.name={name}"]))) for name in ("fifo", "easy")
    )
    assert [(r.job, r.submit_s) for r in sorted(first.records, key=lambda r: r.number)] == [
        (r.job, r.submit_s) for r in sorted(second.records, key=lambda r: r.number)
    ]


@pytest.mark.parametrize("name", SCENARIO_POLICIES)
@pytest.mark.parametrize("placement", ["packed", "tiers"])
def test_every_policy_by_name_closes_its_books(name, placement):
    quotas = """
[[policy.quotas]]
name = "queue"
nominal_gpus = 8
"""
    queue = """
[[jobs.mixes.queues]]
name = "queue"
"""
    scenario = loads(
        SCENARIO.replace("[study]", queue + "[study]") + FAILURES + quotas,
        overrides=[f"policy.name={name}", f"policy.placement={placement}", "study.span_s=1 d"],
    )
    assert account(play(stage(scenario))).gap_frac < 1e-9


def test_more_load_turns_the_verdict():
    words = [
        study(loads(SCENARIO, overrides=[f"jobs.mixes.0.arrivals.rate_per_s={rate} /day"])).verdict
        for rate in (10, 2000)
    ]
    assert [v.word for v in words] == ["stable", "overloaded"]
    assert words[0].turns_frac > 0.5
    assert words[1].offered_frac > words[1].turns_frac


def test_saturation_of_equal_jobs_that_fill_the_nodes_is_one():
    scenario = loads(SCENARIO)
    jobs = [Job(str(i), 0.0, 8, 100.0) for i in range(40)]
    assert saturation(stage(scenario), jobs) == pytest.approx(1.0)
    wide = [Job(str(i), 0.0, 24, 100.0) for i in range(40)]  # three of four nodes at a time
    assert saturation(stage(scenario), wide) == pytest.approx(0.75)


def test_training_runs_take_their_length_from_the_step_model():
    text = (
        SCENARIO
        + """
[[jobs.runs]]
name = "llm"
nodes = 2
steps = 1000
submit_s = "1 h"
[jobs.runs.training]
model = "llama-3.1-8b"
global_batch = 64
sequence = 4096
[jobs.runs.training.plan]
tensor = 8
micro_batch = 1
recompute = "full"
"""
    )
    scenario = loads(text)
    staged = stage(scenario)
    alone = loads("""
name = "alone"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 2
[training]
model = "llama-3.1-8b"
global_batch = 64
sequence = 4096
[training.plan]
tensor = 8
micro_batch = 1
recompute = "full"
""")
    from sim.training.step import predict_step

    assert staged.step_s["llm"] == predict_step(alone, ()).step_s
    record = next(r for r in play(staged).records if r.job == "llm")
    assert record.gpus == 16
    with pytest.raises(ScenarioError) as told:
        loads(text, overrides=["jobs.runs.0.nodes=9", "jobs.runs.0.training.plan.tensor=7"])
    assert "jobs.runs.0.nodes" in str(told.value)


def test_a_policy_of_the_users_own_is_loaded_and_a_missing_one_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from sim.cluster.policy import Start\n\n\ndef widest(view):\n"
        "    for state in sorted(view.waiting, key=lambda s: -s.gpus):\n        yield Start(state)\n"
    )
    found = play(stage(loads(SCENARIO, overrides=[f"policy.function={file}:widest"])))
    assert any(r.outcome == "completed" for r in found.records)
    for wrong in (f"{tmp_path}/none.py:f", f"{file}:absent", "nonsense"):
        with pytest.raises(ScenarioError) as told:
            play(stage(loads(SCENARIO, overrides=[f"policy.function={wrong}"])))
        assert "policy.function" in str(told.value)


def test_exports_hold_every_stretch_and_can_be_read_again(small, tmp_path):
    log = small.log
    path = tmp_path / "log.parquet"
    path.write_bytes(event_log(log, ".parquet"))
    frame = pd.read_parquet(path)
    assert len(frame) == len(log.segments)
    assert frame["useful_s"].sum() == pytest.approx(sum(s.useful_s for s in log.segments))
    swf = tmp_path / "log.swf"
    swf.write_bytes(event_log(log, ".swf"))
    again = read_swf(open_sources([swf], Tally()), Tally())
    ended = [r for r in log.records if r.end_s is not None and r.end_s - r.submit_s - r.wait_s >= 0.5]
    assert len(again.jobs) == len(ended)
    trace = chrome_trace(log, "small")
    slices = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["tid"] != 9999]
    assert len(slices) == sum(len(s.placed.spots) for s in log.segments)
    assert {e["pid"] for e in slices} <= {e["pid"] for e in trace["traceEvents"] if e["ph"] == "M"}
    with pytest.raises(ValueError, match="expected a name"):
        event_log(log, ".xlsx")


def test_statistics_of_a_log_by_hand():
    table = job_table(play_two().records)
    assert table["wait_s"].tolist() == [0.0, 100.0]
    assert table["slowdown"].tolist() == [1.0, 2.0]
    found = answers(play_two())
    assert found["mean_wait_s"] == 50
    assert found["utilisation_frac"] == pytest.approx(1)
    assert jain({"a": 1.0, "b": 1.0}) == 1
    assert jain({"a": 1.0, "b": 0.0}) == 0.5
    assert [size_class(g) for g in (1, 2, 4, 5, 8, 9, 33)] == [
        "1",
        "2-4",
        "2-4",
        "5-8",
        "5-8",
        "9-16",
        "33-64",
    ]
    held = [row["held"] for row in queue_series(play_two(), 5)]
    assert np.allclose(held[:4], 8)


def play_two():
    from sim.cluster.nodes import Pool
    from sim.cluster.policies.order import Fifo
    from sim.cluster.run import simulate

    return simulate([Job("a", 0.0, 8, 100.0), Job("b", 0.0, 8, 100.0)], [Pool(1, 8)], Fifo())


def test_every_cluster_scenario_that_ships_loads():
    folder = Path(sim.__file__).parents[1] / "scenarios"
    names = sorted(folder.glob("cluster-*.toml"))
    assert len(names) >= 5
    for name in names:
        assert sim.load(name).jobs is not None


TRACE = """
name = "a trace"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 1
[jobs]
trace = "jobs.csv"
"""


def test_a_trace_alone_is_watched_for_as_long_as_it_lasts():
    """Jobs of half the node, one an hour, each an hour long: the load is a half, whatever the trace's length."""
    scenario = loads(TRACE)
    for count in (100, 1000):  # four days, and more than a month
        trace = [Job(str(i), 3600.0 * i, 4, 3600.0) for i in range(count)]
        found = study(scenario, trace)
        assert found.log.span_s == pytest.approx(3600.0 * (count - 1))
        assert found.verdict.offered_frac == pytest.approx(0.5, rel=1e-9)
        assert cluster_document(found)["jobs_left_out"] == 0
    burst = [Job(str(i), 0.0, 1, 60.0) for i in range(9)] + [Job("long", 0.0, 1, 1e9)]
    assert stage(scenario, burst).scenario.study.span_s == 60.0
    asked = study(loads(TRACE, overrides=["study.span_s=10 h"]), trace)
    assert cluster_document(asked)["jobs_left_out"] == 1000 - 11  # hours 0 to 10 are in it


def test_what_was_done_can_be_carried():
    """A small cluster with a wide gang: the tail of a drained backlog says less than the run itself has shown."""
    text = SCENARIO.replace(
        'weight = 0.4, median_s = "90 min" }',
        'weight = 0.4, median_s = "90 min" }, { gpus = 32, weight = 0.01, median_s = "1 d" }',
    )
    found = study(loads(text, overrides=["policy.name=easy", "jobs.mixes.0.arrivals.rate_per_s=600 /day"]))
    assert found.verdict.word == "overloaded"
    assert found.verdict.turns_frac >= found.replications.interval("goodput_frac").estimate
