"""Slurm's shopping lists: TRES (``cpu=8,mem=64G,gres/gpu:h100=4``) and Gres (``gpu:h100:8(S:0-1)``).

Sources: Slurm's tres, gres and slurm.conf pages. A MIG instance counts as one device with its share of the seven
compute slices (NVIDIA MIG user guide, A100 and H100).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MIG_SLICES = 7

_BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a list asks for."""

    devices: tuple[tuple[str, int], ...] = ()
    cpus: float = 0.0
    memory_bytes: float = 0.0
    nodes: int = 0
    stated: bool = False
    """The list was there at all (an empty field says nothing)."""

    @property
    def gpus(self) -> int:
        """Devices of all kinds."""
        return sum(count for _, count in self.devices)

    @property
    def accelerator(self) -> str:
        """The kind, where there is one and it is named."""
        kinds = {kind for kind, _ in self.devices}
        return kinds.pop() if len(kinds) == 1 else ""


def parse_tres(text: str) -> Ask:
    """A TRES list; typed and untyped GPU counts of one list name the same devices."""
    items = dict(item.split("=", 1) for item in text.strip().split(",") if "=" in item)
    typed: list[tuple[str, int]] = []
    total = 0
    for key, value in items.items():
        number = int(value) if value.isdigit() else 0
        if key == "gres/gpu":
            total = number
        elif key.startswith("gres/gpu:") and number:
            typed.append((key.removeprefix("gres/gpu:"), number))
    rest = total - sum(count for _, count in typed)
    devices = tuple(sorted(typed)) + ((("", rest),) if rest > 0 else ())
    cpus, nodes = items.get("cpu", "0"), items.get("node", "0")
    return Ask(
        devices,
        float(cpus) if cpus.isdigit() else 0.0,
        memory_bytes(items.get("mem", "0")) or 0.0,
        int(nodes) if nodes.isdigit() else 0,
        bool(items),
    )


def parse_gres(text: str) -> tuple[tuple[str, int], ...]:
    """(kind, count) of the GPUs in a Gres list; other resources are passed over.

    Forms: ``gpu:8``, ``gpu:h100:8``, ``gpu:h100:8(S:0-1)``, ``gpu:h100:8(IDX:0)``, ``PER_NODE:gpu:8``, ``gres/gpu:8``.
    """
    found: dict[str, int] = {}
    for item in re.split(r",(?![^()]*\))", re.sub(r"\s", "", text)):
        words = re.sub(r"\(.*?\)", "", item).split(":")
        if words and words[0] in ("PER_NODE", "PER_JOB", "PER_TASK", "PER_SOCKET"):
            words = words[1:]
        if not words or words[0] not in ("gpu", "gres/gpu") or "no_consume" in words:
            continue
        if words[-1].isdigit():
            count, kind = int(words[-1]), ":".join(words[1:-1])
        else:  # gpu or gpu:h100 alone is one
            count, kind = 1, ":".join(words[1:])
        found[kind] = found.get(kind, 0) + count
    return tuple((kind, count) for kind, count in found.items() if count)


def memory_bytes(text: str) -> float | None:
    """``64G``, ``1280.50G``, ``64Gn``, ``4000`` (megabytes, Slurm's unit); None where it cannot be read."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)([nc]?)", text.strip())
    if not found:
        return None
    return float(found[1]) * _BINARY[found[2] or "M"]


def mig_share_frac(kind: str) -> float:
    """Share of a device that a kind such as ``1g.10gb`` or ``a100_3g.20gb`` is; 1 for whole devices."""
    found = re.search(r"(?:^|[^0-9])(\d)g\.\d+gb", kind)
    return int(found[1]) / MIG_SLICES if found else 1.0
