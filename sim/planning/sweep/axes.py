"""What a sweep varies: paths of a scenario with the values they take.

Like the dials of an amplifier: each has its marks (a list), or turns freely between two stops (a range). A grid visits
every combination of marks; a sample spreads a given number of settings over all dials at once.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.spec.faults import Fault, ScenarioError

SAMPLERS = ("latin-hypercube", "sobol", "random")
MAX_POINTS = 100_000
"""Points one sweep may have; beyond it a person has mistyped a step."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One path and its values: marks as TOML texts, or a range without marks."""

    path: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def whole(self) -> bool:
        """Whether a range runs over whole numbers only."""
        return self.low is not None and self.high is not None and self.low % 1 == self.high % 1 == 0

    def at(self, share: float) -> str:
        """The value at ``share`` (0..1) of the way: of the range, or of the list (each mark the same width)."""
        if self.low is None or self.high is None:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.whole:  # every whole number has the same width
            return str(int(min(self.low + np.floor(share * (self.high - self.low + 1)), self.high)))
        return repr(float(self.low + share * (self.high - self.low)))

    @property
    def lowest(self) -> str:
        """First mark, or the low end of the range."""
        return self.at(0.0)

    @property
    def highest(self) -> str:
        """Last mark, or the high end of the range."""
        return self.at(1.0)


def parse_axes(texts: Iterable[str], *, ranges: bool) -> list[Axis]:
    """Axes from ``PATH=A,B,C``, ``PATH=LO:HI:STEP`` and, with ``ranges``, ``PATH=LO:HI``.

    Raises:
        ScenarioError: every text that is none of these, and paths named twice.
    """
    axes: list[Axis] = []
    faults: list[Fault] = []
    for text in texts:
        path, separator, values = text.partition("=")
        path = path.strip()
        if not separator or not path or not values.strip():
            faults.append(Fault("--vary", text, None, "expected PATH=A,B,C or PATH=LO:HI:STEP"))
        elif any(axis.path == path for axis in axes):
            faults.append(Fault("--vary", path, values, "is varied twice: give all its values at once"))
        else:
            found = _axis(path, values.strip(), ranges)
            if isinstance(found, Fault):
                faults.append(found)
            else:
                axes.append(found)
    if faults:
        raise ScenarioError(faults)
    return axes


def _axis(path: str, text: str, ranges: bool) -> Axis | Fault:
    numbers = _numbers(text)
    if numbers is None:
        return Axis(path, _marks(text))
    low, high = numbers[0], numbers[1]
    if high < low:
        return Fault("--vary", path, text, "expected the low end first: LO:HI:STEP")
    if len(numbers) == 2:
        if not ranges:
            return Fault(
                "--vary", path, text, "has no step: expected LO:HI:STEP, or --sample or --sensitivity"
            )
        return Axis(path, (), low, high)
    step = numbers[2]
    if step <= 0:
        return Fault("--vary", path, text, "expected a step above 0")
    count = int(np.floor((high - low) / step * (1 + 1e-12) + 1e-9)) + 1
    if count > MAX_POINTS:
        return Fault("--vary", path, text, f"has {count:,} values: expected at most {MAX_POINTS:,}")
    whole = low % 1 == step % 1 == 0
    marks = (low + step * number for number in range(count))
    return Axis(path, tuple(str(int(mark)) if whole else repr(float(f"{mark:.12g}")) for mark in marks))


def _numbers(text: str) -> list[float] | None:
    """The numbers of ``LO:HI`` or ``LO:HI:STEP``; None where the text is something else."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        return None
    try:
        numbers = [float(part.replace("_", "")) for part in parts]
    except ValueError:
        return None
    return numbers if all(np.isfinite(numbers)) else None


def _marks(text: str) -> tuple[str, ...]:
    """The values between commas: read as a TOML list where that goes, so that quotes and brackets keep theirs."""
    try:
        return tuple(toml(value) for value in tomllib.loads(f"values = [{text}]")["values"])
    except (tomllib.TOMLDecodeError, RecursionError):
        return tuple(part.strip() for part in text.split(","))


def toml(value: Any) -> str:
    """A value as TOML text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    return str(value)


Settings = tuple[tuple[str, str], ...]
"""One point: path and TOML text of each varied value."""


def grid(axes: Sequence[Axis]) -> list[Settings]:
    """Every combination, the last axis fastest.

    Raises:
        ScenarioError: more than :data:`MAX_POINTS`.
    """
    count = int(np.prod([len(axis.values) for axis in axes], dtype=float))
    if count > MAX_POINTS:
        text = f"makes {count:,} points: expected at most {MAX_POINTS:,}; --sample takes some of them"
        raise ScenarioError([Fault("--vary", " x ".join(axis.path for axis in axes), None, text)])
    paths = [axis.path for axis in axes]
    return [
        tuple(zip(paths, values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]


def sample(axes: Sequence[Axis], count: int, method: str, seed: int) -> list[Settings]:
    """``count`` points spread over all axes at once: SciPy's Latin hypercube or scrambled Sobol sequence, or random.

    Raises:
        ValueError: unknown ``method``.
    """
    return settings(axes, unit_sample(len(axes), count, method, seed))


def settings(axes: Sequence[Axis], unit: NDArray[np.float64]) -> list[Settings]:
    """Points at the shares in ``unit`` (points x axes, 0..1)."""
    return [
        tuple((axis.path, axis.at(float(share))) for axis, share in zip(axes, row, strict=True))
        for row in unit
    ]


def unit_sample(dimensions: int, count: int, method: str, seed: int) -> NDArray[np.float64]:
    """``count`` points in the unit cube, count x dimensions; the stream is named, so the seed may be shared."""
    from scipy.stats import qmc

    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(b"sweep")))
    if method == "random":
        return random.random((count, dimensions))
    if method == "latin-hypercube":
        return np.asarray(qmc.LatinHypercube(dimensions, rng=random).random(count))
    if method == "sobol":  # balanced in powers of two; the first points of the next one are balanced best
        power = max(int(np.ceil(np.log2(count))), 0)
        return np.asarray(qmc.Sobol(dimensions, rng=random).random_base2(power)[:count])
    raise ValueError(f"method {method!r}: expected one of {', '.join(SAMPLERS)}")
