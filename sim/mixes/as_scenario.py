"""A recipe written down: a ``Mix`` as the ``[[jobs.mixes]]`` of a scenario file, to be read and changed by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from sim.spec.mix import Mix

DIGITS = 6
"""Significant digits: more than any fit knows."""


def to_toml(mix: Mix) -> str:
    """TOML text of one ``[[jobs.mixes]]`` table, fields at their defaults left out; numbers keep six digits."""
    lines = ["[[jobs.mixes]]"]
    nested = {"arrivals": "[jobs.mixes.arrivals]", "sizes": "[[jobs.mixes.sizes]]"}
    nested |= {"queues": "[[jobs.mixes.queues]]", "outcomes": "[[jobs.mixes.outcomes]]"}
    lines += [line for name, line in _fields(mix) if name not in nested]
    for name, heading in nested.items():
        value = getattr(mix, name)
        for one in value if isinstance(value, tuple) else (value,):
            lines += ["", heading, *(line for _, line in _fields(one))]
    return "\n".join(lines) + "\n"


def _fields(noun: Any) -> list[tuple[str, str]]:
    found = []
    for field in dataclasses.fields(noun):
        value = getattr(noun, field.name)
        if value != field.default and value is not None and value != ():
            found.append((field.name, "" if _is_noun(value) else f"{field.name} = {_text(value)}"))
    return found


def _is_noun(value: Any) -> bool:
    first = value[0] if isinstance(value, tuple) else value
    return dataclasses.is_dataclass(first)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return repr(short)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
