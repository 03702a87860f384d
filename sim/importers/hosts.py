"""Host lists: ``node[001-003,7]`` unfolded like a paper fan.

The syntax is Slurm's (slurm.conf manual, NodeName): comma-separated names, ranges in brackets with leading zeros
kept, several brackets in one name. Own code because the libraries for it are under the GPL or give meaning to further
characters.
"""

from __future__ import annotations

import re
from itertools import product

MOST_HOSTS = 1_000_000
"""More than any cluster has; a range beyond it is a typing error."""


def expand(text: str) -> list[str]:
    """Names in the order given.

    Raises:
        ValueError: brackets that do not close, a range that runs backwards, or more than ``MOST_HOSTS`` names.
    """
    names: list[str] = []
    for word in _split(text):
        parts = re.split(r"\[([^\[\]]*)\]", word)
        if any("[" in part or "]" in part for part in parts[::2]):
            raise ValueError(f"brackets do not close in {word[:60]!r}")
        choices = [[part] if even % 2 == 0 else _numbers(part) for even, part in enumerate(parts)]
        size = 1
        for options in choices:
            size *= len(options)
        if len(names) + size > MOST_HOSTS:
            raise ValueError(f"{word[:60]!r} means more than {MOST_HOSTS:,} hosts")
        names += ["".join(combination) for combination in product(*choices)]
    return names


def _split(text: str) -> list[str]:
    """Parts between commas outside brackets."""
    return [word for word in re.split(r",(?![^\[\]]*\])", re.sub(r"\s+", "", text)) if word]


def _numbers(inside: str) -> list[str]:
    found: list[str] = []
    for item in inside.split(","):
        low, dash, high = item.partition("-")
        if not dash:
            found.append(item)
            continue
        if not (low.isdigit() and high.isdigit()) or int(low) > int(high):
            raise ValueError(f"[{item[:40]}] is not a range of numbers")
        if int(high) - int(low) >= MOST_HOSTS:
            raise ValueError(f"[{item[:40]}] means more than {MOST_HOSTS:,} hosts")
        found += [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
    return found
