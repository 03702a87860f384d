"""The calendar of a plan: months by number, counted from its first."""

from __future__ import annotations

import re

HOURS = 730.5
"""Mean hours in a month (8,766 hours of a Julian year over 12)."""
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


def index(month: str, start: str) -> int:
    """Months from ``start`` to ``month``, both ``YYYY-MM``.

    Raises:
        ValueError: one of them is not a month.
    """
    return _absolute(month) - _absolute(start)


def name(number: int, start: str) -> str:
    """``YYYY-MM`` of a month by its number."""
    absolute = _absolute(start) + number
    return f"{absolute // 12:04d}-{absolute % 12 + 1:02d}"


def quarter(number: int, start: str) -> str:
    """``2027 Q1``."""
    year, month = divmod(_absolute(start) + number, 12)
    return f"{year} Q{month // 3 + 1}"


def _absolute(month: str) -> int:
    found = _MONTH.fullmatch(month)
    if not found:
        raise ValueError(f"expected a month as YYYY-MM, not {month!r}")
    return int(found[1]) * 12 + int(found[2]) - 1
