"""What every importer hands over: a crate with one packing list, whatever ship it came from.

``Imported`` holds jobs, nodes, switches, quotas and service requests, as far as a format has them, and a ``Report``
that accounts for every record: taken, altered or left out, with the reason and the first places. Nothing is dropped
silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.spec.job import Job

PLACES_SHOWN = 3
"""Places (file:line) that a finding keeps; the count is of all."""

NODE_STATES = ("up", "drained", "down", "maintenance", "powered-down", "unknown")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine as its scheduler sees it."""

    name: str
    devices: tuple[tuple[str, int], ...] = ()
    """(kind as the site spells it, count) per kind of accelerator; the kind may be empty."""
    cpus: float = 0.0
    memory_bytes: float = 0.0
    state: str = "up"
    """One of ``NODE_STATES``."""
    partitions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    place: tuple[str, ...] = ()
    """Names of the groups it stands in, widest first: block, rack."""

    @property
    def gpus(self) -> int:
        """Accelerators of all kinds."""
        return sum(count for _, count in self.devices)

    @property
    def accelerator(self) -> str:
        """The kind, where there is one."""
        return self.devices[0][0] if len(self.devices) == 1 else "+".join(kind for kind, _ in self.devices)


@dataclass(frozen=True, slots=True)
class Switch:
    """A group of nodes one hop up: a switch, or a block (NVLink domain)."""

    name: str
    kind: str = "switch"
    """switch or block."""
    nodes: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    """Switches below."""
    topology: str = ""
    """The topology it belongs to, where a file holds several."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What one queue, account, partition or service class may hold of the accelerators."""

    name: str
    kind: str
    """As the system calls it: cluster queue, cohort, local queue, queue, qos, association, partition."""
    parent: str = ""
    """Cohort, parent queue or account above it."""
    flavor: str = ""
    """Kind of node or device it is a quota of; empty = any."""
    nominal_gpus: float | None = None
    """Its own share: kept for it, or got back from borrowers; none = not stated."""
    borrow_limit_gpus: float | None = None
    """Most that it may hold above its own share; none = no bound."""
    lend_limit_gpus: float | None = None
    """Most of its own share that others may use; none = all."""
    ceiling_gpus: float | None = None
    """Most that it may hold in all; none = no bound."""
    user_ceiling_gpus: float | None = None
    """Most that one user may hold through it."""
    weight: float = 1.0
    """Shares in fair sharing."""
    priority: float = 0.0
    limit_s: float | None = None
    """Longest job."""
    rules: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Other settings, in the system's own words."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a served model."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    prefix_blocks: tuple[int, ...] = ()
    """Ids of prompt blocks; equal ids hold the same text."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that happened to records, how often, and where first."""

    reason: str
    count: int
    places: tuple[str, ...]
    """``file:line`` of the first few."""


@dataclass(frozen=True, slots=True)
class Report:
    """The packing list."""

    files: tuple[str, ...]
    records: int
    """Records seen: lines, rows or objects that the format counts as one."""
    skipped: tuple[Finding, ...]
    """Records left out."""
    notes: tuple[Finding, ...]
    """Records taken after a change, or with something assumed."""


@dataclass(frozen=True, slots=True)
class Imported:
    """Everything that files of one kind said. Times of jobs and requests count from ``origin``."""

    kind: str
    report: Report
    jobs: tuple[Job, ...] = ()
    nodes: tuple[Node, ...] = ()
    switches: tuple[Switch, ...] = ()
    quotas: tuple[Quota, ...] = ()
    requests: tuple[Request, ...] = ()
    origin: str = ""
    """Wall clock of time 0, ISO 8601, the site's own local time unless the files name a zone; empty = not known."""
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Settings of the scheduler that a simulation needs (priority weights, backfill), in its own words."""


@dataclass(slots=True)
class Parts:
    """What a reader collects before it is packed; job times are seconds since the epoch of the file."""

    jobs: list[Job] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    dated: bool = True
    """Job times are a wall clock (seconds since 1970, local time where no zone is named)."""


class Tally:
    """Counts what happens to records while files are read."""

    def __init__(self) -> None:
        self.records = 0
        self._skipped: dict[str, tuple[int, list[str]]] = {}
        self._noted: dict[str, tuple[int, list[str]]] = {}

    def skip(self, reason: str, place: str = "", count: int = 1) -> None:
        """A record was left out."""
        _add(self._skipped, reason, place, count)

    def note(self, reason: str, place: str = "", count: int = 1) -> None:
        """A record was taken with a change or an assumption."""
        _add(self._noted, reason, place, count)

    def report(self, files: tuple[str, ...]) -> Report:
        """The packing list so far, most frequent first."""
        return Report(files, self.records, _findings(self._skipped), _findings(self._noted))


def _add(findings: dict[str, tuple[int, list[str]]], reason: str, place: str, count: int) -> None:
    seen, places = findings.get(reason, (0, []))
    if place and len(places) < PLACES_SHOWN:
        places.append(place)
    findings[reason] = (seen + count, places)


def _findings(findings: dict[str, tuple[int, list[str]]]) -> tuple[Finding, ...]:
    found = [Finding(reason, count, tuple(places)) for reason, (count, places) in findings.items()]
    return tuple(sorted(found, key=lambda finding: (-finding.count, finding.reason)))


def counted(findings: tuple[Finding, ...]) -> dict[str, int]:
    """Reason -> count."""
    return {finding.reason: finding.count for finding in findings}
