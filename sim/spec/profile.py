"""A calibration profile: what fraction of the datasheet the hardware really delivers, and how we know.

A profile is like the correction card that hangs beside an instrument: for each class of operation a few physical
parameters, where it pays a small grid of leftover corrections, and the error that remained. ``calibrate`` writes it,
the cost functions read it, and every prediction can say which entry it leaned on.

Only numpy and the standard library, and Python 3.10: the one-file bundle for bare nodes carries this module.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.spec.profile_faults import KINDS, document_faults

SCHEMA = 1


class ProfileError(ValueError):
    """A profile file that cannot be used; the message lists every fault found."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One number with its unit, its origin and how sure we are of it."""

    value: float
    unit: str
    """SI, ``"1"`` for fractions and counts."""
    kind: str
    """``measured``, ``datasheet``, ``fitted`` or ``assumed``."""
    source: str
    low: float | None = None
    high: float | None = None
    """80 % interval, where one is known."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ProfileError(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if not math.isfinite(self.value):
            raise ProfileError(f"value {self.value!r} is not a finite number")
        if not self.unit or not self.source:
            raise ProfileError("a constant needs a unit and a source")


@dataclass(frozen=True, slots=True)
class ResidualGrid:
    """log(measured / physics) on a small rectilinear grid, read by multilinear interpolation.

    ``axes`` are (coordinate name, increasing nodes); ``values`` has one number per node, last axis fastest. Outside
    the grid the edge value holds, so an extrapolation falls back on the physics times a constant.
    """

    axes: tuple[tuple[str, tuple[float, ...]], ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        nodes = math.prod(len(points) for _, points in self.axes)
        if nodes != len(self.values):
            raise ProfileError(f"a grid of {nodes} nodes has {len(self.values)} values")
        for name, points in self.axes:
            if any(b <= a for a, b in itertools.pairwise(points)):
                raise ProfileError(f"grid axis {name!r} is not increasing")

    @property
    def numbers(self) -> int:
        """Stored numbers: node values and node positions."""
        return len(self.values) + sum(len(points) for _, points in self.axes)

    def weights(self, coordinates: Mapping[str, ArrayLike]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Corner indices and weights, shape (points, 2**axes): what a fit solves for and a reading sums over."""
        columns = np.broadcast_arrays(*[np.asarray(coordinates[name], dtype=float) for name, _ in self.axes])
        index = np.zeros((columns[0].size, 1), dtype=np.intp)
        weight = np.ones((columns[0].size, 1))
        for (_, points), column in zip(self.axes, columns):  # noqa: B905
            nodes = np.asarray(points)
            x = np.clip(column.ravel(), nodes[0], nodes[-1])
            left = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, max(len(nodes) - 2, 0))
            right = np.minimum(left + 1, len(nodes) - 1)
            span = nodes[right] - nodes[left]
            share = np.where(span > 0, (x - nodes[left]) / np.where(span > 0, span, 1.0), 0.0)
            index = np.concatenate(
                [index * len(nodes) + left[:, None], index * len(nodes) + right[:, None]], axis=1
            )
            weight = np.concatenate([weight * (1 - share)[:, None], weight * share[:, None]], axis=1)
        return index, weight

    def factor(self, coordinates: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """exp(residual) at the coordinates, broadcast together: multiply the physics by it."""
        shape = np.broadcast_shapes(*[np.shape(coordinates[name]) for name, _ in self.axes])
        index, weight = self.weights(coordinates)
        log = (np.asarray(self.values)[index] * weight).sum(axis=1)
        return np.asarray(np.exp(log), dtype=float).reshape(shape)


@dataclass(frozen=True, slots=True)
class FitError:
    """How well a fit predicts what it has not seen; errors in percent."""

    median_ape: float
    p90_ape: float
    bias: float
    """100 x (geometric mean of predicted / measured - 1)."""
    points: int
    method: str
    """How the points were held out, for example ``"5 folds by shape"``."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a profile knows of one class of operation on one kind of hardware.

    ``op`` names the cost function (``gemm``, ``attention_decode``, ``all_reduce``, ...); ``key`` narrows it
    (``accelerator``, ``generation``, ``dtype``, ``engine``, ``fabric``, ``ranks``, ...).
    """

    op: str
    key: Mapping[str, str]
    parameters: Mapping[str, Constant]
    grid: ResidualGrid | None = None
    error: FitError | None = None

    def values(self) -> dict[str, float]:
        """Parameter values by name, ready for the parameter class of the cost function."""
        return {name: constant.value for name, constant in self.parameters.items()}


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of fits with their provenance (command, date, environment, data)."""

    name: str
    fits: tuple[Fit, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def find(self, op: str, prefer: Sequence[tuple[str, str]]) -> Fit | None:
        """The fit of ``op`` that agrees with ``prefer``, first field first; None when the op is unknown here."""
        return find(self.fits, op, prefer)


def find(fits: Iterable[Fit], op: str, prefer: Sequence[tuple[str, str]]) -> Fit | None:
    """The fit of ``op`` whose key agrees best with ``prefer``.

    ``prefer`` lists (field, wanted value), most important first; the first field on which candidates differ decides.
    A fit without a field counts as a half agreement (it claims to hold for all). Ties go to the earlier fit, so a
    user's own profile goes first.
    """
    best: Fit | None = None
    best_score: tuple[float, ...] = ()
    for fit in fits:
        if fit.op != op:
            continue
        score = tuple(
            0.5 if name not in fit.key else float(fit.key[name] == wanted) for name, wanted in prefer
        )
        if best is None or score > best_score:
            best, best_score = fit, score
    return best


def to_json(profile: Profile) -> str:
    """The profile as a JSON document: stable order, lists of numbers on one line, so that diffs read well."""
    document = {
        "schema": SCHEMA,
        "name": profile.name,
        "provenance": dict(profile.provenance),
        "fits": [_fit_document(fit) for fit in profile.fits],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return re.sub(r"\[[-+\d.eE,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def from_json(text: str, where: str = "profile") -> Profile:
    """Read a profile document.

    Raises:
        ProfileError: not a profile, another schema, or bad fields (``profile_faults``); every fault is listed.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as fault:
        raise ProfileError(f"{where}: not JSON ({fault})") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ProfileError(f"{where}: expected a profile of schema {SCHEMA}, found {found!r}")
    faults = document_faults(document)
    if faults:
        raise ProfileError("\n".join(f"{where}: {fault}" for fault in faults))
    fits = tuple(map(_fit_from, document["fits"]))
    return Profile(str(document.get("name", "")), fits, document.get("provenance", {}))


def load(path: Path) -> Profile:
    """Read a profile file; see :func:`from_json`."""
    return from_json(path.read_text(encoding="utf-8"), str(path))


def _fit_document(fit: Fit) -> dict[str, Any]:
    document: dict[str, Any] = {"op": fit.op, "key": dict(fit.key), "parameters": {}}
    for name, constant in fit.parameters.items():
        entry: dict[str, Any] = {"value": constant.value, "unit": constant.unit, "kind": constant.kind}
        if constant.low is not None and constant.high is not None:
            entry["interval"] = [constant.low, constant.high]
        document["parameters"][name] = entry | {"source": constant.source}
    if fit.grid is not None:
        document["grid"] = {
            "axes": {name: list(points) for name, points in fit.grid.axes},
            "values": list(fit.grid.values),
        }
    if fit.error is not None:
        error = fit.error
        document["error"] = {
            "median_ape": error.median_ape,
            "p90_ape": error.p90_ape,
            "bias": error.bias,
            "points": error.points,
            "method": error.method,
        }
    return document


def _fit_from(entry: Mapping[str, Any]) -> Fit:
    parameters = {}
    for name, item in entry["parameters"].items():
        low, high = item.get("interval", (None, None))
        parameters[name] = Constant(item["value"], item["unit"], item["kind"], item["source"], low, high)
    grid = None
    if "grid" in entry:
        axes = tuple((name, tuple(map(float, points))) for name, points in entry["grid"]["axes"].items())
        grid = ResidualGrid(axes, tuple(map(float, entry["grid"]["values"])))
    error = FitError(**entry["error"]) if "error" in entry else None
    return Fit(entry["op"], dict(entry["key"]), parameters, grid, error)
