"""Memory-bound kernels: limits, cache tier, borrowing from a profile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.kernels.memory_bound import (
    OP,
    PARAMETERS,
    PASSES,
    choose,
    ideal_bytes,
    memory_bound,
    memory_bound_s,
    passes,
)
from sim.cost.parameters import complete, defaults
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, ResidualGrid

A100 = Device("a100", "ampere", {"fp32": 19.5e12, "bf16": 312e12}, 80e9, 2.0e12, 108, 40e6)
VALUES = complete(PARAMETERS, {})


def _fit(family: str, kind: str, engine: str, launch_s: float, **more: str) -> Fit:
    constants = defaults(PARAMETERS) | {"launch_s": Constant(launch_s, "s", "fitted", "test")}
    return Fit(OP, {"family": family, "kind": kind, "engine": engine, **more}, constants)


def test_large_tensors_stream_at_the_reached_share_of_the_bandwidth():
    moved = 64e9
    seconds = float(memory_bound_s(A100, moved, 1, **VALUES))
    assert seconds == pytest.approx(moved / (2.0e12 * VALUES["memory_eff_frac"]), rel=0.01)


def test_empty_kernel_costs_its_launch():
    assert float(memory_bound_s(A100, 0.0, 0, **VALUES)) == pytest.approx(VALUES["launch_s"])


def test_tensors_in_cache_move_at_the_cache_rate():
    fast = VALUES | {"l2_frac": 1.0, "l2_ratio": 4.0, "core_bytes_per_s": 4e11, "launch_s": 1e-9}
    slow = fast | {"l2_ratio": 1.0}
    ratio = memory_bound_s(A100, 2e6, 1, **slow) / memory_bound_s(A100, 2e6, 1, **fast)
    assert 3.9 < float(ratio) < 4.0


def test_many_short_rows_are_bound_by_the_multiprocessors():
    values = VALUES | {"row_s": 1e-6}
    rows = 10_000_000
    assert float(memory_bound_s(A100, rows * 8.0, rows, **values)) == pytest.approx(
        rows * 1e-6 / 108, rel=0.01
    )


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.sampled_from(sorted(PASSES)))
def test_time_grows_with_the_tensor_and_exceeds_the_launch(rows, cols, op):
    here = memory_bound([], A100, op, rows, cols, "bf16").seconds
    assert here > VALUES["launch_s"]
    assert memory_bound([], A100, op, 2 * rows, cols, "bf16").seconds > here
    assert memory_bound([], A100, op, rows, 2 * cols, "bf16").seconds > here


def test_arrays_broadcast_and_agree_with_scalars():
    rows, cols = np.array([[16], [4096]]), np.array([128, 1024, 8192])
    table = memory_bound([], A100, "softmax", rows, cols, "fp32")
    assert table.seconds.shape == table.lower_bound_s.shape == (2, 3)
    assert table.seconds[1, 2] == memory_bound([], A100, "softmax", 4096, 8192, "fp32").seconds


def test_ideal_bytes_count_reads_and_writes():
    assert ideal_bytes("add", 10, 20, "fp32") == 3 * 10 * 20 * 4
    assert ideal_bytes("rms_norm", 10, 20, "fp16") == 2 * 10 * 20 * 2
    assert passes("rms_norm", "vLLM (layernorm = fused add+rms_norm)") == 4
    assert passes("silu_and_mul") == 3


def test_unknown_operation_and_format_are_refused():
    with pytest.raises(ValueError, match="unknown memory-bound operation 'fft'"):
        passes("fft")
    with pytest.raises(ValueError, match="unknown number format 'bf17'"):
        ideal_bytes("add", 1, 1, "bf17")


def test_nearest_fit_is_borrowed_and_named():
    fits = [
        _fit("elementwise", "elementwise", "eager", 1e-6),
        _fit("softmax", "row", "eager", 2e-6, accelerator="v100", generation="volta"),
        _fit("softmax", "row", "eager", 3e-6),
        _fit("rms_norm_fwd", "row", "cudnn", 4e-6, accelerator="a100", generation="ampere"),
    ]

    def launch(op: str, engine: str) -> float:
        fit = choose(fits, A100, op, engine)
        return 0.0 if fit is None else fit.parameters["launch_s"].value

    assert launch("softmax", "eager") == 3e-6  # shared by all accelerators before another accelerator's own
    assert launch("gelu", "eager") == 1e-6
    assert launch("rms_norm", "cudnn") == 4e-6
    assert memory_bound(fits, A100, "softmax", 8, 8, "bf16", "eager").leans_on == "parameters"
    borrowed = memory_bound(fits, A100, "softmax", 8, 8, "bf16", "triton")
    assert borrowed.leans_on == "parameters borrowed from softmax (eager)"
    assert memory_bound([], A100, "softmax", 8, 8, "bf16").leans_on == "assumed defaults"


def test_residual_grid_multiplies_the_physics():
    plain = _fit("softmax", "row", "eager", 3e-6)
    grid = ResidualGrid((("log2_rows", (0.0, 20.0)), ("log2_cols", (0.0, 20.0))), (np.log(2),) * 4)
    doubled = Fit(plain.op, plain.key, plain.parameters, grid)
    once = memory_bound([plain], A100, "softmax", 512, 512, "bf16", "eager")
    twice = memory_bound([doubled], A100, "softmax", 512, 512, "bf16", "eager")
    assert twice.seconds == pytest.approx(2 * once.seconds)
    assert twice.leans_on == "parameters and residual grid"
