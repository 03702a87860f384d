"""The weather at the time of measuring: heat, throttling, other people's work, odd modes.

:func:`soak` warms a device up until clock and power stand still, because training runs hot; :func:`warnings_of`
says in words what makes figures taken now unlike those of an undisturbed machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrate.driver import driver_id, nvidia_smi
from calibrate.environment import Machine, usable_cores

NUMA_NODES = Path("/sys/devices/system/node")
PROCESSES = Path("/proc")
THROTTLE_REASONS: Mapping[int, str] = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of the clocks event reasons that slow a device down. Source: NVML, nvmlClocksEventReasons."""
IDLE = 0x1
"""The bit that tells a clock lowered for want of work (same source)."""
FIELDS = (
    "clocks.sm", "clocks.max.sm", "power.draw", "power.limit", "ecc.mode.current", "mig.mode.current",
    "clocks_throttle_reasons.active", "temperature.gpu",
)  # fmt: skip
BUSY_FRAC = 0.3
"""Load of others, as a share of the cores, from which it is told (assumed)."""
SLOW_CLOCK_FRAC = 0.9
"""An SM clock below this share of its maximum after work is told (aiconfigurator calls 10 % throttled)."""
WINDOW_S, WINDOWS, STILL_FRAC = 5.0, 3, 0.01
SOAK_MOST_S = 120.0
SOAK_BUDGET_FRAC = 0.1

Ask = Callable[[str, Sequence[str]], Mapping[str, str]]
"""(device, fields) -> values, as :func:`calibrate.driver.nvidia_smi`."""


def warnings_of(machine: Machine, ask: Ask = nvidia_smi) -> list[str]:
    """What is out of the ordinary now, one sentence each; nothing on a quiet machine.

    To be asked right after work: an idle device lowers its clock of its own accord.
    """
    found = []
    if hasattr(os, "getloadavg"):
        load, cores = os.getloadavg()[0], usable_cores()
        if load > 1 + BUSY_FRAC * cores:
            found.append(
                f"conditions: load average {load:.1f} on {cores} cores: other programs share this machine"
            )
    nodes = len(list(NUMA_NODES.glob("node[0-9]*")))
    if nodes > 1 and usable_cores() == os.cpu_count():
        found.append(f"conditions: {nodes} NUMA nodes and no affinity: host copies may cross sockets")
    if not machine.is_cuda:
        return found
    told = ask(machine.device, FIELDS)
    if not told:
        found.append(
            "conditions: nvidia-smi does not answer: clocks, throttling, ECC and other tenants were not looked at"
        )
    found += [
        f"conditions: {reason}" for reason in throttling(told.get("clocks_throttle_reasons_active", ""))
    ]
    clock, most = number(told, "clocks_sm"), number(told, "clocks_max_sm")
    if 0 < clock < SLOW_CLOCK_FRAC * most and not idle(told.get("clocks_throttle_reasons_active", "")):
        found.append(f"conditions: SM clock {clock:.0f} MHz of at most {most:.0f} MHz")
    if told.get("mig_mode_current") == "Enabled":
        found.append(
            "conditions: MIG is enabled: this is a slice of a device, not the device of the datasheet"
        )
    if told.get("ecc_mode_current") == "Disabled":
        found.append("conditions: ECC is off: memory is faster than in clusters, which have it on")
    others = other_processes(machine)
    if others:
        found.append(f"conditions: {others} other process(es) compute on this device")
    return found


def idle(active: str) -> bool:
    """Whether the device says that its clock is low because it has nothing to do."""
    try:
        return bool(int(active, 16) & IDLE)
    except ValueError:
        return False


def throttling(active: str) -> list[str]:
    """Reasons that slow the clock, from the bit field that ``nvidia-smi`` prints in hexadecimal."""
    try:
        bits = int(active, 16)
    except ValueError:
        return []
    return [f"the device throttles: {reason}" for bit, reason in THROTTLE_REASONS.items() if bits & bit]


def number(told: Mapping[str, str], name: str) -> float:
    """The number before the unit; 0 where there is none."""
    try:
        return float(told.get(name, "0").split()[0])
    except (ValueError, IndexError):
        return 0.0


def other_processes(machine: Machine) -> int:
    """Processes that compute on the device beside this one; 0 where nothing tells.

    The driver names processes as the host numbers them: within a container those that cannot be seen here, this one
    among them, do not count.
    """
    if shutil.which("nvidia-smi") is None:
        return 0
    command = [
        "nvidia-smi",
        f"--id={driver_id(machine.device)}",
        "--query-compute-apps=pid",
        "--format=csv,noheader",
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    others = {word for word in answer.split() if word.isdecimal()} - {str(os.getpid())}
    return sum((PROCESSES / word).exists() for word in others)


def soak(
    machine: Machine, budget_s: float, work: Callable[[], Any] | None = None, ask: Ask = nvidia_smi
) -> float:
    """Work the device until clock and power vary by less than 1 % over three windows; seconds it took.

    At most a tenth of the budget and two minutes. A CPU is left as it is: its load is its own.

    Args:
        machine: device under test.
        budget_s: of the whole run.
        work: what to do for about a tenth of a second; None = matrix products.
        ask: reads clock and power.
    """
    if not machine.is_cuda and work is None:
        return 0.0
    work = work or _products(machine)
    begin = time.monotonic()
    most_s = min(SOAK_BUDGET_FRAC * budget_s, SOAK_MOST_S)
    window_s = min(WINDOW_S, most_s / (WINDOWS + 1))
    seen: list[tuple[float, float]] = []
    while time.monotonic() - begin < most_s:
        until = time.monotonic() + window_s
        while time.monotonic() < until:
            work()
        told = ask(machine.device, ("clocks.sm", "power.draw"))
        seen.append((number(told, "clocks_sm"), number(told, "power_draw")))
        if len(seen) >= WINDOWS and all(_still(values[-WINDOWS:]) for values in zip(*seen, strict=True)):
            break
    return time.monotonic() - begin


def _still(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= STILL_FRAC * max(values)


def _products(machine: Machine) -> Callable[[], None]:
    import torch

    a, b = (torch.randn(8192, 8192, device=machine.device, dtype=torch.bfloat16) for _ in range(2))

    def work() -> None:
        for _ in range(32):
            torch.mm(a, b)
        torch.cuda.synchronize(machine.device)

    return work
