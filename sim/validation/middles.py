"""Middles of groups inside groups, where few values of a narrow group lean on the wider one around it.

Like a newcomer's batting average: until there are enough innings, the team's is the better guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PULLS = (30.0, 10.0, 3.0)
"""So many values of a group weigh as much as all of the group around it, from the widest group (inside everything) to
the narrowest: runs of one source are alike, so that a wide group needs many before it may differ from all others."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Labels = NDArray[np.str_]
"""Names of the groups each value belongs to, from the widest to the narrowest, shape (values, depth)."""


def middle_of(labels: Labels, values: Floats, seen: Flags, label: Sequence[str]) -> float:
    """Median of the seen values of a group, pulled to that of each wider group in turn, the widest to that of all.

    Args:
        labels: at most as many groups inside one another as there are ``PULLS``.
        label: the group by its names from the widest; empty = everything.
    """
    middle, inside = (float(np.median(values[seen])) if seen.any() else 0.0), seen
    for depth, name in enumerate(label):
        inside = inside & (labels[:, depth] == name)
        mine = values[inside]
        if not len(mine):
            break
        middle = (len(mine) * float(np.median(mine)) + PULLS[depth] * middle) / (len(mine) + PULLS[depth])
    return middle


def own_middles(labels: Labels, values: Floats) -> Floats:
    """Middle of the group of each value."""
    every = np.ones(len(values), dtype=bool)
    return np.array([middle_of(labels, values, every, tuple(label)) for label in labels])


def left_out_middles(labels: Labels, family: NDArray[np.str_], values: Floats) -> Floats:
    """Middle of the group of each value from other families alone."""
    return np.array(
        [
            middle_of(labels, values, family != name, tuple(label))
            for name, label in zip(family, labels, strict=True)
        ]
    )


def members(labels: Labels, label: Sequence[str]) -> Flags:
    """Which values belong to a group."""
    return np.asarray((labels[:, : len(label)] == np.array(label)).all(axis=1))
