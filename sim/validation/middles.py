"""Middles of groups inside groups, where few values of a narrow group lean on the wider one around it.

Like a newcomer's batting average: until there are enough innings, the team's is the better guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PULLS = (8.0, 3.0, 0.2, 0.2)
"""So many sources of a group weigh as much as all of the group around it, from the widest group (inside everything) to
the narrowest: runs of one source are alike, so that a wide group needs several before it may differ from all others."""

REACH = 1.345 * 0.12
"""Distance from the centre up to which a value (a logarithm) counts in full, as in a mean; what lies beyond pulls no
harder, as in a median: 1.345 standard deviations (Huber 1964; 95 % efficient for normal errors) of 12 %, between the
spread of sources of dense models and that of mixtures of experts."""
MOST_STEPS = 200
"""Rounds of weighing at the most; a few tens settle it."""
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Names = NDArray[np.str_]
Labels = NDArray[np.str_]
"""Names of the groups each value belongs to, from the widest to the narrowest, shape (values, depth)."""


def middle_of(labels: Labels, sources: Names, values: Floats, seen: Flags, label: Sequence[str]) -> float:
    """Middle of the seen values of a group, pulled to that of each wider group in turn, the widest to that of all.

    The narrowest level counts only where it divides the group around it.

    Args:
        labels: at most as many groups inside one another as there are ``PULLS``.
        sources: where each value comes from.
        label: the group by its names from the widest; empty = everything.
    """
    middle, inside = (_centre(values[seen], sources[seen])[0] if seen.any() else 0.0), seen
    for depth, name in enumerate(label):
        around, inside = inside, inside & (labels[:, depth] == name)
        if not inside.any() or (depth == len(PULLS) - 1 and inside.sum() == around.sum()):
            break
        mine, count = _centre(values[inside], sources[inside])
        middle = (count * mine + PULLS[depth] * middle) / (count + PULLS[depth])
    return middle


def _centre(values: Floats, sources: Names) -> tuple[float, float]:
    """Huber's centre, and how many sources stand behind it: n values of one source count as n / (n + 1)."""
    _, which, counts = np.unique(sources, return_inverse=True, return_counts=True)
    weight = 1.0 / (counts[which] + 1.0)
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weight[order]) - weight[order] / 2
    centre = float(np.interp(weight.sum() / 2, upto, values[order]))  # of the weights: the median
    for _ in range(MOST_STEPS):
        # a mean in which whoever stands farther off counts as if at the reach
        held = weight * REACH / np.maximum(np.abs(values - centre), REACH)
        before, centre = centre, float(held @ values / held.sum())
        if abs(centre - before) < 1e-9:
            break
    return centre, float(weight.sum())


def own_middles(labels: Labels, sources: Names, values: Floats) -> Floats:
    """Middle of the group of each value."""
    every = np.ones(len(values), dtype=bool)
    return _each(labels, labels, sources, values, every)


def left_out_middles(labels: Labels, sources: Names, values: Floats) -> Floats:
    """Middle of the group of each value from other sources alone."""
    middles = np.empty(len(values))
    for name in np.unique(sources):
        mine = sources == name
        middles[mine] = _each(labels[mine], labels, sources, values, ~mine)
    return middles


def _each(wanted: Labels, labels: Labels, sources: Names, values: Floats, seen: Flags) -> Floats:
    known = {
        label: middle_of(labels, sources, values, seen, label)
        for label in {tuple(map(str, row)) for row in wanted}
    }
    return np.array([known[tuple(map(str, row))] for row in wanted])


def members(labels: Labels, label: Sequence[str]) -> Flags:
    """Which values belong to a group."""
    return np.asarray((labels[:, : len(label)] == np.array(label)).all(axis=1))
