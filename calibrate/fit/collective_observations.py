"""Timed collectives as a fit sees them: rows read, faults screened, the harness taken out.

Like an audio engineer before the mastering: which take is spoilt, and how much of the sound is the hall.
Launch mode, graphs or not and who timed how make a small message take 5 or 35 us on the very same node.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cost.collective_forms import COLLECTIVES, bus_factor
from sim.cost.links import Links
from sim.cost.node_links import measured_links
from sim.spec.device import Device

Floats = NDArray[np.float64]

SMALL_BYTES = 32 * 1024
"""Up to here a collective is all latency: where the harness shows."""
GENERATION_SPREAD, CELL_SPREAD, SLOW_SPREAD, FAST_SPREAD, NOISE = 0.35, 0.15, 0.75, 0.12, 0.1
"""How far, in log time, latencies are believed to differ: between generations, between a generation's
collectives and group sizes, harnesses slower and faster than the middling one, repeats. NCCL's table
has one latency for all generations; host launch against graph launch is a factor of 1.5 to 2.5, and
nothing is much faster than a graph."""
FAULT_FRAC = 1 / 3
"""A PCIe group that reaches less than this of its own system's best bus bandwidth is a host fault, not a
link."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One timed collective."""

    system: str
    links: Links
    collective: str
    ranks: int
    message_bytes: float
    seconds: float
    algorithm: str = ""
    harness: str = ""
    """Who timed it (the repository of the source): systems timed alike share their surplus."""

    @property
    def series(self) -> tuple[str, str, int]:
        """What a sweep over sizes has in common."""
        return (self.system, self.collective, self.ranks)

    @property
    def across(self) -> bool:
        """The group spans domains."""
        return self.ranks > self.links.scale_up_ranks


def observation(row: Mapping[str, Any], devices: Mapping[str, Device]) -> Observation | str:
    """One table row (columns of collectives_dev.csv) as an observation, or the reason why it is none.

    ``devices`` maps the names used in the ``gpu`` column to devices. Links: see
    ``sim.cost.links.measured_links``.
    """
    text = {key: "" if value is None or value != value else str(value) for key, value in row.items()}
    if text.get("collective") not in COLLECTIVES:
        return f"unknown collective {text.get('collective')!r}"
    if not text.get("size_bytes"):
        return "no message size"
    device = _device(text.get("gpu", ""), text.get("system", ""), devices)
    if device is None:
        return "accelerator not stated" if not text.get("gpu") else f"unknown accelerator {text['gpu']!r}"
    ranks, nodes = int(float(text["gpus"])), int(float(text["nodes"]))
    links = measured_links(
        device,
        text.get("system", ""),
        nodes=nodes,
        ranks=ranks,
        fabric=text.get("fabric", ""),
        nics_per_node=float(text["nics_per_node"]) if text.get("nics_per_node") else None,
        nic_gbit_per_s=float(text["nic_gbit_per_s"]) if text.get("nic_gbit_per_s") else None,
    )
    seconds = float(text["time_us"]) * 1e-6 if text.get("time_us") else float("nan")
    return Observation(
        text.get("system", ""),
        links,
        text["collective"],
        ranks,
        float(text["size_bytes"]),
        seconds,
        text.get("algorithm", ""),
        re.split(r"[@#\s]", text.get("source", ""))[0] or text.get("system", ""),
    )


def _device(gpu: str, system: str, devices: Mapping[str, Device]) -> Device | None:
    """The device a row means: a bare ``V100`` is the PCIe card where the system says so; no name, the
    system's."""
    if not gpu:
        named = [name for name in devices if re.search(rf"\b{re.escape(name)}\b", system)]
        return devices[max(named, key=len)] if named else None
    if "PCIe" in system:
        gpu = next((name for name in devices if name.startswith(f"{gpu}-PCIe")), gpu)
    return devices.get(gpu)


def faulty(seen: Sequence[Observation]) -> set[tuple[str, str, int]]:
    """Series of PCIe nodes whose bandwidth collapses against another group of the same system (a host
    fault)."""
    best: dict[tuple[str, str, int], float] = defaultdict(float)
    for o in seen:
        if o.links.scale_up == "pcie" and not o.across:
            rate = float(bus_factor(o.collective, o.ranks)) * o.message_bytes / o.seconds
            best[o.series] = max(best[o.series], rate)
    top: dict[str, float] = defaultdict(float)
    for (system, _, _), rate in best.items():
        top[system] = max(top[system], rate)
    return {series for series, rate in best.items() if rate < FAULT_FRAC * top[series[0]]}


def misread(seen: Sequence[Observation]) -> set[str]:
    """Systems whose network reaches less than a third of the cards assumed for it: the assumption is
    wrong, not the efficiency, so a fit must not learn from it. Judged at 64 MB and above, on a
    system's best group."""
    best: dict[str, float] = {}
    for o in seen:
        if o.across and o.message_bytes >= 2**26:
            local = o.links.scale_up_ranks
            rate = float(bus_factor(o.collective, o.ranks)) * o.message_bytes / o.seconds
            share = rate / float(o.links.scale_out_rate(local) * max(local / o.links.devices_per_node, 1))
            best[o.system] = max(best.get(o.system, 0.0), share)
    return {system for system, share in best.items() if share < FAULT_FRAC}


def levels(seen: Sequence[Observation]) -> dict[tuple[str, str, int], tuple[float, float]]:
    """Small-message seconds of each series: measured, and as a middling harness would have shown.

    A linear mixed model in log time: (collective, ranks) + generation + cell of the generation +
    harness, each pulled to zero by its believed spread. A harness adds time, so one may lie far above
    the rest but hardly below; a harness that timed several generations tells them apart. The middling
    level is everything but the harness.
    """
    times: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    generation: dict[tuple[str, str, int], str] = {}
    harness: dict[tuple[str, str, int], str] = {}
    for o in seen:
        if o.message_bytes <= SMALL_BYTES:
            times[o.series].append(np.log(o.seconds))
            generation[o.series] = o.links.generation
            harness[o.series] = o.harness or o.system
    series = list(times)
    level = np.array([np.median(times[s]) for s in series])
    if len({s[0] for s in series}) < 2:
        return {s: (float(np.exp(v)), float(np.exp(v))) for s, v in zip(series, level, strict=True)}
    blocks = [
        ([(c, n) for _, c, n in series], 10.0),
        ([generation[s] for s in series], GENERATION_SPREAD),
        ([(generation[s], s[1], s[2]) for s in series], CELL_SPREAD),
        ([harness[s] for s in series], SLOW_SPREAD),
    ]
    design, spread = [], []
    for labels, scale in blocks:
        names = list(dict.fromkeys(labels))
        design.append(np.array([[float(label == name) for name in names] for label in labels]))
        spread += [scale] * len(names)
    matrix, pull = np.hstack(design), 1 / np.array(spread)
    harnesses = slice(matrix.shape[1] - design[-1].shape[1], matrix.shape[1])
    solution = np.zeros(matrix.shape[1])
    centre = level.mean()
    weight = np.ones(len(level))
    for _ in range(20):
        system = np.vstack([matrix * (weight / NOISE)[:, None], np.diag(pull)])
        right = np.concatenate([(level - centre) * weight / NOISE, np.zeros(len(pull))])
        solution = np.linalg.lstsq(system, right, rcond=None)[0]
        weight = (1 + ((level - centre - matrix @ solution) / (2 * NOISE)) ** 2) ** -0.25
        pull[harnesses] = np.where(solution[harnesses] > 0, 1 / SLOW_SPREAD, 1 / FAST_SPREAD)
    middling = centre + np.delete(matrix, np.r_[harnesses], axis=1) @ np.delete(solution, np.r_[harnesses])
    return {s: (float(np.exp(a)), float(np.exp(b))) for s, a, b in zip(series, level, middling, strict=True)}


def without_harness(seen: Sequence[Observation]) -> list[Observation]:
    """Observations as a middling harness would have timed them: the surplus taken out in quadrature.

    A slow host hides behind a long collective, so the surplus fades with size; half of the time stays,
    or as much as a small message takes.
    """
    level = levels(seen)
    result = []
    for o in seen:
        measured, middling = level.get(o.series, (0.0, 0.0))
        squared = o.seconds**2 - measured**2 + middling**2
        floor = min(0.5 * o.seconds, middling) if middling else o.seconds
        result.append(replace(o, seconds=float(np.sqrt(max(squared, floor**2)))))
    return result


def groups(seen: Sequence[Observation]) -> list[NDArray[np.intp]]:
    """Indices of observations that one call can price: same links, collective and algorithm."""
    groups: dict[tuple[Links, str, str], list[int]] = defaultdict(list)
    for i, o in enumerate(seen):
        groups[o.links, o.collective, o.algorithm].append(i)
    return [np.array(group) for group in groups.values()]
