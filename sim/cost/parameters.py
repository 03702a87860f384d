"""The knobs of a cost function: name, unit, meaning and the range that physics allows.

A fit turns knobs within these ranges and a profile stores where they stopped; a cost function asked about hardware
that nobody has calibrated uses ``start``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sim.spec.profile import Constant


@dataclass(frozen=True, slots=True)
class Parameter:
    """One physical parameter of a cost function."""

    name: str
    unit: str
    """SI, ``"1"`` for fractions and counts."""
    meaning: str
    start: float
    """The value assumed when nothing is fitted."""
    low: float
    high: float
    """Bounds of the fit (both positive: fits move in the logarithm)."""
    source: str = "rackcast default, see docs/models.md"
    """Where ``start`` comes from."""


def defaults(parameters: Sequence[Parameter]) -> dict[str, Constant]:
    """The starting values as constants of kind ``assumed``: what an uncalibrated device gets."""
    return {p.name: Constant(p.start, p.unit, "assumed", p.source, p.low, p.high) for p in parameters}


def complete(parameters: Sequence[Parameter], values: Mapping[str, float]) -> dict[str, float]:
    """``values`` with the starting value wherever one is missing."""
    return {p.name: values.get(p.name, p.start) for p in parameters}
