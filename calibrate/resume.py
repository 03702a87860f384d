"""Taking up a run that was killed: the field book is found half written, and the finished chapters stand.

What was read is kept to the byte. A part under way lays its points out as before, by the same budget, seed and rates,
and reads those that are missing; where a part takes seconds, or others started its ranks, it begins again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibrate.measurements import Measurements, MeasurementsError, Row, load
from calibrate.merge import MUST_AGREE
from calibrate.parts import BY_POINT

DONE, UNDER_WAY, HOST = "parts_done", "under_way", "host_key"
"""Entries of the settings: rows by table of each finished part, in the order of measuring; part, budget, rates and
rows ``before`` it by table of the one under way; and which host this is without saying its name."""
SAME = ("seed", "parts", "processes", "device", "system", "fabric", HOST)
"""Settings that make two runs the same campaign."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What an earlier run left that still holds."""

    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Rows by table of each finished part."""
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Rows of the finished parts."""
    under_way: Mapping[str, Any] = field(default_factory=dict)
    """``part``, ``budget_s``, ``rates`` and ``rows`` (by table) of a part that was cut; empty where none can be gone
    on with."""
    warnings: tuple[str, ...] = ()
    why_not: str = ""
    """Why an unfinished file that is there cannot be taken up; empty where it can or none is there."""


def host_key() -> str:
    """Eight characters that tell this host from others; its name does not follow from them at sight."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def kept(path: Path, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Kept:
    """Finished parts of an unfinished run of the same campaign on the same host and software.

    Args:
        path: the measurement file.
        settings: of the run that starts now, as the file would have them.
        environment: where it runs.
    """
    sweep_drafts(path)
    if not path.exists():
        return Kept()
    try:
        before = load(path)
    except MeasurementsError:
        return Kept(why_not=f"{path} is no measurement file of this version and is replaced")
    parts = before.settings.get(DONE)
    cut = before.settings.get(UNDER_WAY)
    if before.complete or not isinstance(parts, dict) or not (parts or cut):
        return Kept()
    seen = {key: _plain(value) for key, value in before.settings.items()}
    differs = [key for key in SAME if seen.get(key) != _plain(settings.get(key))]
    differs += [key for key in MUST_AGREE if before.environment.get(key) != environment.get(key)]
    if differs:
        return Kept(why_not=f"{path} is of another run ({', '.join(differs)} differ) and is replaced")
    rows: dict[str, int] = {}
    for counts in parts.values():
        for table, count in counts.items():
            rows[table] = rows.get(table, 0) + count
    tables = {
        table: before.tables.get(table, ())[:count] for table, count in rows.items()
    }  # parts come one by one
    return Kept(parts, tables, _cut(before, cut), tuple(before.warnings))


def _cut(found: Measurements, cut: Any) -> dict[str, Any]:
    """The part under way with the rows that came since it began."""
    if not isinstance(cut, dict) or cut.get("part") not in BY_POINT:
        return {}
    rates, budget_s, before = cut.get("rates"), cut.get("budget_s"), cut.get("before")
    if not (isinstance(rates, dict) and isinstance(before, dict) and isinstance(budget_s, (int, float))):
        return {}
    rows = {table: rows[before.get(table, 0) :] for table, rows in found.tables.items()}
    rows = {table: new for table, new in rows.items() if new}
    return (
        {"part": cut["part"], "budget_s": float(budget_s), "rates": dict(rates), "rows": rows} if rows else {}
    )


def sweep_drafts(path: Path) -> None:
    """Remove drafts that killed processes of this host left beside the file."""
    for draft in path.parent.glob(f".{path.name}.*.draft"):
        found = re.fullmatch(re.escape(f".{path.name}.{platform.node()}.") + r"(\d+)\.draft", draft.name)
        if found and not _alive(int(found[1])):
            draft.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process of this host runs."""
    if os.name != "posix":
        return True  # elsewhere os.kill would end it; a stale draft harms nobody
    with contextlib.suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
