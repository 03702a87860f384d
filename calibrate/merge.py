"""Several measurement files as one: field books bound together, and refused where they describe different sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibrate.measurements import Measurements, MeasurementsError, Row
from sim.spec.device import Device

MUST_AGREE = ("device", "generation", "torch", "cuda", "hip", "driver_version", "nccl", "mig_mode_current")
"""Entries of the environment that change timings: rows taken under different ones are different populations."""


def merged(
    parts: Mapping[str, Measurements], *, must_agree: Sequence[str] = MUST_AGREE, where: str = "merge"
) -> Measurements:
    """One file from several, by name; warnings say whose they are.

    Raises:
        MeasurementsError: the environments differ in something that changes timings; every difference is listed.
    """
    faults = []
    for key in must_agree:
        seen: dict[str, list[str]] = {}
        for name, part in parts.items():
            if key in part.environment:
                seen.setdefault(str(part.environment[key]), []).append(name)
        if len(seen) > 1:
            faults.append(
                f"{where}: {key} differs: " + "; ".join(f"{v!r} in {', '.join(n)}" for v, n in seen.items())
            )
    if faults:
        raise MeasurementsError("\n".join(faults))
    environment: dict[str, Any] = {}
    tables: dict[str, list[Row]] = {}
    devices: dict[str, Device] = {}
    warnings: list[str] = []
    for name, part in parts.items():
        environment = {**part.environment, **environment}
        for table, rows in part.tables.items():
            tables.setdefault(table, []).extend(rows)
        devices |= part.devices
        warnings += [f"{name}: {text}" for text in part.warnings]
    if len(parts) > 1:
        environment["merged_from"] = list(parts)
    first = next(iter(parts.values()), Measurements({}))
    complete = bool(parts) and all(part.complete for part in parts.values())
    settings = first.settings if len(parts) == 1 else {}
    return Measurements(
        environment, settings, {n: tuple(r) for n, r in tables.items()}, warnings, devices, complete
    )
