"""Asking the driver: the caretaker who knows every meter in the house, if one asks by the name on his own list.

``nvidia-smi`` where it is there; silence is an answer, and none is fatal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

NVIDIA_SMI_FIELDS = (
    "driver_version", "power.limit", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu",
    "ecc.mode.current", "mig.mode.current", "pcie.link.gen.current", "pcie.link.width.current",
)  # fmt: skip
NEWER_FIELDS = {"clocks_throttle_reasons.active": "clocks_event_reasons.active"}
"""Fields that drivers renamed. Source: nvidia-smi --help-query-gpu, driver 535 and later."""


def driver_id(device: str, variables: Mapping[str, str] = os.environ) -> str:
    """What the driver's own tools call a torch device: CUDA_VISIBLE_DEVICES renumbers devices for torch alone."""
    index = int(device.partition(":")[2] or 0)
    visible = [word.strip() for word in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return visible[index] if index < len(visible) else str(index)


def nvidia_smi(device: str, fields: Sequence[str] = NVIDIA_SMI_FIELDS) -> dict[str, str]:
    """Driver, clocks, power limit and modes from ``nvidia-smi``; empty where it is absent or silent.

    A driver that does not know one of the fields refuses them all: that one is asked by its newer name, or left out.
    """
    if shutil.which("nvidia-smi") is None:
        return {}
    asked = {name: name for name in fields}
    while asked:
        query = f"--query-gpu={','.join(asked.values())}"
        command = ["nvidia-smi", f"--id={driver_id(device)}", query, "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.SubprocessError):
            return {}
        if done.returncode == 0:
            break
        unknown = re.search(r'[Ff]ield "([^"]+)" is not a valid', done.stdout + done.stderr)
        name = next((one for one, word in asked.items() if unknown and word == unknown[1]), None)
        if name is None:
            return {}
        newer = NEWER_FIELDS.get(asked.pop(name))
        asked |= {name: newer} if newer else {}
    else:
        return {}
    lines = done.stdout.strip().splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    pairs = zip(asked, values, strict=False)
    absent = ("N/A", "Not Supported", "Unknown")
    return {
        name.replace(".", "_"): value
        for name, value in pairs
        if value and not any(word in value for word in absent)
    }


def nvlink_active() -> bool:
    """Whether ``nvidia-smi`` shows a working NVLink."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        answer = subprocess.run(
            ["nvidia-smi", "nvlink", "--status"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return "GB/s" in answer.stdout
