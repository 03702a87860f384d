"""Middles of groups inside groups, where few values of a narrow group lean on the wider one around it.

Like a newcomer's batting average: until there are enough innings, the team's is the better guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PULL = 3.0
"""So many values of a group weigh as much as all of the group around it."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Labels = NDArray[np.str_]
"""Names of the groups each value belongs to, from the widest to the narrowest, shape (values, depth)."""


def middle_of(labels: Labels, values: Floats, seen: Flags, label: Sequence[str]) -> float:
    """Median of the seen values of a group, pulled to that of each wider group in turn; 0 where none is seen."""
    middle, inside = 0.0, seen
    for depth, name in enumerate(label):
        inside = inside & (labels[:, depth] == name)
        mine = values[inside]
        if not len(mine):
            break
        pull = PULL if depth else 0.0
        middle = (len(mine) * float(np.median(mine)) + pull * middle) / (len(mine) + pull)
    return middle


def own_middles(labels: Labels, values: Floats) -> Floats:
    """Middle of the group of each value."""
    every = np.ones(len(values), dtype=bool)
    return np.array([middle_of(labels, values, every, tuple(label)) for label in labels])


def left_out_middles(labels: Labels, family: NDArray[np.str_], values: Floats, unseen: float) -> Floats:
    """Middle of the group of each value from other families alone; ``unseen`` where the widest group has none."""
    result = np.empty(len(values))
    for number, label in enumerate(labels):
        seen = family != family[number]
        known = (seen & (labels[:, 0] == label[0])).any()
        result[number] = middle_of(labels, values, seen, tuple(label)) if known else unseen
    return result


def members(labels: Labels, label: Sequence[str]) -> Flags:
    """Which values belong to a group."""
    return np.asarray((labels[:, : len(label)] == np.array(label)).all(axis=1))
