"""Logs of nccl-tests: generated ones in every layout, cut ones, and the collected samples where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.importers import nccl_tests
from calibrate.importers.common import Hints, LogError
from calibrate.measurements import from_json, to_json

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "samples" / "nccl_tests"
LATENCY_US, BYTES_PER_US = 20.0, 1e5
# nccl-tests doc/PERFORMANCE.md: factor of busbw, whether count is a rank's share, redop and root as printed
FORMS = {
    "all_reduce": (lambda n: 2 * (n - 1) / n, False, "sum", -1),
    "all_gather": (lambda n: (n - 1) / n, True, "none", -1),
    "reduce_scatter": (lambda n: (n - 1) / n, True, "sum", -1),
    "broadcast": (lambda n: 1.0, False, "none", 0),
    "reduce": (lambda n: 1.0, False, "sum", 0),
    "sendrecv": (lambda n: 1.0, False, "none", -1),
    "alltoall": (lambda n: (n - 1) / n, True, "none", -1),
}


def time_us(size_bytes: int) -> float:
    return LATENCY_US + size_bytes / BYTES_PER_US


def row(name: str, ranks: int, size_bytes: int, wrong: str = "0") -> str:
    factor, share, redop, root = FORMS[name]
    count = size_bytes // 4 // (ranks if share else 1)
    algbw = size_bytes / time_us(size_bytes) / 1e3
    cells = f"{time_us(size_bytes):8.2f} {algbw:7.2f} {algbw * factor(ranks):7.2f} {wrong:>6}"
    twin = f"{'N/A':>8} {'N/A':>7} {'N/A':>7} {'N/A':>6}" if name == "alltoall" else cells
    return f"{size_bytes:12d} {count:12d} {'float':>8} {redop:>7} {root:7d} {cells} {twin}"


def log(
    name: str = "all_reduce", ranks: int = 8, nodes: int = 1, *, devices: bool = True, wrong: str = "0"
) -> str:
    lines = [
        "# nThread 1 nGpus 1 minBytes 1024 maxBytes 1 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1"
    ]
    if devices:
        lines += ["# Using devices"]
        lines += [
            f"#  Rank {r:2d} Group  0 Pid {900 + r} on h{r * nodes // ranks} device {r:2d} [0000:{r:02x}:00] Acme X1"
            for r in range(ranks)
        ]
    lines += [
        "#                                        out-of-place                       in-place",
        "#       size  count  type  redop  root  time  algbw  busbw #wrong  time  algbw  busbw #wrong",
        "#        (B)  (elements)               (us)  (GB/s)  (GB/s)        (us)  (GB/s)  (GB/s)",
    ]
    lines += [row(name, ranks, 2**power * ranks, wrong) for power in range(10, 26, 3)]
    return "\n".join([*lines, "# Out of bounds values : 0 OK", "# Avg bus bandwidth    : 1.0", ""])


def rows(text: str, name: str = "x.log", **hints: object) -> tuple:
    return nccl_tests.read(text, Path(name), Hints(**hints)).measurements.tables["collectives"]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("ranks", "nodes"), [(2, 1), (8, 1), (16, 2), (6, 3)])
def test_every_collective_is_told_from_its_rows(name: str, ranks: int, nodes: int) -> None:
    found = rows(log(name, ranks, nodes))
    assert {r["collective"] for r in found} == {name}
    assert {(r["gpus"], r["nodes"], r["gpu"]) for r in found} == {(ranks, nodes, "Acme X1")}
    assert {r["place"] for r in found} == (
        {"out_of_place"} if name == "alltoall" else {"out_of_place", "in_place"}
    )
    for r in found:
        assert r["time_us"] == pytest.approx(time_us(r["size_bytes"]), abs=0.006)
        bus = FORMS[name][0](ranks) * r["size_bytes"] / time_us(r["size_bytes"]) / 1e3
        assert r["busbw_gbps"] == pytest.approx(bus, rel=1e-3)
        assert r["repeats"] == 20


PREFIXES = ["", "0: ", "[1,0]<stdout>:", "   [1,0]<stdout>:", "[0]: "]


@given(prefix=st.sampled_from(PREFIXES), at=st.integers(7, 14), ranks=st.sampled_from([2, 4, 8, 16, 64]))
def test_prefixes_elided_rows_and_strays_are_stepped_over(prefix: str, at: int, ranks: int) -> None:
    lines = log("all_reduce", ranks, devices=False).splitlines()
    stray = ["host:1:1 [0] NCCL INFO Launch mode Parallel", "NCCL version 2.26.6+cuda12.8", "..."]
    lines[at:at] = stray
    one = nccl_tests.read("\n".join(prefix + line for line in lines), Path("x.log"))
    found = one.measurements.tables["collectives"]
    assert len(found) == 12
    assert {(r["gpus"], r["collective"]) for r in found} == {(ranks, "all_reduce")}, (
        "ranks follow from the bandwidths"
    )
    assert any("elided" in note for note in one.measurements.warnings) == (at < len(lines))
    assert any("unknown" in note for note in one.measurements.warnings)


@given(cut=st.integers(0, 3000))
def test_a_cut_log_gives_its_whole_rows_or_one_clear_line(cut: int) -> None:
    whole = rows(log())
    try:
        found = rows(log()[:cut], gpus=8, nodes=1, gpu="Acme X1")
    except LogError as fault:
        assert len(str(fault).splitlines()) == 1
        assert str(fault).startswith("x.log: ")
    else:
        columns = ("size_bytes", "time_us", "place")
        assert {tuple(r[c] for c in columns) for r in found[:-2]} <= {
            tuple(r[c] for c in columns) for r in whole
        }


def test_a_hung_run_a_stranger_and_wrong_results_are_refused() -> None:
    header = log().split("  1024")[0].rsplit("\n", 1)[0]
    for text, says in (
        (header[: header.index("     8192")], "no data row after the header and 8 ranks: the run hung"),
        (
            "    size(B)    count(elems)    type    time:avg(us)    algbw(GB/s)\n 8 2 fp32 63.5 0.0\n",
            "nccom-test",
        ),
        ("hello\n", "no table of nccl-tests"),
        (log(wrong="3"), "every row has wrong results"),
        ('{"config": {}', "breaks off or is malformed"),
        ('{"config": {}}', "expected the -J output of nccl-tests"),
    ):
        with pytest.raises(LogError) as caught:
            rows(text)
        assert says in str(caught.value)


def test_rows_with_wrong_results_are_left_out_with_a_word() -> None:
    text = log().replace("\n# Out", "\n" + row("all_reduce", 8, 2**30, wrong="5") + "\n# Out")
    one = nccl_tests.read(text, Path("x.log"))
    assert max(r["size_bytes"] for r in one.measurements.tables["collectives"]) < 2**30
    assert any("#wrong" in note for note in one.measurements.warnings)
    assert not one.measurements.complete


def test_the_old_layout_without_root_and_with_not_checked_errors() -> None:
    table = (
        "# nThread 1 nGpus 4 iters: 20\n#   Rank  0 Pid 1 on a device  0 [0x00] Acme\n"
        "#   Rank  1 Pid 1 on a device  1 [0x00] Acme\n"
        "#       size  count  type  redop  time  algbw  busbw  error  time  algbw  busbw  error\n"
        "           0             0   float     sum    35.20    0.00    0.00    N/A    34.05    0.00    0.00    N/A\n"
        "     4194304       1048576   float     sum    40.00  104.86  104.86    N/A    41.00  102.30  102.30    N/A\n"
    )
    found = rows(table)
    assert [(r["collective"], r["size_bytes"], r["time_us"]) for r in found] == [
        ("all_reduce", 4194304, 40.0),
        ("all_reduce", 4194304, 41.0),
    ]


def test_rccl_is_named_and_hints_win() -> None:
    text = "rccl-tests: Version develop:1\n" + log()
    found = rows(text, gpu="MI300X", system="rack 1", fabric="xgmi", nodes=2)
    assert {(r["engine"], r["gpu"], r["system"], r["fabric"], r["nodes"]) for r in found} == {
        ("rccl", "MI300X", "rack 1", "xgmi", 2)
    }
    assert all(r["source"].startswith("rccl-tests") for r in found)


def test_a_table_that_fits_two_collectives_says_which_it_took() -> None:
    text = log("all_gather", 4)
    assert any(
        "all_gather taken" in note for note in nccl_tests.read(text, Path("x.log")).measurements.warnings
    )
    assert {r["collective"] for r in rows(text, collective="alltoall")} == {"alltoall"}
    assert {r["collective"] for r in rows(text, "alltoall-4.log")} == {"alltoall"}
    assert {r["collective"] for r in rows("# alltoall_perf -b 8\n" + text)} == {"alltoall"}


def document() -> dict:
    entry = {"time": 120.0, "alg_bw": 8.738, "bus_bw": 15.29, "nwrong": 0}
    result = {"size": 1048576, "count": 262144, "type": "float", "redop": "sum", "root": -1}
    return {
        "version": "2.17.6",
        "nccl_version": "2.27.3",
        "args": ["./all_reduce_perf", "-J", "x.json"],
        "config": {"iterations": 20, "devices": [{"hostname": "a", "device_info": "Acme X1"}] * 8},
        "results": [{**result, "out_of_place": entry, "in_place": {**entry, "time": "nan"}}],
        "errors": [],
    }


def test_the_json_form_reads_and_its_bad_rows_are_named() -> None:
    good = document()
    good["results"][0]["in_place"] = None
    (only,) = rows(json.dumps(good), "x.json")
    assert (only["collective"], only["gpus"], only["time_us"], only["nccl_version"]) == (
        "all_reduce",
        8,
        120.0,
        "2.27.3",
    )
    bad = document()
    bad["results"] += good["results"]
    bad["errors"] = ["rank 3 timed out"]
    one = nccl_tests.read(json.dumps(bad), Path("x.json"))
    assert len(one.measurements.tables["collectives"]) == 1
    assert any("results[0]" in note for note in one.measurements.warnings)
    assert any("rank 3 timed out" in note for note in one.measurements.warnings)
    with pytest.raises(LogError, match="no data row"):
        rows(json.dumps(document()), "x.json")


NOT_LOGS = {"README.md"}
REFUSED = {"aws_neuron_nccom_not_nccl.log": "Neuron", "hung": "no data row", "truncated": "no data row"}


@pytest.mark.skipif(not SAMPLES.exists(), reason="the collected samples are not beside the repository")
def test_every_collected_log_parses_or_is_refused_with_its_reason() -> None:
    paths = [path for path in sorted(SAMPLES.iterdir()) if path.name not in NOT_LOGS]
    assert len(paths) > 20
    for path in paths:
        reason = next((says for mark, says in REFUSED.items() if mark in path.name), "")
        text = path.read_text(encoding="utf-8")
        if reason:
            with pytest.raises(LogError, match=reason):
                nccl_tests.read(text, path)
            continue
        one = nccl_tests.read(text, path)
        assert from_json(to_json(one.measurements)).tables["collectives"]
        last = one.measurements.tables["collectives"][-1]
        printed = [
            float(word) for word in text.split(str(last["size_bytes"]))[-1].split()[:12] if word[0].isdigit()
        ]
        if "fixture" not in path.name:
            assert any(value == pytest.approx(last["busbw_gbps"], rel=0.02) for value in printed), path.name
