"""Name plates: what is refused, and what a cost function gets to read."""

from __future__ import annotations

import dataclasses

import pytest

from sim.spec.hardware import Accelerator, HardwareError, System

PLATE = Accelerator(
    key="toy",
    name="Toy 1",
    vendor="toys",
    generation="toy",
    year=2026,
    flop_per_s={"fp32": 1e12, "bf16": 4e12},
    memory_bytes=16e9,
    memory_bytes_per_s=1e12,
    sm_count=10,
    scale_up_fabric="nvlink",
    scale_up_domain_size=8,
    host_link_bytes_per_s=32e9,
    kind="datasheet",
    source="a datasheet",
    assumed=("idle_w",),
    idle_w=20.0,
)
NODE = System(
    key="node",
    name="Node",
    accelerator="toy",
    gpus_per_node=8,
    nics_per_node=4,
    nic_bytes_per_s=25e9,
    fabric="infiniband",
    fabric_name="InfiniBand HDR",
    topology="fat-tree",
    scale_up_domain_size=8,
    kind="datasheet",
    source="a user guide",
)


def test_the_device_carries_the_rates_and_zero_for_what_is_not_known():
    device = PLATE.device()
    assert (device.peak("bf16"), device.memory_bytes_per_s, device.sm_count) == (4e12, 1e12, 10)
    assert (device.l2_bytes, device.scale_up_bytes_per_s, device.host_bytes_per_s) == (0.0, 0.0, 32e9)
    with pytest.raises(KeyError, match="fp8"):
        device.peak("fp8")


def test_fp32_products_use_the_matrix_units_where_there_are_some():
    rates = {"fp32": 23.1e12, "fp32_matrix": 46.1e12}
    device = dataclasses.replace(PLATE, flop_per_s=rates).device()
    assert dict(device.flop_per_s) == {"fp32": 46.1e12}


def test_single_fields_may_be_assumed():
    assert PLATE.kind_of("idle_w") == "assumed"
    assert PLATE.kind_of("memory_bytes") == "datasheet"


def test_a_node_shares_its_nics():
    assert NODE.node_bytes_per_s == 100e9
    assert NODE.gpu_bytes_per_s == 12.5e9


@pytest.mark.parametrize(
    ("noun", "changes", "says"),
    [
        (PLATE, {"memory_bytes": 0.0}, "toy: memory_bytes 0.0 must be a finite number above 0"),
        (PLATE, {"l2_bytes": -1.0}, "toy: l2_bytes -1.0 must be"),
        (PLATE, {"flop_per_s": {"fp7": 1e12}}, "toy: flop_per_s 'fp7' is not one of fp64"),
        (PLATE, {"flop_per_s": {"bf16": float("inf")}}, "toy: flop_per_s.bf16 inf must be"),
        (PLATE, {"scale_up_fabric": "rope"}, "toy: scale_up_fabric 'rope' is not one of nvlink"),
        (PLATE, {"kind": "hearsay"}, "toy: kind 'hearsay' is not one of measured"),
        (PLATE, {"source": ""}, "toy: a source is missing"),
        (PLATE, {"assumed": ("colour",)}, "toy: assumed 'colour' is not one of"),
        (NODE, {"gpus_per_node": 0}, "node: gpus_per_node 0 must be"),
        (NODE, {"fabric": "string"}, "node: fabric 'string' is not one of infiniband"),
        (NODE, {"oversubscription": 0.5}, "node: oversubscription 0.5 is below 1"),
        (NODE, {"node_power_w": 0.0}, "node: node_power_w 0.0 must be"),
    ],
)
def test_a_plate_that_cannot_be_is_refused(noun, changes, says):
    with pytest.raises(HardwareError) as caught:
        dataclasses.replace(noun, **changes)
    assert says in str(caught.value)
