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
PCI_DEVICES = Path("/sys/bus/pci/devices")
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
    "clocks_throttle_reasons.active", "temperature.gpu", "power.default_limit", "clocks.mem", "clocks.max.mem",
    "ecc.errors.uncorrected.volatile.total", "remapped_rows.pending", "pcie.link.width.current",
    "pcie.link.width.max", "pci.bus_id",
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
            "conditions: no nvidia-smi answers here: throttling, limits, ECC and others' work are not watched"
        )
        return found
    found += [f"conditions: {text}" for text in (*_slowed(told), *_limited(told), *_ill(told))]
    far = far_from(told.get("pci_bus_id", ""))
    if far:
        found.append(f"conditions: {far}")
    others = other_processes(machine)
    if others:
        found.append(f"conditions: {others} other process(es) compute on this device")
    return found


def _slowed(told: Mapping[str, str]) -> list[str]:
    """What holds the clock down at this moment."""
    active = told.get("clocks_throttle_reasons_active", "")
    found = throttling(active)
    for name, what in (("sm", "SM"), ("mem", "memory")):
        clock, most = number(told, f"clocks_{name}"), number(told, f"clocks_max_{name}")
        if 0 < clock < SLOW_CLOCK_FRAC * most and not idle(active):
            found.append(f"{what} clock {clock:.0f} MHz of at most {most:.0f} MHz")
    return found


def _limited(told: Mapping[str, str]) -> list[str]:
    """What somebody set otherwise than the device comes."""
    found = []
    limit, usual = number(told, "power_limit"), number(told, "power_default_limit")
    if 0 < limit < usual:
        found.append(f"power limit {limit:.0f} W, by default {usual:.0f} W: it clocks lower under load")
    if told.get("mig_mode_current") == "Enabled":
        found.append("MIG is enabled: this is a slice of a device, not the device of the datasheet")
    if told.get("ecc_mode_current") == "Disabled":
        found.append("ECC is off: memory is faster than in clusters, which have it on")
    return found


def _ill(told: Mapping[str, str]) -> list[str]:
    """What wants the attention of whoever repairs the node."""
    found = []
    errors = number(told, "ecc_errors_uncorrected_volatile_total")
    if errors > 0:
        found.append(
            f"{errors:.0f} uncorrected memory error(s) since the driver was loaded: do not trust this device"
        )
    if told.get("remapped_rows_pending") == "Yes" or number(told, "remapped_rows_pending") > 0:
        found.append("rows of its memory wait for remapping: reset the device")
    width, most = number(told, "pcie_link_width_current"), number(told, "pcie_link_width_max")
    if 0 < width < most:
        found.append(f"PCIe link of {width:.0f} lanes, of {most:.0f}: copies are slower by as much")
    return found


def far_from(bus_id: str) -> str:
    """One clause where this process may run on no core of the device's NUMA node; "" where it may or nothing tells.

    Args:
        bus_id: of the device as ``nvidia-smi`` writes it, ``00000000:18:00.0``; Linux names it by four digits of the
            domain (sysfs, Documentation/PCI/sysfs-pci.rst).
    """
    if not bus_id or not hasattr(os, "sched_getaffinity"):
        return ""
    domain, _, rest = bus_id.lower().partition(":")
    try:
        node = int((PCI_DEVICES / f"{domain[-4:]}:{rest}" / "numa_node").read_text())
        near = cores((NUMA_NODES / f"node{node}" / "cpulist").read_text())
    except (OSError, ValueError):
        return ""  # -1, no such node: the system does not say
    if not near or near & os.sched_getaffinity(0):
        return ""
    return f"bound to cores of another NUMA node than the device's (node {node}): host copies cross sockets"


def cores(listed: str) -> set[int]:
    """Cores of a list as the kernel writes it: ``0-3,8``."""
    found: set[int] = set()
    for word in listed.strip().split(","):
        first, _, last = word.partition("-")
        if first:
            found |= set(range(int(first), int(last or first) + 1))
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
