"""Clocks of many sites on one dial: dates, epochs, Slurm's and Kubernetes' spellings become seconds.

A date without a zone is the site's local time and is put on the dial as if it were UTC; a date with a zone keeps its
own wall clock, so that hours of the day and weekdays stay what people there saw. Differences are right except over a
change of daylight-saving time in zone-less logs, which those logs do not tell.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_NEVER = frozenset(
    ("", "unknown", "none", "n/a", "na", "nan", "nat", "null", "(null)", "invalid", "notset", "-1", "-")
)

_EPOCH = datetime(1970, 1, 1)


def moment(text: object) -> float | None:
    """Seconds since 1970-01-01 of ISO 8601 text or an epoch number; None where there is no time.

    A spelling that is none of these gives None too: the caller counts it.
    """
    word = str(text).strip()
    if word[4:5] != "-":  # no date of four digits: a number, a word or nothing
        number = None if word.lower() in _NEVER else amount(word)
        return number if number is not None and number > 0 else None
    try:
        date = datetime.fromisoformat(word)
    except ValueError:  # parts of a second beyond microseconds, a zone by name
        try:
            date = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", re.sub(r" [A-Z]{3,4}$", "", word)))
        except ValueError:
            return None
    return (date.replace(tzinfo=None) - _EPOCH).total_seconds()


def amount(text: object) -> float | None:
    """A finite number, or None."""
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def span(text: object) -> float | None:
    """Seconds of Slurm's ``[days-]hours:minutes:seconds``, ``minutes:seconds[.frac]``, ``minutes`` or ``days-hours``.

    None for UNLIMITED, Partition_Limit, INVALID and what cannot be read (Slurm's sbatch manual, option --time).
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+(?:\.\d+)?)|(\.\d+))?", str(text).strip())
    if not found:
        return None
    days, first, second, third, part = found.groups()
    if days is not None:  # d-h, d-h:m, d-h:m:s
        return int(days) * 86400 + int(first) * 3600 + int(second or 0) * 60 + float(third or 0)
    if second is None:
        return int(first) * 60.0
    if third is None:  # m:s, with parts of a second in sacct's CPU times
        return int(first) * 60 + float(f"{second}{part or ''}")
    return int(first) * 3600 + int(second) * 60 + float(third)


def iso(seconds: float) -> str:
    """The wall clock again, without a zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
