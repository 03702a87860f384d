"""Fit collectives from nccl-tests style tables: one curve per generation, collective and group size,
smooth between.

Like tuning an orchestra from recordings made in different halls: the instrument (the links of a
generation) is what we want, the hall (launch mode, graphs or not, who timed how) is not, so the halls
are estimated and taken out before the instrument is tuned. With a single system its own hall is part of
the answer and stays in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibrate.fit.collective_observations import (
    SMALL_BYTES,
    Observation,
    faulty,
    groups,
    misread,
    observation,
    without_harness,
)
from calibrate.fit.common import errors, fit_grid, fit_parameters
from sim.cost.collectives import (
    collective,
    domain,
    domain_fit,
    fabric_class,
    network,
    network_values,
    saturated,
)
from sim.cost.links import place
from sim.cost.nccl import DOMAIN_PARAMETERS, NETWORK_PARAMETERS
from sim.cost.parameters import Parameter, complete
from sim.spec.profile import Constant, Fit

__all__ = ["Observation", "cross_validate", "fit", "fit_with_errors", "observation", "predict", "with_errors"]

Floats = NDArray[np.float64]

GRID_BYTES = (9, 12, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 30, 33)
"""Nodes in log2 bytes: dense where protocols change."""
TINY_BYTES = 4096
"""Up to here even a faulty path tells its latency."""
THIN = 40
"""Fewer rows of a collective than this correct a known curve instead of making their own."""
FITTED = "on the fitted rows, harness taken out"


def fit(seen: Sequence[Observation], source: str, *, prior: Iterable[Fit] = ()) -> list[Fit]:
    """Fits for every fabric class, generation and collective in ``seen``, and for all generations
    together.

    ``prior`` fits (for example the shipped profile) are where parameters start and what a thin sweep
    falls back on. ``source`` goes into every constant.
    """
    timed = [o for o in seen if np.isfinite(o.seconds) and o.seconds > 0 and o.ranks > 1]
    bad = faulty(timed)
    # a path too narrow costs bytes, not launches: small messages of a faulty group still tell its latency
    inside = [o for o in timed if not o.across and (o.series not in bad or o.message_bytes <= TINY_BYTES)]
    found = _domain_fits(inside, source, tuple(prior))
    return found + _network_fits([o for o in timed if o.across], found + list(prior), source)


def fit_with_errors(seen: Sequence[Observation], source: str) -> list[Fit]:
    """:func:`fit`, each entry with the error it shows on systems left out in turn (slow: a fit for every system)."""
    timed = [o for o in seen if np.isfinite(o.seconds) and o.seconds > 0]
    predicted = cross_validate(timed, source)
    return with_errors(fit(timed, source), timed, predicted, "systems left out in turn")


def predict(fits: Sequence[Fit], seen: Sequence[Observation]) -> Floats:
    """Seconds of every observation from ``fits``."""
    result = np.empty(len(seen))
    for group in groups(seen):
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
    """Predicted seconds of every observation with its ``by`` attribute (``system`` or ``ranks``...) left
    out of the fit."""
    keys = [str(getattr(o, by)) for o in seen]
    timed = [np.isfinite(o.seconds) and o.seconds > 0 for o in seen]
    result = np.empty(len(seen))
    domain_fits: list[Fit] | None = None
    for key in dict.fromkeys(keys):
        out = [i for i, k in enumerate(keys) if k == key]
        rest = [o for o, k, known in zip(seen, keys, timed, strict=True) if k != key and known]
        if all(seen[i].across for i in out):  # only the network is left out: the domain fits stay as they are
            if domain_fits is None:
                domain_fits = [f for f in fit(seen, source) if f.op != "network"]
            fits = domain_fits + _network_fits([o for o in rest if o.across], domain_fits, source)
        else:
            fits = fit(rest, source)
        result[out] = predict(fits, [seen[i] for i in out])
    return result


def _domain_fits(seen: Sequence[Observation], source: str, prior: tuple[Fit, ...]) -> list[Fit]:
    fits: list[Fit] = []
    everything = without_harness(seen) if seen else []
    classes = {fabric_class(o.links) for o in seen}
    for fabric in [name for name in ("nvlink", "pcie", "gloo") if name in classes]:
        members = [o for o in everything if fabric_class(o.links) == fabric]
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
    batches = groups(seen)
    order = np.concatenate(batches)
    measured = np.array([o.seconds for o in seen])[order]
    message = np.array([o.message_bytes for o in seen])[order]
    ranks = np.array([float(o.ranks) for o in seen])[order]

    def physics(values: Mapping[str, float]) -> Floats:
        known = complete(DOMAIN_PARAMETERS, values)
        parts = []
        for group in batches:
            o = seen[group[0]]
            m, n = [seen[i].message_bytes for i in group], [seen[i].ranks for i in group]
            parts.append(domain(known, o.links, o.collective, m, n, o.algorithm).seconds)
        return np.concatenate(parts)

    coordinates = {"log2_bytes": np.log2(message), "log2_ranks": np.log2(ranks)}
    if (
        base
        and base.grid
        and len(seen) < THIN
        and (base.op, base.key["fabric"]) == (first.collective, key["fabric"])
    ):
        return _corrected(base, key, physics(base.values()), coordinates, measured)
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
    grid = fit_grid(axes, coordinates, residual, smoothness=0.3, ridge=0.2)
    fit_error = errors(
        physics(fitted) * grid.factor(coordinates), measured, "on the fitted rows, harness taken out"
    )
    return Fit(first.collective, dict(key), constants, grid, fit_error)


def _corrected(
    base: Fit, key: Mapping[str, str], physics: Floats, coordinates: Mapping[str, Floats], measured: Floats
) -> Fit:
    """``base`` moved to a thin sweep: parameters stay, the grid takes up the smooth part of what is left."""
    if base.grid is None:
        return base
    residual = np.log(measured / (physics * base.grid.factor(coordinates)))
    change = fit_grid(base.grid.axes, coordinates, residual, smoothness=0.3, ridge=0.2)
    values = tuple(round(a + b, 4) for a, b in zip(base.grid.values, change.values, strict=True))
    grid = replace(base.grid, values=values)
    return Fit(
        base.op,
        dict(key),
        base.parameters,
        grid,
        errors(physics * grid.factor(coordinates), measured, FITTED),
    )


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
    """Grid nodes in log2 ranks: the powers of two that were measured, and larger groups where there are
    any."""
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
    batches = groups(seen)
    measured = np.array([o.seconds for o in seen])[np.concatenate(batches)]
    inner = []
    for group in batches:
        base = domain_fit(domain_fits, seen[group[0]].links, seen[group[0]].collective)
        lying = place(seen[group[0]].links, [seen[i].ranks for i in group])
        inner.append(saturated(base, lying.ranks_per_domain))

    def physics(values: Mapping[str, float]) -> Floats:
        known = complete(NETWORK_PARAMETERS, values)
        parts = []
        for group, inside in zip(batches, inner, strict=True):
            o = seen[group[0]]
            lying = place(o.links, [seen[i].ranks for i in group])
            message = [seen[i].message_bytes for i in group]
            parts.append(network(known, inside, o.links, o.collective, message, lying, o.algorithm).seconds)
        return np.concatenate(parts)

    free = [p for p in NETWORK_PARAMETERS if _network_told(p, seen)]
    constants = fit_parameters(free, physics, measured, source, start=start, prior_weight=1.5)
    for p in NETWORK_PARAMETERS:
        constants.setdefault(p.name, Constant(start.get(p.name, p.start), p.unit, "assumed", p.source))
    fitted = physics({name: c.value for name, c in constants.items()})
    return Fit("network", dict(key), constants, None, errors(fitted, measured, "on the fitted rows"))


def _network_told(parameter: Parameter, seen: Sequence[Observation]) -> bool:
    """Whether the observations tell a network parameter: hops from launch only by several domain counts."""
    if parameter.name == "in_network_frac":
        return any(o.algorithm == "sharp" for o in seen)
    if parameter.name == "hop_s":
        return len({o.ranks / o.links.scale_up_ranks for o in seen if o.message_bytes <= 2**20}) > 1
    if parameter.name == "lone_frac":
        return any(o.links.scale_up_ranks <= 1 for o in seen)
    return True


def with_errors(
    fits: Sequence[Fit], seen: Sequence[Observation], predicted: Floats, method: str
) -> list[Fit]:
    """``fits`` with the error that ``predicted`` (from :func:`cross_validate`) shows on each one's rows."""
    result = []
    for entry in fits:
        rows = [i for i, o in enumerate(seen) if np.isfinite(o.seconds) and _covers(entry, o)]
        error = errors(predicted[rows], [seen[i].seconds for i in rows], method) if rows else entry.error
        result.append(replace(entry, error=error))
    return result


def _covers(entry: Fit, o: Observation) -> bool:
    if o.across:
        return entry.op == "network" and entry.key.get("fabric", o.links.scale_out) == o.links.scale_out
    wanted = {"fabric": fabric_class(o.links), "generation": o.links.generation}
    return entry.op == o.collective and all(
        wanted.get(name, value) == value for name, value in entry.key.items()
    )
