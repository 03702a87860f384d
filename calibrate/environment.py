"""Where a measurement was taken: the weather report that belongs in every survey.

:func:`describe` records what can change a timing (device, driver, libraries, clocks, cores) and nothing that
names the machine or its owner, unless asked. :class:`Machine` is the little of it that microbenchmarks need.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.driver import nvidia_smi

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CPU_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
GENERATION_BY_CAPABILITY = {
    (6, 0): "pascal", (6, 1): "pascal", (7, 0): "volta", (7, 5): "turing", (8, 0): "ampere", (8, 6): "ampere",
    (8, 9): "ada", (9, 0): "hopper", (10, 0): "blackwell", (10, 3): "blackwell", (12, 0): "blackwell-rtx",
    (12, 1): "blackwell-rtx",
}  # fmt: skip
"""CUDA compute capability -> architecture. Source: CUDA C++ Programming Guide, compute capabilities."""
GENERATION_BY_GFX = {"gfx908": "cdna1", "gfx90a": "cdna2", "gfx942": "cdna3", "gfx950": "cdna4"}
"""LLVM target -> architecture. Source: AMD ROCm documentation, GPU hardware specifications."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameter numbers of mallopt (glibc, malloc.h)."""


class TorchMissingError(RuntimeError):
    """Measuring needs torch, and torch does not import."""


class DeviceMissingError(TorchMissingError):
    """The torch that is here has no such device."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The device under test."""

    gpu: str
    """Its name as the driver or the operating system gives it; the ``gpu`` column of every row."""
    device: str
    """torch device: ``cpu`` or ``cuda:0``."""
    generation: str
    """Architecture (``hopper``, ``cdna3``, ``cpu``, ...); empty when unknown."""
    units: int
    """Streaming multiprocessors, compute units, or the CPU threads of one rank."""
    memory_bytes: float
    """Of the device; for a CPU what is available now."""
    cache_bytes: float
    """Last-level cache."""
    devices: int
    """Devices of this kind in the node: CUDA devices, or 1 for a CPU."""
    software: str
    """For the ``source`` and ``engine`` columns: ``torch 2.9.0``."""

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def cache_state(self) -> str:
        """Where operands lie when a timed kernel starts: see :func:`calibrate.blocks.device_block`."""
        return "cold" if self.is_cuda else "warm"

    @property
    def columns(self) -> dict[str, str]:
        """What every row of a measurement says about where it was taken."""
        return {
            "gpu": self.gpu,
            "generation": self.generation,
            "source": f"rackcast calibrate, {self.software}",
        }


def import_torch() -> Any:
    """torch, or one sentence saying how to get it.

    Raises:
        TorchMissingError: torch does not import.
    """
    try:
        import torch
    except ImportError as fault:
        raise TorchMissingError(
            f"measuring needs torch, which does not import here ({fault}); "
            "install it with: pip install 'rackcast[calibrate]'"
        ) from None
    return torch


def machine(device: str = "", processes: int = 0) -> Machine:
    """The machine this process runs on: the first CUDA device where there is one, else the CPU.

    A CPU is taken as ``processes`` devices (two where 0) that share its cores out, as ranks on it do; this process
    is made to use the threads of one.

    Raises:
        TorchMissingError: torch does not import.
        DeviceMissingError: no such device.
    """
    torch = import_torch()
    software = f"torch {torch.__version__.split('+')[0]}"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    device = device or first_device(count)
    if device not in known:
        raise DeviceMissingError(f"--device {device}: expected one of {', '.join(known)}")
    if not device.startswith("cuda"):
        threads = max(1, min(torch.get_num_threads(), usable_cores() // (processes or 2)))
        torch.set_num_threads(threads)
        keep_freed_memory()
        return Machine(
            gpu=cpu_model(),
            device="cpu",
            generation="cpu",
            units=threads,
            memory_bytes=available_memory_bytes(),
            cache_bytes=cpu_cache_bytes(),
            devices=1,
            software=software,
        )
    device = device if ":" in device else f"{device}:0"
    torch.cuda.set_device(
        device
    )  # events, graphs and copies belong to the current device unless told otherwise
    properties = torch.cuda.get_device_properties(device)
    gfx = str(getattr(properties, "gcnArchName", "")).split(":")[0]
    capability = (properties.major, properties.minor)
    return Machine(
        gpu=properties.name,
        device=device,
        generation=GENERATION_BY_GFX.get(gfx) or GENERATION_BY_CAPABILITY.get(capability, ""),
        units=properties.multi_processor_count,
        memory_bytes=float(properties.total_memory),
        cache_bytes=float(getattr(properties, "L2_cache_size", 0) or 64e6),
        devices=count,
        software=software,
    )


def first_device(count: int, variables: Mapping[str, str] = os.environ) -> str:
    """The device of a rank that a launcher started, else the first of ``count``; the CPU where there is none."""
    local = int(variables.get("LOCAL_RANK", 0))
    return f"cuda:{local if local < count else 0}" if count else "cpu"


def keep_freed_memory() -> bool:
    """Make the C library keep what is freed for the next allocation; whether it did (glibc alone can).

    By default it hands large tensors back to the kernel, and the next operation pays a page fault for every
    4 KiB it writes: a cost that depends on what ran before. Kept, memory behaves as under the caching
    allocators of devices. Source: mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):
        return False


def describe(here: Machine, *, hostname: bool = False) -> dict[str, Any]:
    """Everything that can change a timing on ``here``, as JSON values; the host's name only if asked."""
    torch = import_torch()
    record: dict[str, Any] = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": here.gpu,
        "generation": here.generation,
        "devices": here.devices,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "cpu_cores_usable": usable_cores(),
        "cpu_hz": cpu_clock_hz(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_bytes": memory_bytes("MemTotal"),
    }
    if here.is_cuda:
        record["nccl"] = nccl_version(torch)
        record["cudnn"] = torch.backends.cudnn.version()
        record |= nvidia_smi(here.device)
    if hostname:
        record["hostname"] = platform.node()
    return {name: value for name, value in record.items() if value not in (None, "")}


def nccl_version(torch: Any) -> str:
    """NCCL (or RCCL) version that torch was built with; empty if it has none."""
    try:
        return ".".join(map(str, torch.cuda.nccl.version()))
    except (AttributeError, RuntimeError):
        return ""


def cpu_model() -> str:
    """Marketing name of the processor."""
    for line in _lines(CPU_INFO):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown cpu"


def cpu_clock_hz() -> float | None:
    """Current clock of the first core, where the system tells."""
    for line in _lines(CPU_FREQUENCY):
        return float(line) * 1e3
    for line in _lines(CPU_INFO):
        if line.startswith("cpu MHz"):
            return float(line.partition(":")[2]) * 1e6
    return None


def usable_cores() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def available_memory_bytes() -> float:
    """Memory that can be taken now without swapping; 4 GB where the system does not tell."""
    return memory_bytes("MemAvailable") or memory_bytes("MemTotal") or 4e9


def memory_bytes(field: str) -> float | None:
    """A field of /proc/meminfo in bytes."""
    for line in _lines(MEMORY_INFO):
        if line.startswith(field + ":"):
            return float(line.split()[1]) * 1024
    return None


def cpu_cache_bytes() -> float:
    """Largest cache level of the first core; 32 MiB where the system does not tell."""
    sizes = [_lines(index / "size") for index in sorted(CPU_CACHES.glob("index*"))]
    scale = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30}
    found = [float(size[0][:-1]) * scale[size[0][-1]] for size in sizes if size and size[0][-1:] in scale]
    return max(found, default=2.0**25)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
