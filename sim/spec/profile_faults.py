"""What is wrong with a profile document: the customs officer who opens every box before any is let through.

Each fault is one line: where, the value seen, what was expected; all faults of a document come together. Only the
standard library, and Python 3.10: the one-file bundle for bare nodes carries this module.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

KINDS = ("measured", "datasheet", "fitted", "assumed")
UNITS = (
    ("bytes_per_s", "byte/s"),
    ("flop_per_s", "FLOP/s"),
    ("_per_s", "1/s"),
    ("_bytes", "byte"),
    ("_s", "s"),
    ("_frac", "1"),
)
"""What the end of a parameter's name says of its unit; the first that fits counts."""
FIT_KEYS = ("op", "key", "parameters", "grid", "error")
CONSTANT_KEYS = ("value", "unit", "kind", "source", "interval")
ERROR_KEYS = ("median_ape", "p90_ape", "bias", "points", "method")


def document_faults(document: Mapping[str, Any]) -> list[str]:
    """Every fault in a profile document of the right schema."""
    fits = document.get("fits")
    if not isinstance(fits, list):
        return [f"fits: expected a list, found {_seen(fits)}"]
    found = [fault for number, fit in enumerate(fits) for fault in _fit(fit, f"fits[{number}]")]
    if not isinstance(document.get("provenance", {}), dict):
        found.append(f"provenance: expected an object, found {_seen(document['provenance'])}")
    return found


def _fit(fit: Any, at: str) -> Iterator[str]:
    if not isinstance(fit, dict):
        yield f"{at}: expected an object, found {_seen(fit)}"
        return
    yield from _unknown(fit, FIT_KEYS, at)
    if not isinstance(fit.get("op"), str) or not fit["op"]:
        yield f"{at}.op: expected the name of a cost function, found {_seen(fit.get('op'))}"
    key = fit.get("key")
    if not isinstance(key, dict) or not all(isinstance(value, str) for value in key.values()):
        yield f"{at}.key: expected an object of texts, found {_seen(key)}"
    parameters = fit.get("parameters")
    if not isinstance(parameters, dict):
        yield f"{at}.parameters: expected an object, found {_seen(parameters)}"
    else:
        for name, constant in parameters.items():
            yield from _constant(name, constant, f"{at}.parameters.{name}")
    if "grid" in fit:
        yield from _grid(fit["grid"], f"{at}.grid")
    if "error" in fit:
        yield from _error(fit["error"], f"{at}.error")


def _constant(name: str, constant: Any, at: str) -> Iterator[str]:
    if not isinstance(constant, dict):
        yield f"{at}: expected an object with value, unit, kind and source, found {_seen(constant)}"
        return
    yield from _unknown(constant, CONSTANT_KEYS, at)
    value, interval = constant.get("value"), constant.get("interval")
    if not _number(value):
        yield f"{at}.value: expected a finite number, found {_seen(value)}"
    unit, expected = constant.get("unit"), next((unit for end, unit in UNITS if name.endswith(end)), None)
    if not isinstance(unit, str) or not unit:
        yield f"{at}.unit: expected an SI unit or '1', found {_seen(unit)}"
    elif expected is not None and unit != expected:
        yield f"{at}.unit: found {unit!r}, expected {expected!r}: the name says so"
    if constant.get("kind") not in KINDS:
        yield f"{at}.kind: found {_seen(constant.get('kind'))}, expected one of {', '.join(KINDS)}"
    if not isinstance(constant.get("source"), str) or not constant["source"]:
        yield f"{at}.source: expected where the value comes from, found {_seen(constant.get('source'))}"
    if "interval" in constant:
        bounds = interval if isinstance(interval, list) else []
        pair = len(bounds) == 2 and all(map(_number, bounds))
        if not pair or (_number(value) and not bounds[0] <= value <= bounds[1]):
            yield f"{at}.interval: expected two numbers around the value, found {_seen(interval)}"


def _grid(grid: Any, at: str) -> Iterator[str]:
    axes = grid.get("axes") if isinstance(grid, dict) else None
    values = grid.get("values") if isinstance(grid, dict) else None
    if not isinstance(axes, dict) or not isinstance(values, list):
        yield f"{at}: expected an object with axes and values, found {_seen(grid)}"
        return
    nodes = 1
    for name, points in axes.items():
        if not isinstance(points, list) or not points or not all(map(_number, points)):
            yield f"{at}.axes.{name}: expected a list of numbers, found {_seen(points)}"
            return
        nodes *= len(points)
        if any(b <= a for a, b in itertools.pairwise(points)):
            yield f"{at}.axes.{name}: expected increasing numbers, found {_seen(points)}"
    if not all(map(_number, values)):
        yield f"{at}.values: expected finite numbers, found {_seen([v for v in values if not _number(v)])}"
    if nodes != len(values):
        yield f"{at}.values: expected {nodes} numbers, one a node, found {len(values)}"


def _error(error: Any, at: str) -> Iterator[str]:
    if not isinstance(error, dict):
        yield f"{at}: expected an object, found {_seen(error)}"
        return
    yield from _unknown(error, ERROR_KEYS, at)
    for name in ERROR_KEYS[:-1]:
        if not _number(error.get(name)):
            yield f"{at}.{name}: expected a finite number, found {_seen(error.get(name))}"
    if not isinstance(error.get("method"), str):
        yield f"{at}.method: expected how points were held out, found {_seen(error.get('method'))}"


def _unknown(entry: Mapping[str, Any], known: Sequence[str], at: str) -> Iterator[str]:
    for name in entry:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            yield f"{at}.{name}: not one of {', '.join(known)}" + (
                f"; nearest is {near[0]!r}" if near else ""
            )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _seen(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
