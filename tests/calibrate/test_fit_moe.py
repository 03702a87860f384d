"""Fits of mixture-of-experts layers: recovery of known physics, small measurements, honest hold-out."""

import numpy as np
import pytest

from calibrate.fit.moe import cross_validate, fit, predict
from sim.cost.kernels.moe import OP, PARAMETERS, moe
from sim.cost.parameters import defaults
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit

RATES = {"fp32": 67e12, "bf16": 989e12, "fp8": 1979e12}
DEVICES = {"H": Device("h", "hopper", RATES, 80e9, 3.35e12, 132, 50e6)}
TRUTH = {"launch_s": 3e-5, "compute_eff_frac": 0.45, "memory_eff_frac": 0.85, "pair_eff_frac": 0.3}
KERNEL = "vllm_triton_experts"


def _rows(count: int, noise: float = 0.03, dtype: str = "bfloat16") -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    models = np.array([(2048, 768, 8, 128), (4096, 14336, 2, 8), (7168, 2048, 8, 256), (2880, 2880, 4, 32)])
    model = models[random.integers(len(models), size=count)]
    tokens = 2.0 ** random.integers(0, 14, count)
    ranks = 2.0 ** random.integers(0, 3, count)
    constants = defaults(PARAMETERS) | {n: Constant(v, "1", "fitted", "test") for n, v in TRUTH.items()}
    truth = [Fit(OP, {}, constants)]
    seconds = moe(truth, DEVICES["H"], tokens, *model.T, expert_parallel=ranks, dtype=dtype).seconds
    names = {"gpu": "H", "dtype": dtype, "distribution": "balanced", "kernel": KERNEL}
    rows = {name: np.full(count, value) for name, value in names.items()}
    rows |= dict(zip(("hidden", "ffn", "topk", "experts"), model.T.astype(float), strict=True))
    rows |= {"tokens": tokens, "tensor": np.ones(count), "expert_parallel": ranks}
    return rows | {"time_us": seconds * 1e6 * np.exp(random.normal(0, noise, count))}


def _median_error(predicted: np.ndarray, rows: dict[str, np.ndarray]) -> float:
    return float(np.median(np.abs(predicted / (rows["time_us"] * 1e-6) - 1)))


def test_known_physics_is_recovered():
    fits = fit(_rows(150), DEVICES, "test", folds=0)
    fresh = _rows(300, noise=0.0)
    assert _median_error(predict(fits, fresh, DEVICES), fresh) < 0.03
    own = next(f for f in fits if "kernel" in f.key)
    assert own.key == {"dtype": "bf16", "generation": "hopper", "kernel": KERNEL, "backend": "triton"}
    assert own.parameters["memory_eff_frac"].value == pytest.approx(0.85, rel=0.1)
    assert own.grid is None or own.grid.numbers <= 300


def test_hold_out_error_is_of_the_order_of_the_noise():
    rows = _rows(120)
    assert _median_error(cross_validate(rows, DEVICES, 2), rows) < 0.06
    fits = fit(rows, DEVICES, "test", folds=2)
    assert all(f.error is not None and f.error.points == 120 for f in fits)


def test_a_dozen_points_with_a_prior_correct_what_is_known():
    before = fit(_rows(150), DEVICES, "test", folds=0)
    few = {name: column[:12] for name, column in _rows(60).items()}
    few["time_us"] = few["time_us"] * 1.2
    after = fit(few, DEVICES, "test", prior=before, folds=0)
    fresh = _rows(200, noise=0.0)
    fresh["time_us"] = fresh["time_us"] * 1.2
    assert _median_error(predict(after, fresh, DEVICES), fresh) < 0.1


def test_a_small_measurement_alone_gives_a_usable_profile():
    fits = fit(_rows(20), DEVICES, "test", folds=0)
    fresh = _rows(200, noise=0.0)
    assert _median_error(predict(fits, fresh, DEVICES), fresh) < 0.15


def test_optional_columns_may_be_absent():
    rows = _rows(40)
    fits = fit(rows, DEVICES, "test", folds=0)
    bare = {name: rows[name] for name in ("gpu", "dtype", "tokens", "hidden", "ffn", "topk", "experts")}
    assert np.all(predict(fits, bare, DEVICES) > 0)


def test_two_matrices_take_less_than_three():
    rows = _rows(40)
    fits = fit(rows, DEVICES, "test", folds=0)
    gated, plain = (predict(fits, rows | {"matrices": np.full(40, n)}, DEVICES) for n in (3.0, 2.0))
    assert np.all(plain < gated)


def test_missing_columns_and_devices_are_named():
    rows = _rows(4)
    with pytest.raises(ValueError, match="column topk"):
        fit({name: column for name, column in rows.items() if name != "topk"}, DEVICES, "test")
    with pytest.raises(ValueError, match="device H"):
        fit(rows, {}, "test")
