"""The field book of a campaign while it goes on: what was read, what is finished, and what the last sitting left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from calibrate import resume
from calibrate.environment import Machine
from calibrate.measurements import Measurements, Row, save
from calibrate.microbenchmarks.common import Earlier
from calibrate.options import Options
from calibrate.stand_in import stand_in_devices


@dataclass(slots=True)
class Draft:
    """The field book while the run goes on."""

    options: Options
    machine: Machine
    environment: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    done: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by table of the parts that are finished, here or in the run that this one takes up."""
    under_way: dict[str, Any] = field(default_factory=dict)
    """``part``, ``budget_s``, ``rates`` and rows ``before`` it by table of the part that is being measured."""
    cut_rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Rows by table of that part from the run that this one takes up; they are in the tables already."""
    saved_at_s: float = 0.0

    def settings(self) -> dict[str, Any]:
        """Options of the run and how far it has come."""
        options = {
            name: value
            for name, value in asdict(self.options).items()
            if name not in ("out", "hostname", "raw")
        }
        going = {resume.UNDER_WAY: dict(self.under_way)} if self.under_way else {}
        return {**options, resume.HOST: resume.host_key(), resume.DONE: dict(self.done), **going}

    def take_up(self, tell: Callable[[str], None], *, alone: bool) -> None:
        """Keep what a killed run of the same campaign has finished; ranks of others cannot know of it."""
        found = resume.kept(self.options.out, self.settings(), self.environment)
        if found.why_not:
            tell(f"note: {found.why_not}")
        if not alone and "collective" in found.parts:
            return  # measured by all ranks together, and first: nothing after it can be kept without it
        self.tables = {table: [dict(row) for row in rows] for table, rows in found.tables.items()}
        self.done = {part: dict(counts) for part, counts in found.parts.items()}
        if alone and found.under_way:
            cut = dict(found.under_way)
            self.cut_rows = cut.pop("rows")
            self.under_way = {**cut, "before": self.counts()}
            for table, rows in self.cut_rows.items():
                self.tables.setdefault(table, []).extend(dict(row) for row in rows)
        if self.done or self.under_way:
            self.warnings += found.warnings
            names = list(self.done)
            if self.under_way:
                names.append(f"{sum(map(len, self.cut_rows.values()))} rows of {self.under_way['part']}")
            tell(f"taking up {self.options.out}: {', '.join(names)} kept")

    def sitting(self, part: str, budget_s: float) -> tuple[float, Earlier]:
        """``part`` begins or goes on: the budget by which it lays out its points, and what an earlier sitting left."""
        cut = self.cut_rows if self.under_way.get("part") == part else {}
        if not cut:
            self.under_way = {"part": part, "budget_s": budget_s, "rates": {}, "before": self.counts()}
        self.cut_rows = {}
        rows = [row for kept in cut.values() for row in kept]
        return float(self.under_way["budget_s"]), Earlier(rows, self.under_way["rates"])

    def finish(self, part: str, new: Mapping[str, int]) -> None:
        """``part`` is finished with so many rows: they go before those of parts that failed, which a rerun drops."""
        for table, count in new.items():
            rows, first = self.tables[table], sum(one.get(table, 0) for one in self.done.values())
            rows[first:] = rows[-count:] + rows[first:-count]
        self.done[part] = dict(new)
        self.under_way = {}

    def counts(self) -> dict[str, int]:
        """Rows by table."""
        return {table: len(rows) for table, rows in self.tables.items()}

    def since(self, before: Mapping[str, int]) -> dict[str, int]:
        """Rows by table that came since, those of an earlier sitting among them."""
        return {
            table: n - before.get(table, 0) for table, n in self.counts().items() if n > before.get(table, 0)
        }

    def fair_copy(self, *, complete: bool) -> Measurements:
        """What has been measured so far."""
        machine, memory_bytes = self.machine, self.machine.memory_bytes
        if not machine.is_cuda:
            memory_bytes = float(
                self.environment.get("memory_bytes", memory_bytes)
            )  # all of it, not what is free
        return Measurements(
            environment=self.environment,
            settings=self.settings(),
            tables={name: tuple(rows) for name, rows in self.tables.items()},
            warnings=tuple(self.warnings),
            devices=stand_in_devices(
                self.tables,
                units=machine.units,
                memory_bytes=memory_bytes,
                cache_bytes=machine.cache_bytes,
            ),
            complete=complete,
        )

    def save(self, *, complete: bool = False, at_most_every_s: float = 0.0) -> None:
        """Write the file, unless it was written less than ``at_most_every_s`` ago."""
        if time.monotonic() - self.saved_at_s >= at_most_every_s:
            save(self.fair_copy(complete=complete), self.options.out)
            self.saved_at_s = time.monotonic()
