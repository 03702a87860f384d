"""Results of a cluster study: why devices stood idle, verdicts against theory, warm-up, energy, pairs, points."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from sim.cluster.energy import energy
from sim.cluster.from_scenario import ground, stage
from sim.cluster.idle import idle_split
from sim.cluster.nodes import Nodes, Pool
from sim.cluster.outage import Outage
from sim.cluster.placement.whole import Packed
from sim.cluster.policies.easy import Easy
from sim.cluster.policies.order import Fifo
from sim.cluster.run import simulate
from sim.cluster.study import offered_frac, play, study, warm_up
from sim.cluster.tables import bands, cluster_document
from sim.planning.compare_clusters import compare_clusters
from sim.planning.sweep.points import cluster_figures, point
from sim.planning.sweep.points import simulate as run_point
from sim.results.cluster_export import chrome_trace
from sim.results.cluster_log import account
from sim.results.cluster_stream import PAGE_ROWS, ParquetSink
from sim.spec.job import Job
from sim.spec.loader import loads
from sim.spec.prices import Prices
from sim.spec.quantiles import Quantiles

TEXT = """
name = "queue"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = {nodes}
[[jobs.mixes]]
name = "people"
arrivals = {{ rate_per_s = "{rate} /day" }}
sizes = [ {{ gpus = 8, median_s = "1 h", sigma = 0.5, kind = "training" }} ]
[policy]
name = "{policy}"
[study]
span_s = "{span} d"
least = 4
most = 4
"""
MEAN_S = 3600 * math.exp(0.125)


def scenario(nodes=1, rate=15.0, span=300, policy="fifo", **overrides):
    settings = [f"{path.replace('__', '.')}={value}" for path, value in overrides.items()]
    return loads(TEXT.format(nodes=nodes, rate=rate, span=span, policy=policy), overrides=settings)


def test_one_node_waits_as_pollaczek_and_khinchine_say_and_the_verdict_follows_the_load():
    """M/G/1: W = lambda E[S^2] / 2 (1 - rho); Kleinrock, Queueing Systems I (1975), 5.6."""
    rate = 0.7 / MEAN_S
    found = study(scenario(rate=rate * 86400))
    second = 3600**2 * math.exp(2 * 0.25)
    wait = found.replications.interval("mean_wait_s")
    assert abs(wait.estimate - rate * second / 2 / 0.3) < 1.5 * wait.half_width
    assert found.verdict.word == "stable"
    assert found.verdict.turns_frac == pytest.approx(1.0)
    assert found.verdict.offered_frac == pytest.approx(0.7, abs=0.03)
    words = [study(scenario(rate=load / MEAN_S * 86400, span=60)).verdict.word for load in (0.96, 1.3)]
    assert words == ["backlogged", "overloaded"]


def test_littles_law_holds_in_every_replication():
    for number in range(2):
        log = play(stage(scenario(span=30)), number)
        assert log.waiting_job_s == pytest.approx(sum(r.wait_s for r in log.records), rel=1e-9)


def test_idle_time_is_split_by_hand():
    ground_of = lambda: Nodes([Pool(2, 8)], Packed())  # noqa: E731
    # 12 held of 16: a gang of 8 does not fit (4 + 4 free: fragments); a single fits but waits behind it: held back
    jobs = [
        Job("a", 0.0, 4, 100.0), Job("b", 0.0, 8, 100.0), Job("c", 10.0, 8, 50.0), Job("d", 60.0, 1, 10.0),
    ]  # fmt: skip
    log = simulate(jobs, ground_of(), Fifo())
    split = idle_split(log, ground_of(), jobs)
    assert split.fragments_gpu_s == pytest.approx(4 * 50.0)
    assert split.held_back_gpu_s == pytest.approx(4 * 40.0)
    assert sum(split) == pytest.approx(log.idle_though_jobs_wait_gpu_s)
    easy = idle_split(simulate(jobs, ground_of(), Easy()), ground_of(), jobs)
    assert easy.held_back_gpu_s == 0.0 or easy.held_back_gpu_s < split.held_back_gpu_s


@pytest.mark.parametrize("policy", ["fifo", "easy", "priority-preempt", "tiresias", "fair-share"])
def test_the_two_reasons_add_up_to_the_books_under_failures_too(policy):
    text = TEXT.format(nodes=3, rate=55, span=8, policy=policy).replace(
        "sizes = [",
        "sizes = [ { gpus = 3, median_s = '2 h' }, { gpus = 16, median_s = '1 h', weight = 0.2 },",
    )
    one = loads(text + "[reliability]\nnode_failures_per_1000_node_days = 400.0\njob_failures_per_day = 1\n"
                "causes = [{ name = 'node', repair = { mean_s = '9 h' }, detect = { mean_s = '10 min' } }]\n"
                "maintenance = { every_s = '3 d', lasts_s = '2 h' }\n")  # fmt: skip
    found = study(one)
    assert len(found.log.downtimes) > 0
    assert sum(found.idle) == pytest.approx(found.log.idle_though_jobs_wait_gpu_s, rel=1e-9)


def test_mser_finds_the_warm_up_of_a_cluster_that_fills_slowly():
    # 40 nodes, jobs of days: the number of jobs grows towards 25 with the mean length as time constant (M/G/inf)
    one = loads(
        TEXT.format(nodes=40, rate=5, span=120, policy="fifo").replace('"1 h"', '"4.4 d"'),
        overrides=["study.warm_up=auto"],
    )
    found = warm_up(stage(one))
    assert found.found
    assert not found.too_short
    assert 2 * 86400 < found.span_s < 40 * 86400
    grows = loads(TEXT.format(nodes=1, rate=60, span=30, policy="fifo"), overrides=["study.warm_up=auto"])
    assert warm_up(stage(grows)).too_short  # overloaded: it never settles


def test_energy_by_hand():
    one = scenario(nodes=2)
    jobs = [Job("a", 0.0, 8, 3600.0)]
    outage = [Outage(0.0, (1,), "node", 0.0, 1800.0)]
    log = simulate(jobs, ground(one), Fifo(), outages=outage, until_s=3600.0)
    exactly = Quantiles.exactly
    prices = Prices(
        power_compute_frac=exactly(1.0), power_stall_frac=exactly(0.5), power_idle_frac=exactly(0.2),
        pue=exactly(1.5), energy_usd_per_kwh=exactly(0.1),
    )  # fmt: skip
    kw = one.cluster.pools[0].system.node_power_w / 1000
    found = energy(log, one.cluster, prices)
    assert found["it_kwh"] == pytest.approx([kw * (1.0 + 0.2 * 0.5)] * 3)
    assert found["usd"] == pytest.approx([kw * 1.1 * 1.5 * 0.1] * 3)
    low, mid, high = energy(log, one.cluster)["usd"]
    assert low < mid < high


def test_bands_hold_the_first_replication_at_times_and_order_their_quantiles():
    found = study(scenario(span=20))
    rows = bands(found)
    assert all(row["held_p10"] <= row["held_p50"] <= row["held_p90"] <= 8 for row in rows)
    assert any(row["waiting_jobs_p90"] > 0 for row in rows)
    inside = [row["held_p10"] <= row["held"] <= row["held_p90"] for row in rows]
    assert np.mean(inside) > 0.5
    document = cluster_document(found)
    assert [row["name"] for row in document["by_kind"]] == ["training"]
    assert "interruptions" not in {row["name"] for row in document["answers"]}  # nothing can fail here


def test_pairs_share_their_jobs_so_that_the_difference_is_surer_than_the_values():
    first, second = (study(scenario(nodes=n, rate=40, span=40)) for n in (2, 3))
    document = compare_clusters([first, second])
    assert document["changed"] == [{"path": "cluster.pools.0.nodes", "values": [2, 3]}]
    row = next(row for row in document["answers"] if row["name"] == "jobs_done_per_day")
    a, b = row["values"]
    apart = math.hypot(a["high"] - a["low"], b["high"] - b["low"])
    assert row["differences"][1]["high"] - row["differences"][1]["low"] < apart / 2
    wait = next(row for row in document["answers"] if row["name"] == "mean_wait_s")["differences"][1]
    assert wait["sure"]
    assert wait["high"] < 0
    values = [s.replications.values["mean_wait_s"] for s in (first, second)]
    assert wait["mean"] == pytest.approx(np.mean(np.subtract(values[1], values[0])))
    same = compare_clusters([first, first])
    assert all(row["differences"][1]["mean"] == 0 for row in same["answers"])
    json.dumps(document, allow_nan=False)


def test_a_point_of_a_sweep_is_the_study():
    text = TEXT.format(nodes=1, rate=15, span=20, policy="fifo")
    row = run_point(point(text, "here.toml", [], [("cluster.pools.0.nodes", "2")]).payload)
    expected = cluster_figures(study(loads(text, overrides=["cluster.pools.0.nodes=2"])))
    assert row == expected
    assert row["outcome"] == "done"
    assert row["devices"] == 16
    assert 0 < row["utilisation_frac"] < 1
    assert row["verdict"] == "stable"


def test_offered_load_counts_what_falls_into_the_span():
    jobs = [Job("a", 0.0, 4, 50.0), Job("b", 80.0, 8, 100.0, limit_s=90.0), Job("c", 100.0, 8, 1.0)]
    assert offered_frac(jobs, 8, 100.0) == pytest.approx((4 * 50 + 8 * 20) / 800)


def test_a_chrome_trace_follows_the_trace_event_format():
    """Complete events need name, ph, ts, dur, pid, tid; slices of one thread nest or follow each other."""
    log = play(stage(scenario(nodes=2, rate=40, span=10)))
    trace = json.loads(json.dumps(chrome_trace(log, "queue"), allow_nan=False))
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in trace["traceEvents"]:
        assert event["ph"] in ("X", "M")
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert event["ts"] >= 0
            assert event["name"]
            lanes.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["dur"]))
    for slices in lanes.values():
        slices.sort()
        assert all(a + da <= b + 1e-3 for (a, da), (b, _) in itertools.pairwise(slices))


def test_a_log_on_disk_is_the_log_in_memory(tmp_path) -> None:
    jobs = [
        Job(str(n), 3.0 * n, 1 + n % 12, 30.0 + n % 7, 90.0, user=f"u{n % 3}", queue="q")
        for n in range(PAGE_ROWS + 5)
    ]
    pools = [Pool(10, 8)]
    kept = simulate(iter(jobs), pools, Fifo(), until_s=3.0 * PAGE_ROWS)
    with ParquetSink(tmp_path / "log") as sink:
        log = simulate(iter(jobs), pools, Fifo(), until_s=3.0 * PAGE_ROWS, sink=sink)
    assert (list(log.segments), list(log.records)) == ([], [])
    assert list(sink.read()) == list(kept.segments)
    assert list(sink.jobs()) == list(kept.records)
    assert account(log, sink.read()) == account(kept)
