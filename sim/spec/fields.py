"""How a noun says what its fields may hold.

Each field of a scenario noun carries, beside its Python type, its bounds and one sentence of meaning (the unit is in
the name): one table that drives the checks at the boundary, the error texts and the reference docs.
"""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any

from sim.spec.quantiles import Quantiles


def quantity(
    meaning: str,
    default: Any = MISSING,
    *,
    low: float = 0.0,
    above: bool = False,
    high: float | None = None,
) -> Any:
    """A number in SI, or text with the unit that the field's name ends in (``"400 Gbit/s"`` for ``_bytes_per_s``).

    The value is at least ``low`` (strictly above it with ``above``).
    """
    return field(default=default, metadata={"meaning": meaning, "low": low, "above": above, "high": high})


def quantiles(
    meaning: str, default: Any = MISSING, *, low: float = 0.0, above: bool = False, high: float | None = None
) -> Any:
    """A quantity that is not known exactly: one value, or ``[low, mid, high]`` = P10, P50, P90.

    A number as default stands for itself without doubt.
    """
    if default is not MISSING and default is not None and not isinstance(default, Quantiles):
        default = Quantiles(*default) if isinstance(default, tuple) else Quantiles.exactly(default)
    return field(default=default, metadata={"meaning": meaning, "low": low, "above": above, "high": high})


def count(meaning: str, default: Any = MISSING, *, low: int = 1, high: int = 10**9) -> Any:
    """A whole number."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "whole": True})


def counts(meaning: str, *, low: int = 1, high: int = 10**9) -> Any:
    """Whole numbers in a row; empty where left out."""
    return field(default=(), metadata={"meaning": meaning, "low": low, "high": high, "whole": True})


def texts(meaning: str) -> Any:
    """Free texts in a row; empty where left out."""
    return field(default=(), metadata={"meaning": meaning})


def fraction(meaning: str, default: Any = MISSING) -> Any:
    """A share, 0..1 (never percent)."""
    return field(default=default, metadata={"meaning": meaning, "low": 0.0, "high": 1.0})


def choice(options: tuple[str, ...], meaning: str, default: Any = MISSING) -> Any:
    """One of a few words."""
    return field(default=default, metadata={"meaning": meaning, "options": options})


def switch(meaning: str, default: Any = MISSING) -> Any:
    """True or false."""
    return field(default=default, metadata={"meaning": meaning})


def part(meaning: str) -> Any:
    """Another noun, which must be given."""
    return field(metadata={"meaning": meaning})


def text(meaning: str, default: Any = MISSING) -> Any:
    """Free text."""
    return field(default=default, metadata={"meaning": meaning})


def named(meaning: str, kind: str, default: Any = MISSING) -> Any:
    """The name of a catalogue entry (``accelerator``, ``system`` or ``model``), or the entry written out."""
    return field(default=default, metadata={"meaning": meaning, "catalogue": kind})
