"""The article's own case: N samples of 1 GFLOP on eight devices of 1 GFLOP/s take N/8 seconds; a serial path of T
seconds a sample makes it N·T + N/8. Both exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim

SCENARIO = Path(__file__).resolve().parents[2] / "scenarios" / "article-eight-devices.toml"


def step_s(samples: int, *changes: str) -> float:
    return sim.run(
        sim.load(
            SCENARIO,
            [f"training.global_batch={samples}", f"training.plan.micro_batch={samples // 8}", *changes],
        )
    ).step_s


@pytest.mark.parametrize("samples", [8, 64, 80, 1024, 8192])
def test_compute_alone(samples: int) -> None:
    assert step_s(samples) == samples / 8


@pytest.mark.parametrize("samples", [8, 64, 1024])
@pytest.mark.parametrize("serial_s", [0.25, 0.5, 1.0, 0.001])
def test_with_a_serial_path(samples: int, serial_s: float) -> None:
    changes = (f"training.loader.sample_serial_s={serial_s}", "training.loader.prefetch=0")
    assert step_s(samples, *changes) == pytest.approx(samples * serial_s + samples / 8, rel=1e-15)


def test_micro_batches_do_not_change_it() -> None:
    one = sim.run(sim.load(SCENARIO, ["training.plan.micro_batch=1"])).step_s
    assert one == pytest.approx(8.0, rel=1e-15)


def test_without_the_whole_batch_first_loading_overlaps_computing() -> None:
    changes = [
        "training.loader.sample_serial_s=0.01",
        "training.plan.micro_batch=1",
        "training.loader.prefetch=1",
    ]
    assert sim.run(sim.load(SCENARIO, changes)).step_s == pytest.approx(8.0 + 8 * 0.01)
