"""Heat, throttling and other people's work, with a made-up meter."""

from __future__ import annotations

import itertools
import time

import pytest

from calibrate import conditions
from calibrate.environment import Machine

GPU = Machine("Example GPU", "cuda:0", "hopper", 132, 8e10, 5e7, 8, "torch")
CPU = Machine("Example CPU", "cpu", "cpu", 2, 4e9, 3e7, 1, "torch")


def quiet(monkeypatch, load=0.0):
    monkeypatch.setattr(conditions.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(conditions, "usable_cores", lambda: 4)
    monkeypatch.setattr(conditions.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(conditions, "other_processes", lambda machine: 0)


def test_a_quiet_machine_gives_no_warning(monkeypatch):
    quiet(monkeypatch)
    assert conditions.warnings_of(CPU) == []
    well = {"clocks_sm": "1980 MHz", "clocks_max_sm": "1980 MHz", "mig_mode_current": "Disabled"}
    well |= {"ecc_mode_current": "Enabled", "clocks_throttle_reasons_active": "0x0000000000000001"}
    assert conditions.warnings_of(GPU, lambda device, fields: well) == []
    (silent,) = conditions.warnings_of(GPU, lambda device, fields: {})
    assert "are not watched" in silent


def test_everything_unusual_is_told(monkeypatch):
    quiet(monkeypatch, load=3.5)
    monkeypatch.setattr(conditions, "other_processes", lambda machine: 2)
    ill = {"clocks_sm": "1200 MHz", "clocks_max_sm": "1980 MHz", "mig_mode_current": "Enabled"}
    ill |= {"ecc_mode_current": "Disabled", "clocks_throttle_reasons_active": "0x0000000000000044"}
    told = " ".join(conditions.warnings_of(GPU, lambda device, fields: ill))
    for words in (
        "load average 3.5",
        "software power cap",
        "hardware thermal",
        "1200 MHz",
        "MIG",
        "ECC",
        "2 other",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"power_limit": "400.00 W", "power_default_limit": "700.00 W"}, "power limit 400 W"),
        ({"clocks_mem": "1593 MHz", "clocks_max_mem": "2619 MHz"}, "memory clock 1593 MHz"),
        ({"ecc_errors_uncorrected_volatile_total": "2"}, "2 uncorrected memory error"),
        ({"remapped_rows_pending": "Yes"}, "wait for remapping"),
        ({"pcie_link_width_current": "8", "pcie_link_width_max": "16"}, "8 lanes, of 16"),
    ],
)
def test_each_limit_and_each_illness_is_told_and_nothing_else(monkeypatch, fields, words):
    quiet(monkeypatch)
    well = {"power_limit": "700.00 W", "power_default_limit": "700.00 W", "remapped_rows_pending": "No"}
    well |= {
        "ecc_errors_uncorrected_volatile_total": "0",
        "clocks_mem": "2619 MHz",
        "clocks_max_mem": "2619 MHz",
    }
    assert conditions.warnings_of(GPU, lambda device, asked: well) == []
    (told,) = conditions.warnings_of(GPU, lambda device, asked: well | fields)
    assert words in told


@pytest.mark.parametrize(("bound", "far"), [({0, 1}, True), ({0, 9}, False), ({8, 12}, False)])
def test_a_binding_to_the_other_socket_is_told(tmp_path, monkeypatch, bound, far):
    """The device hangs on node 1, which has cores 8 to 11 and 12."""
    for path, text in (("pci/0000:18:00.0/numa_node", "1\n"), ("node/node1/cpulist", "8-11,12\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(conditions, "PCI_DEVICES", tmp_path / "pci")
    monkeypatch.setattr(conditions, "NUMA_NODES", tmp_path / "node")
    monkeypatch.setattr(conditions.os, "sched_getaffinity", lambda process: bound, raising=False)
    quiet(monkeypatch)
    told = conditions.warnings_of(GPU, lambda device, asked: {"pci_bus_id": "00000000:18:00.0"})
    assert len(told) == int(far)
    assert not far or "node 1" in told[0]
    assert conditions.far_from("00000000:99:00.0") == "", "a system that does not say"


@pytest.mark.parametrize(("active", "count"), [("", 0), ("[N/A]", 0), ("0x1", 0), ("0x8", 1), ("0xEC", 5)])
def test_throttle_bits(active, count):
    assert len(conditions.throttling(active)) == count


def test_a_soak_ends_when_clock_and_power_stand_still():
    powers = itertools.chain([300, 400, 500, 600], itertools.repeat(650))
    asked = []

    def ask(device, fields):
        asked.append({"clocks_sm": "1980 MHz", "power_draw": f"{next(powers)} W"})
        return asked[-1]

    took_s = conditions.soak(GPU, 8.0, lambda: time.sleep(0.001), ask)
    assert took_s <= 1.5
    assert conditions.soak(GPU, 2.0, lambda: time.sleep(0.001), ask) < 1.0, "three still windows are enough"
    assert conditions.soak(CPU, 100.0) == 0.0
