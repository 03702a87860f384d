"""``rackcast run`` and ``compare`` on clusters, as real processes."""

from __future__ import annotations

import json

from tests.cli.test_run import rackcast

SMALL = """
name = "small"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 2
[[jobs.mixes]]
name = "people"
arrivals = { rate_per_s = "40 /day" }
sizes = [ { gpus = 8, median_s = "40 min" } ]
[study]
span_s = "3 d"
least = 3
most = 3
"""
TRACE = """
name = "replay"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 1
[jobs]
trace = "jobs.csv"
[study]
span_s = "1 h"
"""


def test_run_gives_the_same_bytes_for_one_and_two_workers_and_nothing_on_standard_error(tmp_path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    first, second = (rackcast("run", str(tmp_path / "small.toml"), "--json", "--jobs", n) for n in "12")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stderr == ""
    assert json.loads(first.stdout)["verdict"]["word"] in ("stable", "backlogged")


def test_compare_tells_the_difference_and_writes_a_page(tmp_path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    page = tmp_path / "page.html"
    done = rackcast(
        "compare", str(tmp_path / "small.toml"), "--set-b", "cluster.pools.0.nodes=4", "--report", str(page)
    )
    assert done.returncode == 0, done.stderr
    assert "cluster.pools.0.nodes" in done.stdout
    assert "B - A" in done.stdout
    text = page.read_text()
    assert "Side by side" in text
    assert "http" not in text.replace("http://www.w3.org", "").split("<h1>")[1].split("<script")[0]


def test_a_cluster_and_a_step_are_not_compared(tmp_path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    done = rackcast("compare", str(tmp_path / "small.toml"), "scenarios/llama-3.1-8b-64-h100.toml")
    assert done.returncode == 2
    assert "no answer in common" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_trace_is_replayed_once_for_nothing_is_left_to_chance(tmp_path) -> None:
    (tmp_path / "replay.toml").write_text(TRACE)
    (tmp_path / "jobs.csv").write_text("name,submit_s,gpus,duration_s\na,0,8,600\nb,0,8,600\n")
    done = rackcast("run", str(tmp_path / "replay.toml"), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["left_to_chance"] is False
    assert document["not_converged"] == []
    wait = next(row for row in document["answers"] if row["name"] == "mean_wait_s")
    assert (wait["mean"], wait["low"], wait["high"]) == (300.0, 300.0, 300.0)


def test_a_log_of_an_unknown_kind_is_refused_before_anything_runs(tmp_path) -> None:
    done = rackcast("run", "scenarios/cluster-university.toml", "--log", str(tmp_path / "log.xyz"))
    assert done.returncode == 2
    assert "expected a name that ends in .parquet, .csv, .swf" in done.stderr
