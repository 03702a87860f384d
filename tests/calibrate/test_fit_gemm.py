"""The fit of matrix products: finds what was put in, pools siblings, never scores a shape it has seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibrate.fit.gemm import cross_validate, engine_of, fit, predict
from sim.cost.kernels.gemm import gemm, gemm_s
from sim.spec.device import Device
from sim.spec.profile import Profile, from_json, to_json

H100 = Device("h100", "hopper", {"bf16": 989.4e12, "fp8": 1978.9e12}, 80 * 2**30, 3.35e12, 132, 50 * 2**20)
H200 = replace(H100, key="h200", memory_bytes_per_s=4.8e12)
DEVICES = {
    "H100-80GB": H100,
    "H200": H200,
    "H20": replace(H100, key="h20", flop_per_s={"bf16": 148e12}, sm_count=78),
}
TRUTH = {"compute_frac": 0.72, "memory_frac": 0.9, "launch_s": 4e-6, "k_step_s": 1e-7}


def _rows(names: list[str], points: int, seed: int = 0, noise: float = 0.02) -> dict[str, np.ndarray]:
    """Random shapes on each of ``names``, timed by the physics at TRUTH with a little noise."""
    rng = np.random.default_rng(seed)
    shape = np.round(2 ** rng.uniform([0, 7, 7], [13, 15, 14], (points, 3)))
    gpu = np.repeat(names, points)
    m, n, k = (np.tile(column, len(names)) for column in shape.T)
    seconds = np.concatenate([gemm_s(DEVICES[name], *shape.T, "bf16", TRUTH) for name in names])
    seconds = seconds * np.exp(rng.normal(0, noise, len(gpu)))
    return {
        "gpu": gpu,
        "dtype": np.full(len(gpu), "bfloat16"),
        "m": m,
        "n": n,
        "k": k,
        "time_us": seconds * 1e6,
    }


def test_finds_the_parameters_that_made_the_rows() -> None:
    rows = _rows(["H100-80GB"], 150)
    (found,) = fit(rows, DEVICES, "a test", folds=2)
    assert dict(found.key) == {
        "accelerator": "h100",
        "generation": "hopper",
        "dtype": "bf16",
        "engine": "tensorrt-llm",
    }
    assert found.values()["compute_frac"] == pytest.approx(TRUTH["compute_frac"], rel=0.1)
    assert found.values()["memory_frac"] == pytest.approx(TRUTH["memory_frac"], rel=0.05)
    assert found.values()["launch_s"] == pytest.approx(TRUTH["launch_s"], rel=0.1)
    assert found.error is not None
    assert found.error.median_ape < 4
    assert abs(found.error.bias) < 2
    assert from_json(to_json(Profile("p", (found,)))).fits == (found,)


def test_siblings_are_pooled_and_serve_one_nobody_measured() -> None:
    fits = fit(_rows(["H100-80GB", "H200"], 60), DEVICES, "a test", folds=0)
    assert [one.key.get("accelerator") for one in fits] == ["h100", "h200", None]
    unseen = _rows(["H20"], 50, seed=1, noise=0.0)
    predicted = predict(fits, unseen, DEVICES)
    assert np.median(np.abs(predicted * 1e6 / unseen["time_us"] - 1)) < 0.06
    assert gemm(fits, DEVICES["H20"], 64, 4096, 4096, "bf16").fit is fits[2]


def test_a_small_measurement_departs_from_its_prior_only_as_far_as_it_must() -> None:
    prior = fit(_rows(["H100-80GB"], 120), DEVICES, "a test", folds=0)
    few = _rows(["H100-80GB"], 12, seed=3)
    few["time_us"] = few["time_us"] * 1.2  # the user's node runs a fifth slower
    fresh = _rows(["H100-80GB"], 200, seed=4, noise=0.0)
    own = predict(fit(few, DEVICES, "mine", prior=prior, folds=0), fresh, DEVICES) * 1e6 / fresh["time_us"]
    assert np.median(own) == pytest.approx(1.2, abs=0.06)
    assert np.quantile(own, 0.9) / np.quantile(own, 0.1) < 1.25


def test_held_out_predictions_do_not_see_the_rows_they_predict() -> None:
    rows = _rows(["H100-80GB", "H200"], 16)
    predicted = cross_validate(rows, DEVICES, folds=2)
    spoiled = dict(rows)
    same = (rows["m"] == rows["m"][0]) & (rows["n"] == rows["n"][0]) & (rows["k"] == rows["k"][0])
    assert same.sum() == 2
    spoiled["time_us"] = np.where(same, rows["time_us"] * 3, rows["time_us"])
    again = cross_validate(spoiled, DEVICES, folds=2)
    assert again[same] == pytest.approx(predicted[same], rel=1e-9)
    assert np.median(np.abs(predicted * 1e6 / rows["time_us"] - 1)) < 0.06


def test_a_group_too_small_to_tell_gets_no_fit() -> None:
    rows = {name: column[:5] for name, column in _rows(["H100-80GB"], 20).items()}
    assert fit(rows, DEVICES, "a test") == []


def test_faults_in_the_table_are_named() -> None:
    rows = _rows(["H100-80GB"], 10)
    with pytest.raises(ValueError, match="no column gpu, k"):
        fit({name: column for name, column in rows.items() if name not in ("gpu", "k")}, DEVICES, "a test")
    with pytest.raises(ValueError, match="no datasheet for X1"):
        fit(rows | {"gpu": np.full(10, "X1")}, DEVICES, "a test")
    with pytest.raises(ValueError, match="bf17"):
        fit(rows | {"dtype": np.full(10, "bf17")}, DEVICES, "a test")


@pytest.mark.parametrize(
    ("column", "engine"),
    [
        ("volta_sgemm_128x64_tn", "pytorch"),
        ("Cijk_Alik_Bljk_SB_MT64x128x32_MI32x32x2x1", "pytorch"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize64x64x8", "pytorch"),
        ("aiter tuned asm", "aiter"),
        ("TransformerEngine/cuBLAS", "transformer-engine"),
        ("cuBLAS 10 (DGX-1)", "cublas"),
        ("DeepGEMM fp8", "deepgemm"),
        ("vllm/vidur profiler median", "vllm profiler"),
        ("vllm 0.24.0 CutlassFP8ScaledMMLinearKernel", "vllm 0.24.0"),
        ("vllm 0.14.0 vllm_default", "vllm 0.14.0"),
        ("vLLM", "vllm"),
        ("torch.matmul", "torch.matmul"),
    ],
)
def test_engine_names_lose_the_kernel_and_keep_the_library(column: str, engine: str) -> None:
    assert engine_of(column) == engine
