"""The design of shapes, and real products timed on this machine's CPU."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.measurements import table_faults
from calibrate.microbenchmarks import launch, matmul, memory


@settings(deadline=None, max_examples=50)
@given(st.integers(6, 60), st.integers(0, 10_000), st.floats(1e7, 1e14), st.floats(1e5, 1e9))
def test_shapes_are_distinct_and_within_their_limits(count, seed, most_flop, most_values):
    found = matmul.shapes(count, seed, most_flop, most_values)
    assert len(found) == len(set(found)) <= count
    assert len(found) >= 4
    for m, n, k in found:
        assert 2 * m * n * k <= most_flop
        assert m * k + n * k + m * n <= most_values
        assert min(m, n, k) >= 1
        assert max(m, n, k) <= matmul.LARGEST
    assert matmul.shapes(count, seed, most_flop, most_values) == found


def test_shapes_cover_small_and_large_aligned_and_not():
    found = matmul.shapes(100, 0, 1e15, 1e10)
    assert len(found) == 100
    octaves = [{round(math.log2(shape[axis]) / 2) for shape in found} for axis in range(3)]
    assert octaves[0] >= set(range(1, 7)), "m: from one row to thousands"
    assert octaves[1] >= set(range(3, 8))
    assert octaves[2] >= set(range(3, 8))
    unaligned = sum(n % 8 != 0 or k % 8 != 0 for _, n, k in found)
    assert 5 <= unaligned <= 25
    assert matmul.shapes(100, 1, 1e15, 1e10) != found


@given(st.integers(2, 40), st.floats(1e6, 1e9))
def test_memory_shapes_grow_to_the_largest_and_vary_in_width(count, most_values):
    found = memory.shapes(count, most_values)
    sizes = [rows * cols for rows, cols in found]
    assert max(sizes) <= most_values
    assert max(sizes) > most_values / 2 - 16384 or count < 3
    assert len({cols for _, cols in found}) == min(len(memory.COLUMNS), count)


@pytest.mark.torch
class TestRealTimings:
    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("torch", reason="timing products needs torch (extra: calibrate)")

    @pytest.fixture
    def machine(self):
        from calibrate.environment import machine

        return machine("cpu")

    def test_rows_are_sound_and_more_work_takes_longer(self, machine):
        for budget_s in (1.5, 6.0, 24.0):  # a busy machine may not get far in one second
            rows = list(matmul.measure(machine, budget_s, 5, lambda text: None))
            if sum(row["dtype"] == "float32" for row in rows) >= 5:
                break
        assert table_faults({"gemm": rows}) == []
        assert {"float32"} <= {row["dtype"] for row in rows}
        plain = sorted(
            (row for row in rows if row["dtype"] == "float32"), key=lambda row: row["m"] * row["n"] * row["k"]
        )
        least, most = plain[0], plain[-1]
        ratio = most["m"] * most["n"] * most["k"] / (least["m"] * least["n"] * least["k"])
        assert ratio > 20
        assert most["time_us"] > least["time_us"]

    def test_a_product_of_4096_times_the_work_takes_longer(self, machine):
        import torch

        from calibrate.measure import measure

        time_s = [
            measure(matmul._prepare(torch, machine, "float32", (size,) * 3)(), 0.3).median_s
            for size in (48, 768)
        ]
        assert time_s[1] > time_s[0]

    def test_memory_rows_are_sound_and_more_bytes_take_longer(self, machine):
        rows = list(memory.measure(machine, 1.5, 5, lambda text: None))
        assert table_faults({"memory": rows}) == []
        copies = sorted((row for row in rows if row["op"] == "copy"), key=lambda row: row["bytes"])
        assert rows
        assert all(row["bytes"] == memory.PASSES[row["op"]] * row["rows"] * row["cols"] * 4 for row in rows)
        if len(copies) > 1 and copies[-1]["bytes"] > 100 * copies[0]["bytes"]:
            assert copies[-1]["time_us"] > copies[0]["time_us"]

    def test_launch_is_measured_as_host_time_on_a_cpu(self, machine):
        (row,) = launch.measure(machine, 0.2, 0, lambda text: None)
        assert table_faults({"launch": [row]}) == []
        assert row["mode"] == "eager_host"
        assert row["time_us"] > 0

    def test_operands_are_normal_and_of_the_shape_asked_for(self, machine):
        import torch

        drawn = matmul.normal(torch, 1100, 1000, "cpu")
        assert tuple(drawn.shape) == (1100, 1000)
        assert float(drawn.mean()) == pytest.approx(0, abs=0.01)
        assert float(drawn.std()) == pytest.approx(1, abs=0.01)

    def test_formats_without_hardware_are_left_out_and_named(self, machine, monkeypatch):
        import torch

        monkeypatch.setattr(matmul, "SLOWEST_FRAC", 1e9)
        said = []
        rates = matmul.supported(torch, machine, said.append)
        assert "fp8" not in rates
        (refused,) = (text for text in said if "emulated" not in text)
        assert "fp8 (fp8 has no matrix unit on a CPU)" in refused, "why, not only that"
        assert all(name not in rates and name in refused for name in ("tf32", "int8"))
