"""Which keys a scenario may have at which place, read from the nouns; and what to say of a key that is not there."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from sim.spec.scenario import Scenario
from sim.spec.workload import SampleModel


@cache
def hints(noun: type) -> dict[str, Any]:
    """Types of a noun's fields, resolved."""
    return typing.get_type_hints(noun)


def members(hint: Any) -> tuple[Any, ...]:
    """The kinds of value that a field may have."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def siblings(path: Sequence[Any]) -> Iterable[str]:
    """Valid keys beside the last part of ``path``."""
    noun: Any = Scenario
    for part in path[:-1]:
        if part in ("entry", "sample"):
            noun = SampleModel if part == "sample" else noun
            continue
        hint: Any = noun
        if isinstance(part, str):
            hint = hints(noun).get(part, Any) if isinstance(noun, type) else Any
        noun = next(_nouns(hint), None)
        if noun is None:
            return ()
    return [field.name for field in dataclasses.fields(noun)]


def unknown_key(key: str, known: Iterable[str], section: str = "") -> str:
    """What to say of a key of ``section`` that is not among those known: the one meant, or where it belongs."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=NEAR)
    begun = [name for name in names if len(key) >= SHORTEST and name.startswith(key)]
    if places := _places(key, section):
        return f"is not a key here: it belongs in {' or '.join(places)}"
    if near or len(begun) == 1:
        return f"is not a key here; did you mean {(begun or near)[0]!r}?"
    return f"is not a key here; keys are {', '.join(names)}" if names else "is not a key here"


NEAR = 0.65
"""Likeness (difflib's ratio) from which a name is taken for a slip of another."""
SHORTEST = 3
"""Letters of a key's beginning that are taken for the key."""
MOST_PLACES = 2
"""A key that many tables have says nothing about which was meant."""


def _places(key: str, section: str) -> list[str]:
    """Tables that have this key, of the same section where it has one; none where more than two do."""
    found = [place for place, names in _tables() if key in names]
    near = [place for place in found if place.partition(".")[0] == section]
    return [f"[{place}]" for place in near or found] if len(near or found) <= MOST_PLACES else []


@cache
def _tables() -> tuple[tuple[str, frozenset[str]], ...]:
    """Every table of a scenario file and its keys."""
    return tuple(_walk("", Scenario, ()))


def _walk(place: str, noun: Any, above: tuple[Any, ...]) -> Iterator[tuple[str, frozenset[str]]]:
    fields = dataclasses.fields(noun)
    if place:
        yield place, frozenset(field.name for field in fields)
    for field in fields:
        for inner in _nouns(hints(noun)[field.name]):
            if inner not in (*above, noun):
                yield from _walk(f"{place}.{field.name}".lstrip("."), inner, (*above, noun))


def _nouns(hint: Any) -> Iterator[Any]:
    """The tables among the kinds of a value, or of the items of a list."""
    for kind in members(hint):
        item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
        if dataclasses.is_dataclass(item):
            yield item
