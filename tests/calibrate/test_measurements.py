"""The measurement file: round trip, one step writing, and every fault at once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate import measurements as book
from calibrate.measurements import Measurements, MeasurementsError, from_json, load, save, to_json
from calibrate.stand_in import slug, stand_in_devices
from calibrate.tables import TABLES

TIMES = {"time_us": 10.0, "low_us": 9.0, "high_us": 12.5, "repeats": 7, "source": "test"}
GEMM = {"gpu": "X", "generation": "cpu", "dtype": "float32", "layout": "TN", "engine": "torch eager"}
MEMORY = {
    "gpu": "X",
    "op": "copy",
    "dtype": "float32",
    "rows": 4,
    "cols": 8,
    "bytes": 256.0,
    "engine": "e",
    **TIMES,
}
RING = {
    "system": "S",
    "gpu": "X",
    "nodes": 1,
    "gpus": 4,
    "fabric": "gloo",
    "collective": "all_reduce",
    **TIMES,
}


def gemm(m=64, n=64, k=64, **others):
    return {**GEMM, "m": m, "n": n, "k": k, **TIMES, **others}


def example() -> Measurements:
    tables = {
        "gemm": (gemm(), gemm(m=1)),
        "memory": (MEMORY,),
        "collectives": ({**RING, "size_bytes": 4096},),
    }
    return Measurements(
        environment={"device": "X", "torch": "2"},
        settings={"seed": 3},
        tables=tables,
        warnings=("drift: 10 %",),
        devices=stand_in_devices(tables, units=2, memory_bytes=1e9, cache_bytes=1e6),
        complete=True,
    )


def test_round_trip(tmp_path):
    save(example(), tmp_path / "deep" / "m.json")
    assert load(tmp_path / "deep" / "m.json") == example()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m.json"], "no draft stays behind"


sizes = st.integers(1, 100_000)


@given(st.lists(st.tuples(sizes, sizes, sizes, st.floats(0.01, 1e7)), max_size=5), st.text(max_size=20))
def test_round_trip_of_any_rows(shapes, warning):
    rows = tuple(gemm(m, n, k, time_us=t, low_us=t / 2, high_us=t * 2) for m, n, k, t in shapes)
    one = replace(example(), tables={"gemm": rows}, warnings=(warning,))
    assert from_json(to_json(one)) == one


def test_one_row_a_line():
    lines = to_json(example()).splitlines()
    assert sum('"dtype": "float32", "layout"' in line for line in lines) == 2


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "m.json"
    save(example(), path)
    with pytest.raises(ValueError, match="Out of range float"):
        save(replace(example(), environment={"load": float("nan")}), path)
    assert load(path) == example()


def test_columns_are_arrays_with_gaps_filled():
    columns = book.columns([gemm(), {**gemm(m=2), "engine": None, "tflops": 3.0}])
    assert columns["m"].tolist() == [64.0, 2.0]
    assert columns["engine"].tolist() == ["torch eager", ""]
    assert np.isnan(columns["tflops"]).tolist() == [True, False]
    assert Measurements({}).columns("gemm") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected measurements of schema 1, found 'list'"),
        ('{"schema": 7}', "schema 1, found 7"),
        ('{"schema": 1}', "environment: expected an object, found NoneType"),
    ],
)
def test_other_files_are_refused(text, says):
    with pytest.raises(MeasurementsError, match=says):
        from_json(text, "m.json")


def test_every_fault_is_listed_at_once():
    document = json.loads(to_json(example()))
    rows = document["tables"]["gemm"]
    rows[0] |= {"m": 1.5, "time_us": -3, "dtype": ""}
    rows[1] |= {"low_us": 11.0, "k": True}
    del rows[1]["engine"]
    document["tables"] |= {"memroy": [], "memory": {}, "launch": ["fast"]}
    document["warnings"] = "none"
    document["devices"]["X"]["flop_per_s"]["fp32"] = "fast"
    with pytest.raises(MeasurementsError) as caught:
        from_json(json.dumps(document), "m.json")
    faults = str(caught.value).splitlines()
    expected = [
        "warnings: expected a list, found str",
        "devices.X: could not convert string to float: 'fast'",
        "tables.gemm[0].dtype: expected text (number format of the product), found ''",
        "tables.gemm[0].m: expected a positive whole number (rows of C (tokens)), found 1.5",
        "tables.gemm[0].time_us: expected a positive number (median of one call, microseconds), found -3",
        "tables.gemm[1].k: expected a positive whole number (inner size (input features)), found True",
        "tables.gemm[1].engine: missing (library that ran it)",
        "tables.gemm[1]: expected low_us <= time_us <= high_us, found [11.0, 10.0, 12.5]",
        f"tables.memroy: not one of {', '.join(TABLES)}; nearest is 'memory'",
        "tables.memory: expected a list of rows, found dict",
        "tables.launch[0]: expected an object, found str",
    ]
    assert sorted(faults) == sorted(f"m.json: {fault}" for fault in expected)


def test_absent_file_is_one_fault(tmp_path):
    with pytest.raises(MeasurementsError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_stand_in_is_the_best_rate_seen():
    slow, fast = gemm(m=100, n=100, k=100), gemm(m=200, n=100, k=100, time_us=11.0)
    hot = {**MEMORY, "bytes": 1e5, "time_us": 1.0}  # in the cache: not the memory's rate
    large = {**MEMORY, "bytes": 5e6, "time_us": 500.0}
    tables = {"gemm": [slow, fast], "memory": [hot, large], "collectives": [{**RING, "size_bytes": 1e6}]}
    device = stand_in_devices(tables, units=2, memory_bytes=1e9, cache_bytes=1e6)["X"]
    assert device.flop_per_s == {"fp32": pytest.approx(2 * 200 * 100 * 100 / 11e-6)}
    assert device.memory_bytes_per_s == pytest.approx(1e10)
    assert device.scale_up_bytes_per_s == pytest.approx(1.5 * 1e6 / 10e-6)
    assert (device.key, device.generation, device.sm_count) == ("x", "cpu", 2)


def test_stand_in_without_memory_rows_takes_the_rate_of_operands():
    tables = {"gemm": [gemm(m=1, n=1000, k=1000, time_us=100.0, high_us=101.0)]}
    device = stand_in_devices(tables, units=2, memory_bytes=1e9, cache_bytes=1e6)["X"]
    assert device.memory_bytes_per_s == pytest.approx(4 * (1000 + 1000 + 1e6) / 100e-6)


def test_slug():
    assert slug("Intel(R) Xeon(R) 8480+  @ 2 GHz") == "intel-r-xeon-r-8480-2-ghz"
