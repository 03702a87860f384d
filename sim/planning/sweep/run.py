"""Run many points once: what the store knows is not asked again, what is new is kept as soon as it is known.

Like a translator with a card index: words looked up before are on a card; only new ones are looked up, and each gets
its card at once, so that an interrupted day loses one word at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from sim.planning.store import Store
from sim.planning.sweep.executors import Executor, Task

Progress = Callable[[int, int, int], None]
"""Called with points that were known, points finished now, and all distinct points."""


class Point(NamedTuple):
    """One question: what its answer is kept under, and what the function is told."""

    key: str
    payload: Any
    """Ready for JSON."""


def run_points(
    points: Sequence[Point], function: str, store: Store, executor: Executor, progress: Progress | None = None
) -> list[Any]:
    """Answers in the order of ``points``; equal keys are worked out once.

    Args:
        function: import path ``module:name`` of a function from a payload to an answer, both ready for JSON.
        executor: see :mod:`sim.planning.sweep.executors`.

    Raises:
        StoreError: the store cannot be read or written.
    """
    known = store.results(point.key for point in points)
    texts = {point.key: json.dumps(point.payload, sort_keys=True, ensure_ascii=False) for point in points}
    tasks = [Task(key, text) for key, text in texts.items() if key not in known]
    before, now = len(known), 0
    if progress is not None:
        progress(before, now, len(texts))
    work = executor(function, tasks)
    try:
        for task, result in work:
            store.add(task.key, function, task.payload, result)
            known[task.key] = result
            now += 1
            if progress is not None:
                progress(before, now, len(texts))
    finally:
        close = getattr(work, "close", None)  # stop the workers at once when the loop is left
        if close is not None:
            close()
    return [json.loads(known[point.key]) for point in points]


def content_key(*parts: str) -> str:
    """The key of a question made of ``parts``, and of this version of the code and its calibration."""
    return hashlib.sha256("\0".join((code_version(), *parts)).encode()).hexdigest()[:32]


@cache
def code_version() -> str:
    """Version of the package with a hash of the library's sources and of the calibration that ships."""
    digest = hashlib.sha256()
    root = Path(str(files("sim")))
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    profiles = Path(str(files("scenarios"))) / "profiles"
    for path in sorted(profiles.glob("*.json")):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{version('rackcast')}+{digest.hexdigest()[:16]}"
