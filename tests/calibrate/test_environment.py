"""What is recorded of a machine, and what is not."""

from __future__ import annotations

import builtins
import json
import platform

import pytest

from calibrate import driver, environment
from calibrate.environment import Machine, TorchMissingError


@pytest.mark.torch
def test_record_holds_what_changes_timings_and_no_name():
    pytest.importorskip("torch", reason="the record needs torch (extra: calibrate)")
    here = environment.machine("cpu")
    record = environment.describe(here)
    assert {"device", "torch", "threads", "cpu", "cpu_cores_usable", "memory_bytes"} <= record.keys()
    assert json.loads(json.dumps(record)) == record
    assert "hostname" not in record
    assert environment.describe(here, hostname=True)["hostname"] == platform.node()
    assert not here.is_cuda
    assert (here.generation, here.cache_state) == ("cpu", "warm")
    assert here.units >= 1
    assert here.cache_bytes >= 2**15
    assert 0 < here.memory_bytes <= record["memory_bytes"]


def test_missing_torch_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def without_torch(name, *rest, **more):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(TorchMissingError) as caught:
        environment.machine()
    assert "pip install 'rackcast[calibrate]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_system_files_are_read(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Example CPU @ 2 GHz\ncpu MHz\t\t: 2000.5\n")
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal:       1024 kB\nMemAvailable:    512 kB\n")
    for level, size in enumerate(("32K", "1024K", "36M")):
        (tmp_path / f"index{level}").mkdir()
        (tmp_path / f"index{level}" / "size").write_text(size + "\n")
    monkeypatch.setattr(environment, "CPU_INFO", info)
    monkeypatch.setattr(environment, "MEMORY_INFO", memory)
    monkeypatch.setattr(environment, "CPU_CACHES", tmp_path)
    monkeypatch.setattr(environment, "CPU_FREQUENCY", tmp_path / "absent")
    assert environment.cpu_model() == "Example CPU @ 2 GHz"
    assert environment.cpu_clock_hz() == pytest.approx(2.0005e9)
    assert environment.cpu_cache_bytes() == 36 * 2**20
    assert environment.available_memory_bytes() == 512 * 1024
    assert environment.memory_bytes("SwapTotal") is None


def test_systems_that_tell_nothing_get_fallbacks(tmp_path, monkeypatch):
    for name in ("CPU_INFO", "MEMORY_INFO", "CPU_CACHES", "CPU_FREQUENCY"):
        monkeypatch.setattr(environment, name, tmp_path / "absent")
    assert environment.cpu_model()
    assert environment.cpu_clock_hz() is None
    assert environment.cpu_cache_bytes() == 2**25
    assert environment.available_memory_bytes() == 4e9


def test_nvidia_smi_answer_becomes_named_values(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "580.1, 700.00 W, [N/A]"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fields = ("driver_version", "power.limit", "mig.mode.current")
    assert driver.nvidia_smi("cuda:0", fields) == {"driver_version": "580.1", "power_limit": "700.00 W"}
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert driver.nvidia_smi("cuda:0", fields) == {}


def test_without_the_tool_there_is_no_link_and_no_driver(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert driver.nvidia_smi("cuda:0") == {}
    assert driver.nvlink_active() is False


def test_rows_name_device_and_library():
    here = Machine("NVIDIA H100", "cuda:0", "hopper", 132, 8e10, 5e7, 8, "torch 2.9.0")
    assert here.columns == {
        "gpu": "NVIDIA H100",
        "generation": "hopper",
        "source": "rackcast calibrate, torch 2.9.0",
    }
    assert here.is_cuda
    assert here.cache_state == "cold"
