"""Fits of attention kernels: recovery of known physics, small measurements, blanks, and the shipped tables."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from calibrate.fit.attention import cross_validate, fit, predict, together
from sim.cost.kernels.attention import PARAMETERS, attention
from sim.cost.parameters import defaults
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit

RATES = {"fp32": 67e12, "bf16": 989e12, "fp8": 1979e12}
DEVICES = {
    "H": Device("h", "hopper", RATES, 80e9, 3.35e12, 132, 50e6),
    "H+": Device("h-plus", "hopper", RATES, 141e9, 4.8e12, 132, 50e6),
    "A": Device("a", "ampere", {"fp32": 19.5e12, "bf16": 312e12}, 80e9, 2.039e12, 108, 40e6),
}
MEASURED = Path(__file__).resolve().parents[2] / "scenarios" / "measurements"
TRUTH = {
    "prefill": {"launch_s": 1.2e-5, "mma_efficiency_frac": 0.55, "prologue_s": 3e-6, "tile_rows": 64.0},
    "decode": {"launch_s": 6e-6, "memory_efficiency_frac": 0.75, "combine_s": 5e-6, "splits_plain_only": 1.0},
}


def _rows(
    count: int, phase: str, gpu: str = "H", noise: float = 0.03, seed: int = 1
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    kv_heads = 2.0 ** random.integers(0, 4, count)
    rows = {
        "batch": 2.0 ** random.integers(0, 8, count),
        "kv_heads": kv_heads,
        "heads": kv_heads * random.integers(1, 9, count),
        "head_dim": random.choice([64.0, 128.0], count),
        "seq_len": random.integers(1, 16384, count).astype(float),
        "window": random.choice([0.0, 0.0, 128.0], count),
    }
    constants = defaults(PARAMETERS[phase]) | {
        n: Constant(v, "1", "fitted", "test") for n, v in TRUTH[phase].items()
    }
    truth = [Fit(f"attention_{phase}", {}, constants)]
    seconds = attention(truth, DEVICES[gpu], phase=phase, **rows).seconds
    names = {"gpu": gpu, "phase": phase, "dtype": "bfloat16", "engine": "vllm 0.1"}
    rows |= {name: np.full(count, value) for name, value in names.items()}
    return rows | {"time_us": seconds * 1e6 * np.exp(random.normal(0, noise, count))}


def _median_error(predicted: np.ndarray, rows: dict[str, np.ndarray]) -> float:
    return float(np.median(np.abs(predicted / (np.asarray(rows["time_us"], dtype=float) * 1e-6) - 1)))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_known_physics_is_recovered(phase):
    fits = fit(_rows(300, phase), DEVICES, "test", folds=0)
    fresh = _rows(300, phase, noise=0.0, seed=2)
    assert _median_error(predict(fits, fresh, DEVICES), fresh) < 0.03
    (own,) = fits
    assert own.key == {"generation": "hopper", "dtype": "bf16", "kv_dtype": "bf16", "engine": "vllm"}
    for name in ("launch_s", "tile_rows", "splits_plain_only"):
        if name in TRUTH[phase]:
            assert own.parameters[name].value == pytest.approx(TRUTH[phase][name], rel=0.1)
    assert own.grid is not None
    assert own.grid.numbers <= 300


def test_hold_out_error_is_of_the_order_of_the_noise():
    rows = _rows(200, "decode", noise=0.05)
    assert 0.02 < _median_error(cross_validate(rows, DEVICES, 2), rows) < 0.08
    (own,) = fit(rows, DEVICES, "test", folds=2)
    assert own.error is not None
    assert own.error.points == 200
    assert 2 < own.error.median_ape < 8


def test_siblings_share_a_fit_and_keep_their_own_parameters():
    table = together(
        [_rows(150, "decode"), _rows(150, "decode", "H+", seed=3), _rows(60, "decode", "A", seed=4)]
    )
    fits = fit(table, DEVICES, "test", folds=0)
    keys = [(f.key.get("generation"), f.key.get("accelerator")) for f in fits]
    assert keys == [("hopper", None), ("hopper", "h"), ("hopper", "h-plus"), ("ampere", None), (None, None)]
    assert fits[1].grid == fits[0].grid
    unseen = DEVICES | {"H-": Device("h-minus", "hopper", RATES, 48e9, 2.4e12, 100, 50e6)}
    fresh = _rows(200, "decode", noise=0.0, seed=5) | {"gpu": np.full(200, "H-")}
    assert np.all(predict(fits, fresh, unseen) > 0)
    assert _median_error(predict(fits, fresh, DEVICES | {"H-": DEVICES["H"]}), fresh) < 0.05


def test_a_few_points_with_a_prior_correct_what_is_known():
    before = fit(_rows(200, "prefill"), DEVICES, "test", folds=0)
    few = _rows(15, "prefill", "H+", seed=6)
    few["time_us"] = few["time_us"] * 1.25
    after = fit(few, DEVICES, "test", prior=before, folds=0)
    fresh = _rows(200, "prefill", "H+", noise=0.0, seed=7)
    fresh["time_us"] = fresh["time_us"] * 1.25
    corrected = _median_error(predict(after, fresh, DEVICES), fresh)
    assert corrected < 0.1
    assert corrected < _median_error(predict(before, fresh, DEVICES), fresh) - 0.05
    assert np.all(np.isfinite(cross_validate(few, DEVICES, 3, prior=before)))


def test_blank_cells_mean_the_usual():
    plain = _rows(30, "prefill")
    spelled = plain | {
        "kv_dtype": plain["dtype"],
        "head_dim_v": plain["head_dim"],
        "q_len": plain["seq_len"],
        "causal": np.full(30, "True"),
    }
    blank = plain | {name: np.full(30, "") for name in ("kv_dtype", "head_dim_v", "q_len", "causal")}
    fits = fit(plain, DEVICES, "test", folds=0)
    for rows in (spelled, blank):
        np.testing.assert_array_equal(predict(fits, rows, DEVICES), predict(fits, plain, DEVICES))
    del blank["engine"]
    named = blank | {"source": np.full(30, "tables/attention/vllm/0.24.0/context.parquet")}
    assert fit(named, DEVICES, "test", folds=0)[0].key["engine"] == "vllm"


def test_what_is_missing_is_named():
    rows = _rows(5, "decode")
    with pytest.raises(ValueError, match="lack device H"):
        fit(rows, {}, "test")
    del rows["heads"]
    with pytest.raises(ValueError, match="lack column heads"):
        fit(rows, DEVICES, "test")


def test_a_shipped_table_is_predicted_on_shapes_left_out():
    with gzip.open(MEASURED / "attention.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["gpu"] == "H100-80GB"][::2]
    devices = {"H100-80GB": Device("h100", "hopper", RATES, 85.9e9, 3.35e12, 132, 52e6)}
    columns = {name: np.array([row[name] for row in rows], dtype=object) for name in rows[0]}
    predicted = cross_validate(columns, devices, 2)
    for phase, bound in (("prefill", 0.10), ("decode", 0.10)):
        at = columns["phase"] == phase
        assert at.sum() > 100
        assert _median_error(predicted[at], {"time_us": columns["time_us"][at]}) < bound
