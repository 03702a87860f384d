"""The log of one step and the books kept on it.

A timeline is the time sheet of every rank; ``account`` adds it up so that each second of each rank has exactly one
cause, like a ledger that must close to the cent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CAUSES = (
    "forward",
    "backward",
    "optimizer",
    "tensor communication",
    "pipeline communication",
    "data communication",
    "stragglers",
    "bubble",
    "loader",
    "offload",
)
"""Where a second of a rank may go."""

_WAIT = {"tensor": "tensor communication", "send": "pipeline communication", "gradients": "data communication",
         "parameters": "data communication", "stragglers": "stragglers", "load": "loader",
         "offload": "offload"}  # fmt: skip
_QUEUED = ("norm", "gradients", "stragglers")
"""What stands in line before an update; a gap is followed through the whole line."""


class Task(NamedTuple):
    """One task; its place in the list is its number."""

    rank: int
    """Pipeline rank (stage); stands for all tensor and data ranks that do the same."""
    stream: str
    kind: str
    """``forward``, ``backward`` (whole, or the input gradient alone), ``weight`` (gradient), ``tensor``, ``send``,
    ``gradients``, ``optimizer``, ``parameters``, ``load``, ``offload``; ``stragglers``, ``join`` and ``norm`` only
    wait."""
    micro_batch: int
    chunk: int
    duration_s: float
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Rounds of micro-batches in the middle of a step that were not played, as each is like the one before it."""

    rounds: int
    round_s: float
    books: tuple[Mapping[str, float], ...]
    """Seconds by cause of each rank in one round."""
    busy_s: Mapping[tuple[int, str], float]
    """Busy seconds of each (rank, stream) in one round."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each task of a program ran; one row per task."""

    tasks: tuple[Task, ...]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    skipped: Skipped | None = None
    """What the rows leave out; the step and the books hold it. None where every task was played."""

    @property
    def played_s(self) -> float:
        """From the first start to the last end of the rows."""
        return float(self.end_s.max(initial=0.0))

    @property
    def step_s(self) -> float:
        """From the first start to the last end."""
        out = self.skipped
        return self.played_s + (out.rounds * out.round_s if out else 0.0)

    @property
    def ranks(self) -> int:
        """Pipeline ranks on the sheet."""
        return 1 + max(map(itemgetter(0), self.tasks), default=0)

    def busy_s(self) -> dict[tuple[int, str], float]:
        """Busy seconds of each (rank, stream); waiting for stragglers is not work."""
        busy: dict[tuple[int, str], float] = {}
        lasting = (self.end_s - self.start_s).tolist()
        for (rank, stream, kind, *_), seconds in zip(self.tasks, lasting, strict=True):
            if kind != "stragglers":
                busy[rank, stream] = busy.get((rank, stream), 0.0) + seconds
        if self.skipped:
            for key, seconds in self.skipped.busy_s.items():
                busy[key] += self.skipped.rounds * seconds
        return busy


def account(timeline: Timeline, devices: Sequence[int] | None = None) -> dict[str, float]:
    """Seconds by cause, averaged over ranks: the parts of one rank's step; they add up to the step time.

    Ranks count by their ``devices`` where these are given.

    A rank's compute stream is walked from start to end. Busy time is booked under its task. A gap is booked by the
    task whose end it was waiting for: the part of the gap in which that task itself ran is its communication, the
    rest (nobody was working for this rank) is bubble. Before an update the whole line of reductions counts, and the
    wait for slower copies before them. What follows a rank's last task is bubble too.
    """
    ranks = account_ranks(timeline)
    weights = devices or [1] * len(ranks)
    return {
        cause: sum(n * parts[cause] for n, parts in zip(weights, ranks, strict=True)) / sum(weights)
        for cause in CAUSES
    }


def account_ranks(timeline: Timeline) -> list[dict[str, float]]:
    """Seconds by cause of each pipeline rank; see :func:`account`."""
    books, now = walk(timeline)
    for rank, parts in enumerate(books):
        parts["bubble"] += timeline.played_s - now[rank]
        if timeline.skipped:
            for cause, seconds in timeline.skipped.books[rank].items():
                parts[cause] += timeline.skipped.rounds * seconds
    return books


def walk(
    timeline: Timeline, between: Sequence[tuple[int, int]] | None = None
) -> tuple[list[dict[str, float]], list[float]]:
    """Books of each rank until its last task, and when that ended (s).

    ``between`` leaves only what lies after one task of each rank's compute stream and up to another, a pair a rank.
    """
    tasks, ranks = timeline.tasks, timeline.ranks
    books = [dict.fromkeys(CAUSES, 0.0) for _ in range(ranks)]
    start, end = timeline.start_s.tolist(), timeline.end_s.tolist()
    if between is None:
        first, last, now = [-1] * ranks, [len(tasks)] * ranks, [0.0] * ranks
    else:
        first, last, now = [a for a, _ in between], [b for _, b in between], [end[a] for a, _ in between]
    reductions: dict[int, int] = {}
    queue: dict[int, int] = {}  # reduction -> the one before it on its rank
    begun = min(first) + 1
    for number, task in enumerate(tasks[begun : max(last) + 1], begun):
        rank, stream, kind = task[:3]
        if kind == "gradients":
            if rank in reductions:
                queue[number] = reductions[rank]
            reductions[rank] = number
        if stream != "compute" or not first[rank] < number <= last[rank]:
            continue
        begin, stop = start[number], end[number]
        if begin > now[rank]:
            _book_gap(books[rank], tasks, start, end, queue, task, now[rank], begin)
        if stop > begin:
            books[rank]["backward" if kind == "weight" else kind] += stop - begin
        now[rank] = stop
    return books, now


def _book_gap(
    parts: dict[str, float],
    tasks: Sequence[Task],
    start: Sequence[float],
    end: Sequence[float],
    queue: Mapping[int, int],
    task: Task,
    gap_start: float,
    gap_end: float,
) -> None:
    until = gap_end
    blocker = task.after[0] if len(task.after) == 1 else max(task.after, key=end.__getitem__, default=None)
    while blocker is not None and until > gap_start:
        kind = tasks[blocker].kind
        cause = _WAIT.get(kind)
        if cause is not None:
            begin = min(until, max(gap_start, start[blocker]))
            parts[cause] += until - begin
            until = begin
        if kind not in _QUEUED:
            break
        earlier = tasks[blocker].after
        if blocker in queue:
            earlier = (*earlier, queue[blocker])
        blocker = max(earlier, key=end.__getitem__, default=None)
        if blocker is not None and tasks[blocker].kind not in _QUEUED:
            break  # some rank still passed: that is bubble, whatever its stream did
    parts["bubble"] += until - gap_start
