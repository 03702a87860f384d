"""Verbs of ``python -m calibrate`` beside run and fit: what a node can do by itself, with the bundle alone."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

PASSED, FAILED, BAD_INPUT = 0, 1, 2
VERBS = ("screen",)


def add_to(verbs: Any) -> None:
    """Add the verbs to argparse's subparsers."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "screen", help="probe each device in a process of its own that can be killed"
    )
    parser.add_argument("--out", type=Path, default=Path("node.json"), help="default: %(default)s")
    parser.add_argument("--devices", default="", help="e.g. cuda:0,cuda:3; default: every GPU, else cpu")
    parser.add_argument(
        "--budget", default="20s", help="time for measuring each device (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout", default="2m", help="a device that takes longer is killed (default: %(default)s)"
    )
    parser.add_argument("--hostname", action="store_true", help="record this host's name")


def call(given: Mapping[str, Any]) -> int:
    """Run the verb that was asked for; the exit code."""
    words = {name: value for name, value in given.items() if name != "verb"}
    return screen_here(**words)


def screen_here(
    out: Path,
    devices: str,
    budget: str,
    timeout: str,
    *,
    hostname: bool = False,
    tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> int:
    """Screen this node into ``out``; 0, 1 where a device failed or hung, 2 bad input."""
    from calibrate.claim import claimed
    from calibrate.measurements import Measurements, save
    from calibrate.options import parse_budget
    from calibrate.resume import HOST, host_key
    from calibrate.screen import find_devices, measuring_command, screen

    faults, times = [], {}
    for option, text in (("--budget", budget), ("--timeout", timeout)):
        try:
            times[option] = parse_budget(text)
        except ValueError as fault:
            faults.append(f"{option}: {fault}")
    if not faults and times["--timeout"] <= times["--budget"]:
        faults.append(f"--timeout: found {timeout}, expected more than --budget {budget}")
    if faults:
        tell("\n".join(faults))
        return BAD_INPUT
    try:
        names = [name.strip() for name in devices.split(",") if name.strip()] or find_devices()
    except subprocess.TimeoutExpired as fault:
        tell(
            f"counting the devices took longer than {fault.timeout:.0f} s: the driver hangs; name them with --devices"
        )
        return FAILED
    command = measuring_command(budget, hostname=hostname)
    owner = {HOST: host_key()}
    try:
        with claimed(out, Measurements({}, owner)) as path:
            if path != out:
                tell(f"note: {out} belongs to another node or run; this one writes {path}")
            found = screen(names, command, times["--timeout"], tell)
            save(replace(found, settings={**found.settings, **owner}), path)
    except OSError as fault:
        tell(f"cannot write {out}: {fault.strerror or fault}")
        return BAD_INPUT
    tell(f"{path}: {sum(map(len, found.tables.values()))} rows of {len(names)} devices")
    return PASSED if found.complete else FAILED
