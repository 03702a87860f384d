"""What bounds an op: the sides of the ridge point of Williams et al., and what has no FLOP to speak of."""

from __future__ import annotations

import pytest

import sim
from sim.spec.catalog import load_catalog
from sim.spec.ops import Gemm
from sim.training.pricing import Pricer
from sim.training.roofline import roof
from sim.training.system_links import system_links

POOL = sim.load("scenarios/gpt3-175b-1024-a100.toml").cluster.pools[0]


def pricer() -> Pricer:
    device = load_catalog().accelerator("a100-sxm4-80gb").device()
    links = system_links(
        POOL.system, POOL.accelerator, sim.load("scenarios/gpt3-175b-1024-a100.toml").cluster.fabric
    )
    return Pricer(device, links, (), "bf16", {})


@pytest.mark.parametrize("m", [16, 64, 128, 192, 512, 4096])
def test_a_product_is_bound_by_the_longer_of_flop_and_bytes(m: int) -> None:
    price = pricer()
    n = k = 8192
    flop_s = 2.0 * m * n * k / price.device.flop_per_s["bf16"]
    bytes_s = 2.0 * (m * k + k * n + m * n) / price.device.memory_bytes_per_s
    op = Gemm(m, n, k)
    assert roof(op, price.price(op), price) == ("matrix units" if flop_s >= bytes_s else "memory")


def test_every_op_of_a_step_has_a_roof() -> None:
    from sim.spec.profiles import fits_for
    from sim.training.step import predict_step

    scenario = sim.load("scenarios/gpt3-175b-1024-a100.toml")
    uses = predict_step(scenario, fits_for("shipped")).uses
    roofs = {use.name.split(": ")[1]: use.roof for use in uses if use.name.startswith("layer")}
    assert roofs["norm"] == "memory"
    assert set(roofs.values()) <= {"matrix units", "memory", "messages"}
    assert "matrix units" in roofs.values()
    assert all(use.roof for use in uses)
