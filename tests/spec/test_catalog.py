"""The catalogue: complete, sourced, plausible, found by any name, and refused with every fault at once."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from sim.spec.catalog import CatalogError, UnknownName, catalog_from, load_catalog, noun_from
from sim.spec.hardware import Accelerator

CATALOG = load_catalog()
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

NO_TENSOR_RATIO = {
    "mi100": "CDNA 1 runs bf16 at half the fp16 rate",
    "gaudi3": "fp16 runs at the fp32 rate of the matrix engine",
}
"""Accelerators whose bf16 and fp16 peaks differ."""


def table(name: str) -> list[dict[str, str]]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name}: the tables that the catalogue was transcribed from are not here")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(cell: str) -> float | None:
    return float(cell) if cell else None


def test_every_entry_is_there():
    assert (len(CATALOG.accelerators), len(CATALOG.systems), len(CATALOG.models)) == (56, 54, 153)


def test_every_entry_has_a_source_and_a_kind():
    for entry in (*CATALOG.accelerators.values(), *CATALOG.systems.values()):
        assert entry.source, entry.key
        assert entry.kind in ("datasheet", "assumed"), entry.key
    for model in CATALOG.models.values():
        assert model.source, model.key
        assert model.params_kind in ("exact", "rounded", "derived"), model.key


@pytest.mark.parametrize("device", CATALOG.accelerators.values(), ids=lambda device: device.key)
def test_accelerators_are_physically_plausible(device):
    assert 50e9 < device.memory_bytes_per_s < 10e12
    assert 4 * 2**30 <= device.memory_bytes <= 1024 * 2**30
    assert 10e9 < device.host_link_bytes_per_s <= 450e9
    assert (device.scale_up_fabric == "pcie") == (device.scale_up_bytes_per_s is None)
    # a GH200 has links, but whether they join superchips is the system's choice
    assert device.scale_up_domain_size > 1 or device.scale_up_fabric == "pcie" or device.key == "gh200-96gb"
    if device.idle_w and device.tdp_w:
        assert 0.02 < device.idle_w / device.tdp_w < 0.5
    rates = device.flop_per_s
    if "fp8" in rates and "bf16" in rates and device.key != "gaudi3":
        assert rates["fp8"] / rates["bf16"] == pytest.approx(2, rel=0.05) or device.vendor in (
            "google",
            "aws",
        )
    if {"fp16", "bf16"} <= rates.keys() and device.key not in NO_TENSOR_RATIO:
        assert rates["fp16"] == rates["bf16"]
    if {"fp64", "fp32"} <= rates.keys() and "fp32_matrix" not in rates:
        assert rates["fp64"] <= rates["fp32"]
    # a product needs this many FLOP for every byte of memory traffic to run at the peak
    peak = max(device.device().flop_per_s.values())
    assert 10 < peak / device.memory_bytes_per_s < 2500


@pytest.mark.parametrize("system", CATALOG.systems.values(), ids=lambda system: system.key)
def test_systems_are_physically_plausible(system):
    device = CATALOG.accelerators[system.accelerator]
    assert 1e9 < system.gpu_bytes_per_s <= 400e9
    assert system.scale_up_domain_size % system.gpus_per_node == 0
    if system.node_power_w and device.tdp_w:
        assert 0.75 < system.node_power_w / (system.gpus_per_node * device.tdp_w) < 2.6


def test_siblings_share_a_generation():
    for names, generation in (
        (("H100", "H200", "H20", "H800", "GH200"), "hopper"),
        (("B200", "B300", "GB200", "GB300"), "blackwell"),
        (("RTX PRO 6000",), "blackwell-rtx"),
        (("MI300X", "MI308X", "MI325X"), "cdna3"),
        (("MI350X", "MI355X"), "cdna4"),
        (("A100", "A800-80GB", "A40", "A30"), "ampere"),
        (("L4", "L40S", "RTX-4090"), "ada"),
    ):
        assert {CATALOG.accelerator(name).generation for name in names} == {generation}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("A100", "a100-sxm4-80gb"),
        ("h100-80gb", "h100-sxm5-80gb"),
        ("ARC-B60", "intel-arc-pro-b60"),
        ("rtx pro 6000", "rtx-pro-6000-blackwell-server"),
        ("NVIDIA T4", "t4"),
    ],
)
def test_names_are_found_in_any_case(name, key):
    assert CATALOG.accelerator(name).key == key
    assert CATALOG.accelerator(name.upper()).key == key


def test_all_names_of_accelerators_resolve():
    names = CATALOG.accelerator_names()
    assert names["GB300"].key == "gb300"
    assert all(CATALOG.accelerator(name) is entry for name, entry in names.items())


@pytest.mark.parametrize(
    ("look_up", "name", "nearest"),
    [
        (CATALOG.accelerator, "H1000", "H100"),
        (CATALOG.system, "dgx-h10", "dgx-h100"),
        (CATALOG.model, "llama-3.1-450b", "Llama-3.1-405B"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(look_up, name, nearest):
    with pytest.raises(UnknownName) as caught:
        look_up(name)
    assert nearest in caught.value.nearest
    assert str(caught.value).startswith(f"no {caught.value.kind} is called {name!r}; nearest: ")
    with pytest.raises(KeyError):
        look_up("zzzzzz")


def test_all_faults_of_a_file_come_at_once():
    accelerators = """
[toy]
name = "Toy"
vendor = "toys"
generation = "toy"
year = "2026"
flop_per_s = { bf16 = "1 TB/s" }
memory_bytes = "80 Gb"
memory_byte_per_s = "1 TB/s"
sm_count = 1
scale_up_fabric = "pcie"
scale_up_domain_size = 1
host_link_bytes_per_s = "32 GB/s"
kind = "datasheet"
source = "a test"
"""
    systems = """
[node]
name = "Node"
accelerator = "toi"
gpus_per_node = 8
nics_per_node = 8
nic_bytes_per_s = "400 Gbit/s"
fabric = "infiniband"
fabric_name = "InfiniBand NDR"
topology = ""
scale_up_domain_size = 8
kind = "datasheet"
source = "a test"
"""
    models = """
[family]
kind = "decoder"
source = "a test"
models = [["key", "name", "layers"], ["small", "Small", 1], ["small", "Again", 2, 3]]
notes.large = "no such model"
"""
    with pytest.raises(CatalogError) as caught:
        catalog_from(accelerators, systems, models)
    told = str(caught.value)
    for fault in (
        "accelerators.toy.year: '2026' is not",
        "accelerators.toy.flop_per_s: '1 TB/s': 'TB/s' is a unit of a bandwidth; expected a speed in FLOP/s",
        "accelerators.toy.memory_bytes: '80 Gb': 'Gb' is a unit of a number of bits",
        "accelerators.toy.memory_byte_per_s: unknown field, did you mean 'memory_bytes_per_s'?",
        "accelerators.toy.memory_bytes_per_s: missing",
        "systems.node.accelerator: no accelerator is called 'toi'",
        "models.family: row ['small'] has 4 cells for 3 columns",
        "models.family.notes.large: no such model in this family",
        "models.small.params_total: missing",
    ):
        assert fault in told


def test_a_broken_file_and_a_repeated_name_are_told():
    with pytest.raises(CatalogError, match="accelerators: not TOML"):
        catalog_from("[", "", "")
    entry = '\nname = "N"\nkind = "decoder"\nsource = "t"\nparams_kind = "exact"\n'
    family = "[{0}]" + entry + 'models = [["key", "params_total"], ["{0}-1", 5]]\n'
    with pytest.raises(CatalogError, match=r"models\.b-1: 'N' is also a name of a-1"):
        catalog_from("", "", family.format("a") + family.format("b"))


def test_numbers_may_be_si_or_text():
    plain = {
        "name": "Toy",
        "vendor": "toys",
        "generation": "toy",
        "year": 2026,
        "flop_per_s": {"bf16": 1e12},
        "memory_bytes": 2**34,
        "memory_bytes_per_s": 5e11,
        "sm_count": 4,
        "scale_up_fabric": "pcie",
        "scale_up_domain_size": 1,
        "host_link_bytes_per_s": 32e9,
        "kind": "assumed",
        "source": "a test",
    }
    text = plain | {
        "flop_per_s": {"bf16": "1 TFLOP/s"},
        "memory_bytes": "16 GiB",
        "memory_bytes_per_s": "500 GB/s",
        "host_link_bytes_per_s": "256 Gbit/s",
    }
    assert noun_from(Accelerator, "toy", plain) == noun_from(Accelerator, "toy", text)


def test_accelerators_equal_their_table():
    formats = {"fp64": "fp64_flops", "fp32": "fp32_flops", "tf32": "tf32_flops", "fp16": "fp16_flops"}
    formats |= {"bf16": "bf16_flops", "fp8": "fp8_flops", "fp4": "fp4_flops", "int8": "int8_ops"}
    fields = (
        "memory_bytes",
        "memory_bytes_per_s",
        "sm_count",
        "l2_bytes",
        "boost_clock_hz",
        "tdp_w",
        "idle_w",
    )
    rows = table("accelerators.csv")
    assert {row["key"] for row in rows} <= set(CATALOG.accelerators)
    for row in rows:
        entry = CATALOG.accelerators[row["key"]]
        assert row["source"].startswith(entry.source)
        assert (entry.name, entry.vendor, entry.kind) == (row["name"], row["vendor"], row["kind"])
        assert (entry.note, list(entry.aliases)) == (row["note"], row["aliases"].split(";"))
        assert entry.year == int(row["year"])
        assert entry.cross_check == row["cross_check"].replace("none machine-read", "")
        for name in fields:
            assert getattr(entry, name) == number(row[name]), (entry.key, name)
        assert entry.scale_up_bytes_per_s == number(row["scale_up_bytes_per_s_per_direction"])
        assert entry.scale_up_domain_size == int(row["scale_up_domain_size"])
        assert entry.host_link_bytes_per_s == number(row["host_link_bytes_per_s"])
        assert (entry.scale_up_link or "none") == row["scale_up_link"]
        rates = dict(entry.flop_per_s)
        if "fp32_matrix" in rates:
            rates["tf32"] = rates.pop("fp32_matrix")
        assert rates == {name: number(row[column]) for name, column in formats.items() if row[column]}


def test_systems_equal_their_table():
    rows = table("systems.csv")
    assert {row["key"] for row in rows} == set(CATALOG.systems)
    for row in rows:
        entry = CATALOG.systems[row["key"]]
        for name in ("name", "accelerator", "topology", "host_cpu", "source", "note"):
            assert getattr(entry, name) == row[name], (entry.key, name)
        for name in ("gpus_per_node", "nics_per_node", "scale_up_domain_size"):
            assert getattr(entry, name) == int(row[name]), (entry.key, name)
        assert entry.fabric_name == row["fabric"]
        assert entry.nic_bytes_per_s * 8 == number(row["nic_bits_per_s"])
        assert entry.node_power_w == number(row["node_power_w"])
        words = row["oversubscription"]
        if words not in ("1", "2", "1 (assumed)"):
            assert entry.oversubscription_note == words
        stated = [float(text) for text in re.findall(r"[\d.]+", words)]
        assert entry.oversubscription == (None if words.startswith(">") or not stated else max(stated))


def test_models_equal_their_table():
    rows = table("models.csv")
    assert {row["key"] for row in rows} == set(CATALOG.models)
    derived = {"computed_total", "computed_diff_pct", "computed_active", "tolerance_pct", "key"}
    defaults = {"moe_layer_step": 1, "norms_per_layer": 2, "bias": "none", "norm": "rms"}
    for row in rows:
        model = CATALOG.models[row["key"]]
        assert model.tolerance_frac * 100 == pytest.approx(float(row["tolerance_pct"]))
        for name in row.keys() - derived:
            value, cell = getattr(model, name), row[name]
            if isinstance(value, str):
                assert value == (cell or defaults.get(name, "")), (model.key, name)
            elif value is None:
                assert cell == "", (model.key, name)
            else:
                assert value == (float(cell) if cell else defaults.get(name, 0)), (model.key, name)
