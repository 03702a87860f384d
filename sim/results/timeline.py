"""The log of one step and the books kept on it.

A timeline is the time sheet of every rank; ``account`` adds it up so that each second of each rank has exactly one
cause, like a ledger that must close to the cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    "bubble",
    "loader",
)
"""Where a second of a rank may go."""

_WAIT = {"tensor": "tensor communication", "send": "pipeline communication", "gradients": "data communication",
         "parameters": "data communication", "load": "loader"}  # fmt: skip


class Task(NamedTuple):
    """One task; its place in the list is its number."""

    rank: int
    """Pipeline rank (stage); stands for all tensor and data ranks that do the same."""
    stream: str
    kind: str
    """``forward``, ``backward``, ``tensor``, ``send``, ``gradients``, ``optimizer``, ``parameters``, ``load``."""
    micro_batch: int
    chunk: int
    duration_s: float
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each task of a program ran; one row per task."""

    tasks: tuple[Task, ...]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]

    @property
    def step_s(self) -> float:
        """From the first start to the last end."""
        return float(self.end_s.max(initial=0.0))

    @property
    def ranks(self) -> int:
        """Pipeline ranks on the sheet."""
        return 1 + max((task.rank for task in self.tasks), default=0)

    def busy_s(self) -> dict[tuple[int, str], float]:
        """Busy seconds of each (rank, stream)."""
        busy: dict[tuple[int, str], float] = {}
        for task, seconds in zip(self.tasks, self.end_s - self.start_s, strict=True):
            key = (task.rank, task.stream)
            busy[key] = busy.get(key, 0.0) + float(seconds)
        return busy


def account(timeline: Timeline) -> dict[str, float]:
    """Seconds by cause, averaged over ranks: the parts of one rank's step; they add up to the step time.

    A rank's compute stream is walked from start to end. Busy time is booked under its task. A gap is booked by the
    task whose end it was waiting for: the part of the gap in which that task itself (or messages that it in turn
    waited for) ran is its communication, the rest (nobody was working for this rank) is bubble. What follows a rank's
    last task is bubble too.
    """
    ranks = account_ranks(timeline)
    return {cause: sum(parts[cause] for parts in ranks) / len(ranks) for cause in CAUSES}


def account_ranks(timeline: Timeline) -> list[dict[str, float]]:
    """Seconds by cause of each pipeline rank; see :func:`account`."""
    books = [dict.fromkeys(CAUSES, 0.0) for _ in range(timeline.ranks)]
    now = [0.0] * len(books)
    start, end = timeline.start_s.tolist(), timeline.end_s.tolist()
    for number, task in enumerate(timeline.tasks):
        if task.stream != "compute":
            continue
        parts, rank = books[task.rank], task.rank
        if start[number] > now[rank]:
            _book_gap(parts, timeline.tasks, start, end, task, now[rank], start[number])
        if end[number] > start[number]:
            parts[task.kind] += end[number] - start[number]
        now[rank] = end[number]
    for rank, parts in enumerate(books):
        parts["bubble"] += timeline.step_s - now[rank]
    return books


def _book_gap(
    parts: dict[str, float],
    tasks: Sequence[Task],
    start: Sequence[float],
    end: Sequence[float],
    task: Task,
    gap_start: float,
    gap_end: float,
) -> None:
    blocker = max(task.after, key=end.__getitem__, default=None)
    upto, worked = gap_end, 0.0
    while blocker is not None and upto > gap_start:  # back along the messages that waited for one another
        if tasks[blocker].kind != "norm":
            cause = _WAIT.get(tasks[blocker].kind)
            if cause is None:
                break
            until = min(upto, end[blocker])
            upto = max(gap_start, min(start[blocker], until))
            parts[cause] += max(until - upto, 0.0)
            worked += max(until - upto, 0.0)
        blocker = max(tasks[blocker].after, key=end.__getitem__, default=None)
    parts["bubble"] += gap_end - gap_start - worked
