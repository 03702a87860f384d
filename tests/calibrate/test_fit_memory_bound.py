"""Fits of memory-bound kernels: recovery of known physics, small measurements, honest hold-out."""

import numpy as np
import pytest

from calibrate.fit.memory_bound import cross_validate, fit, predict
from sim.cost.kernels.memory_bound import PARAMETERS, ideal_bytes, memory_bound, memory_bound_s
from sim.cost.parameters import complete
from sim.spec.device import Device

DEVICES = {
    "A": Device("a", "ampere", {"fp32": 19.5e12}, 80e9, 2.0e12, 108, 40e6),
    "B": Device("b", "hopper", {"fp32": 67e12}, 80e9, 3.35e12, 132, 50e6),
}
TRUTH = {"A": {"memory_eff_frac": 0.8, "launch_s": 4e-6}, "B": {"memory_eff_frac": 0.9, "launch_s": 2e-6}}


def _rows(
    op: str, count: int, engine: str = "eager", noise: float = 0.02, gpus: str = "AB"
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    gpu = np.array([gpus[i % len(gpus)] for i in range(count)])
    rows = 2.0 ** random.integers(6, 16, count)
    cols = 2.0 ** random.integers(8, 14, count)
    seconds = np.array(
        [
            float(
                memory_bound_s(DEVICES[g], ideal_bytes(op, r, c, "fp16"), r, **complete(PARAMETERS, TRUTH[g]))
            )
            for g, r, c in zip(gpu, rows, cols, strict=True)
        ]
    )
    columns = {
        "gpu": gpu,
        "op": np.full(count, op),
        "dtype": np.full(count, "float16"),
        "rows": rows,
        "cols": cols,
    }
    measured = seconds * np.exp(random.normal(0, noise, count))
    return columns | {"engine": np.full(count, engine), "time_us": measured * 1e6}


def test_known_physics_is_recovered():
    rows = _rows("softmax", 160)
    fits = fit(rows, DEVICES, "test", folds=0)
    for name, truth in TRUTH.items():
        own = next(f for f in fits if f.key.get("accelerator") == DEVICES[name].key)
        guess = memory_bound([own], DEVICES[name], "softmax", 2**17, 2**13, "fp16", "eager").seconds
        moved = ideal_bytes("softmax", 2**17, 2**13, "fp16")
        exact = memory_bound_s(DEVICES[name], moved, 2**17, **complete(PARAMETERS, truth))
        assert float(guess) == pytest.approx(float(exact), rel=0.05)
    assert sorted(len(f.key) for f in fits) == [3, 4, 4, 5, 5]  # all, each generation, each accelerator


def test_hold_out_error_is_of_the_order_of_the_noise():
    rows = _rows("add", 100)
    predicted = cross_validate(rows, DEVICES, 5)
    error = np.abs(predicted / (rows["time_us"] * 1e-6) - 1)
    assert np.median(error) < 0.06
    fits = fit(rows, DEVICES, "test")
    assert fits[0].error is not None
    assert fits[0].error.median_ape < 7


def test_a_dozen_points_suffice_for_a_first_profile():
    rows = _rows("rms_norm", 12, gpus="A")
    fits = fit(rows, DEVICES, "test", folds=0)
    fresh = _rows("rms_norm", 60, noise=0.0, gpus="A")
    error = np.abs(predict(fits, fresh, DEVICES) / (fresh["time_us"] * 1e-6) - 1)
    assert np.median(error) < 0.12


def test_prior_fits_steady_a_tiny_measurement():
    before = fit(_rows("softmax", 120), DEVICES, "test", folds=0)
    few = {name: column[:3] for name, column in _rows("softmax", 60, noise=0.1).items()}
    after = fit(few, DEVICES, "test", prior=before, folds=0)
    fresh = _rows("softmax", 60, noise=0.0)
    error = np.abs(predict(after, fresh, DEVICES) / (fresh["time_us"] * 1e-6) - 1)
    assert np.median(error) < 0.15


def test_grids_stay_small_and_columns_may_be_absent():
    rows = _rows("softmax", 80)
    fits = fit(rows, DEVICES, "test", folds=0)
    assert all(f.grid is None or f.grid.numbers <= 300 for f in fits)
    bare = {name: column for name, column in rows.items() if name not in ("time_us", "engine")}
    assert np.all(predict(fits, bare, DEVICES) > 0)


def test_missing_columns_and_devices_are_named():
    rows = _rows("add", 4)
    with pytest.raises(ValueError, match="column rows, column cols"):
        fit({name: rows[name] for name in ("gpu", "op", "dtype", "time_us")}, DEVICES, "test")
    with pytest.raises(ValueError, match="device B"):
        fit(rows, {"A": DEVICES["A"]}, "test")
