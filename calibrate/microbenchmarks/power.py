"""Power under three loads: a meter at the wall while the machine sleeps, thinks and carries.

On a device by NVML (through ``pynvml``, or ``nvidia-smi``); on a CPU by the package's energy counter where the
system lets it be read. A100 and H100 sense only part of the time (arXiv 2312.02741), so loads last seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calibrate.driver import driver_id, nvidia_smi
from calibrate.environment import Machine, import_torch
from calibrate.measure import Warn
from calibrate.microbenchmarks.common import ENGINE

ENERGY_COUNTER = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
SAMPLE_S = 0.1
SHORTEST_S, LONGEST_S = 0.3, 10.0


def measure(machine: Machine, budget_s: float, seed: int, warn: Warn) -> Iterator[dict[str, Any]]:
    """Rows of table ``power``: mean watts and clock while ``idle``, in matrix products and in copies."""
    torch = import_torch()
    torch.manual_seed(seed)
    meter = device_meter(machine) if machine.is_cuda else cpu_meter()
    if meter is None:
        warn("power: nothing here tells watts, left out")
        return
    for load, call in (("idle", None), *_loads(torch, machine).items()):
        readings = list(_readings(torch, machine, meter, call, min(max(budget_s / 3, SHORTEST_S), LONGEST_S)))
        watts = [reading["power_w"] for reading in readings if reading["power_w"] > 0]
        if watts:
            clocks = [reading.get("clock_hz", 0.0) for reading in readings]
            yield {
                **machine.columns,
                "load": load,
                "power_w": round(statistics.fmean(watts), 2),
                "clock_hz": statistics.fmean(clocks),
                "samples": len(watts),
                "engine": ENGINE,
            }


def _loads(torch: Any, machine: Machine) -> dict[str, Callable[[], Any]]:
    side, kind = (8192, torch.bfloat16) if machine.is_cuda else (1024, torch.float32)
    a, b = (torch.randn(side, side, device=machine.device).to(kind) for _ in range(2))
    x = torch.randn(int(4 * machine.cache_bytes // 4), device=machine.device)
    return {"matmul": lambda: a @ b, "copy": x.clone}


def _readings(
    torch: Any,
    machine: Machine,
    meter: Callable[[], dict[str, float]],
    call: Callable[[], Any] | None,
    last_s: float,
) -> Iterator[dict[str, float]]:
    """Readings over ``last_s``, of which the first third only warms up."""
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < last_s:
        until = time.perf_counter() + SAMPLE_S
        while call is not None and time.perf_counter() < until:
            for _ in range(8):
                call()
            if machine.is_cuda:
                torch.cuda.synchronize(machine.device)
        time.sleep(max(until - time.perf_counter(), 0.0))
        reading = meter()
        if spent > last_s / 3:
            yield reading


def device_meter(machine: Machine) -> Callable[[], dict[str, float]] | None:
    """Reads watts and SM clock of the device; None where neither pynvml nor nvidia-smi is there."""
    known = driver_id(machine.device)
    try:
        import pynvml

        pynvml.nvmlInit()
        by_index = known.isdecimal()
        find = pynvml.nvmlDeviceGetHandleByIndex if by_index else pynvml.nvmlDeviceGetHandleByUUID
        handle = find(int(known) if by_index else known)

        def read() -> dict[str, float]:
            return {
                "power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
                "clock_hz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) * 1e6,
            }

        read()  # a slice of a device (MIG) has a handle and no meter
        return read
    except Exception:
        pass  # a missing library and each of its errors mean the same: ask nvidia-smi

    def ask() -> dict[str, float]:
        answer = nvidia_smi(machine.device, ("power.draw", "clocks.sm"))
        number = {name: float(value.split()[0]) for name, value in answer.items()}
        return {"power_w": number.get("power_draw", 0.0), "clock_hz": 1e6 * number.get("clocks_sm", 0.0)}

    try:
        return ask if ask()["power_w"] > 0 else None
    except ValueError:
        return None


def cpu_meter(counter: Path = ENERGY_COUNTER) -> Callable[[], dict[str, float]] | None:
    """Watts of the CPU package since the last reading, from its energy counter; None where it is not readable."""
    try:
        last = [time.perf_counter(), float(counter.read_text())]
    except (OSError, ValueError):
        return None

    def read() -> dict[str, float]:
        now, energy = time.perf_counter(), float(counter.read_text())
        watts = (
            max(energy - last[1], 0.0) / 1e6 / max(now - last[0], 1e-6)
        )  # the counter wraps: one reading of 0
        last[:] = [now, energy]
        return {"power_w": watts}

    return read
