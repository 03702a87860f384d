"""Scenarios side by side: what was changed, what came of it, and how sure the difference is.

Like two runners timed with the same watch: if the watch is wrong, it is wrong for both, so that who was faster is surer
than how fast either was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, sqrt
from typing import Any

from sim.planning.sweep.points import STEP_FIGURES, figures
from sim.results.step import StepResult
from sim.results.step_tables import PARTS
from sim.spec.scenario import Scenario, as_document
from sim.training.interval import Z80

UNTOLD = ("name", "shows", "published")
"""Parts of a scenario that change no result."""


def compare(results: Sequence[StepResult], intervals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every scenario against the first, ready for JSON.

    Args:
        intervals: of each result, from :func:`sim.training.interval.step_interval`.
    """
    rows = [figures(result) for result in results]
    values = {name: [row.get(name) for row in rows] for name in STEP_FIGURES}
    return {
        "scenarios": [
            {"name": one.scenario.name, "hash": one.scenario.content_hash, "seed": one.scenario.seed}
            for one in results
        ],
        "outcomes": [{"outcome": row["outcome"], "reason": row["reason"]} for row in rows],
        "changed": changed([result.scenario for result in results]),
        "step_time": [_step_time(results, intervals, place) for place in range(len(results))],
        "figures": [
            {"figure": name, "values": found, "change_frac": change_frac(found)}
            for name, found in values.items()
            if any(value is not None for value in found)
        ],
        "parts": [
            {"cause": cause, "words": words, "seconds": [one.parts_s[cause] for one in results]}
            for cause, words in PARTS.items()
            if any(one.parts_s[cause] > 0 for one in results)
        ],
    }


def change_frac(values: Sequence[Any]) -> list[float | None]:
    """Each value over the first, less one; None where that has no meaning."""
    first = values[0]
    return [
        value / first - 1
        if isinstance(value, int | float) and isinstance(first, int | float) and first
        else None
        for value in values
    ]


def _step_time(
    results: Sequence[StepResult], intervals: Sequence[Mapping[str, Any]], place: int
) -> dict[str, Any]:
    one, interval = results[place], intervals[place]
    return {
        "step_time_s": one.step_s,
        "low_s": interval["low_s"],
        "high_s": interval["high_s"],
        **paired(results[0], intervals[0], one, interval),
    }


def paired(
    first: StepResult, first_interval: Mapping[str, Any], other: StepResult, interval: Mapping[str, Any]
) -> dict[str, Any]:
    """Difference and ratio of two step times (other against first) with their 80 % intervals.

    A source of error that both lean on moves both: with shares a and b of steps A and B and standard deviation s of its
    logarithm it adds ((b - a) s)^2 to the variance of ln(B/A) and ((b B - a A) s)^2 to that of B - A, to first order;
    a source of one of them adds its whole share. ``sigma_apart`` is what the ratio would have were nothing shared.
    """
    one, two = _terms(first, first_interval), _terms(other, interval)
    ratio_var = difference_var = apart_var = 0.0
    for key in one.keys() | two.keys():
        a, b, sigma = one.get(key, 0.0), two.get(key, 0.0), key[1]
        ratio_var += ((b - a) * sigma) ** 2
        difference_var += ((b * other.step_s - a * first.step_s) * sigma) ** 2
        apart_var += (a**2 + b**2) * sigma**2
    ratio, difference = other.step_s / first.step_s, other.step_s - first.step_s
    wide, half = Z80 * sqrt(ratio_var), Z80 * sqrt(difference_var)
    return {
        "difference_s": difference,
        "difference_low_s": difference - half,
        "difference_high_s": difference + half,
        "ratio": ratio,
        "ratio_low": ratio * exp(-wide),
        "ratio_high": ratio * exp(wide),
        "sigma_paired": sqrt(ratio_var),
        "sigma_apart": sqrt(apart_var),
        "surely_different": not (difference - half <= 0 <= difference + half),
    }


def _terms(result: StepResult, interval: Mapping[str, Any]) -> dict[tuple[str, float], float]:
    """Share of the step by source and standard deviation. A fit names what it was fitted on; what does not is shared
    only by steps of one stack on one generation of devices."""
    training, pool = result.scenario.training, result.scenario.cluster.pools[0]
    own = f"{pool.accelerator.device().generation} {training.stack if training else ''}"
    found: dict[tuple[str, float], float] = {}
    for term in interval["terms"]:
        name = term["source"] if term["source"].startswith("fit ") else f"{term['source']} ({own})"
        key = name, term["sigma"]
        found[key] = found.get(key, 0.0) + term["share_frac"]
    return found


def changed(scenarios: Sequence[Scenario]) -> list[dict[str, Any]]:
    """Inputs that are not the same in all scenarios, by path; a catalogue entry that is another one counts as one."""
    documents = [as_document(one) for one in scenarios]
    return list(_differences("", [{k: v for k, v in one.items() if k not in UNTOLD} for one in documents]))


def _differences(path: str, values: list[Any]) -> Iterator[dict[str, Any]]:
    if all(value == values[0] for value in values):
        return
    if all(isinstance(value, dict) for value in values):
        names = [value.get("key") for value in values]
        if any(names) and len(set(names)) > 1:
            yield {"path": path, "values": [value.get("key") or value.get("name") for value in values]}
            return
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _differences(f"{path}.{key}".lstrip("."), [value.get(key) for value in values])
        return
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        for number, items in enumerate(zip(*values, strict=True)):
            yield from _differences(f"{path}.{number}", list(items))
        return
    yield {"path": path, "values": values}
