"""What a campaign is told to do: parts, budget, ranks, and where the file goes.

Standard library alone, like :mod:`calibrate.parts`; words of a command line become options, or one refusal.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.parts import PARTS
from sim import units


class OptionError(ValueError):
    """Options that cannot be run; the message lists every fault."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    out: Path = Path("measurements.json")
    budget_s: float = 60.0
    """Time for measuring; starting torch, here and in the ranks of the collectives, comes on top."""
    parts: tuple[str, ...] = tuple(PARTS)
    processes: int = 0
    """Ranks of the collectives; 0 = one a CUDA device, else two."""
    seed: int = 0
    device: str = ""
    """torch device; "" = the first CUDA device, else the CPU."""
    system: str = ""
    """Name of the node or cluster in the rows of the collectives; "" = made from the device."""
    fabric: str = ""
    """Link kind in those rows; "" = found out."""
    hostname: bool = False
    """Record the host's name."""
    raw: bool = False
    """Keep the time of every block."""


def parse_options(budget: str, only: str, processes: int, **others: Any) -> Options:
    """Options from the words of a command line.

    Raises:
        OptionError: unknown parts, a budget that is no time, fewer than two processes; every fault is listed.
    """
    faults, budget_s = [], 0.0
    try:
        budget_s = parse_budget(budget)
    except ValueError as fault:
        faults.append(f"--budget: {fault}")
    parts = tuple(part.strip() for part in only.split(",") if part.strip()) or tuple(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        near = {name: difflib.get_close_matches(name, PARTS, 1) for name in unknown}
        hints = "".join(f"; nearest to {name!r} is {found[0]!r}" for name, found in near.items() if found)
        faults.append(f"--only: {', '.join(map(repr, unknown))} not among {', '.join(PARTS)}{hints}")
    if processes < 0 or processes == 1:
        faults.append(f"--processes: found {processes}, expected 2 or more (0 = choose)")
    if faults:
        raise OptionError("\n".join(faults))
    return Options(budget_s=budget_s, parts=parts, processes=processes, **others)


def parse_budget(text: str) -> float:
    """Seconds from ``"90"``, ``"45s"``, ``"5m"`` or ``"1 h"``; here ``m`` means minutes.

    Raises:
        ValueError: not a time, or not above zero.
    """
    words = text.strip()
    seconds = units.parse(words + "in" if words.endswith("m") else words, units.SECONDS)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"found {text!r}, expected a time above zero such as 45s, 5m or 1h")
    return float(seconds)
