"""Loading: stages, prefetching played batch by batch, and steps that wait for data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.cost.storage import Loading, loader_wait_s
from sim.results.step import StepResult
from sim.spec.faults import ScenarioError
from sim.spec.loader import loads
from sim.training.loading import waits_s

IMAGES = """
name = "images"
[[cluster.pools]]
nodes = 1
system = "dgx-a100-80gb"
[cluster.storage]
read_bytes_per_s = "20 GB/s"
write_bytes_per_s = "10 GB/s"
[training]
model = { sample_flop = "24.6 GFLOP", parameters = 25.6e6, efficiency_frac = 0.2 }
global_batch = 2048
precision = "fp16"
optimizer = "momentum"
plan = { micro_batch = 256 }
[training.loader]
sample_bytes = "110 kB"
sample_cpu_s = "8 ms"
sample_device_bytes = "150 kB"
workers = 12
"""
COMPUTE_S = 256 * 24.6e9 / (0.2 * 312e12)


def run(*changes: str, text: str = IMAGES) -> StepResult:
    return sim.run(loads(text, overrides=changes))


def one_stage(seconds: float) -> Loading:
    return Loading(np.asarray(seconds), np.asarray(0.0), np.asarray(0.0))


def test_a_job_of_images_runs_at_the_pace_of_its_cores() -> None:
    """256 images of 8 ms on 12 cores are 171 ms; the devices alone would take about 101."""
    result = run()
    assert result.step_s == pytest.approx(256 * 8e-3 / 12, rel=1e-9)
    assert result.parts_s["loader"] == pytest.approx(result.step_s - run(*FED).step_s, rel=1e-9)


FED = ("training.loader.workers=200",)


def test_with_cores_enough_the_loader_hides() -> None:
    result = run(*FED)
    assert result.parts_s["loader"] == 0
    assert result.parts_s["forward"] + result.parts_s["backward"] == pytest.approx(COMPUTE_S)


def test_without_prefetch_every_stage_is_exposed() -> None:
    stages = 1e-3 + 256 * 110e3 / (10e9 / 8) + 256 * 8e-3 / 12  # a node's port, shared by eight
    copy = run("training.loader.prefetch=0").parts_s["loader"] - stages
    assert copy == pytest.approx(256 * 150e3 / 32e9, rel=0.3)  # about PCIe 4 x16
    assert run("training.loader.prefetch=0").step_s > run().step_s


def test_devices_share_the_storage() -> None:
    slow = ("cluster.storage.read_bytes_per_s=1e9", *FED)
    assert run(*slow).step_s == pytest.approx(1e-3 + 2048 * 110e3 / 1e9, rel=1e-9)


def test_a_scenario_without_storage_reads_without_limit() -> None:
    text = IMAGES.replace(
        '[cluster.storage]\nread_bytes_per_s = "20 GB/s"\nwrite_bytes_per_s = "10 GB/s"\n', ""
    )
    assert run(*FED, text=text).parts_s["loader"] == 0


@pytest.mark.parametrize("prefetch", [1, 2, 8])
def test_prefetching_hides_bursts_but_no_shortfall(prefetch: int) -> None:
    burst = ("training.loader.hiccup_s=0.15", "training.loader.steps_between_hiccups=50", *FED)
    step = run(*FED).step_s
    waits = run(*burst, f"training.loader.prefetch={prefetch}").parts_s["loader"]
    assert waits == pytest.approx(max(0.15 - prefetch * step, 0.0) / 50)
    short = run(f"training.loader.prefetch={prefetch}").step_s
    assert short == pytest.approx(256 * 8e-3 / 12, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(load=st.floats(0.01, 3.0), step=st.floats(0.1, 2.0), prefetch=st.integers(0, 8))
def test_the_long_run_of_the_played_loader_is_the_mean_that_steps_are_charged(
    load: float, step: float, prefetch: int
) -> None:
    played = waits_s([load] * 400, step, prefetch)
    assert played[200:].mean() == pytest.approx(
        float(loader_wait_s(step, one_stage(load), prefetch)), rel=1e-6, abs=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(extra=st.floats(0.1, 6.0), prefetch=st.integers(1, 6), load=st.floats(0.1, 0.6))
def test_bursts_hide_behind_what_is_in_store(extra: float, prefetch: int, load: float) -> None:
    """A loader with time to fill its store again: what is not covered of a burst is waited for. The batch in the making
    adds between nothing and one step of cover."""
    every = 50
    loads_s = [load + (extra if number % every == every - 1 else 0.0) for number in range(20 * every)]
    played = waits_s(loads_s, 1.0, prefetch)[every:].sum() / (19 * every)
    told = float(loader_wait_s(1.0, one_stage(load), prefetch, extra, every))
    assert told - 1.0 / every <= played <= told + 1e-9


def test_a_transformer_waits_for_its_tokens_too(small: str) -> None:
    text = small + "\n[training.loader]\nsample_cpu_s = 10.0\nworkers = 1\n"
    result = run(text=text)
    assert result.step_s == pytest.approx(64 / 2 * 10.0, rel=1e-9)
    assert sum(result.parts_s.values()) == pytest.approx(result.step_s, rel=1e-9)


def test_a_serial_path_describes_itself_alone() -> None:
    with pytest.raises(ScenarioError) as refused:
        loads(IMAGES, overrides=["training.loader.sample_serial_s=0.001"])
    assert refused.value.faults[0].path == "training.loader.sample_serial_s"
