"""A node's devices one by one, each in a process that can be killed: a wedged device must not hold up the round.

The parent never touches a device: it starts the measuring tool anew for each, waits as long as allowed, kills the
whole group of those that hang, and binds what came back into one file that says how each fared.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import calibrate
from calibrate.measurements import Measurements, MeasurementsError, load
from calibrate.merge import merged

MEASURED = "measured"
COUNT_TIMEOUT_S = 60.0
COUNT = "import torch; print(torch.cuda.device_count())"
Command = Callable[[str, Path], Sequence[str]]
"""(torch device, file to write) -> command line that measures it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How one device fared."""

    device: str
    state: str
    """``measured``, or what went wrong."""
    measurements: Measurements | None


def probe(device: str, out: Path, command: Command, timeout_s: float) -> Probe:
    """Measure one device in a process of its own, killed with all its children after ``timeout_s``."""
    process = subprocess.Popen(
        command(device, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, told = process.communicate(timeout=timeout_s)
        state = _state(process.returncode, told)
    except subprocess.TimeoutExpired:
        state = f"hung: killed after {timeout_s:.0f} s"
    finally:
        _kill(process)
    try:
        measurements = load(out) if out.exists() else None
    except MeasurementsError as fault:
        measurements, state = None, f"unreadable result: {str(fault).splitlines()[0]}"
    if state == MEASURED and measurements is None:
        state = "ended without a result"
    return Probe(device, state, measurements)


def _state(code: int, told: str) -> str:
    if code == 0:
        return MEASURED
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    last = [line for line in told.splitlines() if line.strip()][-1:] or ["no message"]
    return f"failed with code {code}: {last[0].strip()[:200]}"


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(
        subprocess.TimeoutExpired
    ):  # a process stuck in the driver cannot be reaped: leave it
        process.wait(5)
    if process.stderr:
        process.stderr.close()


def screen(
    devices: Sequence[str],
    command: Command,
    timeout_s: float,
    tell: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Measurements:
    """Probe the devices in turn; rows say which device they are of, ``environment.screen`` how each fared.

    Devices are probed one after the other, so that none waits for another's share of the host.
    """
    parts: dict[str, Measurements] = {}
    states: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="rackcast-screen-") as folder:
        for number, device in enumerate(devices):
            begin = clock()
            found = probe(device, Path(folder) / f"{number}.json", command, timeout_s)
            name = device.rpartition(":")[2] if ":" in device else str(number)
            states[name] = found.state
            tell(f"{device}: {found.state} ({clock() - begin:.0f} s)")
            if found.measurements is not None:
                rows = {
                    table: tuple({**row, "device": int(name)} for row in rows)
                    for table, rows in found.measurements.tables.items()
                }
                parts[device] = replace(found.measurements, tables=rows)
    whole = merged(parts, must_agree=())
    environment = {**whole.environment, "screen": states}
    return replace(
        whole, environment=environment, complete=all(state == MEASURED for state in states.values())
    )


def measuring_command(budget: str, only: str = "matmul,memory,launch", *, hostname: bool = False) -> Command:
    """The command that runs this very tool on one device, whether it is a package or a one-file bundle."""
    home = Path(calibrate.__file__).resolve().parent.parent
    start = [str(home)] if home.is_file() else ["-m", "calibrate"]
    options = ["--budget", budget, "--only", only, *(["--hostname"] if hostname else [])]

    def command(device: str, out: Path) -> list[str]:
        return [sys.executable, *start, "run", "--device", device, "--out", str(out), *options]

    return command


def find_devices(timeout_s: float = COUNT_TIMEOUT_S) -> list[str]:
    """``cuda:0`` and on, counted in a process of its own because a broken driver hangs whoever asks; else ``cpu``."""
    command = [sys.executable, "-c", COUNT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    count = int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else 0
    return [f"cuda:{number}" for number in range(count)] or ["cpu"]
