"""Fit collectives from nccl-tests style tables: one curve per generation, collective and group size, smooth between.

Like tuning an orchestra from recordings made in different halls: the instrument (the links of a generation) is what
we want, the hall (launch mode, graphs or not, who timed how) is not, so the halls are estimated and taken out before
the instrument is tuned. With a single system its own hall is part of the answer and stays in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrate.fit.common import errors, fit_grid, fit_parameters
from sim.cost.collective_forms import COLLECTIVES, bus_factor
from sim.cost.collectives import (
    DOMAIN_PARAMETERS,
    NETWORK_PARAMETERS,
    collective,
    domain,
    domain_fit,
    network,
    network_values,
    saturated,
)
from sim.cost.device import Device
from sim.cost.links import Links, measured_links, place
from sim.cost.parameters import Parameter, complete
from sim.spec.profile import Constant, Fit, FitError

Floats = NDArray[np.float64]

SMALL_BYTES = 32 * 1024
"""Up to here a collective is all latency: where the harness shows."""
GRID_BYTES = (9, 12, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 30, 33)
"""Nodes in log2 bytes: dense where protocols change."""
GENERATION_SPREAD, CELL_SPREAD, SLOW_SPREAD, FAST_SPREAD, NOISE = 0.35, 0.15, 0.75, 0.12, 0.1
"""How far, in log time, latencies are believed to differ: between generations, between a generation's collectives and
group sizes, harnesses slower and faster than the middling one, repeats. NCCL's table has one latency for all
generations; host launch against graph launch is a factor of 1.5 to 2.5, and nothing is much faster than a graph."""
FAULT_FRAC = 1 / 3
"""A PCIe group that reaches less than this of its own system's best bus bandwidth is a host fault, not a link."""


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

    ``devices`` maps the names used in the ``gpu`` column to devices. Links: see ``sim.cost.links.measured_links``.
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
    """The device a row means: a bare ``V100`` is the PCIe card where the system says so; no name, the system's."""
    if not gpu:
        named = [name for name in devices if re.search(rf"\b{re.escape(name)}\b", system)]
        return devices[max(named, key=len)] if named else None
    if "PCIe" in system:
        gpu = next((name for name in devices if name.startswith(f"{gpu}-PCIe")), gpu)
    return devices.get(gpu)


def faulty(seen: Sequence[Observation]) -> set[tuple[str, str, int]]:
    """Series of PCIe nodes whose bandwidth collapses against another group of the same system (a host fault)."""
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
    """Systems whose network reaches less than a third of the cards assumed for it: the assumption is wrong, not the
    efficiency, so a fit must not learn from it. Judged at 64 MB and above, on a system's best group."""
    best: dict[str, float] = {}
    for o in seen:
        if o.across and o.message_bytes >= 2**26:
            local = o.links.scale_up_ranks
            rate = float(bus_factor(o.collective, o.ranks)) * o.message_bytes / o.seconds
            share = rate / float(o.links.scale_out_rate(local) * max(local / o.links.devices_per_node, 1))
            best[o.system] = max(best.get(o.system, 0.0), share)
    return {system for system, share in best.items() if share < FAULT_FRAC}


def fit(seen: Sequence[Observation], source: str, *, prior: Iterable[Fit] = ()) -> list[Fit]:
    """Fits for every fabric class, generation and collective in ``seen``, and for all generations together.

    ``prior`` fits (for example the shipped profile) are where parameters start and what a thin sweep falls back on.
    ``source`` goes into every constant.
    """
    timed = [o for o in seen if np.isfinite(o.seconds) and o.seconds > 0 and o.ranks > 1]
    bad = faulty(timed)
    inside = [o for o in timed if not o.across and o.series not in bad]
    found = _domain_fits(inside, source, tuple(prior))
    return found + _network_fits([o for o in timed if o.across], found + list(prior), source)


def predict(fits: Sequence[Fit], seen: Sequence[Observation]) -> Floats:
    """Seconds of every observation from ``fits``."""
    result = np.empty(len(seen))
    for group in _groups(seen):
        first = seen[group[0]]
        result[group] = collective(
            fits,
            first.links,
            first.collective,
            [seen[i].message_bytes for i in group],
            [seen[i].ranks for i in group],
            algorithm=first.algorithm,
        ).seconds
    return result


def cross_validate(
    seen: Sequence[Observation], source: str = "cross-validation", by: str = "system"
) -> Floats:
    """Predicted seconds of every observation with its ``by`` attribute (``system`` or ``ranks``...) left out of the fit."""
    keys = [str(getattr(o, by)) for o in seen]
    result = np.empty(len(seen))
    domain_fits: list[Fit] | None = None
    for key in dict.fromkeys(keys):
        out = [i for i, k in enumerate(keys) if k == key]
        rest = [o for o, k in zip(seen, keys, strict=True) if k != key]
        if all(seen[i].across for i in out):  # only the network is left out: the domain fits stay as they are
            if domain_fits is None:
                domain_fits = [f for f in fit(seen, source) if f.op != "network"]
            fits = domain_fits + _network_fits([o for o in rest if o.across], domain_fits, source)
        else:
            fits = fit(rest, source)
        result[out] = predict(fits, [seen[i] for i in out])
    return result


def levels(seen: Sequence[Observation]) -> dict[tuple[str, str, int], tuple[float, float]]:
    """Small-message seconds of each series: measured, and as a middling harness would have shown.

    A linear mixed model in log time: (collective, ranks) + generation + cell of the generation + harness, each pulled
    to zero by its believed spread. A harness adds time, so one may lie far above the rest but hardly below; a harness
    that timed several generations tells them apart. The middling level is everything but the harness.
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


def _without_harness(seen: Sequence[Observation]) -> list[Observation]:
    """Observations as a middling harness would have timed them: the surplus taken out in quadrature.

    A slow host hides behind a long collective, so the surplus fades with size; half of the time stays, or as much as
    a small message takes.
    """
    level = levels(seen)
    result = []
    for o in seen:
        measured, middling = level.get(o.series, (0.0, 0.0))
        squared = o.seconds**2 - measured**2 + middling**2
        floor = min(0.5 * o.seconds, middling) if middling else o.seconds
        result.append(replace(o, seconds=float(np.sqrt(max(squared, floor**2)))))
    return result


def _domain_fits(seen: Sequence[Observation], source: str, prior: tuple[Fit, ...]) -> list[Fit]:
    fits: list[Fit] = []
    everything = _without_harness(seen) if seen else []
    for fabric in ("nvlink", "pcie"):
        members = [o for o in everything if (o.links.scale_up == "pcie") == (fabric == "pcie")]
        for op in dict.fromkeys(o.collective for o in members):
            mine = [o for o in members if o.collective == op]
            pooled = _fit_domain(mine, {"fabric": fabric}, source, prior or tuple(fits))
            generations = list(dict.fromkeys(o.links.generation for o in mine))
            for generation in generations:
                these = [o for o in mine if o.links.generation == generation]
                key = {"fabric": fabric, "generation": generation}
                fits.append(_fit_domain(these, key, source, (*prior, pooled)))
            if len(generations) > 1:
                fits.append(pooled)
        fits += _borrowed([f for f in fits if f.key["fabric"] == fabric], members, source)
    return fits


def _borrowed(fits: Sequence[Fit], seen: Sequence[Observation], source: str) -> list[Fit]:
    """For a generation that lacks a collective: the curve of all generations, its latencies scaled.

    The scale is how the generation's small messages compare in the collectives it does have (median), because
    latency is mostly launch and hop, which collectives share.
    """
    pooled = {f.op: f for f in fits if "generation" not in f.key}
    known = {(f.key["generation"], f.op): f for f in fits if "generation" in f.key}
    links = {o.links.generation: o.links for o in seen if o.message_bytes <= SMALL_BYTES}
    result = []
    for generation, node in links.items():
        ratios = []
        for op in dict.fromkeys(o.collective for o in seen if o.links.generation == generation):
            ranks = [o.ranks for o in seen if o.links.generation == generation and o.collective == op]
            if op in pooled and (generation, op) in known:
                own, all_ = (
                    collective([f], node, op, SMALL_BYTES / 4, max(ranks)).seconds
                    for f in (known[generation, op], pooled[op])
                )
                ratios.append(float(own / all_))
        for op, base in pooled.items():
            if ratios and (generation, op) not in known:
                result.append(_slowed(base, generation, float(np.median(ratios)), source))
    return result


def _slowed(base: Fit, generation: str, ratio: float, source: str) -> Fit:
    constants = dict(base.parameters)
    for name in ("base_s", "step_s", "extra_s"):
        old = constants[name]
        constants[name] = Constant(
            float(f"{old.value * ratio:.4g}"), old.unit, "assumed", f"{source}, other collectives"
        )
    return Fit(base.op, {**base.key, "generation": generation}, constants, base.grid, base.error)


def _fit_domain(
    seen: Sequence[Observation], key: Mapping[str, str], source: str, prior: tuple[Fit, ...]
) -> Fit:
    first = seen[0]
    base = domain_fit(prior, first.links, first.collective) if prior else None
    groups = _groups(seen)
    order = np.concatenate(groups)
    measured = np.array([o.seconds for o in seen])[order]
    message = np.array([o.message_bytes for o in seen])[order]
    ranks = np.array([float(o.ranks) for o in seen])[order]

    def physics(values: Mapping[str, float]) -> Floats:
        known = complete(DOMAIN_PARAMETERS, values)
        parts = []
        for group in groups:
            o = seen[group[0]]
            m, n = [seen[i].message_bytes for i in group], [seen[i].ranks for i in group]
            parts.append(domain(known, o.links, o.collective, m, n, o.algorithm).seconds)
        return np.concatenate(parts)

    start = complete(DOMAIN_PARAMETERS, base.values() if base else {})
    small = message <= SMALL_BYTES
    if (
        np.any(small) and len(set(ranks)) == 1
    ):  # one group size cannot tell launch from hops: both scale alike
        ratio = float(np.median(measured[small] / physics(start)[small]))
        start |= {name: start[name] * ratio for name in ("base_s", "step_s")}
    free = [p for p in DOMAIN_PARAMETERS if _told(p, seen)]
    constants = fit_parameters(free, physics, measured, source, start=start, prior_weight=0.05)
    constants |= {
        p.name: Constant(start.get(p.name, p.start), p.unit, "assumed", p.source)
        for p in DOMAIN_PARAMETERS
        if p.name not in constants
    }
    fitted = {name: c.value for name, c in constants.items()}
    residual = np.log(measured / physics(fitted))
    nodes = _rank_nodes(ranks)
    axes = (
        [("log2_bytes", GRID_BYTES), ("log2_ranks", nodes)]
        if len(nodes) > 1
        else [("log2_bytes", GRID_BYTES)]
    )
    coordinates = {"log2_bytes": np.log2(message), "log2_ranks": np.log2(ranks)}
    grid = fit_grid(axes, coordinates, residual, smoothness=0.3, ridge=0.2)
    fit_error = errors(
        physics(fitted) * grid.factor(coordinates), measured, "on the fitted rows, harness taken out"
    )
    return Fit(first.collective, dict(key), constants, grid, fit_error)


def _told(parameter: Parameter, seen: Sequence[Observation]) -> bool:
    """Whether the observations can tell anything of a parameter."""
    if parameter.name == "in_switch_frac":
        return any(o.links.in_switch_reduction and o.collective == "all_reduce" for o in seen)
    if parameter.name == "staged_frac":
        pcie = {o.links.host_peer_to_peer for o in seen if o.links.scale_up == "pcie"}
        return len(pcie) == 2
    if parameter.name == "step_s":
        return len({o.ranks for o in seen}) > 1
    return True


def _rank_nodes(ranks: Floats) -> tuple[float, ...]:
    """Grid nodes in log2 ranks: the powers of two that were measured, and larger groups where there are any."""
    inside = [float(k) for k in (1, 2, 3) if np.any(np.abs(np.log2(ranks) - k) < 0.01)]
    large = np.log2(ranks[ranks > 12])
    return tuple(inside + ([round(float(np.median(large)), 2)] if large.size else [])) or (3.0,)


def _network_fits(seen: Sequence[Observation], domain_fits: Sequence[Fit], source: str) -> list[Fit]:
    if not seen:
        return []
    wrong = misread(seen)
    seen = [o for o in seen if o.system not in wrong]
    if not seen:
        return []
    pooled = _fit_network(
        [o for o in seen if o.links.scale_out != "ethernet"] or seen, {}, domain_fits, source, {}
    )
    fits = []
    for fabric in dict.fromkeys(o.links.scale_out for o in seen):
        these = [o for o in seen if o.links.scale_out == fabric]
        start = network_values(pooled, fabric)
        fits.append(_fit_network(these, {"fabric": fabric}, domain_fits, source, start))
    return [*fits, pooled]


def _fit_network(
    seen: Sequence[Observation],
    key: Mapping[str, str],
    domain_fits: Sequence[Fit],
    source: str,
    start: Mapping[str, float],
) -> Fit:
    groups = _groups(seen)
    measured = np.array([o.seconds for o in seen])[np.concatenate(groups)]
    inner = []
    for group in groups:
        base = domain_fit(domain_fits, seen[group[0]].links, seen[group[0]].collective)
        lying = place(seen[group[0]].links, [seen[i].ranks for i in group])
        inner.append(saturated(base, lying.ranks_per_domain))

    def physics(values: Mapping[str, float]) -> Floats:
        known = complete(NETWORK_PARAMETERS, values)
        parts = []
        for group, inside in zip(groups, inner, strict=True):
            o = seen[group[0]]
            lying = place(o.links, [seen[i].ranks for i in group])
            message = [seen[i].message_bytes for i in group]
            parts.append(network(known, inside, o.links, o.collective, message, lying, o.algorithm).seconds)
        return np.concatenate(parts)

    free = [
        p
        for p in NETWORK_PARAMETERS
        if p.name != "in_network_frac" or any(o.algorithm == "sharp" for o in seen)
    ]
    constants = fit_parameters(free, physics, measured, source, start=start, prior_weight=1.5)
    for p in NETWORK_PARAMETERS:
        constants.setdefault(p.name, Constant(start.get(p.name, p.start), p.unit, "assumed", p.source))
    fitted = physics({name: c.value for name, c in constants.items()})
    return Fit("network", dict(key), constants, None, errors(fitted, measured, "on the fitted rows"))


def with_errors(
    fits: Sequence[Fit], seen: Sequence[Observation], predicted: Floats, method: str
) -> list[Fit]:
    """``fits`` with the error that ``predicted`` (from :func:`cross_validate`) shows on each one's rows."""
    result = []
    for entry in fits:
        rows = [i for i, o in enumerate(seen) if np.isfinite(o.seconds) and _covers(entry, o)]
        error: FitError | None = entry.error
        if rows:
            error = errors(predicted[rows], [seen[i].seconds for i in rows], method)
        result.append(replace(entry, error=error))
    return result


def _covers(entry: Fit, o: Observation) -> bool:
    if o.across:
        return entry.op == "network" and entry.key.get("fabric", o.links.scale_out) == o.links.scale_out
    fabric = "pcie" if o.links.scale_up == "pcie" else "nvlink"
    wanted = {"fabric": fabric, "generation": o.links.generation}
    return entry.op == o.collective and all(
        wanted.get(name, value) == value for name, value in entry.key.items()
    )


def _groups(seen: Sequence[Observation]) -> list[NDArray[np.intp]]:
    """Indices of observations that one call can price: same links, collective and algorithm."""
    groups: dict[tuple[Links, str, str], list[int]] = defaultdict(list)
    for i, o in enumerate(seen):
        groups[o.links, o.collective, o.algorithm].append(i)
    return [np.array(group) for group in groups.values()]
